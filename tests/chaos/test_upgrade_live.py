"""A rolling upgrade and its rollback under a meeting in three regions: nobody may be dropped.

`HEADWATER_CHAOS_BOTS` sets how many live clients there are.
"""

import json
import os
from typing import Any

import pytest
from support.clients import bot_spec, bots, until_seen
from support.cluster import Cluster, running_cluster
from support.deadline import until
from support.draining import NAMESPACE, cost, sfu_pods

BOTS = int(os.environ.get("HEADWATER_CHAOS_BOTS", "6"))
MAX_TONE_GAP_MS = 2000
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]


def change_template(cluster: Cluster, revision: str) -> None:
    spec = {
        "node": {"podTemplate": {"annotations": {"example.com/revision": revision}}},
        "upgrade": {"canary": {"nodes": 1, "duration": "5s"}},
    }
    patch = json.dumps({"spec": spec})
    cluster.kubectl("patch", "sfucluster", "demo", "-n", NAMESPACE, "--type=merge", "-p", patch)


def revisions(cluster: Cluster) -> set[str]:
    return {pod["metadata"]["annotations"].get("example.com/revision", "") for pod in sfu_pods(cluster)}


def status(cluster: Cluster) -> dict[str, Any]:
    text = cluster.kubectl("get", "sfucluster", "demo", "-n", NAMESPACE, "-o", "json")
    found: dict[str, Any] = json.loads(text)["status"]
    return found


async def test_upgrade_and_rollback_under_a_meeting() -> None:
    with running_cluster() as cluster:
        regions = cluster.sandbox.regions
        names = [f"u-{number}" for number in range(BOTS)]
        specs = [
            bot_spec(cluster, "upgraded", name, number, regions[number % len(regions)])
            for number, name in enumerate(names)
        ]
        expected = [(a, b) for a in names for b in names if a != b]
        count = len(sfu_pods(cluster))
        async with bots(specs) as fleet:
            await until_seen(fleet, expected, 90)
            for revision in ("next", "previous"):
                joins = sum(bot.joins for bot in fleet.bots.values())
                fleet.mark()
                change_template(cluster, revision)

                def done(revision: str = revision) -> bool:
                    assert (status(cluster).get("upgrade") or {}).get("phase") != "Halted", status(cluster)
                    return revisions(cluster) == {revision} and len(sfu_pods(cluster)) == count

                await until(done, 400, f"every node is made from {revision}", every_s=1)
                await until_seen(fleet, expected, 40)
                spent = cost(fleet, joins)
                print(f"{revision}: {count} nodes replaced under {BOTS} clients: {spent}", flush=True)
                assert not spent.errors
                assert spent.tone_ms <= MAX_TONE_GAP_MS
