"""The composition root: builds every part from the settings and runs them until the signal to stop."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import web

from headwater_gateway.api.compose import open_api
from headwater_gateway.auth import KeyStore, TokenVerifier
from headwater_gateway.geo.locate import open_locator
from headwater_gateway.http.admission import Gatekeeper
from headwater_gateway.http.apps import admin_app, public_app
from headwater_gateway.http.forward import Forwarder
from headwater_gateway.http.limits import AddressLimiter
from headwater_gateway.http.peer import PeerDoor
from headwater_gateway.http.serve import Door, serving
from headwater_gateway.http.signalling import Signalling
from headwater_gateway.http.site import Site
from headwater_gateway.metrics import Metrics
from headwater_gateway.peer_tls import PeerCertificate
from headwater_gateway.settings import Settings
from headwater_gateway.signal.types import RoomPlane

if TYPE_CHECKING:
    from headwater_gateway.join_traces import JoinTraces

_log = structlog.get_logger(__name__)

# Half of what a renewed token lasts.
RENEW_SECONDS = 300.0

OnListening = Callable[[str, int], None]
PlaneFactory = Callable[[Settings, Metrics], AbstractAsyncContextManager[RoomPlane]]


async def run(
    settings: Settings,
    open_plane: PlaneFactory,
    stop: asyncio.Event,
    on_listening: OnListening | None = None,
    traces: "JoinTraces | None" = None,
) -> None:
    """Serve until `stop` is set, then send every session away and return.

    `on_listening` hears ("admin", "signal" or "gateways", port): with port 0 the system chooses one.
    The admin port opens first and closes last: liveness is the loop's own, whatever else is missing.
    """
    metrics = Metrics()
    keys = KeyStore(settings.api_keys_dir)
    state = _Readiness(keys)
    report = on_listening or _no_report
    locator = open_locator(settings.geoip_database)
    async with AsyncExitStack() as stack:
        admin = serving(
            admin_app(metrics, state.unready, state.placements), settings.bind_address, settings.admin_port
        )
        report("admin", *await stack.enter_async_context(admin))
        state.plane = plane = await stack.enter_async_context(open_plane(settings, metrics))
        plane.directory.trace(traces)
        forwarder = Forwarder(settings.node_token, settings.max_frame_bytes, metrics)
        await stack.enter_async_context(forwarder)
        gatekeeper = Gatekeeper(
            settings, TokenVerifier(keys, settings.token_audience), locator, plane, metrics
        )
        peers = PeerDoor(settings.node_token, settings.gateway)
        app = _public(settings, gatekeeper, plane, forwarder, metrics, peers=peers)
        add_routes = await stack.enter_async_context(open_api(settings, keys, gatekeeper, plane))
        add_routes(app)
        proxies = settings.trusted_proxies if settings.proxy_protocol else None
        public = serving(
            app, settings.bind_address, settings.signal_port, proxies, tls=_peer_door(settings, metrics)
        )
        port, *others = await stack.enter_async_context(public)
        report("signal", port)
        for other in others:
            report("gateways", other)
        _log.info("gateway serves", address=settings.bind_address, port=port, gateway=settings.gateway)
        await stop.wait()
        state.stopping = gatekeeper.draining = True
        peers.leave()
        _log.info("gateway stops: sending sessions away", seconds=settings.shutdown_seconds)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(plane.close(settings.shutdown_seconds), settings.shutdown_seconds + 1.0)


def _public(
    settings: Settings,
    gatekeeper: Gatekeeper,
    plane: RoomPlane,
    forwarder: Forwarder,
    metrics: Metrics,
    *,
    peers: PeerDoor,
) -> web.Application:
    signalling = Signalling(
        gatekeeper,
        plane.run_session,
        forwarder,
        AddressLimiter(settings.max_connections_per_address),
        metrics,
        settings.max_frame_bytes,
        RENEW_SECONDS,
    )
    return public_app(signalling, Site(settings.web_dir), peers)


def _peer_door(settings: Settings, metrics: Metrics) -> Door | None:
    """Where other gateways come in. SettingsError."""
    if settings.gateway_tls_dir is None:
        return None
    shown = PeerCertificate(settings.gateway_tls_dir)
    metrics.watch_certificate(lambda: shown.expires)
    return Door(settings.gateway_tls_port, shown.context)


def _no_report(name: str, port: int) -> None:
    """Nobody asked for the ports."""


class _Readiness:
    """What /readyz says before, during and after the plane's life."""

    def __init__(self, keys: KeyStore) -> None:
        self._keys = keys
        self.plane: RoomPlane | None = None
        self.stopping = False

    def placements(self, room: str, identity: str, node: str) -> Iterator[dict[str, Any]]:
        """Why participants are where they are."""
        return self.plane.placements(room, identity, node) if self.plane is not None else iter(())

    def unready(self) -> str:
        if self.stopping:
            return "shutting down"
        if self.plane is None:
            return "starting"
        self._keys.refresh(time.monotonic())
        if self._keys.empty:
            return f"no usable API key in {self._keys.directory}: each file is a key, its content the secret"
        return self.plane.unready()
