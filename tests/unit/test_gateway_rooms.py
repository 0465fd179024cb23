"""A room's task and its directory: turns, full mailboxes, shutdown, and joins that meet a room's end."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from headwater_api.ids import RoomId
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
