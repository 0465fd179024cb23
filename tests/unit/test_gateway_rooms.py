"""A room's task and its directory: turns, full mailboxes, shutdown, and joins that meet a room's end."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from headwater_api.ids import ParticipantSid, RoomId
from headwater_gateway.room.actor import MAILBOX
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
    await until(lambda: done, 3, "the room has begun", 0)
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


async def test_a_flood_of_requests_leaves_room_for_who_goes(world: World) -> None:
    client = await world.join(hello("ann"))
    room = world.directory.room(ROOM)
    assert room is not None
    sid = ParticipantSid(client.sid)
    for _ in range(MAILBOX + 1):  # nothing is read meanwhile: this test does not wait
        room.request(sid, rtc.SignalRequest())
    with pytest.raises(JoinRefusal, match="busy"):
        await room.ask(lambda state, now: None)
    room.leave(sid, models.DisconnectReason.CLIENT_INITIATED)
    await until(lambda: not room.state.participants, 5, "who left is off the roster", 0.01)


async def test_a_room_ends_even_with_a_full_mailbox(world: World) -> None:
    room = world.directory.open(ROOM)
    for _ in range(MAILBOX + 1):
        room.inform(lambda state, now: None)
    room.end(models.DisconnectReason.ROOM_DELETED, "deleted")
    await until(lambda: world.directory.room(ROOM) is None, 5, "the room has ended", 0.01)
