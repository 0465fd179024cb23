"""Where chat is kept: SQLite in this process, or PostgreSQL for all gateways."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar, TypeVarTuple
from urllib.parse import urlsplit

import asyncpg

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
CONNECT_S: Final = 10.0
AGAIN_S: Final = 5.0
QUERY_S: Final = 5.0
MAX_PAGE: Final = 200
KEPT_DAYS: Final = 30
_DAY_MS: Final = 86_400_000

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS chat_messages (
  id {serial},
  meeting TEXT NOT NULL,
  message_id TEXT NOT NULL UNIQUE,
  sender TEXT NOT NULL,
  recipient TEXT NOT NULL,
  kind TEXT NOT NULL,
  message TEXT NOT NULL,
  sent_ms BIGINT NOT NULL
)
"""
_INDEX: Final = "CREATE INDEX IF NOT EXISTS chat_by_meeting ON chat_messages (meeting, id)"


@dataclass(frozen=True, slots=True)
class ChatEntry:
    """One message. `recipient` empty: everybody. `number` orders what is kept; 0 before that."""

    meeting: str
    message_id: str
    sender: str
    recipient: str
    kind: str
    message: str
    sent_ms: int  # Unix
    number: int = 0


class ChatStore(Protocol):
    """Keeps chat. StoreUnavailable."""

    async def append(self, entry: ChatEntry) -> None:
        """Keep it; a message_id that is there already is left as it is."""

    async def page(self, meeting: str, viewer: str, after: int, limit: int) -> list[ChatEntry]:
        """What that participant may see, oldest first, after that number."""

    async def aclose(self) -> None: ...


class StoreUnavailable(Exception):
    """The database cannot be asked now."""


async def open_store(url: str) -> ChatStore:
    """`sqlite:` (in memory), `sqlite:/a/file` or `postgresql://…`. StoreUnavailable, ValueError."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return await SqliteStore.open(parts.path or ":memory:")
    if parts.scheme in ("postgresql", "postgres"):
        return await PostgresStore.open(url)
    raise ValueError("the chat database must be sqlite:, sqlite:/path or postgresql://…")


class LateStore:
    """Opened when it is first needed: a database that is away must not keep a gateway from starting."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._url, self._clock = url, clock
        self._store: ChatStore | None = None
        self._lock = asyncio.Lock()
        self._again_at = 0.0

    async def _opened(self) -> ChatStore:
        async with self._lock:
            if self._store is None:
                if self._clock() < self._again_at:
                    raise StoreUnavailable("the chat database was away a moment ago")
                try:
                    self._store = await open_store(self._url)
                except StoreUnavailable:
                    self._again_at = self._clock() + AGAIN_S
                    raise
            return self._store

    async def append(self, entry: ChatEntry) -> None:
        await (await self._opened()).append(entry)

    async def page(self, meeting: str, viewer: str, after: int, limit: int) -> list[ChatEntry]:
        return await (await self._opened()).page(meeting, viewer, after, limit)

    async def aclose(self) -> None:
        if self._store is not None:
            await self._store.aclose()


class SqliteStore:
    """One connection in one thread of its own."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="chat")
        self._db: sqlite3.Connection | None = None

    @classmethod
    async def open(cls, path: str) -> "SqliteStore":
        """StoreUnavailable: the file cannot be used."""
        store = cls(path)
        await store._run(store._open)
        return store

    async def append(self, entry: ChatEntry) -> None:
        await self._run(self._append, entry)

    async def page(self, meeting: str, viewer: str, after: int, limit: int) -> list[ChatEntry]:
        return await self._run(self._page, meeting, viewer, after, limit)

    async def aclose(self) -> None:
        await self._run(self._close)
        self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, work, *args)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from None

    def _open(self) -> None:
        self._db = sqlite3.connect(self._path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute(_TABLE.format(serial="INTEGER PRIMARY KEY AUTOINCREMENT"))
        self._db.execute(_INDEX)

    def _append(self, entry: ChatEntry) -> None:
        assert self._db is not None
        self._db.execute(
            "INSERT OR IGNORE INTO chat_messages"
            " (meeting, message_id, sender, recipient, kind, message, sent_ms) VALUES (?, ?, ?, ?, ?, ?, ?)",
            _values(entry),
        )
        oldest = entry.sent_ms - KEPT_DAYS * _DAY_MS
        self._db.execute(
            "DELETE FROM chat_messages WHERE meeting = ? AND sent_ms < ?", (entry.meeting, oldest)
        )

    def _page(self, meeting: str, viewer: str, after: int, limit: int) -> list[ChatEntry]:
        assert self._db is not None
        rows = self._db.execute(
            "SELECT meeting, message_id, sender, recipient, kind, message, sent_ms, id FROM chat_messages"
            " WHERE meeting = ? AND id > ? AND (recipient = '' OR recipient = ? OR sender = ?)"
            " ORDER BY id LIMIT ?",
            (meeting, after, viewer, viewer, min(limit, MAX_PAGE)),
        )
        return [ChatEntry(*row) for row in rows]

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()


class PostgresStore:
    """A small pool of connections."""

    def __init__(self, pool: "asyncpg.Pool") -> None:
        self._pool = pool

    @classmethod
    async def open(cls, url: str) -> "PostgresStore":
        """StoreUnavailable: the server cannot be reached, or refuses. The message holds no password."""
        try:
            pool = await asyncpg.create_pool(
                url, min_size=1, max_size=4, timeout=CONNECT_S, command_timeout=QUERY_S
            )
            async with pool.acquire() as connection, connection.transaction():
                # Two gateways that start at once would both create the table.
                await connection.execute("SELECT pg_advisory_xact_lock(4830257)")
                await connection.execute(_TABLE.format(serial="BIGSERIAL PRIMARY KEY"))
                await connection.execute(_INDEX)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise StoreUnavailable(f"PostgreSQL: {type(error).__name__}") from None
        return cls(pool)

    async def append(self, entry: ChatEntry) -> None:
        await self._execute(
            "INSERT INTO chat_messages (meeting, message_id, sender, recipient, kind, message, sent_ms)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
            *_values(entry),
        )
        oldest = entry.sent_ms - KEPT_DAYS * _DAY_MS
        await self._execute(
            "DELETE FROM chat_messages WHERE meeting = $1 AND sent_ms < $2", entry.meeting, oldest
        )

    async def page(self, meeting: str, viewer: str, after: int, limit: int) -> list[ChatEntry]:
        rows = await self._execute(
            "SELECT meeting, message_id, sender, recipient, kind, message, sent_ms, id FROM chat_messages"
            " WHERE meeting = $1 AND id > $2 AND (recipient = '' OR recipient = $3 OR sender = $3)"
            " ORDER BY id LIMIT $4",
            meeting,
            after,
            viewer,
            min(limit, MAX_PAGE),
        )
        return [ChatEntry(*row) for row in rows]

    async def _execute(self, query: str, *values: object) -> Sequence[Any]:
        try:
            rows: Sequence[Any] = await self._pool.fetch(query, *values, timeout=QUERY_S)
            return rows
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise StoreUnavailable(f"PostgreSQL: {type(error).__name__}") from None

    async def aclose(self) -> None:
        await self._pool.close()


def _values(entry: ChatEntry) -> tuple[str, str, str, str, str, str, int]:
    return (
        entry.meeting,
        entry.message_id,
        entry.sender,
        entry.recipient,
        entry.kind,
        entry.message,
        entry.sent_ms,
    )
