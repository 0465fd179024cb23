"""The fleet grown and shrunk again and again under live clients; nobody may be dropped."""

import json
import os

import pytest
from support.clients import bot_spec, bots, until_seen
from support.cluster import running_cluster
from support.deadline import until
from support.draining import NAMESPACE, cost, sfu_pods

CYCLES = int(os.environ.get("HEADWATER_CHAOS_CYCLES", "50"))
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120 + CYCLES * 120)]


async def test_up_and_down_with_live_clients() -> None:
    with running_cluster() as cluster:

        def resize(nodes: int) -> None:
            regions = json.loads(cluster.kubectl("get", "sfucluster", "demo", "-n", NAMESPACE, "-o", "json"))[
                "spec"
            ]["regions"]
            for region in regions:
                region |= {"minNodes": nodes, "maxNodes": max(nodes, region["maxNodes"])}
            patch = json.dumps({"spec": {"regions": regions}})
            cluster.kubectl("patch", "sfucluster", "demo", "-n", NAMESPACE, "--type=merge", "-p", patch)

        def has(nodes: int) -> bool:
            return len(sfu_pods(cluster)) == nodes

        names = [f"c-{region}" for region in cluster.sandbox.regions]
        specs = [bot_spec(cluster, "cycles", name, number, name[2:]) for number, name in enumerate(names)]
        expected = [(a, b) for a in names for b in names if a != b]
        count = len(cluster.sandbox.regions)
        tones: list[int] = []
        async with bots(specs) as fleet:
            await until_seen(fleet, expected, 60)
            for cycle in range(CYCLES):
                joins = sum(bot.joins for bot in fleet.bots.values())
                fleet.mark()
                for nodes in (3, 1, 2):
                    resize(nodes)
                    await until(
                        lambda n=nodes: len(sfu_pods(cluster)) == n * count, 120, f"{nodes} each", 0.5
                    )
                await until_seen(fleet, expected, 30)
                spent = cost(fleet, joins)
                print(f"cycle {cycle}: {spent}", flush=True)
                assert not spent.errors
                tones.append(spent.tone_ms)
        tones.sort()
        print(
            f"{CYCLES} cycles: longest tone gap of each p50 {tones[len(tones) // 2]} ms, max {tones[-1]} ms"
        )
        assert tones[-1] <= 2000
