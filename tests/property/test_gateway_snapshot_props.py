"""Snapshots travel whole, and what a split room's halves knew is merged the same way by everybody."""

import json
import zlib
from typing import Any

import pytest
from headwater_api.ids import GatewayId, NodeId, ParticipantIdentity, RegionName, RoomId
from headwater_gateway.nodes.facts import NodeFacts
from headwater_gateway.room import access, codec, roster, snapshot, tracks
from headwater_gateway.room.access import Access, Role
from headwater_gateway.room.merge import merge, stricter
from headwater_gateway.room.model import JoinRequest, RoomConfig
from headwater_gateway.room.snapshot import Claim, Snapshot, SnapshotError
from headwater_gateway.room.state import RoomState
from headwater_planner.cascade import CascadePolicy
from headwater_planner.hub_tree import RegionMap
from hypothesis import given, settings
from hypothesis import strategies as st
from livekit.protocol import models, rtc
from support.counting_ids import CountingIds

SETTINGS = settings(max_examples=60, deadline=None)
NODES = [
    NodeFacts(NodeId(f"n{n}"), RegionName("eu"), "1", (f"127.0.0.1:{n}",), "sha-256 AB", 9) for n in (1, 2)
]
IDENTITIES = st.sampled_from([ParticipantIdentity(name) for name in "abcdef"])
PERMISSIONS = st.builds(
    models.ParticipantPermission,
    can_subscribe=st.booleans(),
    can_publish=st.booleans(),
    can_publish_data=st.booleans(),
    can_publish_sources=st.lists(st.sampled_from([1, 2, 3]), unique=True, max_size=3).map(sorted),
)
ACCESS = st.builds(
    Access,
    locked=st.none() | st.booleans(),
    admitted=st.sets(IDENTITIES),
    denied=st.sets(IDENTITIES),
    banned=st.sets(IDENTITIES),
    revoked=st.dictionaries(IDENTITIES, st.integers(0, 9)),
    roles=st.dictionaries(IDENTITIES, st.sampled_from(Role)),
    permissions=st.dictionaries(IDENTITIES, PERMISSIONS, max_size=3),
    host_came=st.booleans(),
    is_recorded=st.booleans(),
)
CONFIGS = st.builds(
    RoomConfig,
    max_participants=st.integers(0, 3),
    locked=st.booleans(),
    waiting_room=st.booleans(),
    join_before_host=st.booleans(),
    e2ee_required=st.booleans(),
    has_ended=st.booleans(),
    allowed_regions=st.frozensets(st.sampled_from([RegionName("eu"), RegionName("us")])),
)


def room(people: list[tuple[str, int]], config: RoomConfig | None = None, ids: Any = None) -> RoomState:
    """A room that these (identity, node) joined in turn, each with a track."""
    state = RoomState(RoomId("r"), "RM_1", config or RoomConfig(), 1, 1.0, ids or CountingIds())
    for at, (identity, node) in enumerate(people):
        request = JoinRequest(
            ParticipantIdentity(identity),
            name=identity.upper(),
            attributes={"k": identity},
            permission=models.ParticipantPermission(can_publish=True, can_subscribe=True),
        )
        person = roster.join(state, request, NODES[node], now=5.0, unix_ms=10 + at)
        add = rtc.AddTrackRequest(cid=f"c{at}", name="mic", type=models.TrackType.AUDIO)
        tracks.add_track(state, person, add, 5.0)
        person.detached_at = 4.0
    state.take_effects()
    return state


def shown(state: RoomState) -> dict[str, Any]:
    return codec.pack(state, 100.0)


PEOPLE = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 1)), max_size=5)


@SETTINGS
@given(PEOPLE, CONFIGS, ACCESS, st.floats(6, 1e6))
def test_a_room_travels_whole(
    people: list[tuple[str, int]], config: RoomConfig, acc: Access, there: float
) -> None:
    state = room(people, config)
    state.access = acc
    blob = snapshot.encode(state, Claim(7, GatewayId("gw")), 3, {"5/a": 2}, 6.0)
    found = snapshot.decode(blob)
    assert (found.room_id, found.claim) == ("r", Claim(7, GatewayId("gw")))
    assert (found.version, found.seen) == (3, {"5/a": 2})
    again = snapshot.restore(found, CountingIds(), there)
    assert (
        again.participants.keys() == state.participants.keys() and again.tracks.keys() == state.tracks.keys()
    )
    assert again.by_identity == state.by_identity
    assert codec.pack(again, there) == codec.pack(state, 6.0), "times are ages"
    for person in again.participants.values():
        assert person.detached_at == pytest.approx(there - 2.0, abs=0.01)


def test_a_clusters_own_cascade_policy_travels() -> None:
    times = RegionMap(times_ms={(RegionName("eu"), RegionName("us")): 40.0})
    state = room([("a", 0)])
    state.cascade.policy = CascadePolicy("Tree", 2, times)
    found = snapshot.decode(snapshot.encode(state, Claim(7, GatewayId("gw")), 3, {}, 6.0))
    assert snapshot.restore(found, CountingIds(), 6.0).cascade.policy == state.cascade.policy
    shape = codec.pack(state.cascade.policy, 6.0) | {"shape": "Ring"}
    with pytest.raises(codec.CodecError, match="'Ring' is none of 'Auto', 'Mesh', 'Tree'"):
        codec.unpack(CascadePolicy, shape, 6.0)


