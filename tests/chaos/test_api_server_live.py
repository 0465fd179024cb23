"""The API server stopped or dead for minutes, and killed, under a meeting in three regions.

`HEADWATER_CHAOS_AWAY` is how long it is away, in seconds.
"""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from headwater_sandbox.demo.fleet import Fleet
from headwater_sandbox.demo.judge import Pair
from support.bystanders import Bystanders, bystanders
from support.clients import bot_spec, bots, until_heard
from support.cluster import Cluster, running_cluster
from support.deadline import until
from support.draining import NAMESPACE, cost, describe, gaps, is_ready, sfu_pods

AWAY_S = float(os.environ.get("HEADWATER_CHAOS_AWAY", "300"))
CONVERGED_S = 30.0
SEEN_S = 60.0  # how long is waited for what may take CONVERGED_S: a figure that is too large is printed
MAX_TONE_GAP_MS = 2000  # nobody is moved: what there is comes from the machine, which is printed
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(AWAY_S + 300)]


def api_server_pid(cluster: Cluster) -> int:
    state = json.loads(cluster.sandbox.kubeconfig.with_name("state.json").read_text())
    return int(state["processes"]["apiserver"])


def identities(cluster: Cluster) -> set[str]:
    return {pod["metadata"]["uid"] for pod in sfu_pods(cluster)}


@dataclass(frozen=True)
class Grown:
    """Seconds after the API server's return until it had taken a larger wish, until the operator had made its
    Pods, until Kubernetes' scheduler had placed them, and until they served."""

    taken_s: float
    made_s: float
    placed_s: float
    served_s: float

    def __str__(self) -> str:
        made = f"wish taken {self.taken_s:.1f} s, Pods made {self.made_s:.1f} s"
        return f"{made}, placed {self.placed_s:.1f} s, in service {self.served_s:.1f} s after its return"


async def until_grown(cluster: Cluster, nodes: int) -> Grown:
    """Wishes for so many nodes in each region, and waits for them."""
    began, regions = time.monotonic(), len(cluster.sandbox.regions)

    def taken() -> bool:
        command = ("get", "sfucluster", "demo", "-n", NAMESPACE, "-o", "json", "--request-timeout=2s")
        told = cluster.try_kubectl(*command)
        if told.returncode:
            return False
        wish = [region | {"minNodes": nodes} for region in json.loads(told.stdout)["spec"]["regions"]]
        patch = ("-p", json.dumps({"spec": {"regions": wish}}), "--request-timeout=2s")
        return not cluster.try_kubectl(
            "patch", "sfucluster", "demo", "-n", NAMESPACE, "--type=merge", *patch
        ).returncode

    def placed() -> bool:
        return sum(bool(pod["spec"].get("nodeName")) for pod in sfu_pods(cluster)) == nodes * regions

    await until(taken, SEEN_S, "the API server takes a wish", every_s=0.2)
    taken_s = time.monotonic() - began
    await until(
        lambda: len(sfu_pods(cluster)) == nodes * regions, SEEN_S, "the Pods of the wish are made", 0.2
    )
    made_s = time.monotonic() - began
    try:
        await until(placed, SEEN_S, "they are placed", 0.2)
        placed_s = time.monotonic() - began
        await until(
            lambda: sum(map(is_ready, sfu_pods(cluster))) == nodes * regions,
            SEEN_S,
            "they serve",
            0.5,
        )
    except AssertionError:
        print(describe(cluster), flush=True)
        raise
    return Grown(taken_s, made_s, placed_s, time.monotonic() - began)


@dataclass
class Meeting:
    """Clients whose call must go on, and one who joins late."""

    cluster: Cluster
    fleet: Fleet
    names: list[str]
    others: Bystanders
    before: set[str] = field(default_factory=set)

    def mark(self) -> None:
        """What happens from now on is looked at."""
        self.before = identities(self.cluster)
        self.fleet.mark()

    async def join_without(self) -> None:
        """A client joins while nobody answers for the API server."""
        began = time.monotonic()
        command = ("get", "pods", "-n", NAMESPACE, "--request-timeout=2s")
        asked = await asyncio.to_thread(self.cluster.try_kubectl, *command)
        assert asked.returncode, "it is away"
        late, region = "k-late", self.cluster.sandbox.regions[0]
        spec = bot_spec(self.cluster, "kept", late, len(self.names), region, picture=False, hear_ms=40)
        await self.fleet.start([spec], seed=1)
        both: list[Pair] = [pair for who in self.names for pair in ((who, late), (late, who))]
        await until_heard(self.fleet, both, 30)
        print(f"joined without it: {time.monotonic() - began:.1f} s", flush=True)

    async def untouched(self, what: str, nodes: int) -> None:
        """The fleet converges in time, and the meeting has noticed nothing of it all."""
        grown = await until_grown(self.cluster, nodes)
        pairs: list[Pair] = [(a, b) for a in self.names for b in self.names if a != b]
        spent, found = cost(self.fleet, 0), gaps(self.fleet, pairs)
        load = "load {:.1f} {:.1f} {:.1f}".format(*os.getloadavg())
        print(f"{what}: {grown}; {found}; {spent.errors}; {self.others}; {load}", flush=True)
        assert self.before <= identities(self.cluster), "nobody lost their node"
        assert grown.served_s <= CONVERGED_S
        assert not spent.errors and all(bot.joins == 1 for bot in self.fleet.bots.values())
        assert found.at(1.0) <= MAX_TONE_GAP_MS


@contextlib.asynccontextmanager
async def meeting() -> AsyncIterator[Meeting]:
    """One client in each of three regions."""
    with running_cluster(("--nodes-per-region", "1")) as cluster, bystanders() as others:
        regions = cluster.sandbox.regions
        names = [f"k-{region}" for region in regions]
        specs = [
            bot_spec(cluster, "kept", who, n, regions[n], picture=False, hear_ms=40)
            for n, who in enumerate(names)
        ]
        async with bots(specs) as fleet:
            await until_heard(fleet, [(a, b) for a in names for b in names if a != b], 60)
            found = Meeting(cluster, fleet, names, others)
            found.mark()
            yield found


async def test_calls_do_without_the_api_server() -> None:
    async with meeting() as kept:
        pid, began = api_server_pid(kept.cluster), time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        try:
            await kept.join_without()
            await until(lambda: time.monotonic() - began >= AWAY_S, AWAY_S + 5, "it is away", 0.2)
        finally:
            os.kill(pid, signal.SIGCONT)
        await kept.untouched(f"stopped {AWAY_S:.0f} s", 2)
        kept.mark()
        os.kill(api_server_pid(kept.cluster), signal.SIGKILL)
        await kept.untouched("killed", 3)
        assert api_server_pid(kept.cluster) != pid, "it was killed"


async def test_calls_do_without_an_api_server_that_stays_dead() -> None:
    async with meeting() as kept:
        began, killed = time.monotonic(), set[int]()

        def dead_for_long() -> bool:
            """Each one that the sandbox starts is killed as well, before it serves."""
            pid = api_server_pid(kept.cluster)
            if pid not in killed:
                killed.add(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return time.monotonic() - began >= AWAY_S

        async with asyncio.TaskGroup() as both:
            both.create_task(until(dead_for_long, AWAY_S + 5, "it is dead", 0.1))
            both.create_task(kept.join_without())
        await kept.untouched(f"dead {AWAY_S:.0f} s, {len(killed)} of them", 2)
        assert api_server_pid(kept.cluster) not in killed
