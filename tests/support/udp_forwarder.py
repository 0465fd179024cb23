"""A load balancer for UDP: what comes in goes to one node, what comes back goes to whoever sent it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Address = tuple[str, int]


@dataclass
class UdpForwarder:
    """`sent` and `returned`: datagrams to the node and back."""

    node: Address
    sent: int = 0
    returned: int = 0
    _front: asyncio.DatagramTransport | None = None
    _backs: dict[Address, "asyncio.Future[asyncio.DatagramTransport]"] = field(default_factory=dict)

    async def start(self, at: Address) -> None:
        """Listens there."""
        self._front = await _endpoint(self._to_node, local_addr=at)

    def close(self) -> None:
        if self._front is not None:
            self._front.close()
        for back in self._backs.values():
            if back.done():
                back.result().close()

    async def _to_node(self, data: bytes, client: Address) -> None:
        if client not in self._backs:
            self._backs[client] = asyncio.get_running_loop().create_future()

            async def back_to_client(data: bytes, _: Address) -> None:
                assert self._front is not None
                self.returned += 1
                self._front.sendto(data, client)

            back = await _endpoint(back_to_client, remote_addr=self.node)
            self._backs[client].set_result(back)
        self.sent += 1
        (await self._backs[client]).sendto(data)


class _Protocol(asyncio.DatagramProtocol):
    def __init__(self, on_data: Callable[[bytes, Address], Any]) -> None:
        self._on_data, self._tasks = on_data, set[asyncio.Task[None]]()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        task = asyncio.get_running_loop().create_task(self._on_data(data, addr))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _endpoint(on_data: Callable[[bytes, Address], Any], **where: Address) -> asyncio.DatagramTransport:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Protocol(on_data), **where)
    return transport


@asynccontextmanager
async def forwarding(at: Address, node: Address) -> AsyncIterator[UdpForwarder]:
    """Forwards within the block."""
    forwarder = UdpForwarder(node)
    await forwarder.start(at)
    try:
        yield forwarder
    finally:
        forwarder.close()
