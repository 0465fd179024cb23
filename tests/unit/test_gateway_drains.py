"""Rooms leave nodes that drain: at the node's pace, hubs first, nobody dropped."""

import random

import pytest
from headwater_api.ids import NodeId, ParticipantIdentity, RegionName, RoomId
from headwater_api.reasons import Reason
from headwater_gateway.nodes.facts import NodeFacts
from headwater_gateway.room import drains, effects, roster
from headwater_gateway.room.drains import empty_nodes, here_on
from headwater_gateway.room.model import JoinRequest, Participant, RoomConfig
from headwater_gateway.room.state import RoomState
from headwater_planner.moves import Leaving
from headwater_planner.place import Placement, Refusal
from support.counting_ids import CountingIds

OLD, NEW = NodeId("eu-1"), NodeId("eu-2")
RNG = random.Random(1)
FULL = Refusal(Reason.NO_CAPACITY, "No node in eu has room.")


def facts(name: str) -> NodeFacts:
    return NodeFacts(NodeId(name), RegionName(name[:2]), "1", ("127.0.0.1:7000",), "sha-256 AB", 1000)


@pytest.fixture
def room() -> RoomState:
    return RoomState(RoomId("demo"), "RM_1", RoomConfig(), 1000, 0.0, CountingIds())


def join(room: RoomState, who: str, node: str) -> Participant:
    request = JoinRequest(ParticipantIdentity(who), region=RegionName(node[:2]))
    return roster.join(room, request, facts(node), now=0.0, unix_ms=0)


def elsewhere(_: Participant) -> Placement:
    return Placement(NEW, RegionName("eu"), Reason.PLACED_IN_REGION, "")


def nowhere(_: Participant) -> Refusal:
    return FULL


def leaving(room: RoomState, rate: float, **changes: bool) -> dict[NodeId, Leaving]:
    here = here_on(room, OLD)
    return {OLD: Leaving(OLD, rate, here, here, **changes)}


def commands(room: RoomState, node: str, kind: str) -> int:
    return sum(
        command.WhichOneof("command") == kind
        for effect in room.effects
        if isinstance(effect, effects.ToNode) and effect.node_id == node
        for command in effect.commands
    )


def test_all_leave_at_the_rate_and_the_node_is_told_to_close_the_room(room: RoomState) -> None:
    for i in range(20):
        join(room, f"p{i}", OLD)
    now, moved = 0.0, 0
    while here_on(room, OLD):
        moved += len(empty_nodes(room, leaving(room, 10.0), elsewhere, now, RNG).moved)
        assert moved <= 3 + 20 * now
        assert room.moves_due is not None and room.moves_due > now
        now = room.moves_due
    assert moved == 20 and 1.0 <= now <= 4.0
    assert commands(room, OLD, "close_room") == 1
    assert OLD not in room.nodes


def test_a_cancelled_drain_stops_the_moves(room: RoomState) -> None:
    for i in range(10):
        join(room, f"p{i}", OLD)
    empty_nodes(room, leaving(room, 4.0), elsewhere, 0.0, RNG)
    empty_nodes(room, leaving(room, 4.0), elsewhere, 1.0, RNG)
    left = here_on(room, OLD)
    assert 0 < left < 10
    assert empty_nodes(room, {}, elsewhere, 60.0, RNG).moved == {}
    assert here_on(room, OLD) == left
    assert (room.moves_due, room.drains, room.cascade.avoid) == (None, {}, frozenset())


def test_past_the_deadline_the_rest_goes_at_once(room: RoomState) -> None:
    for i in range(30):
        join(room, f"p{i}", OLD)
    done = empty_nodes(room, leaving(room, 0.1, overdue=True), elsewhere, 0.0, RNG)
    assert len(done.moved) == 30


def test_who_finds_no_place_stays_and_the_reason_is_told(room: RoomState) -> None:
    for i in range(5):
        join(room, f"p{i}", OLD)
    done = empty_nodes(room, leaving(room, 1.0, overdue=True), nowhere, 0.0, RNG)
    assert (done.moved, done.stuck) == ({}, {OLD: FULL})
    assert here_on(room, OLD) == 5
    assert not any(isinstance(effect, effects.EndSession) for effect in room.effects)


def test_a_hub_hands_over_before_its_participants_move(room: RoomState) -> None:
    join(room, "a", OLD)
    join(room, "b", OLD)
    join(room, "c", NEW)
    join(room, "d", "us-1")
    assert room.cascade.topology.hubs[RegionName("eu")] == OLD
    room.take_effects()
    empty_nodes(room, leaving(room, 0.001), elsewhere, 0.0, RNG)
    assert room.cascade.topology.hubs[RegionName("eu")] == NEW
    assert commands(room, NEW, "open_relay") == 1
    assert here_on(room, OLD) == 2
    assert drains.here_on(room, NEW) == 1


def test_a_hub_without_a_successor_stays_hub(room: RoomState) -> None:
    join(room, "a", OLD)
    join(room, "d", "us-1")
    empty_nodes(room, leaving(room, 0.001), elsewhere, 0.0, RNG)
    assert room.cascade.topology.hubs[RegionName("eu")] == OLD


def test_who_is_awaited_after_a_takeover_is_led_away_once_back_or_joins_anew_past_the_deadline(
    room: RoomState,
) -> None:
    request = JoinRequest(ParticipantIdentity("ann"), region=RegionName("eu"), protocol=16)
    ann = roster.join(room, request, facts(OLD), now=0.0, unix_ms=0)
    ann.is_awaited = True
    empty_nodes(room, leaving(room, 100.0), lambda _: facts(NEW), 0.0, RNG)
    assert not empty_nodes(room, leaving(room, 100.0), lambda _: facts(NEW), 1.0, RNG).moved
    ann.is_awaited = False  # back
    assert empty_nodes(room, leaving(room, 100.0), lambda _: facts(NEW), 2.0, RNG).moved == {ann.sid: NEW}
    assert ann.migration is not None and ann.node_id == NEW

    request = JoinRequest(ParticipantIdentity("bob"), region=RegionName("eu"), protocol=16)
    bob = roster.join(room, request, facts(OLD), now=2.0, unix_ms=0)
    bob.is_awaited = True
    empty_nodes(room, leaving(room, 100.0, overdue=True), lambda _: facts(NEW), 3.0, RNG)
    assert bob.migration is None, "nobody is there to lead it"
    assert bob.moving_at == 3.0, "its client hears RECONNECT when it comes back"
