"""CPU or latency alone, announced meetings, silence and a forecast: what they make of a fleet, against a real
API server."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from headwater_api.nodev1 import node_pb2
from headwater_operator.kube.client import KubeClient
from headwater_operator.kube.resources import CONFIG_MAPS, EVENTS, MEETINGS
from headwater_planner.scale.history import History, record, to_json
from support.deadline import until
from support.fake_kubelet import FakeKubelet
from support.fake_node import FakeNode
from support.operator_fixtures import Fleet, client, fleet, kubelet, operator
from support.operator_process import OperatorProcess

__all__ = ["client", "fleet", "kubelet", "operator"]
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
REGIONS = {"eu": (1, 6), "us": (1, 6)}
QUICK = {"scaleDown": {"stabilizationWindow": "3s"}}


def cpu(node: FakeNode) -> None:
    node.report.cpu_percent = 95.0


def latency(node: FakeNode) -> None:
    node.report.forward_p95_us = 150_000.0


def copy_of(node: FakeNode) -> node_pb2.NodeReport:
    report = node_pb2.NodeReport()
    report.CopyFrom(node.report)
    return report


async def provisioned(client: KubeClient, namespace: str, meeting: str, within_s: float) -> str:
    """The reason of Provisioned=True."""

    async def probe() -> str:
        status = (await client.get(MEETINGS, namespace, meeting)).get("status") or {}
        found = {entry["type"]: entry for entry in status.get("conditions", [])}.get("Provisioned", {})
        return str(found["reason"]) if found.get("status") == "True" else ""

    reason: str = await until(probe, within_s, f"{meeting} is provisioned")
    return reason


async def in_region(fleet: Fleet, region: str, count: int, within_s: float) -> None:
    label = "headwater.dev/region"

    async def probe() -> bool:
        pods = [pod for pod in await fleet.pods() if pod["metadata"]["labels"][label] == region]
        return len([pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]) == count

    await until(probe, within_s, f"{count} Pods in {region}")


async def test_cpu_or_latency_alone_brings_nodes_in_its_region_and_its_end_takes_them(
    operator: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet, client: KubeClient, namespace: str
) -> None:
    await fleet.declare({**REGIONS, "ap": (1, 6)}, autoscaling={"mode": "Automatic", "behavior": QUICK})
    await fleet.says("Ready", "True")
    await until(lambda: all(node.watchers for node in kubelet.nodes.values()), 10, "reports")
    nodes = {node.region: node for node in kubelet.nodes.values()}
    calm = {region: copy_of(node) for region, node in nodes.items()}
    cpu(nodes["eu"])
    latency(nodes["us"])
    await in_region(fleet, "eu", 2, 10)
    await in_region(fleet, "us", 2, 10)
    await in_region(fleet, "ap", 1, 1)
    sentences = {
        "Scale region eu from 1 to 2 nodes: CPU is 95 % on average over 1 node, its target is 70 %",
        "Scale region us from 1 to 2 nodes: P95 latency is 150.0 ms on average over 1 node, "
        "its target is 100 ms",
    }
    assert all(operator.logged(sentence) for sentence in sentences)

    async def told() -> bool:
        return sentences <= {item.get("note") for item in await client.list(EVENTS, namespace)}

    async def shown() -> bool:
        return (await fleet.status())["lastScale"]["message"] in sentences

    await until(told, 10, "Events say it")
    await until(shown, 10, "the status says the newest")
    for region, report in calm.items():
        nodes[region].report.CopyFrom(report)
    await in_region(fleet, "eu", 1, 40)
    await in_region(fleet, "us", 1, 40)
    assert (await fleet.says("ScalingActive", "True"))["reason"] == "ScalingEnabled"


async def test_a_scheduled_meeting_finds_its_nodes_ready(
    operator: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet, client: KubeClient, namespace: str
) -> None:
    """3,000 participants in two of three regions: 5 and 3 nodes, ordered ahead of the lead time, Ready before
    the start."""
    bounds = {"eu": (1, 12), "us": (1, 12), "ap": (1, 12)}
    await fleet.declare(bounds, autoscaling={"mode": "Automatic"})
    await fleet.says("Ready", "True")
    start = datetime.now(UTC) + timedelta(seconds=95)
    spec = {
        "clusterRef": {"name": "demo"},
        "schedule": {"start": f"{start:%Y-%m-%dT%H:%M:%SZ}", "duration": "1h", "leadTime": "30s"},
        "expectedParticipants": {"byRegion": {"eu": 2000, "us": 1000}},
    }
    await client.apply(MEETINGS, namespace, "all-hands", {"metadata": {"name": "all-hands"}, "spec": spec})
    await in_region(fleet, "eu", 5, 40)
    await in_region(fleet, "us", 3, 5)
    await fleet.says("Ready", "True")
    early = start - datetime.now(UTC)
    print(f"8 nodes for 3,000 participants Ready {early.total_seconds():.0f} s before the start")
    assert early > timedelta(0)
    sentences = (
        "2,000 participants are expected at Meeting all-hands",
        "1,000 participants are expected at Meeting all-hands",
    )
    assert all(operator.logged(sentence) for sentence in sentences)

    async def told() -> bool:
        last = (await fleet.status())["lastScale"]
        return last["reason"] == "MeetingExpected" and any(text in last["message"] for text in sentences)

    await until(told, 10, "status.lastScale says why")
    assert await provisioned(client, namespace, "all-hands", 10) == "CapacityReady"
    await in_region(fleet, "ap", 1, 1)


async def test_nodes_that_fall_silent_take_nothing_away(
    operator: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet
) -> None:
    await fleet.declare(REGIONS, autoscaling={"mode": "Automatic", "behavior": QUICK})
    await fleet.says("Ready", "True")
    await until(lambda: all(node.watchers for node in kubelet.nodes.values()), 10, "reports")
    (first,) = [node for name, node in kubelet.nodes.items() if "-eu-" in name]
    cpu(first)
    await in_region(fleet, "eu", 2, 10)
    await fleet.says("Ready", "True")
    first.report.cpu_percent = float("nan")
    active = await fleet.says("ScalingActive", "False", within_s=30)
    assert active["reason"] == "MetricsMissing" and "eu" in active["message"]
    size = await fleet.names()
    with pytest.raises(AssertionError, match="not within"):
        await until(lambda: False, 8, "two windows of scaleDown pass")
    assert await fleet.names() == size


async def test_a_forecast_goes_on_from_the_history_that_was_kept(
    operator: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet, client: KubeClient, namespace: str
) -> None:
    """Seasons of 288 s, so that two of them are ten minutes; the load was four nodes all the time."""
    season, now = timedelta(seconds=288), datetime.now(UTC)
    history = History()
    for ago_s in range(600, -1, -1):
        history = record(history, season, {"eu": 4.0}, now - timedelta(seconds=ago_s))
    kept = {"metadata": {"name": "demo-load-history"}, "data": {"history.json": json.dumps(to_json(history))}}
    await client.apply(CONFIG_MAPS, namespace, "demo-load-history", kept)
    forecast = {"method": "HoltWinters", "mode": "Enabled", "season": "288s", "horizon": "1m"}
    await fleet.declare({"eu": (1, 6)}, autoscaling={"mode": "Automatic", "forecast": forecast})
    await in_region(fleet, "eu", 4, 15)

    async def told() -> bool:
        status = await fleet.status()
        return bool(status.get("regions", [{}])[0].get("forecastNodes") == 4)

    await until(told, 10, "the status tells the forecast")
    assert (await fleet.status())["lastScale"]["reason"] == "ForecastHigher"
