"""The directory in Redis: a hint that saves collisions, and a second home for snapshots. Never needed."""

import asyncio
import hashlib
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Final, TypeVar, cast

import structlog
from headwater_api.ids import GatewayId, RoomId
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from headwater_gateway.directory.breaker import Breaker
from headwater_gateway.directory.scripts import CLAIM, RELEASE, RENEW, STORE
from headwater_gateway.tasks import report

log = structlog.get_logger(__name__)

# A join waits at most that long for Redis, and not at all once it has failed a few times.
CALL_S: Final = 0.25
CONNECT_S: Final = 0.25
CONNECTIONS: Final = 8
LEASE_MS: Final = 180_000  # as long as nodes keep a room without its gateway
RENEW_S: Final = 20.0
RETRY_S: Final = 2.0
ASSIGN_MS: Final = 10_000  # for the gateway that a room was given to to make it
AT_ONCE: Final = 100
MAX_PENDING: Final = 2000
PREFIX: Final = "headwater:room:"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kept:
    """A snapshot on its way to Redis."""

    epoch: int
    version: int
    blob: bytes
    on_stored: Callable[[int], None]


class Store:
    """One connection pool and one task. Every call is bounded; a failure is the same as an empty answer."""

    def __init__(
        self,
        url: str,
        password: str,
        gateway: GatewayId,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._gateway, self._clock = gateway, clock
        self._rng = rng or random.Random()
        self._breaker = Breaker(self._rng)
        pool = BlockingConnectionPool.from_url(
            url,
            password=password or None,
            max_connections=CONNECTIONS,
            timeout=CALL_S,
            socket_timeout=CALL_S,
            socket_connect_timeout=CONNECT_S,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )
        self._redis = Redis.from_pool(pool)
        self._claims: dict[RoomId, int] = {}
        self._pending: dict[RoomId, Kept] = {}
        self._released: dict[RoomId, int] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._renew_at = clock()
        self.failed_total = 0

    @property
    def is_away(self) -> bool:
        """Calls are not even tried now."""
        return self._breaker.is_open

    def start(self) -> None:
        """Begin to renew and to store."""
        self._task = asyncio.create_task(self._run(), name="directory", context=Context())
        report(self._task, "directory.died")

    # -- for finding and taking over ---------------------------------------------------------------

    async def assign(self, room: RoomId, wanted: GatewayId) -> GatewayId:
        """The gateway that the room was given to; `wanted`, if nobody had it or Redis is away."""
        answer = await self._call(self._claim(room, wanted, 0, ASSIGN_MS))
        return GatewayId(answer[0].decode()) if answer else wanted

    async def claim(self, room_id: RoomId, epoch: int) -> None:
        """This gateway has the room under that epoch."""
        self._claims[room_id] = epoch
        await self._call(self._claim(room_id, self._gateway, epoch, LEASE_MS))

    async def read(self, room_id: RoomId) -> tuple[int, list[bytes]]:
        """The highest epoch claimed, and the snapshot. (0, []) when there is nothing or Redis is away."""
        claim, kept = _keys(room_id)

        async def read() -> tuple[int, list[bytes]]:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hget(claim, "epoch")
                pipe.hget(kept, "blob")
                epoch, blob = await pipe.execute()
            return int(epoch or 0), [blob] if blob else []

        return await self._call(read()) or (0, [])

    # -- of rooms that live here -------------------------------------------------------------------

    def keep(self, room_id: RoomId, kept: Kept) -> None:
        """Store a snapshot soon; only the newest of a room waits."""
        self._claims[room_id] = kept.epoch
        if room_id in self._pending or len(self._pending) < MAX_PENDING:
            self._pending[room_id] = kept
            self._wake.set()

    def forget(self, room_id: RoomId, epoch: int, *, is_handed_over: bool) -> None:
        """The room lives here no more. One that has ended leaves nothing behind, unless it has begun anew."""
        if self._claims.get(room_id) != epoch:
            return
        del self._claims[room_id]
        self._pending.pop(room_id, None)
        if not is_handed_over and len(self._released) < MAX_PENDING:
            self._released[room_id] = epoch
            self._wake.set()

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(max(0.0, self._renew_at - self._clock())):
                    await self._wake.wait()
            except TimeoutError:
                self._renew_at = self._clock() + RENEW_S * (0.8 + 0.4 * self._rng.random())
                await self._renew()
            self._wake.clear()
            await self._release()
            await self._flush()
            if self._pending or self._released:  # Redis is away: what is newest then goes when it is back
                self._renew_at = min(self._renew_at, self._clock() + RETRY_S * (0.5 + self._rng.random()))

    async def _renew(self) -> None:
        """Also puts back what a flush or a restart has taken."""
        rooms = list(self._claims.items())
        for start in range(0, len(rooms), AT_ONCE):
            if await self._call(self._renewed(rooms[start : start + AT_ONCE])) is None:
                return

    async def _renewed(self, batch: Sequence[tuple[RoomId, int]]) -> bool:
        async with self._redis.pipeline(transaction=False) as pipe:
            for room_id, epoch in batch:
                pipe.eval(RENEW, 2, *_keys(room_id), self._gateway, epoch, LEASE_MS)
            await pipe.execute()
        return True

    async def _release(self) -> None:
        while self._released:
            room_id, epoch = next(iter(self._released.items()))
            done = self._redis.eval(RELEASE, 2, *_keys(room_id), self._gateway, epoch)
            if await self._call(done) is None:
                return
            self._released.pop(room_id, None)

    async def _flush(self) -> None:
        while self._pending:
            batch = list(self._pending.items())[:AT_ONCE]
            stored = await self._call(self._stored(batch))
            if stored is None:
                return
            for (room_id, kept), done in zip(batch, stored, strict=True):
                if self._pending.get(room_id) is kept:
                    del self._pending[room_id]
                if done:
                    kept.on_stored(kept.version)

    async def _stored(self, batch: Sequence[tuple[RoomId, Kept]]) -> list[int]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for room_id, kept in batch:
                pipe.eval(STORE, 2, *_keys(room_id), kept.epoch, kept.version, kept.blob, LEASE_MS)
            return [int(answer) for answer in await pipe.execute()]

    # -- calls -------------------------------------------------------------------------------------

    async def _claim(self, room_id: RoomId, gateway: GatewayId, epoch: int, lease_ms: int) -> list[bytes]:
        claim, _ = _keys(room_id)
        answer = self._redis.eval(CLAIM, 1, claim, gateway, epoch, lease_ms)
        return cast(list[bytes], await answer)

    async def _call(self, call: Awaitable[T]) -> T | None:
        """The answer; None when Redis is away, slow, or refuses. Never longer than CALL_S and a little."""
        if not self._breaker.allows(self._clock()):
            if asyncio.iscoroutine(call):
                call.close()
            return None
        try:
            async with asyncio.timeout(2 * CALL_S):
                answer = await call
        except (RedisError, TimeoutError, OSError) as error:
            self._fail(error)
            return None
        except BaseException:
            self._breaker.abandoned()
            raise
        if self._breaker.is_open:
            log.info("directory.back")
        self._breaker.succeeded()
        return answer

    def _fail(self, error: Exception) -> None:
        was_open = self._breaker.is_open
        self._breaker.failed(self._clock())
        self.failed_total += 1
        if self._breaker.is_open and not was_open:
            # Only the kind: Redis repeats what it was told in some of its errors.
            log.warning("directory.away", reason=type(error).__name__)

    async def aclose(self) -> None:
        """End the task and the connections. What was not stored is on the nodes."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        try:
            async with asyncio.timeout(2 * CALL_S):
                await self._redis.aclose()
        except (RedisError, TimeoutError, OSError):
            pass


def _keys(room_id: RoomId) -> tuple[str, str]:
    """Of the claim and of the snapshot: one hash slot, whatever the room is called."""
    tag = hashlib.blake2b(room_id.encode(), digest_size=16).hexdigest()
    return f"{PREFIX}{{{tag}}}:claim", f"{PREFIX}{{{tag}}}:kept"