def test_neighbouring_versions_read_each_other() -> None:
    state = room([("a", 0)])
    blob = snapshot.encode(state, Claim(7, GatewayId("gw")), 3, {}, 6.0)
    body = json.loads(zlib.decompress(blob[5:]))
    body["news"], body["state"]["unheard_of"] = 1, {"x": 2}
    newer = blob[:5] + zlib.compress(json.dumps(body).encode())
    assert shown(snapshot.restore(snapshot.decode(newer), CountingIds(), 6.0)) == shown(
        snapshot.restore(snapshot.decode(blob), CountingIds(), 6.0)
    )


@SETTINGS
@given(st.binary(max_size=200))
def test_bytes_that_are_no_snapshot_are_refused(junk: bytes) -> None:
    for blob in (junk, b"HWRS\x01" + junk, b"HWRS\x01" + zlib.compress(junk), b"HWRS\xff" + junk):
        with pytest.raises(SnapshotError):
            snapshot.restore(snapshot.decode(blob), CountingIds(), 1.0)


def test_a_room_too_large_goes_without_its_roster(monkeypatch: pytest.MonkeyPatch) -> None:
    state = room([("a", 0), ("b", 1)])
    state.access.ban(ParticipantIdentity("eve"))
    monkeypatch.setattr(snapshot, "MAX_BLOB_BYTES", 500)
    found = snapshot.decode(snapshot.encode(state, Claim(1, GatewayId("gw")), 1, {}, 6.0))
    small = snapshot.restore(found, CountingIds(), 6.0)
    assert not small.participants and small.access.banned == {"eve"}
    monkeypatch.setattr(snapshot, "MAX_BLOB_BYTES", 5)
    with pytest.raises(SnapshotError, match="larger than"):
        snapshot.encode(state, Claim(1, GatewayId("gw")), 1, {}, 6.0)


# -- merging ---------------------------------------------------------------------------------------

CLAIMS = st.builds(Claim, st.integers(1, 3), st.sampled_from([GatewayId("a"), GatewayId("b")]))
SNAPSHOTS = st.builds(
    Snapshot,
    st.just(RoomId("r")),
    CLAIMS,
    st.integers(1, 3),
    st.just({}),
    st.dictionaries(st.sampled_from(["1/a", "1/b", "2/a"]), st.integers(1, 3), max_size=2),
)


def ranks(snapshots: Any) -> set[Any]:
    return {s.rank() for s in snapshots}


@SETTINGS
@given(st.lists(SNAPSHOTS, max_size=5, unique_by=Snapshot.rank))
def test_the_newest_snapshots_do_not_depend_on_the_order(found: list[Snapshot]) -> None:
    newest = snapshot.newest(found)
    assert ranks(snapshot.newest(reversed(found))) == ranks(newest)
    assert ranks(snapshot.newest([*found, *found])) == ranks(newest)
    assert ranks(snapshot.newest(newest)) == ranks(newest)
    assert (
        not found
        or newest
        or any(a.contains(b) and b.contains(a) for a in found for b in found if a is not b)
    )


@SETTINGS
@given(ACCESS, ACCESS, ACCESS)
def test_who_may_come_in_is_merged_the_same_way_by_everybody(a: Access, b: Access, c: Access) -> None:
    def packed(value: Access) -> object:
        return codec.pack(value, 0.0)

    assert packed(access.merge(a, b)) == packed(access.merge(b, a))
    assert packed(access.merge(access.merge(a, b), c)) == packed(access.merge(a, access.merge(b, c)))
    both = access.merge(a, b)
    assert packed(access.merge(both, both)) == packed(both)
    assert packed(access.merge(both, a)) == packed(both), "nothing that is merged makes it less strict again"
    assert both.banned == a.banned | b.banned and both.denied == a.denied | b.denied
    assert both.locked or not (a.locked or b.locked)
    assert not both.admitted & (both.banned | both.denied)


@SETTINGS
@given(CONFIGS, CONFIGS)
def test_the_stricter_policy_holds(a: RoomConfig, b: RoomConfig) -> None:
    one, other = stricter(a, b), stricter(b, a)
    for field in ("locked", "waiting_room", "e2ee_required", "has_ended"):
        assert getattr(one, field) == getattr(other, field) == (getattr(a, field) or getattr(b, field))
    assert one.join_before_host == other.join_before_host == (a.join_before_host and b.join_before_host)
    limits = [c.max_participants for c in (a, b) if c.max_participants]
    assert one.max_participants == other.max_participants == min(limits, default=0)


@SETTINGS
@given(PEOPLE, PEOPLE, PEOPLE)
def test_a_merged_roster_has_each_identity_once_and_the_latest(
    a: list[tuple[str, int]], b: list[tuple[str, int]], c: list[tuple[str, int]]
) -> None:
    def halves() -> list[RoomState]:
        ids = CountingIds()
        return [room(people, ids=ids) for people in (a, b, c)]

    def people(state: RoomState) -> list[str]:
        return sorted(state.participants)

    x, y, z = halves()
    left = merge([merge([x, y]), z])
    x, y, z = halves()
    right = merge([x, merge([y, z])])
    x, y, z = halves()
    backwards = merge([z, y, x])
    assert people(left) == people(right) == people(backwards)
    assert len(left.by_identity) == len(left.participants)
    joined = [p for half in halves() for p in half.participants.values()]
    for identity, sid in left.by_identity.items():
        latest = max((p.joined_at_ms, p.sid) for p in joined if p.identity == identity)
        assert (left.participants[sid].joined_at_ms, sid) == latest
    assert set(left.tracks) == {t for p in left.participants.values() for t in p.tracks}


_plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@SETTINGS
@given(_plain)
def test_what_is_written_fast_reads_as_what_json_writes(value: object) -> None:
    assert json.loads(snapshot._PLAIN.dump_json(value)) == value
