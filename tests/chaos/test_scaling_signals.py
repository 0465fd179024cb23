"""CPU, and P95 latency, as the only signal, up and down again and again, against a real API server.

Five regions by each signal at once. Their nodes have participants all the time, and at each scale-down the
emptiest node, which goes, has some. `HEADWATER_CHAOS_CYCLES` is the number of cycles by each signal.
"""

import asyncio
import os
import time
from dataclasses import dataclass, field

import pytest
from headwater_api import wellknown as wk
from headwater_operator.kube.client import KubeClient
from headwater_operator.kube.resources import NODES
from support.deadline import until
from support.fake_kubelet import FakeKubelet
from support.fake_node import FakeNode
from support.operator_fixtures import Fleet, client, fleet, kubelet, operator
from support.operator_process import OperatorProcess
from support.restarts import moves_its_people

__all__ = ["client", "fleet", "kubelet", "operator"]
CYCLES = int(os.environ.get("HEADWATER_CHAOS_CYCLES", "50"))
EACH = 5
SIGNAL_TO_NODE_S = 10.0
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180 + CYCLES * 20)]


def set_cpu(node: FakeNode, busy: bool) -> None:
    node.report.cpu_percent = 95.0 if busy else 1.0


def set_latency(node: FakeNode, busy: bool) -> None:
    node.report.forward_p95_us = 150_000.0 if busy else 300.0


SIGNALS = {"cpu": set_cpu, "p95": set_latency}


@dataclass
class Cycles:
    """One region's loop, and how long the first node took to be ordered in each cycle."""

    fleet: Fleet
    kubelet: FakeKubelet
    region: str
    signal: str
    ordered_s: list[float] = field(default_factory=list)
    moved: int = 0

    def nodes(self) -> list[FakeNode]:
        return [node for node in self.kubelet.nodes.values() if node.region == self.region]

    async def pods(self) -> int:
        pods = [pod for pod in await self.fleet.pods() if not pod["metadata"].get("deletionTimestamp")]
        return sum(pod["metadata"]["labels"][wk.LABEL_REGION] == self.region for pod in pods)

    async def run(self, cycles: int) -> None:
        for number in range(cycles):
            (old,) = self.nodes()
            SIGNALS[self.signal](old, True)
            began = time.monotonic()
            await self.until_pods(2, 60, f"cycle {number}: a second node in {self.region}")
            self.ordered_s.append(time.monotonic() - began)
            await until(lambda: len(self.nodes()) == 2, 30, f"it is up in {self.region}")
            (new,) = [node for node in self.nodes() if node is not old]
            new.set_rooms({f"late-{self.region}": 2 + old.report.participants})
            present = old.report.participants + new.report.participants
            SIGNALS[self.signal](old, False)
            await self.until_pods(1, 60, f"cycle {number}: {self.region} is down to one node")
            await until(lambda: len(self.nodes()) == 1, 20, f"the other's process has ended in {self.region}")
            (left,) = self.nodes()
            self.moved += left is new
            assert left.report.participants == present, f"cycle {number}: somebody of {self.region} is lost"
            left.set_rooms({f"kept-{self.region}": 1})

    async def until_pods(self, count: int, within_s: float, what: str) -> None:
        async def probe() -> bool:
            return await self.pods() == count

        await until(probe, within_s, what, every_s=0.3)


async def test_one_signal_alone_up_and_down(
    operator: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet, client: KubeClient
) -> None:
    places = {f"{signal}-{number}": signal for signal in SIGNALS for number in range(EACH)}
    for region in (*places, "calm"):
        labels = {"topology.kubernetes.io/region": region}
        await client.apply(NODES, "", f"k-{region}", {"metadata": {"name": f"k-{region}", "labels": labels}})
    autoscaling = {"mode": "Automatic", "behavior": {"scaleDown": {"stabilizationWindow": "1s"}}}
    await fleet.declare({**dict.fromkeys(places, (1, 3)), "calm": (1, 3)}, autoscaling=autoscaling)
    await fleet.says("Ready", "True", 60)
    await until(lambda: all(node.watchers for node in kubelet.nodes.values()), 20, "reports")
    for node in kubelet.nodes.values():
        node.set_rooms({f"kept-{node.region}": 1})
    (calm,) = [node for node in kubelet.nodes.values() if node.region == "calm"]
    loops = [Cycles(fleet, kubelet, region, signal) for region, signal in places.items()]
    movers = asyncio.create_task(moves_its_people(kubelet))
    try:
        await asyncio.gather(*(loop.run(-(-CYCLES // EACH)) for loop in loops))
    finally:
        movers.cancel()
        await asyncio.gather(movers, return_exceptions=True)
    for signal in SIGNALS:
        took = [s for loop in loops if loop.signal == signal for s in loop.ordered_s]
        moved = sum(loop.moved for loop in loops if loop.signal == signal)
        print(
            f"{signal} alone: {len(took)} cycles, a node ordered at most {max(took):.1f} s after the signal, "
            f"{moved} times a node with participants left, by its drain",
            flush=True,
        )
        assert moved >= len(took) * 0.9
        assert max(took) <= SIGNAL_TO_NODE_S
    assert calm in kubelet.nodes.values() and not calm.drained, "nobody touched the region without a signal"
