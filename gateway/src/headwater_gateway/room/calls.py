"""Calls (RPC) that the API makes to participants: who waits for which answer."""

import asyncio

from livekit.protocol import models


class PendingCalls:
    """By request id. An answer that nobody waits for any more is dropped."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[models.RpcResponse]] = {}

    async def wait(self, request_id: str, seconds: float) -> models.RpcResponse:
        """The participant's answer. TimeoutError."""
        future: asyncio.Future[models.RpcResponse] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = future
        try:
            async with asyncio.timeout(seconds):
                return await future
        finally:
            del self._waiting[request_id]

    def answer(self, packet: models.DataPacket) -> None:
        """An `rpc_response` (an `rpc_ack` only says that the client has heard)."""
        if packet.WhichOneof("value") != "rpc_response":
            return
        future = self._waiting.get(packet.rpc_response.request_id)
        if future is not None and not future.done():
            future.set_result(packet.rpc_response)
