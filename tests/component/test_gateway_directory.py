"""The directory in a real Redis: claims, and gateways that go on whatever becomes of it."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from headwater_api.ids import GatewayId, ParticipantIdentity, RoomId
from headwater_gateway.directory import store as store_module
from headwater_gateway.directory.breaker import FAILURES, Breaker
from headwater_gateway.directory.store import Kept, Store
from headwater_gateway.room import moderation, snapshot
from headwater_gateway.room.actor import RoomActor
from headwater_gateway.settings import SettingsError, from_environment
from support.deadline import until
from support.gateways import Gateways, SignalClient, running_gateways
from support.redis_server import FAULTS, PASSWORD, RedisServer, redis_server

ROOM = RoomId("demo")
A, B = GatewayId("gw-a"), GatewayId("gw-b")
# A join may wait for Redis twice 0.25 s at most; the rest is the machine.
JOIN_S = 2.0


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with redis_server(tmp_path / "redis") as server:
        yield server


@asynccontextmanager
async def _open_stores(redis: RedisServer) -> AsyncIterator[tuple[Store, Store]]:
    async with AsyncExitStack() as stack:
        made = []
        for name in (A, B):
            store = Store(redis.url, PASSWORD, name)
            stack.push_async_callback(store.aclose)
            store.start()
            made.append(store)
        yield made[0], made[1]


@pytest.fixture
async def stores(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Store, Store]]:
    """Two gateways' stores, which give up no call however slow the machine is."""
    for name in ("CALL_S", "CONNECT_S"):
        monkeypatch.setattr(store_module, name, 10.0)
    async with _open_stores(redis) as made:
        yield made


@pytest.fixture
async def brisk_stores(redis: RedisServer) -> AsyncIterator[tuple[Store, Store]]:
    """With the deadlines that they have."""
    async with _open_stores(redis) as made:
        yield made


async def test_a_room_is_given_away_once(stores: tuple[Store, Store]) -> None:
    one, other = stores
    given = await asyncio.gather(*(s.assign(ROOM, w) for s, w in ((one, A), (other, B)) for _ in range(10)))
    assert len(set(given)) == 1
    assert await other.assign(ROOM, B) == given[0]
    assert await one.assign(RoomId("another"), B) == B


async def test_the_greater_epoch_has_the_room_and_an_old_owner_takes_nothing_away(
    stores: tuple[Store, Store], redis: RedisServer
) -> None:
    one, other = stores
    stored: list[int] = []
    await one.claim(ROOM, 5)
    one.keep(ROOM, Kept(5, 1, b"one", stored.append))
    await until(lambda: stored == [1], 15, "stored", 0.01)
    assert await other.read(ROOM) == (5, [b"one"])
    await other.claim(ROOM, 6)
    one.keep(ROOM, Kept(5, 2, b"late", stored.append))
    one.forget(ROOM, 5, is_handed_over=False)
    await one.claim(ROOM, 5)
    await until(lambda: not one._pending and not one._released, 15, "sent", 0.01)
    assert await one.assign(ROOM, A) == B
    assert await other.read(ROOM) == (6, [b"one"]) and stored == [1]
    other.forget(ROOM, 6, is_handed_over=False)

    async def empty() -> bool:
        return await redis.keys() == []

    await until(empty, 15, "an ended room leaves nothing behind")


async def test_a_young_rooms_end_takes_its_snapshot_along(
    stores: tuple[Store, Store], redis: RedisServer
) -> None:
    one, _ = stores
    stored: list[int] = []
    await one.assign(ROOM, A)  # no renewal has raised the claim's epoch yet
    one.keep(ROOM, Kept(5, 1, b"one", stored.append))
    await until(lambda: stored == [1], 15, "stored", 0.01)
    one.forget(ROOM, 5, is_handed_over=False)

    async def empty() -> bool:
        return await redis.keys() == []

    await until(empty, 15, "nothing is left")


async def test_a_new_room_of_an_old_name_replaces_what_is_left(
    stores: tuple[Store, Store], redis: RedisServer
) -> None:
    one, other = stores
    stored: list[int] = []
    one.keep(ROOM, Kept(5, 40, b"old", stored.append))
    await until(lambda: stored == [40], 15, "stored", 0.01)
    other.keep(ROOM, Kept(6, 1, b"new", stored.append))
    await until(lambda: stored == [40, 1], 15, "the new room's first snapshot is stored", 0.01)
    one.keep(ROOM, Kept(5, 41, b"late", stored.append))
    await until(lambda: not one._pending, 15, "sent", 0.01)
    assert (await other.read(ROOM))[1] == [b"new"] and stored == [40, 1]
    one.forget(ROOM, 5, is_handed_over=False)
    await until(lambda: not one._released, 15, "sent", 0.01)
    assert (await other.read(ROOM))[1] == [b"new"]


