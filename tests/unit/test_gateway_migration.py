"""Participants led to another node without a new join: new transports first, old ones as long as needed."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from headwater_api.ids import NodeId, ParticipantIdentity, RegionName, RoomId
from headwater_api.nodev1 import node_pb2
from headwater_api.reasons import Reason
from headwater_gateway.nodes.decisions import Decisions
from headwater_gateway.nodes.facts import NodeFacts
from headwater_gateway.room import roster
from headwater_gateway.room.effects import MoveSession
from headwater_gateway.room.migration import HEAD_START_S
from headwater_gateway.room.model import JoinRequest, RoomConfig
from headwater_gateway.room.mover import CROWD, RETURNS_PER_S, Mover
from headwater_gateway.room.ports import RoomError
from headwater_gateway.room.state import RoomState
from headwater_gateway.signal.types import CLOSE_SERVICE_RESTART
from headwater_planner.node_load import NodeView
from headwater_planner.place import PlacementView
from livekit.protocol import models, rtc
from support.counting_ids import CountingIds
from support.deadline import until
from support.fake_channel import FakeClient, hello
from support.gateway_world import World, gateway_world

RECONNECT = rtc.LeaveRequest.RECONNECT


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with gateway_world() as world:
        yield world


async def publish(client: FakeClient, cid: str = "mic") -> str:
    client.add_track("audio", cid)
    sid = str((await client.wait("track_published")).track.sid)
    client.offer(("audio", cid))
    await client.wait("answer")
    return sid


def connected(world: World, node: str, client_sid: str, role: str) -> None:
    event = node_pb2.TransportEvent(transport_id=f"{client_sid}/{role}", state=node_pb2.TRANSPORT_CONNECTED)
    world.emit(node, node_pb2.Event(transport=event))


async def resume(world: World, client: FakeClient, region: str) -> FakeClient:
    """The client does as clients do: a new WebSocket, then an ICE restart of what it publishes."""
    back = world.connect(hello("ann", region=region, reconnect=True, reconnect_sid=client.sid))
    await back.wait("reconnect")
    return back


def drain(world: World, node: str) -> None:
    world.nodes[node].report.draining = True
    world.nodes[node].push()


async def test_a_drained_publisher_is_led_away_and_its_track_changes_origin_last(world: World) -> None:
    ann = await world.join(hello("ann", region="us"))
    old = ann.all("join")[0].participant.attributes["headwater.node"]
    new = "us-2" if old == "us-1" else "us-1"
    bob = await world.join(hello("bob", region="eu"))
    track = await publish(ann)
    await world.command("eu-1", "add_remote_track", match=lambda c: c.track_id == track)
    drain(world, old)
    await until(lambda: ann.closed, 15, "ann's WebSocket is closed")
    assert ann.closed is not None and ann.closed[0] == CLOSE_SERVICE_RESTART and ann.all("leave") == []
    # Both transports wait at the new node; the track is reachable there from the old one, which still has it.
    prepared = {
        role: await world.command(new, "create_transport", match=lambda c, r=role: c.transport_id.endswith(r))
        for role in ("pub", "sub")
    }
    assert prepared["pub"].remote_fingerprint
    unnamed = await world.command(new, "configure_receive")
    assert [section.track_id for section in unnamed.sections] == [""]
    await world.command(new, "add_remote_track", match=lambda c: c.track_id == track)
    assert world.commands(old, "close_transport") == []

    back = await resume(world, ann, "us")
    offer = await back.wait("offer")
    assert f"a=ice-ufrag:{prepared['sub'].local_ufrag}" in offer.sdp
    back.offer(("audio", "mic"), ufrag="new1")
    answer = await back.wait("answer")
    assert f"a=ice-ufrag:{prepared['pub'].local_ufrag}" in answer.sdp
    assert world.commands(old, "restart_ice") == world.commands(new, "restart_ice") == []

    connected(world, new, ann.sid, "pub")
    named = await world.command(
        new, "configure_receive", match=lambda c: [s.track_id for s in c.sections] == [track]
    )
    assert named.transport_id == f"{ann.sid}/pub"
    order = [c.WhichOneof("command") for r in world.nodes[new].applied for c in r.commands]
    assert order.index("remove_remote_track") < len(order) - 1 - order[::-1].index("configure_receive")
    closed = await world.command(old, "close_transport")
    assert closed.transport_id == f"{ann.sid}/pub"
    assert world.commands(old, "close_room") == []
    connected(world, new, ann.sid, "sub")
    await world.command(old, "close_room")
    await until(
        lambda: bob.roster()["ann"].attributes["headwater.node"] == new, 15, "bob sees where ann is now"
    )
    assert bob.roster()["ann"].sid == ann.sid
    assert bob.all("leave") == back.all("leave") == []


async def test_a_listener_needs_no_more_than_an_offer(world: World) -> None:
    ann = await world.join(hello("ann", region="us"))
    old = ann.all("join")[0].participant.attributes["headwater.node"]
    new = "us-2" if old == "us-1" else "us-1"
    drain(world, old)
    made = await world.command(new, "create_transport", match=lambda c: c.transport_id == f"{ann.sid}/sub")
    offer = await ann.wait("offer", 2)
    assert f"a=ice-ufrag:{made.local_ufrag}" in offer.sdp
    connected(world, new, ann.sid, "sub")
    await world.command(old, "close_room")
    assert ann.all("leave") == []


async def test_a_client_knows_the_new_addresses_a_while_before_it_goes_there(world: World) -> None:
    ann, bob = await world.join(hello("ann", region="us")), await world.join(hello("bob", region="us"))
    old = ann.all("join")[0].participant.attributes["headwater.node"]
    new = "us-2" if old == "us-1" else "us-1"
    await publish(ann)
    await bob.wait("offer", 2)
    drain(world, old)
    await until(lambda: ann.closed and len(bob.all("offer")) > 2, 15, "both are led away")
    for client, roles in ((ann, {"SUBSCRIBER": "sub", "PUBLISHER": "pub"}), (bob, {"SUBSCRIBER": "sub"})):
        ahead = {
            rtc.SignalTarget.Name(row.target): json.loads(row.candidateInit) for row in client.all("trickle")
        }
        assert ahead.keys() == roles.keys()
        for target, role in roles.items():
            sid = f"{client.sid}/{role}"
            made = await world.command(
                new, "create_transport", match=lambda c, sid=sid: c.transport_id == sid
            )
            address, port = world.nodes[new].media_address.split(":")
            assert f" {address} {port} typ host" in ahead[target]["candidate"]
            assert ahead[target]["candidate"].endswith(f" ufrag {made.local_ufrag}")
    early = 0.01  # by so much a timer may be rounded
    assert ann.closed_at - ann.first_at("trickle") >= HEAD_START_S - early
    offer_at = [at for at, kind in zip(bob.received_at, bob.kinds(), strict=True) if kind == "offer"][2]
    assert offer_at - bob.first_at("trickle") >= HEAD_START_S - early


async def test_what_is_sent_goes_on_under_new_numbers_and_is_asked_for_before_the_client_answers(
    world: World,
) -> None:
    ann = await world.join(hello("ann", region="us"))
    bob = await world.join(hello("bob", region="eu"))
    track = await publish(bob)
    old = ann.all("join")[0].participant.attributes["headwater.node"]
    new = "us-2" if old == "us-1" else "us-1"
    before = await world.command(old, "configure_send", match=lambda c: len(c.sections) == 1)
    ann.auto_answer = False
    drain(world, old)
    ahead = await world.command(new, "configure_send")
    assert [s.track_id for s in ahead.sections] == [track]
    assert ahead.sections[0].ssrc != before.sections[0].ssrc
    assert ahead.sections[0].codecs == before.sections[0].codecs
    offer = await ann.wait("offer", 3)
    assert f"a=ssrc:{ahead.sections[0].ssrc} " in offer.sdp


async def test_a_dead_nodes_publisher_is_led_away_and_nobody_waits_for_the_dead(world: World) -> None:
    ann = await world.join(hello("ann", region="us"))
    dead = ann.all("join")[0].participant.attributes["headwater.node"]
    new = "us-2" if dead == "us-1" else "us-1"
    await world.join(hello("bob", region="eu"))
    track = await publish(ann)
    await world.command("eu-1", "add_remote_track", match=lambda c: c.track_id == track)
    await world.kill(dead)
    await until(lambda: ann.closed, 15, "ann's WebSocket is closed")
    assert ann.all("leave") == []
    assert (await world.command("eu-1", "remove_remote_track")).track_id == track
    back = await resume(world, ann, "us")
    back.offer(("audio", "mic"), ufrag="new1")
    await back.wait("answer")
    connected(world, new, ann.sid, "pub")
    connected(world, new, ann.sid, "sub")
    again = await world.command("eu-1", "add_remote_track", 2, match=lambda c: c.track_id == track)
    assert again.track_id == track


async def test_who_cannot_connect_to_the_new_node_joins_anew(world: World) -> None:
    ann = await world.join(hello("ann", region="us"))
    old = ann.all("join")[0].participant.attributes["headwater.node"]
    new = "us-2" if old == "us-1" else "us-1"
    await publish(ann)
    drain(world, old)
    await until(lambda: ann.closed, 15, "ann's WebSocket is closed")
    back = await resume(world, ann, "us")
    event = node_pb2.TransportEvent(transport_id=f"{ann.sid}/sub", state=node_pb2.TRANSPORT_FAILED)
    world.emit(new, node_pb2.Event(transport=event))
    leave = await back.wait("leave")
    assert (leave.reason, leave.action) == (models.DisconnectReason.MIGRATION, RECONNECT)
    await world.command(old, "close_transport", 2)
    await world.command(new, "close_transport", 2)


async def test_when_the_new_node_dies_too_the_client_joins_anew(world: World) -> None:
    ann = await world.join(hello("ann", region="us"))
    old = ann.all("join")[0].participant.attributes["headwater.node"]
    new = "us-2" if old == "us-1" else "us-1"
    await publish(ann)
    drain(world, old)
    await until(lambda: ann.closed, 15, "ann's WebSocket is closed")
    back = await resume(world, ann, "us")
    await world.kill(new)
    leave = await back.wait("leave")
    assert leave.action == RECONNECT, "half-way there: a new join is the sure way"
    await world.command(old, "close_transport", 2)


async def test_a_node_that_thaws_is_told_that_the_room_went_on_without_it(world: World) -> None:
    ann = await world.join(hello("ann", region="us"))
    frozen = ann.all("join")[0].participant.attributes["headwater.node"]
    node = world.nodes[frozen]
    node.frozen = True
    await until(lambda: frozen not in world.directory.room(RoomId("demo")).state.nodes, 15, "given up")
    assert world.commands(frozen, "close_room") == []
    node.frozen = False
    await world.command(frozen, "close_room")
    new = "us-2" if frozen == "us-1" else "us-1"
    connected(world, new, ann.sid, "sub")
    event = node_pb2.TransportEvent(transport_id=f"{ann.sid}/sub", state=node_pb2.TRANSPORT_FAILED)
    world.emit(frozen, node_pb2.Event(transport=event))
    await until(lambda: ann.kinds().count("offer") >= 2, 15, "ann was offered her new node")
    assert ann.all("leave") == []


async def test_the_new_node_is_told_which_ssrc_carries_which_layer(world: World) -> None:
    ann = await world.join(hello("ann", region="us"))
    old = ann.all("join")[0].participant.attributes["headwater.node"]
    new = "us-2" if old == "us-1" else "us-1"
    ann.add_track("video", "cam")
    await ann.wait("track_published")
    ann.offer(("video", "cam"))
    await ann.wait("answer")
    first = await world.command(old, "configure_receive", match=lambda c: len(c.sections) == 1)
    assert [layer.ssrc for layer in first.sections[0].layers] == [0, 0, 0]
    learnt = [
        node_pb2.Layer(rid=rid, spatial=spatial, ssrc=100 + spatial, rtx_ssrc=200 + spatial)
        for spatial, rid in enumerate("qhf")
    ]
    event = node_pb2.SourcesEvent(transport_id=f"{ann.sid}/pub", mid=first.sections[0].mid, layers=learnt)
    world.emit(old, node_pb2.Event(sources=event))
    await until(
        lambda: world.directory.room(RoomId("demo")).state.participants[ann.sid].sources,  # type: ignore[union-attr]
        3,
        "the room knows",
    )
    drain(world, old)
    told = await world.command(new, "configure_receive")
    assert [(x.ssrc, x.rtx_ssrc) for x in told.sections[0].layers] == [(100, 200), (101, 201), (102, 202)]


async def test_a_publisher_of_layers_that_nobody_could_tell_apart_joins_anew(world: World) -> None:
    ann = await world.join(hello("ann", region="us"))
    ann.add_track("video", "cam")
    await ann.wait("track_published")
    ann.offer(("video", "cam"))
    await ann.wait("answer")
    drain(world, ann.all("join")[0].participant.attributes["headwater.node"])
    leave = await ann.wait("leave", within_s=5)
    assert (leave.reason, leave.action) == (models.DisconnectReason.MIGRATION, RECONNECT)


async def test_data_channels_are_adopted_by_the_new_node(world: World) -> None:
    ann = await world.join(hello("ann", region="us"))
    old = ann.all("join")[0].participant.attributes["headwater.node"]
    new = "us-2" if old == "us-1" else "us-1"
    await publish(ann)
    connected(world, old, ann.sid, "sub")
    drain(world, old)
    made = await world.command(new, "create_transport", match=lambda c: c.transport_id.endswith("/sub"))
    assert [(c.label, c.established, c.stream_id) for c in made.data_channels] == [
        ("_reliable", True, 1),
        ("_lossy", True, 3),
    ]
    back = await resume(world, ann, "us")
    rows = [
        rtc.DataChannelInfo(label="_lossy", id=0, target=rtc.SignalTarget.PUBLISHER),
        rtc.DataChannelInfo(label="_reliable", id=2, target=rtc.SignalTarget.PUBLISHER),
        rtc.DataChannelInfo(label="_reliable", id=1, target=rtc.SignalTarget.SUBSCRIBER),
        rtc.DataChannelInfo(label="far", id=70_000, target=rtc.SignalTarget.PUBLISHER),
    ]
    back.say(sync_state=rtc.SyncState(data_channels=rows))
    adopted = await world.command(new, "adopt_data_channels")
    assert adopted.transport_id == f"{ann.sid}/pub"
    assert [(c.label, c.ordered, c.max_retransmits, c.stream_id) for c in adopted.data_channels] == [
        ("_lossy", False, 0, 0),
        ("_reliable", True, -1, 2),
    ]


async def lead(world: World, identity: str, node: str | None = None, region: str | None = None) -> str:
    """Where it is, or is led."""
    room = world.directory.room(RoomId("demo"))
    assert room is not None
    wanted = NodeId(node) if node is not None else None
    there = RegionName(region) if region is not None else None
    await room.ask(lambda _, now: room.mover.lead(identity, now, node_id=wanted, region=there))
    found = room.state.of_identity(identity)
    assert found is not None
    return found.node_id


async def test_one_participant_is_led_to_another_node_because_the_api_asks(world: World) -> None:
    ann, bob = await world.join(hello("ann", region="us")), await world.join(hello("bob", region="us"))
    old = ann.all("join")[0].participant.attributes["headwater.node"]
    new = "us-2" if old == "us-1" else "us-1"
    await publish(ann)
    assert await lead(world, "ann") == new
    await until(lambda: ann.closed, 15, "ann's WebSocket is closed")
    back = await resume(world, ann, "us")
    back.offer(("audio", "mic"), ufrag="new1")
    await back.wait("answer")
    connected(world, new, ann.sid, "pub")
    connected(world, new, ann.sid, "sub")
    await world.command(old, "close_transport", 2)
    seen = bob.roster()["ann"]
    assert (seen.sid, seen.attributes["headwater.node"]) == (ann.sid, new)
    assert ann.all("leave") == back.all("leave") == bob.all("leave") == []
    assert bob.roster()["bob"].attributes["headwater.node"] == old
    assert await lead(world, "ann", new) == new, "it is there"
    assert await lead(world, "bob", region="us") == old, "it is in that region"
    assert await lead(world, "bob", region="eu") == "eu-1"
    await world.command("eu-1", "create_transport", match=lambda c: c.transport_id == f"{bob.sid}/sub")


async def test_who_cannot_be_led_stays_and_the_api_hears_why(world: World) -> None:
    ann = await world.join(hello("ann", region="us"))
    old = ann.all("join")[0].participant.attributes["headwater.node"]

    async def refusal(identity: str, node: str | None = None, region: str | None = None) -> Reason:
        with pytest.raises(RoomError) as caught:
            await lead(world, identity, node, region)
        return caught.value.reason

    assert await refusal("nobody") == Reason.PARTICIPANT_NOT_FOUND
    assert await refusal("ann", "us-9") == Reason.PARAMETER_INVALID
    assert await refusal("ann", region="moon") == Reason.PARAMETER_INVALID
    drain(world, "eu-1")
    await until(lambda: any(n.draining for n in world.directory.pool.views()), 15, "eu-1 drains")
    assert await refusal("ann", "eu-1") == Reason.NO_CAPACITY
    assert ann.closed is None and world.commands(old, "close_transport") == []
    assert await lead(world, "ann") != old
    assert await refusal("ann") == Reason.PARTICIPANT_NOT_MOVABLE, "it is on its way"


async def test_a_crowd_comes_back_spread_out_and_a_few_at_once() -> None:
    for crowd, at_once in ((CROWD, True), (4 * CROWD, False)):
        state = RoomState(RoomId("demo"), "RM_1", RoomConfig(), 0, 0.0, CountingIds())
        nodes = [
            NodeFacts(NodeId(name), RegionName("eu"), "1", ("127.0.0.1:1",), "sha-256 AB", 10_000)
            for name in ("eu-1", "eu-2")
        ]
        for number in range(crowd):
            request = JoinRequest(ParticipantIdentity(f"p{number}"), protocol=16)
            roster.join(state, request, nodes[0], now=0.0, unix_ms=0)
        pool = FakePool(nodes[1])
        view = PlacementView((), (NodeView(nodes[1].node_id, RegionName("eu"), 0, 10_000),))
        mover = Mover(state, pool, lambda view=view: view, lambda: 0)  # type: ignore[arg-type, misc]
        state.take_effects()
        mover.lose_node(nodes[0].node_id, "dead", 1.0)
        moves = [e for e in state.take_effects() if isinstance(e, MoveSession)]
        assert {move.head_start_s for move in moves} == {0.0}, "nothing flows while they wait"
        delays = [move.delay_s for move in moves]
        assert len(delays) == crowd
        assert (max(delays) == 0.0) is at_once
        assert max(delays) <= crowd / RETURNS_PER_S
        if not at_once:
            early = sum(d < crowd / RETURNS_PER_S / 2 for d in delays)
            assert crowd / 3 < early < crowd * 2 / 3


@dataclass
class FakePool:
    """A pool with one node."""

    node: NodeFacts
    decisions: Decisions = field(default_factory=Decisions)

    def facts(self, _: NodeId) -> NodeFacts:
        return self.node

    def promise(self, _: NodeId) -> None:
        pass
