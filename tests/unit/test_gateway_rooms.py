"""A room's task and its directory: turns, full mailboxes, shutdown, and joins that meet a room's end."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from headwater_api.ids import RoomId
from headwater_gateway.room.state import RoomState
from support.deadline import until
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
