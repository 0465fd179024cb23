"""Operators behind an ApiProxy, one of which is killed or paused after a chosen write, and what they did."""

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headwater_api import wellknown as wk
from support.api_proxy import ApiProxy, api_proxy, write_kubeconfig
from support.deadline import until
from support.fake_kubelet import FakeKubelet
from support.fake_node import FakeNode
from support.kube import ApiServer
from support.operator_fixtures import Fleet
from support.operator_process import OperatorProcess, operator_process

# Well beyond the Lease's three seconds.
PAUSE_S = 6.0


@dataclass
class Restarting:
    """One operator at a time. `starts` counts them, `writes` what the last scenario took."""

    proxy: ApiProxy
    kubeconfig: Path
    namespace: str
    name: str = "op-1"
    starts: int = 0
    writes: int = 0  # of the last scenario
    logs: list[str] = field(default_factory=list)
    _process: OperatorProcess | None = None
    _context: Any = None

    async def start(self, wait: str = "lease acquired") -> None:
        """Waits until it has logged `wait`."""
        self._context = operator_process(
            self.kubeconfig,
            self.namespace,
            self.name,
            wait=wait,
            HEADWATER_NAMESPACES=self.namespace,
            HEADWATER_RESYNC="3",
        )
        self._process = await asyncio.to_thread(self._context.__enter__)
        self.starts += 1

    def signal(self, number: int) -> None:
        """Now, if it runs."""
        if self._process is not None:
            self._process.signal(number)

    def kill(self) -> None:
        """SIGKILL, now."""
        self.signal(signal.SIGKILL)

    @property
    def leads(self) -> bool:
        """Whether it has had the Lease since its start."""
        return self._process is not None and self._process.logged("lease acquired")

    async def stop(self) -> None:
        """Ends it, whatever state it is in, and keeps its log."""
        if self._process is not None:
            self.logs += self._process.lines
            print(*self._process.lines[-30:], sep="\n")  # pytest shows it where the test fails
            context, self._context, self._process = self._context, None, None
            await asyncio.to_thread(context.__exit__, None, None, None)

    async def watch(self) -> None:
        """Starts it again whenever it has been killed, until cancelled."""
        while True:
            process = self._process
            if process is not None and process.process.poll() is not None:
                await self.stop()
                await self.start(wait="standing by")
            await asyncio.sleep(0.05)


@asynccontextmanager
async def restarting(api_server: ApiServer, namespace: str) -> AsyncIterator[Restarting]:
    """An operator that leads, and that is started again whenever it ends, as a kubelet would do."""
    async with api_proxy(api_server.kubeconfig) as proxy:
        with tempfile.TemporaryDirectory(prefix="hw-proxy-") as home:
            kubeconfig = write_kubeconfig(Path(home) / "kubeconfig", proxy.port)
            operator = Restarting(proxy, kubeconfig, namespace)
            proxy.kill = operator.kill
            await operator.start()
            watcher = asyncio.create_task(operator.watch())
            try:
                yield operator
            finally:
                watcher.cancel()
                await asyncio.gather(watcher, return_exceptions=True)
                await operator.stop()


@dataclass
class Pair:
    """Two replicas; the one that leads is paused, for longer than its Lease is good for, and goes on."""

    proxy: ApiProxy
    replicas: tuple[Restarting, Restarting]
    writes: int = 0  # of the last scenario

    @property
    def starts(self) -> int:
        """Of both: one that was paused ends when it finds its Lease lost, and is started again."""
        return sum(replica.starts for replica in self.replicas)

    def pause_leader(self) -> None:
        for replica in self.replicas:
            if replica.leads:
                replica.signal(signal.SIGSTOP)
                asyncio.get_running_loop().call_later(PAUSE_S, replica.signal, signal.SIGCONT)


@asynccontextmanager
async def two_replicas(api_server: ApiServer, namespace: str) -> AsyncIterator[Pair]:
    """A leader and a standby, each of which is started again whenever it ends."""
    async with api_proxy(api_server.kubeconfig) as proxy:
        with tempfile.TemporaryDirectory(prefix="hw-proxy-") as home:
            kubeconfig = write_kubeconfig(Path(home) / "kubeconfig", proxy.port)
            first = Restarting(proxy, kubeconfig, namespace)
            second = Restarting(proxy, kubeconfig, namespace, "op-2")
            pair = Pair(proxy, (first, second))
            proxy.kill = pair.pause_leader
            await first.start()
            await second.start(wait="standing by")
            watchers = [asyncio.create_task(replica.watch()) for replica in pair.replicas]
            try:
                yield pair
            finally:
                for watcher in watchers:
                    watcher.cancel()
                await asyncio.gather(*watchers, return_exceptions=True)
                for replica in pair.replicas:
                    await replica.stop()


