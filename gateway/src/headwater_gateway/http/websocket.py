"""aiohttp's WebSocket as the Wire of a signalling channel."""

import asyncio

from aiohttp import WSMsgType, web
from headwater_api.reasons import Reason

from headwater_gateway.metrics import Metrics

# A client is gone when no pong comes within half of it.
HEARTBEAT_SECONDS = 20.0
_CLOSE_SECONDS = 2.0


class AiohttpWire:
    """A server-side WebSocket. Oversize frames close it with code 1009 (RFC 6455 §7.4.1)."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request, metrics: Metrics) -> None:
        self._socket = socket
        self._request = request
        self._metrics = metrics

    async def receive(self) -> bytes | str | None:
        message = await self._socket.receive()
        if message.type is WSMsgType.BINARY:
            return bytes(message.data)
        if message.type is WSMsgType.TEXT:
            return str(message.data)
        if message.type is WSMsgType.ERROR:
            self._metrics.bad_frames.labels(Reason.FRAME_TOO_LARGE).inc()
        return None

    async def send(self, frame: bytes | str) -> None:
        if isinstance(frame, str):
            await self._socket.send_str(frame)
        else:
            await self._socket.send_bytes(frame)

    async def close(self, code: int, reason: str) -> None:
        try:
            await asyncio.wait_for(
                self._socket.close(code=code, message=reason.encode()[:120]), _CLOSE_SECONDS
            )
        except (TimeoutError, ConnectionError):
            self.abort()

    def abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()
