"""The admin port: /healthz /readyz /metrics for everybody; /desired and /watch each with a token of its own.

With a certificate, commands (/desired) are taken by TLS on a second port and nowhere else.
"""

import asyncio
import contextlib
import hmac
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, Protocol

from aiohttp import web
from headwater_api import wellknown
from headwater_api.turn_token import turn_token, watch_token
from prometheus_client import generate_latest

from headwater_turn.config import TurnConfig
from headwater_turn.desired import BadRequest, Desired, Status, parse_desired
from headwater_turn.metrics import TurnCollector, registry_of
from headwater_turn.packet_filter import FilterFailed
from headwater_turn.usage import Usage

WATCH_EVERY_S: Final = 1.0
MAX_WATCHERS: Final = 256
MAX_BODY: Final = 1024 * 1024
_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"


class Node(Protocol):
    """What the port shows and steers."""

    usage: Usage
    counts: dict[str, int]
    changed: asyncio.Event

    def status(self) -> Status: ...

    async def desire(self, desired: Desired) -> Status: ...


class Admin:
    """The handlers."""

    def __init__(self, node: Node, node_token: str) -> None:
        self._node = node
        tokens = {"/desired": turn_token(node_token), "/watch": watch_token(node_token)}
        self._expected = {path: f"Bearer {token}".encode() for path, token in tokens.items()}
        self._registry = registry_of(TurnCollector(node.status, node.usage, node.counts))
        self._watchers = 0

    def commands(self) -> web.Application:
        """What only the operator uses."""
        app = web.Application(client_max_size=MAX_BODY, middlewares=[self._only_with_token])
        app.router.add_put("/desired", self._desired)
        return app

    def app(self, *, with_commands: bool) -> web.Application:
        """The rest, and that too where there is no certificate for it."""
        app = web.Application(client_max_size=MAX_BODY, middlewares=[self._only_with_token])
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_put("/desired", self._desired if with_commands else _elsewhere)
        app.router.add_get("/watch", self._watch)
        return app

    @web.middleware
    async def _only_with_token(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if (expected := self._expected.get(request.path)) is not None:
            given = request.headers.get("Authorization", "").encode()
            if not hmac.compare_digest(given, expected):
                return web.Response(status=401, text="the token made from the nodes' is missing or wrong\n")
        return await handler(request)

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        why = self._node.status().why
        return web.Response(status=503 if why else 200, text=f"{why or 'ready'}\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": _TEXT})

    async def _desired(self, request: web.Request) -> web.Response:
        try:
            desired = parse_desired(await request.json())
        except (BadRequest, UnicodeDecodeError, json.JSONDecodeError) as error:
            return web.json_response({"error": str(error)}, status=400)
        try:
            status = await self._node.desire(desired)
        except FilterFailed as error:
            return web.json_response({"error": str(error)}, status=500)
        return web.json_response(status.to_json())

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        """A line of JSON at once, on each change and each second: its end tells of this node's."""
        if self._watchers >= MAX_WATCHERS:
            return web.Response(status=503, text="too many watchers\n")
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        self._watchers += 1
        try:
            while True:
                changed = self._node.changed
                await response.write(json.dumps(self._node.status().to_json()).encode() + b"\n")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), WATCH_EVERY_S)
        except ConnectionError:
            return response
        finally:
            self._watchers -= 1


async def _elsewhere(_: web.Request) -> web.Response:
    return web.Response(
        status=403, text=f"commands are taken by TLS on port {wellknown.PORT_TURN_COMMANDS}\n"
    )


@asynccontextmanager
async def serve_admin(
    node: Node, config: TurnConfig, tls: ssl.SSLContext | None = None
) -> AsyncIterator[None]:
    """Serves during the block; commands by `tls` where it is given. Raises OSError where a port is taken."""
    admin = Admin(node, config.token)
    doors: list[tuple[int, web.Application, ssl.SSLContext | None]] = [
        (wellknown.PORT_TURN_ADMIN, admin.app(with_commands=tls is None), None)
    ]
    if tls is not None:
        doors.append((wellknown.PORT_TURN_COMMANDS, admin.commands(), tls))
    async with AsyncExitStack() as stack:
        for port, app, context in doors:
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, str(config.address), port, ssl_context=context).start()
        yield
