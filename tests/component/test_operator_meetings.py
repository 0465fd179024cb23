"""Meetings against a real API server: provisioned, active with its nodes and links, ended, deleted."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from headwater_api.nodev1 import node_pb2
from headwater_api.units import format_time
from headwater_operator.kube.client import KubeClient
from headwater_operator.kube.errors import NotFound
from headwater_operator.kube.resources import MEETINGS
from support.deadline import until
from support.fake_kubelet import FakeKubelet
from support.operator_fixtures import Fleet
from support.operator_process import OperatorProcess

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


class Meetings:
    """The Meetings of the test's namespace."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self.client, self.namespace = client, namespace

    async def declare(self, name: str, cluster: str = "demo", **spec: Any) -> None:
        body = {"metadata": {"name": name}, "spec": {"clusterRef": {"name": cluster}, **spec}}
        await self.client.apply(MEETINGS, self.namespace, name, body)

    async def status(self, name: str) -> dict[str, Any]:
        status: dict[str, Any] = (await self.client.get(MEETINGS, self.namespace, name)).get("status") or {}
        return status

    async def says(self, name: str, type_: str, status: str, within_s: float = 20) -> dict[str, Any]:
        async def probe() -> dict[str, Any]:
            conditions = (await self.status(name)).get("conditions", [])
            return next((c for c in conditions if (c["type"], c["status"]) == (type_, status)), {})

        found: dict[str, Any] = await until(probe, within_s, f"{name} is {type_}={status}")
        return found

    async def shows(self, name: str, what: str, test: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async def probe() -> dict[str, Any]:
            status = await self.status(name)
            return status if test(status) else {}

        found: dict[str, Any] = await until(probe, 15, what)
        return found


@pytest.fixture
def meetings(client: KubeClient, namespace: str) -> Meetings:
    return Meetings(client, namespace)


async def test_the_life_of_a_meeting(
    operator: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet, meetings: Meetings
) -> None:
    await fleet.declare({"eu": (1, 2), "us": (1, 2)})
    await meetings.declare("standup", emptyTimeout="2s", ttlAfterEnded="1s")
    provisioned = await meetings.says("standup", "Provisioned", "True")
    assert provisioned["message"] in (
        "SFU nodes are ready in eu, us",
        "SFU nodes are ready in eu",
        "SFU nodes are ready in us",
    )
    await until(lambda: len(kubelet.nodes) == 2, 10, "both nodes serve")
    eu, us = sorted(kubelet.nodes.values(), key=lambda node: node.region)
    await until(lambda: eu.watchers and us.watchers, 10, "reports flow")

    def link(peer: str) -> list[node_pb2.LinkReport]:
        return [node_pb2.LinkReport(link_id="l1", room_id="standup", peer_node_id=peer, up=True)]

    eu.set_rooms({"standup": 2}, link(us.node_id))
    us.set_rooms({"standup": 1}, link(eu.node_id))
    status = await meetings.shows("standup", "three participants", lambda s: s.get("participants") == 3)
    assert status["nodes"] == [
        {"name": eu.node_id, "region": "eu", "role": "Hub", "participants": 2},
        {"name": us.node_id, "region": "us", "role": "Hub", "participants": 1},
    ]
    first, second = sorted([eu.node_id, us.node_id])
    assert status["links"] == [{"from": first, "to": second, "state": "Up"}]
    assert (status["nodeCount"], status["linkCount"]) == (2, 1)
    await meetings.says("standup", "Active", "True")

    eu.set_rooms({})
    us.set_rooms({})
    assert (await meetings.says("standup", "Active", "False"))["reason"] == "RoomEmpty"
    ended = await meetings.says("standup", "Ended", "True")
    assert ended["reason"] == "EmptyTimeoutElapsed"

    async def gone() -> bool:
        try:
            await meetings.status("standup")
        except NotFound:
            return True
        return False

    await until(gone, 15, "ttlAfterEnded deletes it")
    await until(lambda: operator.logged("ttlAfterEnded is 1s"), 5, "the deletion is told")


async def test_a_meeting_that_cannot_be_satisfied_names_the_field(
    operator: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet, meetings: Meetings, namespace: str
) -> None:
    await fleet.declare({"eu": (1, 2)})
    await meetings.declare("lost", cluster="nowhere")
    await meetings.declare("pinned", placement={"pin": ["mars"]})
    lost = await meetings.says("lost", "Provisioned", "False")
    assert lost["reason"] == "ClusterNotFound"
    assert lost["message"] == (
        f'spec.clusterRef.name: there is no SFUCluster "nowhere" in namespace "{namespace}"'
    )
    pinned = await meetings.says("pinned", "Provisioned", "False")
    assert pinned["reason"] == "RegionUnknown"
    assert pinned["message"] == 'spec.placement.pin[0]: SFUCluster "demo" has no region "mars" (it has eu)'


async def test_a_meeting_becomes_provisioned_when_its_fleet_does(
    operator: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet, meetings: Meetings
) -> None:
    await meetings.declare("standup")
    await meetings.says("standup", "Provisioned", "False")
    await fleet.declare({"eu": (1, 2)})
    await meetings.says("standup", "Provisioned", "True")


async def test_a_scheduled_meeting_waits_and_then_starts(
    operator: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet, meetings: Meetings
) -> None:
    await fleet.declare({"eu": (1, 2)})
    start = datetime.now(UTC) + timedelta(seconds=4)
    await meetings.declare("later", schedule={"start": format_time(start), "duration": "3s"})
    assert (await meetings.says("later", "Scheduled", "True"))["message"] == f"starts at {format_time(start)}"
    await meetings.says("later", "Scheduled", "False")
    ended = await meetings.says("later", "Ended", "True")
    assert ended["reason"] == "DurationElapsed"


async def test_a_node_that_dies_takes_its_participants_out_of_the_count(
    operator: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet, meetings: Meetings
) -> None:
    await fleet.declare({"eu": (2, 4)})
    await meetings.declare("standup")
    await fleet.says("Ready", "True")
    await until(lambda: len(kubelet.nodes) == 2, 10, "both nodes serve")
    one, two = kubelet.nodes.values()
    one.set_rooms({"standup": 2})
    two.set_rooms({"standup": 1})
    await meetings.shows("standup", "three participants", lambda s: s.get("participants") == 3)
    await kubelet.kill(one.node_id)
    await meetings.shows("standup", "the dead node's are gone", lambda s: s.get("participants") == 1)


async def test_a_silent_node_keeps_the_meeting_as_it_was(
    operator: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet, meetings: Meetings
) -> None:
    await fleet.declare({"eu": (1, 4)})
    await meetings.declare("standup", emptyTimeout="1s")
    await fleet.says("Ready", "True")
    node = next(iter(kubelet.nodes.values()))
    node.set_rooms({"standup": 2})
    await meetings.shows("standup", "two participants", lambda s: s.get("participants") == 2)
    node.silent = True
    degraded = await fleet.says("Degraded", "True", within_s=30)
    assert degraded["reason"] == "NodeReportsMissing"
    status = await meetings.status("standup")
    assert status["participants"] == 2
    assert "endedAt" not in status
