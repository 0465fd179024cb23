"""A fleet of SFU nodes as counters: nodes start, take participants, are drained and deleted.

It does what the rest of Headwater does with the planner's actions, in its simplest form: joins go to the
nearest region with room (a room's own nodes first), a draining node loses participants at its rate and all
of them past its deadline, as far as others have room. Participants are never dropped: who finds no place
waits.
"""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random

from headwater_api.sfucluster import SFUCluster
from headwater_planner.place import CONNECTIONS_PER_PARTICIPANT
from headwater_planner.scale.spill import nearest_regions
from headwater_planner.supply import Action, CreateNode, DeleteNode, DrainNode, GuardNode, UncordonNode
from headwater_planner.world import (
    ClusterWorld,
    Death,
    Guard,
    KubeNodeView,
    NodeLoad,
    Phase,
    PodView,
    RoomLoad,
)

DEATHS_REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class Physics:
    """What a node costs and how long it takes. Times in seconds, CPU in percent of a node."""

    start_min_s: float = 15.0
    start_max_s: float = 60.0
    cpu_idle: float = 2.0
    cpu_full: float = 70.0  # with as many connections as capacity allows
    p95_idle_ms: float = 0.3


@dataclass(slots=True)
class Node:
    """One SFU Pod and its process."""

    name: str
    region: str
    created_at: datetime
    ready_at: datetime
    ready: bool = False
    changed_at: datetime | None = None
    draining: bool = False
    rate: float = 0.0
    deadline: datetime | None = None
    rooms: Counter[str] = field(default_factory=Counter)
    participants: int = 0
    joined: int = 0
    silent_since: datetime | None = None
    last_word: NodeLoad | None = None  # of a silent node
    stuck: bool = False  # nobody moves its participants, whatever its deadline
    drain_wanted: bool = False  # somebody annotated it so
    guard: Guard = field(default_factory=lambda: Guard(True))  # what is written on its Pod
    dead: bool = False
    load: NodeLoad | None = None

    @property
    def open(self) -> bool:
        """Whether it takes new participants."""
        return self.ready and not self.draining and not self.dead


class ServingNodeDeleted(AssertionError):
    """The planner deleted a node with participants: the one thing that must not happen."""


