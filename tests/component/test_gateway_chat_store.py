"""Chat history: the same promises by SQLite and by a real PostgreSQL."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from headwater_gateway.api.chat_store import ChatEntry, ChatStore, LateStore, StoreUnavailable, open_store

ENTRY = ChatEntry("m-1", "CM_1", "ann", "", "message", "hello", 1_900_000_000_000)
DAY_MS = 86_400_000
NOBODY = 65_534


def _binary(name: str) -> str | None:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


@asynccontextmanager
async def _postgres() -> AsyncIterator[str]:
    """A server of our own behind a Unix socket; its URL."""
    initdb, server = _binary("initdb"), _binary("postgres")
    if initdb is None or server is None:
        pytest.skip("PostgreSQL is not installed")
    user = NOBODY if os.getuid() == 0 else None  # it refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    if user is not None:
        os.chown(folder, user, user)
    data = str(folder / "data")
    try:
        made = await asyncio.create_subprocess_exec(
            *(initdb, "-D", data, "-U", "headwater", "-A", "trust", "--no-sync", "--no-instructions"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            user=user,
        )
        _, printed = await asyncio.wait_for(made.communicate(), 40)
        assert made.returncode == 0, printed.decode()
        running = await asyncio.create_subprocess_exec(
            *(server, "-D", data, "-k", str(folder), "-c", "listen_addresses=", "-c", "fsync=off"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            user=user,
        )
        try:
            yield f"postgresql://headwater@/postgres?host={folder}"
        finally:
            running.send_signal(signal.SIGQUIT)
            await asyncio.wait_for(running.wait(), 15)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _opened(url: str, within_s: float = 20) -> ChatStore:
    async with asyncio.timeout(within_s):
        while True:
            try:
                return await open_store(url)
            except StoreUnavailable:
                await asyncio.sleep(0.05)


@pytest.fixture(params=["memory", "file", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ChatStore]:
    if request.param == "postgres":
        async with _postgres() as url:
            opened = await _opened(url)
            yield opened
            await opened.aclose()
        return
    opened = await open_store("sqlite:" if request.param == "memory" else f"sqlite:{tmp_path}/chat.db")
    yield opened
    await opened.aclose()


async def test_what_is_kept_and_who_sees_it(store: ChatStore) -> None:
    await store.append(ENTRY)
    await store.append(replace(ENTRY, message="sent twice"))
    await store.append(replace(ENTRY, message_id="CM_2", recipient="bob", message="psst"))
    await store.append(replace(ENTRY, message_id="CM_3", meeting="m-2", message="elsewhere"))
    await store.append(replace(ENTRY, message_id="CM_4", sender="bob", message="it's 5 o'clock; DROP TABLE"))
    texts = {who: [e.message for e in await store.page("m-1", who, 0, 10)] for who in ("ann", "bob", "carl")}
    everybody = ["hello", "it's 5 o'clock; DROP TABLE"]
    both = [everybody[0], "psst", everybody[1]]
    assert texts == {"ann": both, "bob": both, "carl": everybody}
    first = await store.page("m-1", "ann", 0, 1)
    rest = await store.page("m-1", "ann", first[-1].number, 10)
    assert [e.message for e in first + rest] == both


async def test_old_messages_go(store: ChatStore) -> None:
    await store.append(ENTRY)
    await store.append(replace(ENTRY, message_id="CM_2", sent_ms=ENTRY.sent_ms + 40 * DAY_MS, message="late"))
    assert [e.message for e in await store.page("m-1", "ann", 0, 10)] == ["late"]


async def test_a_file_outlives_its_process(tmp_path: Path) -> None:
    for _ in range(2):
        store = await open_store(f"sqlite:{tmp_path}/chat.db")
        await store.append(ENTRY)
        assert len(await store.page("m-1", "ann", 0, 10)) == 1
        await store.aclose()


async def test_a_database_that_comes_late() -> None:
    now = 100.0
    late = LateStore("sqlite:/no/such/folder/chat.db", lambda: now)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await late.append(ENTRY)
    late = LateStore("sqlite:")
    await late.append(ENTRY)
    assert len(await late.page("m-1", "ann", 0, 10)) == 1
    await late.aclose()


async def test_a_database_that_is_away(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable) as away:
        await open_store("postgresql://user:secret@127.0.0.1:1/chat")
    assert "secret" not in str(away.value)
    with pytest.raises(ValueError, match="sqlite"):
        await open_store("mysql://x")
    with pytest.raises(StoreUnavailable):
        await open_store(f"sqlite:{tmp_path}/no/such/folder/chat.db")
