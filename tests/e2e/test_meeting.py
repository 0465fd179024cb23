"""One meeting across three regions, and the death of a node: what the demo promises."""

import pytest
from headwater_sandbox.demo.check import Stage, check
from headwater_sandbox.demo.cluster import ClusterView
from headwater_sandbox.demo.spec import now_ms
from rich.console import Console
from support.clients import bot_spec, bots
from support.cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


async def test_six_bots_in_three_regions_meet_and_survive_a_killed_node(cluster: Cluster) -> None:
    room = "three-regions"
    groups = [
        [bot_spec(cluster, room, f"bot-{region}-{n}", 2 * i + n, region) for n in (0, 1)]
        for i, region in enumerate(cluster.sandbox.regions)
    ]
    view = ClusterView(cluster.sandbox.kubeconfig)
    try:
        started_ms = now_ms()
        async with bots(*groups) as fleet:
            findings = await check(Stage(cluster.sandbox, view, fleet, room, started_ms), Console())
    finally:
        await view.close()

    assert len(findings) == 9
    assert not [str(finding) for finding in findings if not finding.ok]
