"""A rolling upgrade, its rollback and a bad image under a meeting in three regions: nobody may be dropped.

`HEADWATER_CHAOS_BOTS` sets how many live clients there are. All get three voices; two of each region listen.
Those whose ears are not read stand for other machines: where processors are short they go last, and the
cluster gets as much as the ears.
"""

import json
import os
from typing import Any

import pytest
from headwater_api import wellknown as wk
from headwater_sandbox.demo.fleet import Fleet
from headwater_sandbox.demo.judge import Pair
from support.bystanders import bystanders
from support.clients import bot_spec, bots, until_heard
from support.cluster import Cluster, running_cluster
from support.deadline import until
from support.draining import NAMESPACE, Gaps, cost, gaps, sfu_pods
from support.shares import bot_processes, set_share

BOTS = int(os.environ.get("HEADWATER_CHAOS_BOTS", "20"))
# More of those who publish, or whose ears are read, than two cores can serve would measure the cores.
PUBLISHERS, EARS = 3, 6
P99_TONE_GAP_MS, MAX_TONE_GAP_MS = 500, 2000
CANARY = {"canary": {"nodes": 1, "duration": "5s"}}
# A client that moves restarts two connections. Ten at once, the default, keep two cores busy for a second.
DRAIN = {"movesPerSecond": 2}
LAST = 10  # niceness of those who go last
REVISION = "example.com/revision"
NOWHERE = "registry.invalid/headwater/sfu-node:9"
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]


def change(cluster: Cluster, node: dict[str, Any]) -> None:
    patch = json.dumps({"spec": {"node": node, "upgrade": CANARY, "drain": DRAIN}})
    cluster.kubectl("patch", "sfucluster", "demo", "-n", NAMESPACE, "--type=merge", "-p", patch)


def revision_of(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["annotations"].get(REVISION, ""))


def upgrade_status(cluster: Cluster) -> dict[str, Any]:
    text = cluster.kubectl("get", "sfucluster", "demo", "-n", NAMESPACE, "-o", "json")
    found: dict[str, Any] = json.loads(text)["status"].get("upgrade") or {}
    return found


def names(cluster: Cluster) -> set[str]:
    return {pod["metadata"]["name"] for pod in sfu_pods(cluster)}


def share_processors(cluster: Cluster) -> None:
    """The cluster as the ears, the others last."""
    state = json.loads(cluster.sandbox.kubeconfig.with_name("state.json").read_text())
    set_share(int(state["processes"]["apiserver"]), 0)
    set_share(bot_processes()[-1], LAST)


async def bad_image(cluster: Cluster, fleet: Fleet, pairs: list[Pair]) -> None:
    """It halts after one node, and no node that serves is touched; taken back, that one goes."""
    joins, before = sum(bot.joins for bot in fleet.bots.values()), names(cluster)
    fleet.mark()
    change(cluster, {"image": NOWHERE})
    most: set[str] = set()

    def halted() -> str:
        most.update(names(cluster))
        status = upgrade_status(cluster)
        return str(status.get("message", "")) if status.get("phase") == "Halted" else ""

    said = await until(halted, 90, "the upgrade halts", every_s=1)
    assert before <= names(cluster), "no node in service has gone"
    assert not any(pod["metadata"]["annotations"][wk.ANNOTATION_STATE] for pod in sfu_pods(cluster))
    change(cluster, {"image": None})
    await until(lambda: names(cluster) == before, 60, "the bad node is taken back", every_s=1)
    spent = cost(fleet, joins)
    print(
        f"bad image: {len(most - before)} node made, then halted ({said}); {gaps(fleet, pairs)}", flush=True
    )
    assert len(most - before) == 1, most - before
    assert not spent.errors and not spent.rejoins


async def replace_all(cluster: Cluster, fleet: Fleet, pairs: list[Pair], revision: str | None) -> Gaps:
    """Every node is made anew from that revision."""
    joins, before = sum(bot.joins for bot in fleet.bots.values()), names(cluster)
    fleet.mark()
    change(cluster, {"podTemplate": {"annotations": {REVISION: revision}}})

    def done() -> bool:
        assert upgrade_status(cluster).get("phase") != "Halted", upgrade_status(cluster)
        pods = sfu_pods(cluster)
        return {revision_of(pod) for pod in pods} == {revision or ""} and len(pods) == len(before)

    await until(done, 400, f"every node is made from {revision}", every_s=1)
    await until_heard(fleet, pairs, 40)
    assert not before & names(cluster)
    spent, found = cost(fleet, joins), gaps(fleet, pairs)
    print(f"{revision or 'rollback'}: {len(before)} nodes replaced under {BOTS} clients: {found}; {spent}",
          flush=True)  # fmt: skip
    assert not spent.errors
    return found


async def test_upgrade_and_rollback_under_a_meeting() -> None:
    with running_cluster(("--nodes-per-region", "1")) as cluster, bystanders() as others:
        regions = cluster.sandbox.regions
        specs = [
            bot_spec(
                cluster, "upgraded", f"u-{number}", number, regions[number % len(regions)],
                picture=False, hear_ms=40 if number < EARS else 0, publish=number < PUBLISHERS,
            )
            for number in range(BOTS)
        ]  # fmt: skip
        published = [spec.identity for spec in specs[:PUBLISHERS]]
        pairs = [(spec.identity, who) for spec in specs[:EARS] for who in published if spec.identity != who]
        async with bots(specs[:EARS], specs[EARS:]) as fleet:
            await until(lambda: all(bot.joins for bot in fleet.bots.values()), 60, "everybody has joined")
            await until_heard(fleet, pairs, 60)
            share_processors(cluster)
            await bad_image(cluster, fleet, pairs)
            found = [await replace_all(cluster, fleet, pairs, revision) for revision in ("next", None)]
        tones = Gaps([gap for each in found for gap in each.tone_ms], [])
        print(f"both: {tones}; {others}", flush=True)
        assert tones.at(0.99) <= P99_TONE_GAP_MS
        assert tones.at(1.0) <= MAX_TONE_GAP_MS