async def test_what_a_flush_took_is_put_back(
    stores: tuple[Store, Store], redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = stores
    await one.claim(ROOM, 5)
    await redis.flush()
    assert await other.read(ROOM) == (0, [])
    one._renew_at = 0.0
    one._wake.set()
    one._wake.clear()

    async def back() -> bool:
        one._renew_at = min(one._renew_at, time.monotonic())
        one._wake.set()
        return (await other.read(ROOM))[0] == 5

    await until(back, 15, "the claim is back")


async def test_a_dead_redis_costs_a_bounded_time_once_and_then_none(
    brisk_stores: tuple[Store, Store], redis: RedisServer
) -> None:
    one, _ = brisk_stores
    redis.freeze()
    started = time.monotonic()
    answers = await asyncio.gather(*(one.assign(RoomId(f"r{n}"), A) for n in range(100)))
    assert set(answers) == {A}
    assert time.monotonic() - started < 4 * store_module.CALL_S + 1
    assert one.is_away
    started = time.monotonic()
    assert await one.read(ROOM) == (0, [])
    assert time.monotonic() - started < 0.2, "nobody waits for what is known to be away"
    redis.freeze(False)

    async def answers_again() -> bool:
        await one.claim(ROOM, 5)
        return (await one.read(ROOM))[0] == 5

    await until(answers_again, 10, "it is used again")
    assert not one.is_away


def test_a_breaker_lets_one_call_find_out() -> None:
    breaker = Breaker(random.Random(1))
    for _ in range(FAILURES):
        assert breaker.allows(0.0)
        breaker.failed(0.0)
    assert not breaker.allows(0.1)
    due = breaker.open_until
    assert breaker.allows(due) and not breaker.allows(due), "one only"
    breaker.failed(due)
    assert breaker.open_until - due > due / 2, "pauses grow"
    assert breaker.allows(breaker.open_until)
    breaker.succeeded()
    assert breaker.allows(due) and breaker.allows(due)


# -- gateways ------------------------------------------------------------------------------------


@pytest.fixture
async def pair(
    tmp_path: Path, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Gateways]:
    changes = {"redis_url": redis.url, "redis_password": PASSWORD}
    async with running_gateways(tmp_path, monkeypatch, 2, **changes) as gateways:
        yield gateways


def _room(pair: Gateways) -> RoomActor:
    found = [room for plane in pair.planes if (room := plane.directory.room(ROOM)) is not None]
    assert len(found) == 1, "one gateway has the room"
    return found[0]


def _banned(pair: Gateways) -> set[str]:
    held = pair.nodes[0].held.get(ROOM) or pair.nodes[1].held[ROOM]
    return set(snapshot.decode(held.snapshot).packed["access"]["banned"])


@pytest.mark.parametrize("how", FAULTS)
async def test_whatever_becomes_of_redis_rooms_go_on(pair: Gateways, redis: RedisServer, how: str) -> None:
    async with SignalClient(pair.urls[0], "ann") as ann, SignalClient(pair.urls[1], "eve"):
        await until(redis.keys, 5, "Redis knows the room")
        await _room(pair).ask(lambda state, now: moderation.remove(state, "eve", now, ban=True))
        await redis.suffer(how)
        for number, url in enumerate(pair.urls * 3):
            started = time.monotonic()
            async with SignalClient(url, f"guest-{number}"):
                assert time.monotonic() - started < JOIN_S
            async with SignalClient(url, "fresh", room=f"new-{number}"):
                assert time.monotonic() - started < 2 * JOIN_S
        # What hosts decide now is kept by the nodes, and acknowledged.
        await _room(pair).ask(lambda state, now: moderation.remove(state, "mallory", now, ban=True))
        await until(lambda: {"eve", "mallory"} <= _banned(pair), 2, "a node keeps it too")
        assert ParticipantIdentity("eve") in _room(pair).state.access.banned
        assert not ann.closed
        if how == "slow":
            redis.freeze(False)


async def test_no_secret_of_redis_is_shown(pair: Gateways, capsys: pytest.CaptureFixture[str]) -> None:
    async with SignalClient(pair.urls[0], "ann"):
        pass
    shown = capsys.readouterr()
    assert PASSWORD not in shown.out + shown.err + "".join(map(repr, pair.planes))


def test_a_url_with_a_password_is_refused_without_showing_it(tmp_path: Path) -> None:
    env = {"HEADWATER_API_KEYS_DIR": str(tmp_path), "HEADWATER_NODE_TOKEN": "t" * 32}
    for url, what in (
        ("redis://:hush@host:6379", "HEADWATER_REDIS_PASSWORD"),
        ("http://host", "redis://host"),
    ):
        with pytest.raises(SettingsError, match=what) as refused:
            from_environment({**env, "HEADWATER_REDIS_URL": url})
        assert "hush" not in str(refused.value)
    read = from_environment({**env, "HEADWATER_REDIS_URL": "redis://h:1", "HEADWATER_REDIS_PASSWORD": "hush"})
    assert read.redis_password == "hush" and "hush" not in repr(read)
