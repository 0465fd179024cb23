"""Simulated fleets for tests: seeded up-and-down cycles, and everything that may go wrong meanwhile."""

import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random

from headwater_cli.simulate.demand import Demand, Event
from headwater_cli.simulate.fleet import Fleet
from headwater_cli.simulate.run import Signals, Simulation
from headwater_planner.scale.result import ScaleState
from headwater_planner.scale.signals import NodeSignals
from headwater_planner.world import ClusterWorld
from support.scaling import REGIONS, an_autoscaled

START = datetime(2030, 1, 28, tzinfo=UTC)  # a Monday
CAPACITY = 20  # participants a node
CYCLE_S = 420.0


@dataclass
class Trouble:
    """At random: nodes end, fall silent and come back; figures are lost, turned into nonsense, or old."""

    crashes: int = 0
    silences: int = 0
    distorted: int = 0

    def strike(self, fleet: Fleet, rng: Random) -> None:
        """Rare for one node and pass, sure in a thousand cycles."""
        for node in list(fleet.nodes.values()):
            if node.silent_since is not None:
                if rng.random() < 0.1:
                    fleet.hush(node, False)
            elif node.ready and rng.random() < 0.004:
                fleet.hush(node, True)
                self.silences += 1
            elif node.ready and rng.random() < 0.0005:
                fleet.crash(node)
                self.crashes += 1

    def distort(self, signals: Signals, rng: Random) -> Signals:
        """About one figure in fifty."""
        found: dict[str, NodeSignals] = {}
        for name, node in signals.items():
            kind = rng.randrange(200)
            if kind == 0:
                self.distorted += 1
                continue
            if kind == 1:
                found[name] = replace(node, age_s=rng.choice((31.0, 1e6, math.nan)))
            elif kind == 2:
                bad = rng.choice((math.nan, -1.0, math.inf, 1e30))
                found[name] = replace(node, **{rng.choice(("cpu_percent", "connections", "p95_ms")): bad})
            else:
                found[name] = node
            self.distorted += kind in (1, 2)
        return found

    def observe(
        self, world: ClusterWorld, state: ScaleState, now: datetime, rng: Random
    ) -> tuple[ClusterWorld, ScaleState, datetime]:
        """All as it is."""
        return world, state, now


@dataclass
class HardTrouble(Trouble):
    """Besides: drains that nobody carries out for minutes, people who ask for drains and take it back, an
    operator that starts anew and has heard of nobody, and a clock that jumps by up to an hour."""

    stuck: int = 0
    asked: int = 0
    withdrawn: int = 0
    restarts: int = 0
    jumps: int = 0
    late: int = 0  # passes in which a node still served past its drain's deadline
    _skew: timedelta = field(default=timedelta(0), repr=False)
    _deaf_until: datetime = field(default=START, repr=False)

    def strike(self, fleet: Fleet, rng: Random) -> None:
        super().strike(fleet, rng)
        for node in list(fleet.nodes.values()):
            if node.draining and node.participants and node.deadline is not None:
                self.late += node.deadline < fleet.now
            if node.stuck:
                node.stuck = rng.random() > 0.02  # 250 s on average: well past the deadline
            elif node.draining and node.participants and rng.random() < 0.2:
                node.stuck = True
                self.stuck += 1
            if node.drain_wanted and rng.random() < 0.05:
                node.drain_wanted = False
                self.withdrawn += 1
            elif node.open and rng.random() < 0.002:
                node.drain_wanted = True
                self.asked += 1

    def observe(
        self, world: ClusterWorld, state: ScaleState, now: datetime, rng: Random
    ) -> tuple[ClusterWorld, ScaleState, datetime]:
        """After a restart nobody is heard for up to ten seconds."""
        if rng.random() < 0.02:
            self.restarts += 1
            state, self._deaf_until = ScaleState(), now + timedelta(seconds=rng.uniform(0, 10))
        if now < self._deaf_until:
            world = replace(world, loads={}, deaths=())
        if rng.random() < 0.01:
            self.jumps += 1
            self._skew = timedelta(seconds=rng.choice((0.0, 0.0, -90.0, 90.0, -3600.0, 3600.0)))
        return world, state, now + self._skew


def cycles(count: int, seed: int) -> Demand:
    """`count` times: a crowd comes in one region or in several, stays a while, goes."""
    rng = Random(seed)
    events = []
    for number in range(count):
        begin = START + timedelta(seconds=number * CYCLE_S)
        for region in rng.sample(sorted(REGIONS), rng.randint(1, len(REGIONS))):
            people = rng.randint(1, 12 * CAPACITY)
            rooms = [f"c{number}-{region}-{n}" for n in range(rng.randint(1, 4))] + [region]
            while people > 0:
                some = min(people, rng.randint(1, 30))
                people -= some
                room = rng.choice(rooms)
                comes = begin + timedelta(seconds=rng.uniform(0, 90))
                # Some stay into the next cycles, so that whoever is drained then serves.
                goes = comes + timedelta(seconds=rng.uniform(10, rng.choice((200, 200, 900))))
                events += [Event(comes, room, region, some), Event(goes, room, region, -some)]
    return Demand(START, START + timedelta(seconds=count * CYCLE_S), sorted(events))


def a_simulation(demand: Demand, *, seed: int, faults: Trouble | None = None) -> Simulation:
    """Three regions of small nodes that scale down after a minute, so that a cycle is short."""
    autoscaling = {
        "targets": {"connectionsPerNode": 2 * CAPACITY},
        "behavior": {"scaleDown": {"stabilizationWindow": "1m"}},
    }
    cluster = an_autoscaled(
        {"eu": (1, 20), "us": (1, 8), "ap": (0, 20)},
        autoscaling=autoscaling,
        node={"capacity": {"connections": 2 * CAPACITY}},
        drain={"deadline": "1m", "movesPerSecond": 1, "maxConcurrentPerRegion": 4},
    )
    return Simulation(cluster, demand, seed=seed, faults=faults)


def balance(simulation: Simulation) -> tuple[int, int]:
    """Participants who should be there by the demand, and those who are, waiting ones included."""
    fleet = simulation.fleet
    wanted = sum(event.change for event in simulation.demand.events if event.at <= fleet.now)
    there = sum(node.participants for node in fleet.nodes.values()) + fleet.waiting.total()
    return wanted, there
