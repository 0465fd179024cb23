"""aiohttp's WebSocket as the Wire of a signalling channel."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog
from aiohttp import WebSocketError, WSMsgType, web
from headwater_api.reasons import Reason

from headwater_gateway.metrics import Metrics
from headwater_gateway.signal.types import CLOSE_TOO_BIG

_log = structlog.get_logger(__name__)

# A client is gone when no pong comes within half of it.
HEARTBEAT_SECONDS = 20.0
CLOSE_SECONDS = 1.0  # for the peer's part of the closing handshake


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
            self._note_fault(message.data)
        return None

    def _note_fault(self, error: object) -> None:
        """aiohttp has closed with the error's code: a frame was too large, or was none at all."""
        code = error.code if isinstance(error, WebSocketError) else None
        reason = Reason.FRAME_TOO_LARGE if code == CLOSE_TOO_BIG else Reason.FRAME_MALFORMED
        self._metrics.bad_frames.labels(reason).inc()
        _log.warning("client sent away", reason=reason, code=code)

    def send(self, frame: bytes | str) -> Coroutine[Any, Any, None]:
        if isinstance(frame, str):
            return self._socket.send_str(frame)
        return self._socket.send_bytes(frame)

    async def close(self, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS + 1.0):
                await self._socket.close(code=code, message=reason.encode()[:120])
        except (TimeoutError, ConnectionError):
            self.abort()

    def abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()