class Fleet:
    """`waiting`: participants who found no place, by room and region."""

    def __init__(
        self, cluster: SFUCluster, now: datetime, rng: Random, physics: Physics | None = None
    ) -> None:
        self.cluster = cluster
        self.now = now
        self.nodes: dict[str, Node] = {}
        self.waiting: Counter[tuple[str, str]] = Counter()
        self.moved = 0
        self.deleted = 0
        self._rng = rng
        self._physics = physics or Physics()
        self._capacity = cluster.spec.node.capacity.connections // CONNECTIONS_PER_PARTICIPANT
        self._near = {r.name: [r.name, *nearest_regions(cluster.spec, r.name)] for r in cluster.spec.regions}
        self._homes: dict[str, Counter[str]] = {}  # room -> nodes with its participants
        self._deaths: deque[Death] = deque(maxlen=DEATHS_REMEMBERED)
        self._kube_nodes = tuple(
            KubeNodeView(f"machine-{name}", {"topology.kubernetes.io/region": name}) for name in self._near
        )

    # -- time

    def advance(self, now: datetime) -> None:
        """Nodes start, draining ones lose participants, those who wait try again."""
        elapsed_s = (now - self.now).total_seconds()
        self.now = now
        for node in self.nodes.values():
            if not node.ready and not node.draining and not node.dead and node.ready_at <= now:
                node.ready, node.changed_at, node.load = True, node.ready_at, None
        for node in [
            node for node in self.nodes.values() if node.draining and node.participants and not node.stuck
        ]:
            late = node.deadline is not None and now >= node.deadline
            self._evacuate(node, node.participants if late else int(node.rate * elapsed_s) or 1)
        again, self.waiting = self.waiting, Counter()
        for (room, region), count in again.items():
            self.join(room, region, count)

    # -- participants

    def join(self, room: str, region: str, count: int = 1) -> None:
        """Participants of the region, into the room (the region's name: an ad-hoc crowd, each for itself).

        Those without a place wait.
        """
        for done in range(count):
            node = self._place(room, region)
            if node is None:
                self.waiting[room, region] += count - done
                return
            self._put(node, room, 1)
            node.joined += 1

    def leave(self, room: str, region: str, count: int = 1) -> None:
        """So many participants leave the room: first those who wait, then anybody, of that region if any."""
        rest = count - self._give_up((room, region), count)
        while rest and (homes := self._homes.get(room)):
            near = [name for name in homes if self.nodes[name].region == region] or list(homes)
            (name,) = self._rng.choices(near, [homes[name] for name in near])
            self._put(self.nodes[name], room, -1)
            rest -= 1
        # Those of a crashed node wait in its region, wherever they are from.
        for key in [key for key in self.waiting if key[0] == room]:
            rest -= self._give_up(key, rest)

    def _give_up(self, key: tuple[str, str], most: int) -> int:
        """So many of those who wait, at most, wait no longer."""
        held = min(most, self.waiting[key])
        self.waiting[key] -= held
        if not self.waiting[key]:
            del self.waiting[key]
        return held

    # -- faults

    def crash(self, node: Node) -> None:
        """Its process ends; its participants join again."""
        lost = node.rooms
        for room, count in lost.items():
            homes = self._homes[room]
            del homes[node.name]
            if not homes:
                del self._homes[room]
            self.waiting[room, node.region] += count
        node.rooms, node.participants = Counter(), 0
        node.dead, node.ready, node.load = True, False, None
        lifetime_s = (self.now - node.ready_at).total_seconds()
        self._deaths.append(Death(node.name, node.region, self.now, max(0.0, lifetime_s), "it crashed"))

    def hush(self, node: Node, silent: bool) -> None:
        """Its reports stop, or come again; it goes on serving."""
        node.last_word = self._load(node) if silent else None
        node.silent_since = self.now if silent else None

    # -- the planner's side

    def world(self) -> ClusterWorld:
        """What the operator would observe now."""
        return ClusterWorld(
            cluster=self.cluster,
            pods=tuple(self._pod(node) for node in self.nodes.values()),
            kube_nodes=self._kube_nodes,
            loads={node.name: load for node in self.nodes.values() if (load := self._load(node)) is not None},
            deaths=tuple(self._deaths),
        )

    def act(self, actions: Iterable[Action]) -> None:
        """Carries a plan out. Raises ServingNodeDeleted."""
        for action in actions:
            if isinstance(action, CreateNode):
                takes_s = self._rng.uniform(self._physics.start_min_s, self._physics.start_max_s)
                ready_at = self.now + timedelta(seconds=takes_s)
                self.nodes[action.name] = Node(action.name, action.region, self.now, ready_at)
            elif isinstance(action, DeleteNode):
                self._delete(action)
            elif isinstance(action, DrainNode):
                node = self.nodes[action.name]
                if not node.draining:  # a draining node says that it is not ready
                    node.draining, node.ready, node.changed_at = True, False, self.now
                node.rate, node.deadline, node.load = action.moves_per_s, action.deadline, None
            elif isinstance(action, UncordonNode):
                node = self.nodes[action.name]
                node.draining, node.ready, node.changed_at, node.load = False, True, self.now, None
            elif isinstance(action, GuardNode):
                self.nodes[action.name].guard = action.guard

    def _delete(self, action: DeleteNode) -> None:
        node = self.nodes[action.name]
        if node.participants:
            raise ServingNodeDeleted(f"{node.participants} participants were on it: {action}")
        del self.nodes[action.name]
        self.deleted += 1

    def _place(self, room: str, region: str, besides: Node | None = None) -> Node | None:
        by_region: dict[str, list[Node]] = {}
        for node in self.nodes.values():
            if node.open and node.participants < self._capacity and node is not besides:
                by_region.setdefault(node.region, []).append(node)
        for name in self._near[region]:
            free = by_region.get(name)
            if free:
                homes = self._homes.get(room, Counter()) if room != region else Counter[str]()
                known = [node for node in free if node.name in homes]
                return min(known or free, key=lambda node: (node.participants, node.name))
        return None

    def _put(self, node: Node, room: str, count: int) -> None:
        homes = self._homes.setdefault(room, Counter())
        for counter, key in ((node.rooms, room), (homes, node.name)):
            counter[key] += count
            if counter[key] <= 0:
                del counter[key]
        if not homes:
            del self._homes[room]
        node.participants += count
        node.load = None

    def _evacuate(self, node: Node, most: int) -> None:
        for _ in range(min(most, node.participants)):
            room = next(iter(node.rooms))
            target = self._place(room, node.region, besides=node)
            if target is None:
                return  # nowhere to go: they stay
            self._put(node, room, -1)
            self._put(target, room, 1)
            self.moved += 1

    def _pod(self, node: Node) -> PodView:
        started = node.ready_at <= self.now
        phase = Phase.FAILED if node.dead else Phase.RUNNING if started else Phase.PENDING
        return PodView(
            name=node.name,
            uid=node.name,
            region=node.region,
            phase=phase,
            created_at=node.created_at,
            ready=node.ready,
            ready_changed_at=node.changed_at or node.created_at,
            started=started,
            node_name=f"machine-{node.region}",
            ended="it crashed" if node.dead else "",
            drain_wanted=node.drain_wanted,
            guard=node.guard,
        )

    def _load(self, node: Node) -> NodeLoad | None:
        """Made again only when something on the node has changed; a silent node's gets older."""
        if node.ready_at > self.now or node.dead:
            return None
        if node.silent_since is not None:
            if node.last_word is None:
                return None
            return replace(node.last_word, age_s=(self.now - node.silent_since).total_seconds() + 1.0)
        if node.load is None:
            node.load = self._report(node)
        return node.load

    def _report(self, node: Node) -> NodeLoad:
        physics = self._physics
        used = node.participants / self._capacity if self._capacity else 0.0
        cpu = min(100.0, physics.cpu_idle + used * (physics.cpu_full - physics.cpu_idle))
        return NodeLoad(
            node=node.name,
            region=node.region,
            age_s=0.5,
            draining=node.draining,
            participants=node.participants,
            connections=node.participants * CONNECTIONS_PER_PARTICIPANT,
            max_connections=self._capacity * CONNECTIONS_PER_PARTICIPANT,
            cpu_percent=cpu,
            p95_ms=physics.p95_idle_ms / max(0.02, 1 - cpu / 100),
            transports_created=node.joined * CONNECTIONS_PER_PARTICIPANT,
            rooms=tuple(RoomLoad(room, count) for room, count in node.rooms.items()),
            drain_deadline=node.deadline if node.draining else None,
        )
