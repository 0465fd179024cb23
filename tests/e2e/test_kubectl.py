"""What a person sees with kubectl."""

import json
from typing import Any

import pytest
from support.clients import bot_spec, bots, until_seen
from support.cluster import Cluster
from support.deadline import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

MEETING = """
apiVersion: headwater.dev/v1alpha1
kind: Meeting
metadata: {name: stand-up, namespace: headwater}
spec:
  clusterRef: {name: demo}
  title: Stand-up
"""
NOWHERE = """
apiVersion: headwater.dev/v1alpha1
kind: SFUCluster
metadata: {name: nowhere, namespace: headwater}
spec:
  regions:
    - {name: moon, coordinates: {latitude: 0, longitude: 0}, minNodes: 1, maxNodes: 1}
"""


async def test_the_fleet_is_worth_reading(cluster: Cluster) -> None:
    def ready() -> str:
        text = cluster.kubectl("get", "sfuclusters", "-n", "headwater")
        return text if "True" in text else ""

    table = await until(ready, 60, "the fleet is ready", every_s=1)
    header, row = table.splitlines()[:2]
    assert header.split()[0] == "NAME"
    assert row.split()[0] == "demo"
    assert len(row.split()) >= 4
    pods = json.loads(
        cluster.kubectl(
            "get", "pods", "-n", "headwater", "-l", "app.kubernetes.io/component=sfu-node", "-o", "json"
        )
    )["items"]
    assert {pod["metadata"]["labels"]["headwater.dev/region"] for pod in pods} == set(cluster.sandbox.regions)
    log = cluster.kubectl("logs", "-n", "headwater", pods[0]["metadata"]["name"])
    assert "node is up" in log


async def test_a_meeting_goes_from_provisioned_to_active_and_its_status_tells(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-f", "-", stdin=MEETING)
    await until(
        lambda: _condition(cluster, "meeting", "stand-up", "Provisioned") == "True", 30, "Provisioned"
    )
    specs = [bot_spec(cluster, "stand-up", f"m-{r}", n, r) for n, r in enumerate(("eu", "us"))]
    async with bots(specs) as fleet:
        await until_seen(fleet, [("m-eu", "m-us"), ("m-us", "m-eu")], 30)
        await until(lambda: _condition(cluster, "meeting", "stand-up", "Active") == "True", 30, "Active")
        status = await until(
            lambda: (s := _status(cluster, "meeting", "stand-up")).get("participants") == 2 and s,
            20,
            "two people",
        )
        assert {node["region"] for node in status["nodes"]} == {"eu", "us"}
        assert status["links"]
        row = cluster.kubectl("get", "meetings", "-n", "headwater", "stand-up").splitlines()[1]
        assert "2" in row.split()
    cluster.kubectl("delete", "meeting", "-n", "headwater", "stand-up", "--timeout=20s")


async def test_a_fleet_that_cannot_be_had_says_so(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-f", "-", stdin=NOWHERE)
    try:
        await until(
            lambda: _condition(cluster, "sfucluster", "nowhere", "CapacityAvailable") == "False",
            30,
            "CapacityAvailable is False",
        )
        conditions = _status(cluster, "sfucluster", "nowhere")["conditions"]
        assert any("moon" in condition["message"] for condition in conditions)
    finally:
        cluster.kubectl("delete", "sfucluster", "-n", "headwater", "nowhere", "--timeout=30s")


def _status(cluster: Cluster, kind: str, name: str) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(
        cluster.kubectl("get", kind, "-n", "headwater", name, "-o", "json")
    ).get("status", {})
    return status


def _condition(cluster: Cluster, kind: str, name: str, condition: str) -> str:
    conditions = _status(cluster, kind, name).get("conditions", [])
    return next((c["status"] for c in conditions if c["type"] == condition), "")
