"""One meeting across three regions, and the death of a node: what the demo promises."""

import pytest
from headwater_sandbox.demo.check import Stage, check
from headwater_sandbox.demo.judge import Finding
from headwater_sandbox.demo.spec import now_ms
from headwater_sandbox.nodes import ClusterView
from rich.console import Console
from support.bystanders import bystanders
from support.clients import bot_spec, bots
from support.cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

# Six bots need more than half of a small machine. What is judged by its single worst moment is printed here
# and judged by `make demo-check` alone; the rest has to hold in one of these runs.
RUNS = 3
TIMED = ("the other bots' streams have no gap", "capture to decode")


async def run_the_demo(cluster: Cluster, room: str) -> list[Finding]:
    groups = [
        [bot_spec(cluster, room, f"bot-{region}-{n}", 2 * i + n, region) for n in (0, 1)]
        for i, region in enumerate(cluster.sandbox.regions)
    ]
    view = await ClusterView.open(cluster.sandbox.kubeconfig)
    try:
        started_ms = now_ms()
        async with bots(*groups) as fleet:
            return await check(Stage(cluster.sandbox, view, fleet, room, started_ms), Console())
    finally:
        await view.close()


async def test_six_bots_in_three_regions_meet_and_survive_a_killed_node(cluster: Cluster) -> None:
    failed: list[str] = []
    for attempt in range(RUNS):
        with bystanders() as others:
            findings = await run_the_demo(cluster, f"three-regions-{attempt}")
        late = [str(finding) for finding in findings if not finding.ok and finding.name.startswith(TIMED)]
        failed = [str(finding) for finding in findings if not finding.ok and str(finding) not in late]
        print(f"{others}: {failed + late}")
        if not failed:
            assert len(findings) == 9
            return
    assert not failed