async def moves_its_people(kubelet: FakeKubelet) -> None:
    """Plays the gateways: a draining node loses its participants to another node, of its region if it can be.
    Until cancelled."""
    while True:
        nodes = list(kubelet.nodes.values())
        for node in nodes:
            others = [other for other in nodes if not other.report.draining]
            others.sort(key=lambda other: (other.region != node.region, other.node_id))
            if node.report.draining and node.report.participants and others:
                here = {room.room_id: room.participants for room in node.report.rooms}
                there = {room.room_id: room.participants for room in others[0].report.rooms}
                rooms = {room: here.get(room, 0) + there.get(room, 0) for room in {*here, *there}}
                others[0].set_rooms(rooms)
                node.set_rooms({})
        await asyncio.sleep(0.2)


@dataclass
class Outcome:
    """What a scenario ends in, without names and times, and how many Pods were made and deleted for it."""

    conditions: dict[str, tuple[str, str]]
    regions: list[tuple[str, int, int]]
    pods: list[tuple[str, str, str]]
    participants: int
    created: int
    deleted: int


async def outcome(fleet: Fleet, proxy: ApiProxy, since: int) -> Outcome:
    """The end state, once two looks in a row agree."""

    async def look() -> Outcome:
        status, pods = await fleet.status(), await fleet.pods()
        writes = proxy.writes[since:]
        return Outcome(
            conditions={c["type"]: (c["status"], c["reason"]) for c in status.get("conditions", [])},
            regions=[(r["name"], r["desired"], r["ready"]) for r in status.get("regions", [])],
            pods=sorted(
                (
                    pod["metadata"]["labels"][wk.LABEL_REGION],
                    pod["metadata"]["labels"][wk.LABEL_TEMPLATE],
                    pod["metadata"]["annotations"][wk.ANNOTATION_STATE],
                )
                for pod in pods
            ),
            participants=status.get("participants", 0),
            created=sum(write.startswith("POST ") and "/pods" in write for write in writes),
            deleted=sum(write.startswith("DELETE ") and "/pods/" in write for write in writes),
        )

    last: list[Outcome] = []

    async def settled() -> Outcome | None:
        now = await look()
        last.append(now)
        del last[:-20]
        return now if len(last) == 20 and all(entry == now for entry in last) else None

    return await until(settled, 40, "the end state is stable", every_s=0.1)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Scenario:
    """A change of the fleet, from `before` to `after`, and how it looks when it has been carried out."""

    name: str
    before: tuple[int, int]
    after: tuple[int, int]
    image: str = ""


SCALE_UP = Scenario("scale-up", (1, 4), (3, 4))
DRAIN = Scenario("drain", (3, 4), (2, 4))
UPGRADE = Scenario("upgrade", (2, 4), (2, 4), image="headwater-sfu:next")
SCENARIOS = (SCALE_UP, DRAIN, UPGRADE)
_CANARY = {"canary": {"nodes": 1, "duration": "0s"}}


async def carry_out(
    scenario: Scenario, kill_at: int, operator: Restarting | Pair, kubelet: FakeKubelet, fleet: Fleet
) -> Outcome:
    """Runs the scenario; the operator is killed after its write number `kill_at` (0: not at all)."""
    movers = asyncio.create_task(moves_its_people(kubelet))
    try:
        nodes = await _prepare(scenario, kubelet, fleet)
        since = len(operator.proxy.writes)
        operator.proxy.kill_at = since + kill_at if kill_at else 0
        starts = operator.starts
        old = {pod["metadata"]["uid"] for pod in await fleet.pods()} if scenario.image else set()
        node_spec = {"node": {"image": scenario.image}} if scenario.image else {}
        await fleet.declare({"eu": scenario.after}, upgrade=_CANARY, **node_spec)

        async def done() -> bool:
            pods = await fleet.pods()
            replaced = not old & {pod["metadata"]["uid"] for pod in pods}
            return len(pods) == scenario.after[0] and replaced

        await until(done, 90, f"the {scenario.name} of {len(nodes)} nodes is carried out")
        await fleet.settled(60)
        end = await outcome(fleet, operator.proxy, since)
        operator.writes = len(operator.proxy.writes) - since
    finally:
        movers.cancel()
        await asyncio.gather(movers, return_exceptions=True)
        operator.proxy.kill_at = 0
    if kill_at and kill_at <= operator.writes:
        await until(lambda: operator.starts > starts, 15, "the operator was killed and came back")
    return end


async def _prepare(scenario: Scenario, kubelet: FakeKubelet, fleet: Fleet) -> list[FakeNode]:
    """The fleet as it is before, with a participant on the first node, two on the second, and so on."""
    await fleet.declare({"eu": scenario.before}, upgrade=_CANARY)
    await fleet.settled(90)
    await until(lambda: len(kubelet.nodes) == scenario.before[0], 20, "its nodes are up")
    nodes = sorted(kubelet.nodes.values(), key=lambda node: node.node_id)
    for number, node in enumerate(nodes, start=1):
        node.set_rooms({"standup": number})

    async def counted() -> bool:
        return bool((await fleet.status()).get("participants") == sum(range(1, len(nodes) + 1)))

    await until(counted, 20, "the participants are known")
    return nodes
