"""The admin port: /healthz /readyz /metrics /status.json.

A small HTTP/1.1 server of its own (RFC 9112, GET and HEAD only, one request a connection): a web
framework would cost more start-up time than the rest of the agent together, on every node.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

REQUEST_DEADLINE_S: Final = 5.0
MAX_HEAD_BYTES: Final = 8192
MAX_CONNECTIONS: Final = 64

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reply:
    status: HTTPStatus
    content_type: str
    body: bytes


Route = Callable[[], Awaitable[Reply]]


class AdminServer:
    """Serves fixed routes on one address."""

    def __init__(self, routes: dict[str, Route]) -> None:
        self._routes = routes
        self._open = 0
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listens; returns the port. Raises OSError where it is taken."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=MAX_HEAD_BYTES)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            async with asyncio.timeout(REQUEST_DEADLINE_S):
                if self._open > MAX_CONNECTIONS:
                    reply, head_only = _plain(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections"), False
                else:
                    reply, head_only = await self._answer(reader)
                writer.write(_encode(reply, head_only))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            pass  # the caller went away or dawdled: nobody is left to tell
        finally:
            self._open -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[Reply, bool]:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "request head too large"), False
        parts = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(parts) != 3:
            return _plain(HTTPStatus.BAD_REQUEST, "malformed request line"), False
        method, target, _ = parts
        if method not in ("GET", "HEAD"):
            return _plain(HTTPStatus.METHOD_NOT_ALLOWED, "GET and HEAD only"), False
        route = self._routes.get(target.split("?", 1)[0])
        if route is None:
            return _plain(HTTPStatus.NOT_FOUND, "one of: " + " ".join(self._routes)), method == "HEAD"
        try:
            return await route(), method == "HEAD"
        except Exception:
            log.exception("admin request failed", extra={"target": target[:200]})
            return _plain(HTTPStatus.INTERNAL_SERVER_ERROR, "see the log"), method == "HEAD"


def _plain(status: HTTPStatus, text: str) -> Reply:
    return Reply(status, "text/plain; charset=utf-8", (text + "\n").encode())


def _encode(reply: Reply, head_only: bool) -> bytes:
    head = (
        f"HTTP/1.1 {reply.status.value} {reply.status.phrase}\r\n"
        f"Content-Type: {reply.content_type}\r\nContent-Length: {len(reply.body)}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    ).encode()
    return head if head_only else head + reply.body
