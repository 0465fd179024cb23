"""Listening sockets for an application."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiohttp import web

from headwater_gateway.http.apps import MAX_LINE
from headwater_gateway.http.doorkeeper import wrap
from headwater_gateway.settings import Network

# Connections that the kernel had taken by the end are made first: what is not there yet is never closed.
TAKEN_S = 0.01
_BACKLOG = 1024


class ListenError(OSError):
    """An address that cannot be bound; the message says which and what to do."""


@asynccontextmanager
async def serving(
    app: web.Application,
    address: str,
    port: int,
    proxies: Sequence[Network] | None = None,
    shutdown_seconds: float = 1.0,
) -> AsyncIterator[int]:
    """Serve `app` on exactly `address` for the block; gives the port. `proxies`: they send PROXY headers.

    No access log: the query holds tokens.
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
    listener = _bind(address, port)
    server: asyncio.Server | None = None
    try:
        assert runner.server is not None
        factory = wrap(runner.server, proxies)
        server = await asyncio.get_running_loop().create_server(factory, sock=listener, backlog=_BACKLOG)
        yield int(listener.getsockname()[1])
    finally:
        if server is not None:
            server.close()
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
