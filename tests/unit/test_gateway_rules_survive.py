"""What hosts decide holds in the room's next actor, on whichever gateway that is."""

from dataclasses import replace

import pytest
from headwater_api.ids import GatewayId, NodeId, ParticipantIdentity, RegionName, RoomId
from headwater_api.reasons import Reason
from headwater_gateway.nodes.facts import NodeFacts
from headwater_gateway.room import moderation, roster
from headwater_gateway.room.access import Role
from headwater_gateway.room.model import JoinRequest, RoomConfig
from headwater_gateway.room.policy import check_join
from headwater_gateway.room.ports import JoinRefusal
from headwater_gateway.room.rules import is_barred
from headwater_gateway.room.snapshot import Claim, decode, encode, restore
from headwater_gateway.room.state import RoomState
from livekit.protocol import models
from support.counting_ids import CountingIds

CONFIG = RoomConfig(
    is_declared=True,
    password="f1",
    waiting_room=True,
    invited=frozenset(map(ParticipantIdentity, ("ann", "bob", "carl", "dan", "eve"))),
    hosts=frozenset({ParticipantIdentity("ann")}),
    e2ee_required=True,
)
NODE = NodeFacts(NodeId("eu-1"), RegionName("eu"), "1", ("127.0.0.1:7000",), "sha-256 AB", 1000)


def _request(who: str, **changes: object) -> JoinRequest:
    grants = models.ParticipantPermission(can_publish=True, can_subscribe=True)
    made = JoinRequest(ParticipantIdentity(who), permission=grants, password="f1")
    return replace(made, **changes)  # type: ignore[arg-type]


def _taken_over() -> RoomState:
    room = RoomState(RoomId("demo"), "RM_1", CONFIG, 1000, 0.0, CountingIds())
    ann = roster.join(room, _request("ann"), NODE, now=0.0, unix_ms=5000, role=Role.HOST)
    assert ann.role is Role.HOST
    roster.join(room, _request("cam", is_http=True), NODE, now=0.0, unix_ms=5000)
    moderation.admit(room, [ParticipantIdentity("bob"), ParticipantIdentity("carl")], let_in=True)
    moderation.remove(room, "eve", 1.0, ban=True)
    moderation.set_permission(
        room, roster.join(room, _request("bob"), NODE, now=1.0, unix_ms=5000), _mute(), 1.0
    )
    moderation.set_role(room, "bob", Role.COHOST, 1.0)
    room.access.revoked[ParticipantIdentity("carl")] = 500
    moderation.set_lock(room, True)
    blob = encode(room, Claim(7, GatewayId("gw-0")), 3, {}, 2.0)
    return restore(decode(blob), CountingIds(), 2.0)


def _mute() -> models.ParticipantPermission:
    return models.ParticipantPermission(can_subscribe=True)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (_request("eve"), Reason.BANNED),
        (_request("dan", password=""), Reason.PASSWORD_REQUIRED),
        (_request("zoe"), Reason.NOT_INVITED),
        (_request("dan"), Reason.ROOM_LOCKED),
        (_request("carl", issued_at=499), Reason.TOKEN_REVOKED),
    ],
    ids=lambda value: str(getattr(value, "identity", value)),
)
def test_refusals_are_the_same_after_a_takeover(request_: JoinRequest, reason: Reason) -> None:
    with pytest.raises(JoinRefusal) as refusal:
        check_join(_taken_over(), request_, 10_000)
    assert refusal.value.reason is reason


def test_roles_and_permissions_are_the_same_after_a_takeover() -> None:
    room = _taken_over()
    assert check_join(room, _request("bob"), 10_000) is Role.COHOST
    assert check_join(room, _request("ann"), 10_000) is Role.HOST
    again = roster.join(room, _request("bob"), NODE, now=3.0, unix_ms=5000, role=Role.COHOST)
    assert not again.permission.can_publish
    assert room.access.host_came
    assert is_barred(room.access, ParticipantIdentity("eve"))
    moderation.set_lock(room, False)
    assert check_join(room, _request("carl", issued_at=600), 10_000) is Role.PARTICIPANT
    with pytest.raises(JoinRefusal) as refusal:
        check_join(room, _request("dan"), 10_000)
    assert refusal.value.reason is Reason.IN_WAITING_ROOM


def test_a_participant_without_a_websocket_stays_one() -> None:
    room = _taken_over()
    there = room.of_identity("cam")
    assert there is not None and there.is_http
    there.state = models.ParticipantInfo.ACTIVE
    roster.expire(room, 1000.0)
    assert room.of_identity("cam") is not None, "its media says whether it is there"
