"""Who comes into a meeting, as a function of its rules and of what its hosts have decided."""

from dataclasses import replace

import pytest
from headwater_api.ids import ParticipantIdentity
from headwater_api.reasons import Reason
from headwater_gateway.room.access import MAX_WAITING, Access, Role, merge
from headwater_gateway.room.model import JoinRequest, RoomConfig
from headwater_gateway.room.ports import JoinRefusal
from headwater_gateway.room.rules import check_rules, permission_of
from headwater_gateway.signal.session_runner import permission
from headwater_gateway.signal.types import VideoGrant
from livekit.protocol import models

BOB = ParticipantIdentity("bob")
NOW = 1_900_000_000_000
ANY = JoinRequest(BOB, permission=models.ParticipantPermission(can_publish=True, can_subscribe=True))
HOST = replace(ANY, role=Role.HOST)


def verdict(
    config: RoomConfig, access: Access | None = None, request: JoinRequest = ANY, **more: bool
) -> str:
    """`ok`, or the reason of the refusal."""
    try:
        check_rules(config, access or Access(), request, NOW, **more)
    except JoinRefusal as refusal:
        return str(refusal.reason)
    return "ok"


CASES = [
    ("no rules", RoomConfig(), Access(), ANY, "ok"),
    ("ended", RoomConfig(has_ended=True), Access(), HOST, Reason.MEETING_ENDED),
    ("unreadable", RoomConfig(unreadable="x"), Access(), HOST, Reason.MEETING_UNREADABLE),
    ("banned", RoomConfig(), Access(banned={BOB}), HOST, Reason.BANNED),
    ("revoked", RoomConfig(), Access(revoked={BOB: 100}), replace(ANY, issued_at=99), Reason.TOKEN_REVOKED),
    ("newer token", RoomConfig(), Access(revoked={BOB: 100}), replace(ANY, issued_at=100), "ok"),
    ("not invited", RoomConfig(invited=frozenset({"ann"})), Access(), ANY, Reason.NOT_INVITED),
    ("invited", RoomConfig(invited=frozenset({"bob"})), Access(), ANY, "ok"),
    ("no password", RoomConfig(password="f1"), Access(), ANY, Reason.PASSWORD_REQUIRED),
    (
        "old password",
        RoomConfig(password="f1"),
        Access(),
        replace(ANY, password="f0"),
        Reason.PASSWORD_REQUIRED,
    ),
    ("password", RoomConfig(password="f1"), Access(), replace(ANY, password="f1"), "ok"),
    ("host needs none", RoomConfig(password="f1", locked=True), Access(), HOST, "ok"),
    ("early", RoomConfig(opens_at_ms=NOW + 1), Access(), ANY, Reason.MEETING_NOT_STARTED),
    ("locked", RoomConfig(locked=True), Access(), ANY, Reason.ROOM_LOCKED),
    ("locked by a host", RoomConfig(), Access(locked=True), ANY, Reason.ROOM_LOCKED),
    ("unlocked by a host", RoomConfig(locked=True), Access(locked=False), ANY, "ok"),
    ("before the host", RoomConfig(join_before_host=False), Access(), ANY, Reason.WAITING_FOR_HOST),
    ("after the host", RoomConfig(join_before_host=False), Access(host_came=True), ANY, "ok"),
    ("waits", RoomConfig(waiting_room=True), Access(), ANY, Reason.IN_WAITING_ROOM),
    ("admitted", RoomConfig(waiting_room=True), Access(admitted={BOB}), ANY, "ok"),
    ("denied", RoomConfig(waiting_room=True), Access(denied={BOB}), ANY, Reason.ADMISSION_DENIED),
    ("co-host", RoomConfig(waiting_room=True), Access(roles={BOB: Role.COHOST}), ANY, "ok"),
    ("demoted host", RoomConfig(locked=True), Access(roles={BOB: Role.GUEST}), HOST, Reason.ROOM_LOCKED),
    ("host by Meeting", RoomConfig(locked=True, hosts=frozenset({"bob"})), Access(), ANY, "ok"),
    (
        "no consent",
        RoomConfig(recording_consent=True),
        Access(is_recorded=True),
        ANY,
        Reason.CONSENT_REQUIRED,
    ),
    (
        "token of a Meeting that is gone",
        RoomConfig(),
        Access(),
        replace(ANY, meeting="m"),
        Reason.MEETING_ENDED,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_rules(case: tuple[str, RoomConfig, Access, JoinRequest, str]) -> None:
    _, config, access, request, expected = case
    assert verdict(config, access, request) == expected


def test_who_was_in_comes_back_unless_banned_or_revoked() -> None:
    strict = RoomConfig(password="f1", waiting_room=True, locked=True, opens_at_ms=NOW + 1, has_ended=True)
    assert verdict(strict, returning=True) == "ok"
    assert verdict(strict, Access(banned={BOB}), returning=True) == Reason.BANNED
    assert verdict(strict, Access(revoked={BOB: 100}), returning=True) == Reason.TOKEN_REVOKED


def test_strangers_learn_no_more_than_the_first_reason() -> None:
    """Whether the room is locked, full or has its host is told to those with the password only."""
    config = RoomConfig(password="f1", waiting_room=True, locked=True, join_before_host=False)
    assert verdict(config) == Reason.PASSWORD_REQUIRED


def test_a_knock_is_told_once_and_fades() -> None:
    access = Access()
    assert access.knock(BOB, "Bob", NOW)
    assert not access.knock(BOB, "Bob", NOW + 2000)
    assert access.waiting[BOB].since_ms == NOW
    assert access.knock(BOB, "Bob", NOW + 200_000), "it had gone away meanwhile"
    for n in range(MAX_WAITING + 10):
        access.knock(ParticipantIdentity(f"p{n}"), "", NOW + 200_000)
    assert len(access.waiting) == MAX_WAITING


def test_a_ban_outdoes_an_admission() -> None:
    access = Access()
    access.admit([BOB])
    access.ban(BOB)
    access.admit([ParticipantIdentity("ann")])
    assert verdict(RoomConfig(waiting_room=True), access) == Reason.BANNED


def test_merging_two_sides_of_a_partition_keeps_the_stricter_values() -> None:
    permission = models.ParticipantPermission(can_publish=True, can_subscribe=True)
    narrow = models.ParticipantPermission(can_subscribe=True)
    mine = Access(locked=False, admitted={BOB}, roles={BOB: Role.COHOST}, permissions={BOB: permission})
    other = Access(locked=True, banned={ParticipantIdentity("eve")}, permissions={BOB: narrow})
    other.admitted = {ParticipantIdentity("eve")}
    for merged in (merge(mine, other), merge(other, mine)):
        assert merged.locked
        assert merged.banned == {"eve"}
        assert merged.admitted == set()
        assert merged.roles == {}
        assert not merged.permissions[BOB].can_publish
    camera, screen = models.TrackSource.CAMERA, models.TrackSource.SCREEN_SHARE
    one = models.ParticipantPermission(can_publish=True, can_publish_sources=[camera])
    two = models.ParticipantPermission(can_publish=True, can_publish_sources=[screen])
    both = merge(Access(permissions={BOB: one}), Access(permissions={BOB: two})).permissions[BOB]
    assert not both.can_publish, "an empty list of sources would allow every source"


def test_screen_share_is_taken_from_all_but_hosts() -> None:
    config = RoomConfig(allow_screen_share=False)
    screen = models.TrackSource.SCREEN_SHARE
    narrowed = permission_of(config, Access(), ANY, Role.PARTICIPANT)
    assert narrowed.can_publish and screen not in narrowed.can_publish_sources
    assert not permission_of(config, Access(), HOST, Role.HOST).can_publish_sources
    only = models.ParticipantPermission(can_publish=True, can_publish_sources=[screen])
    assert not permission_of(config, Access(), replace(ANY, permission=only), Role.GUEST).can_publish


def test_a_list_of_unknown_sources_allows_none() -> None:
    unknown = permission(VideoGrant(can_publish_sources=("mic",)))
    assert not unknown.can_publish and unknown.can_publish_data
    one = permission(VideoGrant(can_publish_sources=("mic", "Camera")))
    assert one.can_publish and list(one.can_publish_sources) == [models.TrackSource.CAMERA]
    assert permission(VideoGrant()).can_publish
