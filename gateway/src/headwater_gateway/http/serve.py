"""Listening sockets for an application."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from aiohttp import web

from headwater_gateway.http.apps import MAX_LINE
from headwater_gateway.http.doorkeeper import wrap
from headwater_gateway.settings import Network

# Connections that the kernel had taken by the end are made first: what is not there yet is never closed.
TAKEN_S = 0.01
HANDSHAKE_S = 5.0
_BACKLOG = 1024


class ListenError(OSError):
    """An address that cannot be bound; the message says which and what to do."""


class Door(NamedTuple):
    """A port, by TLS where there is a context."""

    port: int
    context: ssl.SSLContext | None


@asynccontextmanager
async def serving(
    app: web.Application,
    address: str,
    port: int,
    proxies: Sequence[Network] | None = None,
    shutdown_seconds: float = 1.0,
    *,
    tls: Door | None = None,
) -> AsyncIterator[list[int]]:
    """Serve `app` on exactly `address` for the block; gives the port, and that of `tls`.

    `proxies`: they send PROXY headers. No access log: the query holds tokens.
    """
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        max_line_size=MAX_LINE,
        max_field_size=MAX_LINE,
        shutdown_timeout=shutdown_seconds,
    )
    await runner.setup()
    doors = [Door(port, None), *([tls] if tls is not None else [])]
    listeners: list[socket.socket] = []
    servers: list[asyncio.Server] = []
    try:
        assert runner.server is not None
        for door in doors:
            listener = _bind(address, door.port)
            listeners.append(listener)
            plain = door.context is None
            server = await asyncio.get_running_loop().create_server(
                wrap(runner.server, proxies if plain else None),
                sock=listener,
                backlog=_BACKLOG,
                ssl=door.context,
                ssl_handshake_timeout=None if plain else HANDSHAKE_S,
            )
            servers.append(server)
        yield [int(listener.getsockname()[1]) for listener in listeners]
    finally:
        for server in servers:
            server.close()
        for listener in listeners:
            listener.close()
        await asyncio.sleep(TAKEN_S)
        await runner.cleanup()


def _bind(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ListenError(
            f"cannot listen on {address}:{port} ({error.strerror}): free it or choose another"
        ) from None
    return listener
