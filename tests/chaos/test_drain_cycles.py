"""The fleet grown and shrunk by load alone, again and again, under live clients; nobody may be dropped.

In each round a crowd comes in two of three regions and goes again: two up-and-down cycles. Some who came last
stay a while, so that the node which goes is the one with the live client. `HEADWATER_CHAOS_CYCLES` sets how
many cycles there are; run it again for more.
"""

import asyncio
import json
import os
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
from headwater_api import wellknown as wk
from headwater_operator.kube.client import KubeClient, open_client
from headwater_sandbox.demo.fleet import Fleet
from headwater_sandbox.demo.judge import Pair
from support.bystanders import bystanders
from support.clients import bot_spec, bots, until_heard
from support.cluster import Cluster, running_cluster
from support.crowd import Crowd, a_crowd
from support.deadline import until
from support.draining import NAMESPACE, Gaps, cost, describe, gaps, is_ready, look, node_of

CYCLES = int(os.environ.get("HEADWATER_CHAOS_CYCLES", "50"))
CROWD, STAYERS = 24, 2
SIGNAL_TO_NODE_S = 10.0
P99_TONE_GAP_MS, MAX_TONE_GAP_MS = 500, 2000
AUTOSCALING = {
    "mode": "Automatic",
    "targets": {"connectionsPerNode": 16, "bufferPercent": 0},
    "behavior": {"scaleDown": {"stabilizationWindow": "1s"}},
}
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180 + CYCLES * 60)]


def autoscale(cluster: Cluster, calm: str) -> None:
    """Two nodes at most, and one in `calm`: a crowd that comes within one sample wants more for a moment than
    its own region may have, which would go to another one that has room."""
    command = ("get", "sfucluster", "demo", "-n", NAMESPACE, "-o", "json")
    regions = json.loads(cluster.kubectl(*command))["spec"]["regions"]
    regions = [region | {"minNodes": 1, "maxNodes": 1 if region["name"] == calm else 2} for region in regions]
    patch = json.dumps({"spec": {"regions": regions, "autoscaling": AUTOSCALING}})
    cluster.kubectl("patch", "sfucluster", "demo", "-n", NAMESPACE, "--type=merge", "-p", patch)


def names(pods: list[dict[str, Any]]) -> set[str]:
    return {pod["metadata"]["name"] for pod in pods}


@dataclass
class Loop:
    """The rounds, and what was measured in them."""

    cluster: Cluster
    client: KubeClient
    fleet: Fleet
    crowd: Crowd
    pairs: list[Pair]
    ordered_s: list[float] = field(default_factory=list)
    moves: int = 0
    tones: list[int] = field(default_factory=list)
    pictures: list[int] = field(default_factory=list)

    async def nodes(self, region: str) -> list[dict[str, Any]]:
        pods = await look(self.client)
        return [pod for pod in pods if pod["metadata"]["labels"][wk.LABEL_REGION] == region]

    async def until_ready(self, region: str, count: int, within_s: float) -> None:
        async def probe() -> bool:
            pods = await self.nodes(region)
            return len(pods) == sum(map(is_ready, pods)) == count

        await until(probe, within_s, f"{region} has {count} nodes in service", 0.3)

    async def up_and_down(self, region: str) -> None:
        """One cycle in one region, by load."""
        bot = f"c-{region}"
        before = node_of(self.fleet, bot)
        began = time.monotonic()
        await self.crowd.come(f"crowd-{region}", region, CROWD)

        async def ordered() -> bool:
            return len(await self.nodes(region)) == 2

        await until(ordered, 60, f"a node is ordered in {region}", 0.2)
        self.ordered_s.append(time.monotonic() - began)
        await self.until_ready(region, 2, 90)
        await self.crowd.go(f"stay-{region}")
        await self.crowd.come(f"stay-{region}", region, STAYERS)
        await self.crowd.go(f"crowd-{region}")
        await self.until_ready(region, 1, 90)
        self.moves += node_of(self.fleet, bot) != before

    async def round(self, number: int) -> None:
        regions = self.cluster.sandbox.regions
        calm = regions[number % len(regions)]
        await asyncio.to_thread(autoscale, self.cluster, calm)
        joins, here = sum(bot.joins for bot in self.fleet.bots.values()), names(await self.nodes(calm))
        self.fleet.mark()
        await asyncio.gather(*(self.up_and_down(region) for region in regions if region != calm))
        await until_heard(self.fleet, self.pairs, 30)
        assert names(await self.nodes(calm)) == here, f"nobody came in {calm}"
        spent, found = cost(self.fleet, joins), gaps(self.fleet, self.pairs)
        self.tones += found.tone_ms
        self.pictures += found.picture_ms
        assert not spent.errors, spent
        ordered = [f"{took:.1f}" for took in self.ordered_s[-2:]]
        joins = f"{len(self.crowd.waits_s)} joins, {len(self.crowd.failures)} failed"
        print(
            f"round {number}: nodes ordered after {ordered} s; {found}; {self.moves} moves; {joins}",
            flush=True,
        )


async def test_up_and_down_with_live_clients() -> None:
    with running_cluster(("--nodes-per-region", "1")) as cluster, bystanders() as others:
        regions = cluster.sandbox.regions
        autoscale(cluster, regions[0])
        who = [f"c-{region}" for region in regions]
        specs = [
            bot_spec(cluster, "cycles", one, n, one[2:], picture=False, hear_ms=40)
            for n, one in enumerate(who)
        ]
        pairs = [(a, b) for a in who for b in who if a != b]
        environ = {"KUBECONFIG": str(cluster.sandbox.kubeconfig)}
        async with bots(specs) as fleet, a_crowd(cluster) as crowd, open_client(environ) as client:
            await until_heard(fleet, pairs, 60)
            await until(lambda: all(node_of(fleet, one) for one in who), 10, "the bots know their nodes")
            loop = Loop(cluster, client, fleet, crowd, pairs)
            knocking = asyncio.create_task(crowd.knock(regions, 0.5))
            try:
                for number in range((CYCLES + 1) // 2):
                    await loop.round(number)
            except AssertionError:
                print(describe(cluster), flush=True)
                raise
            finally:
                knocking.cancel()
                await asyncio.gather(knocking, return_exceptions=True)
                report(loop, others.share)
            assert not crowd.failures
            assert loop.moves, "no live client was moved"
            assert max(loop.ordered_s) <= SIGNAL_TO_NODE_S
            found = Gaps(loop.tones, loop.pictures)
            assert found.at(0.99) <= P99_TONE_GAP_MS
            assert found.at(1.0) <= MAX_TONE_GAP_MS


def report(loop: Loop, others: float) -> None:
    if not loop.tones:
        return
    waits, failed = loop.crowd.waits_s, len(loop.crowd.failures)
    print(
        f"{len(loop.ordered_s)} cycles: a node ordered at most {max(loop.ordered_s):.1f} s after the crowd, "
        f"{loop.moves} live clients moved, {Gaps(loop.tones, loop.pictures)}",
        f"{len(waits)} joins, {failed} failed, longest {max(waits):.1f} s; others used {others:.0%} of CPU",
        *loop.crowd.failures,
        sep="\n",
        flush=True,
    )
