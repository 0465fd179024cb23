"""Who is relayed by a TURN server, and who is sent another way when it goes."""

from headwater_api.ids import NodeId, ParticipantIdentity, RegionName, RoomId
from headwater_api.nodev1 import node_pb2
from headwater_gateway.nodes.facts import NodeFacts
from headwater_gateway.room import effects, events, roster
from headwater_gateway.room.model import JoinRequest, Participant, RoomConfig, publisher_transport
from headwater_gateway.room.relayed import restart_over
from headwater_gateway.room.state import RoomState
from livekit.protocol import models, rtc
from support.counting_ids import CountingIds

NODE = NodeId("eu-1")
FACTS = NodeFacts(NODE, RegionName("eu"), "1", ("127.0.0.1:7882",), "sha-256 AB", 1000)
RELAY = "203.0.113.7"


def a_room() -> RoomState:
    return RoomState(RoomId("demo"), "RM_1", RoomConfig(), 1000, 0.0, CountingIds())


def join(room: RoomState, who: str) -> Participant:
    permission = models.ParticipantPermission(can_subscribe=True, can_publish=True)
    request = JoinRequest(ParticipantIdentity(who), permission=permission)
    return roster.join(room, request, FACTS, now=0.0, unix_ms=5000)


def comes_from(
    room: RoomState,
    who: Participant,
    address: str,
    state: node_pb2.TransportState = node_pb2.TRANSPORT_CONNECTED,
) -> None:
    event = node_pb2.TransportEvent(
        transport_id=publisher_transport(who.sid), state=state, remote_address=address
    )
    events.handle_event(room, NODE, node_pb2.Event(room_id="demo", transport=event), 1.0)


def leaves(room: RoomState) -> list[tuple[tuple[str, ...], rtc.LeaveRequest]]:
    return [
        (e.sids, e.message.leave)
        for e in room.take_effects()
        if isinstance(e, effects.ToClients) and e.message.WhichOneof("message") == "leave"
    ]


def test_only_those_who_come_over_the_dead_server_resume() -> None:
    room = a_room()
    ann, bob, cid = (join(room, name) for name in ("ann", "bob", "cid"))
    comes_from(room, ann, f"{RELAY}:61000")
    comes_from(room, bob, "198.51.100.1:40000")
    comes_from(room, cid, "203.0.113.70:61000")
    room.take_effects()
    assert restart_over(room, RELAY) == [ann.sid]
    ((sids, leave),) = leaves(room)
    assert sids == (ann.sid,)
    assert (leave.action, leave.can_reconnect) == (rtc.LeaveRequest.RESUME, True)
    assert set(room.participants) == {ann.sid, bob.sid, cid.sid}, "nobody leaves the room"


def test_the_last_address_counts() -> None:
    room = a_room()
    ann = join(room, "ann")
    comes_from(room, ann, f"{RELAY}:61000")
    comes_from(room, ann, "198.51.100.1:40000")
    assert restart_over(room, RELAY) == []
    comes_from(room, ann, "[2001:db8::7]:61000")
    assert restart_over(room, "2001:db8::7") == [ann.sid]


def test_a_transport_that_failed_has_no_address() -> None:
    room = a_room()
    ann = join(room, "ann")
    comes_from(room, ann, f"{RELAY}:61000")
    comes_from(room, ann, "", node_pb2.TRANSPORT_FAILED)
    assert restart_over(room, RELAY) == []
