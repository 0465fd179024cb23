"""What a relay of frames owes to a client that says goodbye and hangs up."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

from aiohttp import WSMessage, WSMsgType
from headwater_gateway.http.forward import _relay

OVER = WSMessage(WSMsgType.CLOSED, None, None)


@dataclass
class FakeSocket:
    """Frames in by `inbox`, frames out in `sent`."""

    is_broken: bool = False
    inbox: asyncio.Queue[WSMessage] = field(default_factory=asyncio.Queue)
    sent: list[bytes] = field(default_factory=list)
    closed: bool = False
    close_code: int | None = None

    async def receive(self) -> WSMessage:
        return await self.inbox.get()

    async def send_bytes(self, data: bytes) -> None:
        if self.is_broken:
            raise ConnectionResetError
        self.sent.append(data)

    async def close(self, code: int = 1000) -> None:
        if not self.closed:
            self.closed, self.close_code = True, code
            self.inbox.put_nowait(OVER)


def _frame(data: bytes) -> WSMessage:
    return WSMessage(WSMsgType.BINARY, data, "")


async def _relayed(client: FakeSocket, owner: FakeSocket) -> None:
    await asyncio.wait_for(_relay(cast(Any, client), cast(Any, owner)), 5)


async def test_last_words_reach_the_owner_though_the_client_reads_no_more() -> None:
    client, owner = FakeSocket(is_broken=True), FakeSocket()
    owner.inbox.put_nowait(_frame(b"who speaks"))
    relayed = asyncio.create_task(_relayed(client, owner))
    for _ in range(10):  # turns of the loop: the write to the client has failed
        await asyncio.sleep(0)
    assert owner.inbox.empty()
    client.inbox.put_nowait(_frame(b"leave"))
    client.inbox.put_nowait(OVER)
    await relayed
    assert (owner.sent, owner.closed) == ([b"leave"], True)


async def test_an_owner_that_ends_ends_the_client_with_its_code() -> None:
    client, owner = FakeSocket(), FakeSocket(closed=True, close_code=1012)
    owner.inbox.put_nowait(_frame(b"farewell"))
    owner.inbox.put_nowait(OVER)
    await _relayed(client, owner)
    assert (client.sent, client.close_code) == ([b"farewell"], 1012)


async def test_the_owners_farewell_reaches_the_client_though_the_owner_reads_no_more() -> None:
    client, owner = FakeSocket(), FakeSocket(is_broken=True)
    client.inbox.put_nowait(_frame(b"a request"))
    relayed = asyncio.create_task(_relayed(client, owner))
    for _ in range(10):  # turns of the loop: the write to the owner has failed
        await asyncio.sleep(0)
    assert client.inbox.empty()
    owner.inbox.put_nowait(_frame(b"farewell"))
    owner.inbox.put_nowait(OVER)
    await relayed
    assert (client.sent, client.closed) == ([b"farewell"], True)
