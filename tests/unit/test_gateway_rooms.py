"""A room's task and its directory: turns, full mailboxes, shutdown, and joins that meet a room's end."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from headwater_api.ids import NodeId, ParticipantSid, RoomId
from headwater_api.nodev1 import node_pb2
from headwater_gateway.room.mailbox import PLACES, Share
from headwater_gateway.room.ports import JoinRefusal
from headwater_gateway.room.state import RoomState
from livekit.protocol import models, rtc
from support.deadline import until
from support.fake_channel import hello
from support.gateway_world import World, gateway_world

ROOM = RoomId("demo")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with gateway_world() as made:
        yield made


async def test_a_busy_room_lets_the_rest_of_the_process_have_its_turn(world: World) -> None:
    room = world.directory.open(ROOM)
    done: list[float] = []

    def work(_: RoomState, now: float) -> None:
        end = time.monotonic() + 0.002
        while time.monotonic() < end:
            pass
        done.append(now)

    for _ in range(100):
        room.inform(work)
    await until(lambda: done, 15, "the room has begun", 0)
    turns = 0
    while len(done) < 100:
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 5


async def test_a_join_that_meets_the_rooms_end_gets_a_new_room(world: World) -> None:
    room = world.directory.open(ROOM)
    await room.ask(lambda state, now: None)
    client = world.connect(hello("ann"))  # asks the room behind its end
    room.end(models.DisconnectReason.ROOM_DELETED, "deleted")
    await client.wait("join")
    again = world.directory.room(ROOM)
    assert again is not None and again is not room and again.keeper.claim > room.keeper.claim
    assert world.directory.has_ended(ROOM, room.keeper.claim.epoch)


async def test_a_join_that_meets_a_handover_is_sent_to_the_next_gateway(world: World) -> None:
    room = world.directory.open(ROOM)
    await room.ask(lambda state, now: None)
    client = world.connect(hello("ann"))
    room.hand_over("shutdown")
    assert (await client.wait("leave")).action == rtc.LeaveRequest.RECONNECT
    assert world.directory.room(ROOM) is None


async def test_a_node_that_closes_the_room_as_it_was_told_is_not_lost(world: World) -> None:
    """Its last participants went, others have come since: the node tells of the end that we ordered."""
    ann = await world.join(hello("ann"))
    room = world.directory.room(ROOM)
    assert room is not None
    (node,) = room.state.nodes
    closed = node_pb2.RoomClosed(reason="closed by the controller")
    room.node_event(node, node_pb2.Event(room_id=ROOM, room_closed=closed))
    await room.ask(lambda state, now: None)
    assert node in room.state.nodes and room.state.participants[ParticipantSid(ann.sid)].migration is None


async def test_a_room_that_everybody_was_sent_from_answers_at_once(world: World) -> None:
    """Its node drained: a move is due, and there is nobody left to be moved, nor a node."""
    room = world.directory.open(ROOM)

    def drained(state: RoomState, now: float) -> None:
        state.moves_due = now - 1.0

    await room.ask(drained)
    async with asyncio.timeout(2):
        await world.join(hello("ann"))


async def test_a_due_time_that_stays_in_the_past_keeps_nobody_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headwater_gateway.room.actor.next_deadline", lambda state, now: -1.0)
    async with asyncio.timeout(4):
        await world.join(hello("ann"))


FLOOD = 2 * max(PLACES.values())  # nothing is read while it is posted: these tests do not wait


async def test_a_flood_of_requests_keeps_neither_commands_out_nor_who_goes(world: World) -> None:
    client = await world.join(hello("ann"))
    room = world.directory.room(ROOM)
    assert room is not None
    sid = ParticipantSid(client.sid)
    for _ in range(FLOOD):
        room.request(sid, rtc.SignalRequest())
    its_own = room.dropped_events - (FLOOD - PLACES[Share.REQUEST])
    assert 0 <= its_own < 10, "but for the few places of what its session asked before"
    await room.ask(lambda state, now: None)
    room.leave(sid, models.DisconnectReason.CLIENT_INITIATED)
    await until(lambda: not room.state.participants, 15, "who left is off the roster", 0.01)


async def test_a_flood_of_commands_is_refused_and_still_the_room_goes_on(world: World) -> None:
    room = world.directory.open(ROOM)
    asked = [asyncio.ensure_future(room.ask(lambda state, now: None)) for _ in range(FLOOD)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    refused = [a for a in answers if isinstance(a, JoinRefusal)]
    assert len(refused) == FLOOD - PLACES[Share.COMMAND] and "busy" in str(refused[0])
    await room.ask(lambda state, now: None)


@pytest.mark.parametrize("kind", ["data", "subscription"])
async def test_a_flood_of_events_of_a_node_keeps_no_command_out(world: World, kind: str) -> None:
    client = await world.join(hello("ann"))
    room = world.directory.room(ROOM)
    assert room is not None
    event = node_pb2.Event(room_id=ROOM)
    getattr(event, kind).transport_id = f"{client.sid}/pub"
    for _ in range(FLOOD):
        room.node_event(NodeId("eu-1"), event)
    await room.ask(lambda state, now: None)
    assert room.dropped_events > 0


async def test_a_room_ends_even_with_a_full_mailbox(world: World) -> None:
    room = world.directory.open(ROOM)
    for _ in range(FLOOD):
        room.inform(lambda state, now: None)
    room.end(models.DisconnectReason.ROOM_DELETED, "deleted")
    await until(lambda: world.directory.room(ROOM) is None, 15, "the room has ended", 0.01)
