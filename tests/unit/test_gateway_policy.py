"""Where a room may be placed, live: the clusters' allowed regions, Meetings, nodes that fail."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import grpc
import pytest
from headwater_api.ids import ClusterName, GatewayId, NodeId, RegionName, RoomId
from headwater_api.nodev1 import node_pb2
from headwater_gateway.nodes.facts import NodePod
from headwater_gateway.room.directory import DirectoryOptions, RoomDirectory
from headwater_gateway.room.ids import SystemIds
from headwater_gateway.room.model import RoomConfig, Wish
from headwater_gateway.room.policy import AVOID_S, FailedNodes, choose_other, nodes_to_leave
from headwater_gateway.signal.session_runner import SessionRunner
from headwater_gateway.signal.types import CLOSE_GOING_AWAY, JoinRefused
from headwater_planner.moves import Leaving
from headwater_planner.place import NodeView, Placement, PlacementView, Refusal, RegionView
from livekit.protocol import models, rtc
from support.deadline import until
from support.fake_channel import FakeClient, hello
from support.fake_node import FakeNode, serving

DEMO = ClusterName("demo")
EU, US = RegionName("eu"), RegionName("us")


class Gateway:
    """Rooms and sessions over the nodes eu-1 and us-1 of the cluster `demo`."""

    def __init__(self, *, auto_create: bool = True) -> None:
        self.allowed: dict[ClusterName, frozenset[RegionName]] = {}
        options = DirectoryOptions(
            auto_create=auto_create,
            regions=lambda: (RegionView(EU), RegionView(US)),
            cluster_regions=lambda: self.allowed,
        )
        self.directory = RoomDirectory(GatewayId("gw"), "token", options)
        self.runner = SessionRunner(self.directory, SystemIds(), lambda: 1)
        self.nodes: dict[str, FakeNode] = {}
        self.clients: list[FakeClient] = []

    def connect(self, identity: str, region: str, **changes: int) -> FakeClient:
        client = FakeClient()
        client.task = asyncio.create_task(self.runner(hello(identity, region=region, **changes), client))
        self.clients.append(client)
        return client

    async def join(self, identity: str, region: str) -> str:
        """The node that the participant is put on."""
        join = await self.connect(identity, region).wait("join")
        return str(join.participant.attributes["headwater.node"])

    async def refusal(self, identity: str = "late", region: str = "eu", room: str = "demo") -> JoinRefused:
        with pytest.raises(JoinRefused) as refused:
            await self.runner.admit(hello(identity, room, region))
        return refused.value


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    gateway = Gateway()
    async with AsyncExitStack() as stack:
        for name in ("eu-1", "us-1"):
            node = gateway.nodes[name] = FakeNode(name, name[:2], with_token="token")
            await stack.enter_async_context(serving(node))
            gateway.directory.pool.pod_seen(NodePod(NodeId(name), RegionName(name[:2]), node.address, DEMO))
        await until(lambda: len(gateway.directory.pool.reports()) == 2, 15, "both nodes are up", 0.01)
        try:
            yield gateway
        finally:
            await gateway.directory.aclose(1.0)
            await gateway.runner.aclose(1.0)
            for client in gateway.clients:
                await client.close()
            await asyncio.gather(*(c.task for c in gateway.clients if c.task), return_exceptions=True)


def test_a_failed_node_is_avoided_for_a_while_and_then_forgotten() -> None:
    failed = FailedNodes()
    failed.note(NodeId("eu-1"), 100.0)
    assert failed.at(100.0 + AVOID_S - 0.1) == {"eu-1"}
    assert failed.at(100.0 + AVOID_S) == frozenset()


async def test_participants_are_placed_where_the_cluster_allows(gateway: Gateway) -> None:
    gateway.allowed = {DEMO: frozenset({US})}
    assert await gateway.join("ann", "eu") == "us-1"
    assert await gateway.join("bob", "us") == "us-1"


async def test_a_policy_that_leaves_nothing_refuses_for_good(gateway: Gateway) -> None:
    gateway.allowed = {DEMO: frozenset({US})}
    pinned = RoomConfig(allowed_regions=frozenset({EU}), cluster=DEMO)
    gateway.directory.meeting_seen(RoomId("demo"), pinned)
    refused = await gateway.refusal()
    assert (refused.status, refused.reason) == (403, "NoRegionAllowed")
    assert "allowedRegions" in refused.message
    late = gateway.connect("late", "eu")
    assert (await late.wait("leave")).reason == models.DisconnectReason.JOIN_FAILURE
    assert late.closed is not None and late.closed[1].startswith("NoRegionAllowed")


async def test_a_region_that_is_allowed_no_more_is_left(gateway: Gateway) -> None:
    ann, bob = gateway.connect("ann", "eu", protocol=12), gateway.connect("bob", "us")
    await ann.wait("join")
    await bob.wait("join")
    gateway.allowed = {DEMO: frozenset({US})}
    leave = await ann.wait("leave", within_s=5)
    assert (leave.action, leave.reason) == (rtc.LeaveRequest.RECONNECT, models.DisconnectReason.MIGRATION)
    assert await gateway.join("ann", "eu") == "us-1"
    assert bob.all("leave") == []


async def test_nobody_is_moved_where_policy_leaves_no_other_node(gateway: Gateway) -> None:
    ann = gateway.connect("ann", "eu")
    await ann.wait("join")
    gateway.directory.pool.pod_gone(NodeId("us-1"))
    gateway.allowed = {DEMO: frozenset({US})}
    refused = await gateway.refusal()
    assert (refused.status, refused.reason) == (503, "RegionNotAllowed")
    assert ann.all("leave") == []


def test_forbidden_and_draining_nodes_are_left_for_another() -> None:
    here = NodeView(NodeId("eu-1"), EU, 4, 100, cluster=DEMO, participants=2)
    other = NodeView(NodeId("us-1"), US, 0, 100, cluster=DEMO)
    only_us, room = {DEMO: frozenset({US})}, {here.node_id: 1}
    view = PlacementView((), (here, other), only_us)
    leaving = Leaving(here.node_id, 0.0, 2, 1)
    assert nodes_to_leave(view, RoomConfig(), room, 0) == {here.node_id: leaving}
    assert nodes_to_leave(PlacementView((), (here, other)), RoomConfig(), room, 0) == {}
    draining = replace(here, draining=True, move_rate=3.0, move_by_ms=5000)
    view = PlacementView((), (draining, other))
    assert nodes_to_leave(view, RoomConfig(), room, 4999) == {here.node_id: replace(leaving, rate=3.0)}
    assert nodes_to_leave(view, RoomConfig(), room, 5000)[here.node_id].overdue
    denied = RoomConfig(denied_regions=frozenset({EU}))
    assert nodes_to_leave(PlacementView((), (here, other)), denied, room, 0)


def test_a_participant_goes_to_no_other_unfit_node() -> None:
    unfit, free = NodeView(NodeId("eu-1"), EU, 4, 100, draining=True), NodeView(NodeId("us-1"), US, 0, 100)
    ids = frozenset({unfit.node_id})
    only = choose_other(PlacementView((), (unfit,)), RoomConfig(), Wish(EU), dict.fromkeys(ids, 1), ids)
    assert isinstance(only, Refusal)
    other = choose_other(PlacementView((), (unfit, free)), RoomConfig(), Wish(EU), dict.fromkeys(ids, 1), ids)
    assert isinstance(other, Placement) and other.node_id == "us-1"


async def test_another_clusters_meeting_finds_no_node(gateway: Gateway) -> None:
    gateway.directory.meeting_seen(RoomId("demo"), RoomConfig(cluster=ClusterName("other")))
    refused = await gateway.refusal()
    assert (refused.status, refused.reason) == (503, "NoNode")


@pytest.mark.parametrize("how", ["draining", "full"])
async def test_nodes_that_take_nobody_mean_503(gateway: Gateway, how: str) -> None:
    for node in gateway.nodes.values():
        node.report.draining = how == "draining"
        node.report.connections = 1000 if how == "full" else 0
        node.push()
    views = gateway.directory.pool.views
    await until(lambda: all(v.draining or v.connections >= 1000 for v in views()), 15, "reports are in", 0.01)
    refused = await gateway.refusal()
    assert (refused.status, refused.reason) == (503, "NoCapacity")
    assert how in refused.message


@pytest.mark.parametrize(
    ("config", "status", "reason"),
    [
        (RoomConfig(locked=True), 403, "RoomLocked"),
        (RoomConfig(has_ended=True), 403, "MeetingEnded"),
        (RoomConfig(max_participants=1), 503, "RoomFull"),
    ],
)
async def test_room_policy_before_the_upgrade(
    gateway: Gateway, config: RoomConfig, status: int, reason: str
) -> None:
    await gateway.join("ann", "eu")
    gateway.directory.meeting_seen(RoomId("demo"), config)
    room = gateway.directory.room(RoomId("demo"))
    assert room is not None
    await until(lambda: room.state.config == config, 15, "the policy is taken", 0.01)
    refused = await gateway.refusal()
    assert (refused.status, refused.reason) == (status, reason)
    await gateway.runner.admit(hello("ann"))  # she is in already and may come back


async def test_unknown_rooms_without_auto_create() -> None:
    gateway = Gateway(auto_create=False)
    refused = await gateway.refusal(room="nowhere")
    assert (refused.status, refused.reason) == (404, "RoomNotFound")
    assert refused.message.startswith("requested room does not exist")
    await gateway.directory.aclose(0.1)


async def test_a_node_that_refuses_is_tried_last(gateway: Gateway) -> None:
    def refuse(request: node_pb2.ApplyRequest) -> node_pb2.ApplyResponse:
        failed = node_pb2.CommandResult(error="too many transports")
        return node_pb2.ApplyResponse(results=[failed for _ in request.commands])

    gateway.nodes["eu-1"].respond = refuse
    ann = gateway.connect("ann", "eu")
    assert (await ann.wait("leave")).action == rtc.LeaveRequest.RECONNECT
    assert await gateway.join("ann", "eu") == "us-1"


async def test_a_superseded_room_lets_its_clients_resume_at_the_newer_one(gateway: Gateway) -> None:
    await gateway.join("ann", "eu")
    bob = gateway.connect("bob", "us")
    await bob.wait("join")
    node = gateway.nodes["eu-1"]
    node.refuse_with = grpc.StatusCode.FAILED_PRECONDITION
    room = gateway.directory.room(RoomId("demo"))
    ann = gateway.clients[0]
    ann.say(leave=rtc.LeaveRequest())  # a command for the node
    await until(lambda: bob.closed, 15, "bob's connection is closed")
    assert bob.closed is not None and bob.closed[0] == CLOSE_GOING_AWAY
    assert bob.all("leave") == [], "a client that is told to leave does not resume"
    other = gateway.nodes["us-1"].applied
    assert not [r for r in other for c in r.commands if c.HasField("close_room")], "its media goes on"
    await until(lambda: gateway.directory.room(RoomId("demo")) is not room, 15, "the old room is gone")
