"""GET /rtc (WebSocket) and GET /rtc/validate."""

import asyncio
import time
from dataclasses import dataclass
from functools import partial

import structlog
from aiohttp import web
from headwater_api.reasons import Reason
from livekit.protocol import models, rtc

from headwater_gateway.http.admission import Admission, Gatekeeper
from headwater_gateway.http.forward import Forwarder, OwnerUnreachable
from headwater_gateway.http.limits import AddressLimiter
from headwater_gateway.http.websocket import CLOSE_SECONDS, HEARTBEAT_SECONDS, AiohttpWire
from headwater_gateway.metrics import Metrics
from headwater_gateway.room.wire import leave
from headwater_gateway.signal.channel import Channel
from headwater_gateway.signal.types import (
    CLOSE_INTERNAL,
    CLOSE_POLICY,
    Claims,
    JoinRefused,
    SessionRunner,
    SignalChannel,
)
from headwater_gateway.tasks import LateTask

_log = structlog.get_logger(__name__)

ATTEMPTS = 3  # to reach a room's gateway or its successor


@dataclass(frozen=True, slots=True)
class Signalling:
    """The handlers. One instance for each gateway."""

    gatekeeper: Gatekeeper
    run_session: SessionRunner
    forwarder: Forwarder
    addresses: AddressLimiter
    metrics: Metrics
    max_frame_bytes: int
    renew_seconds: float

    async def join(self, request: web.Request) -> web.StreamResponse:
        """Upgrade an admitted client and run its session; refusals are plain HTTP errors."""
        socket = web.WebSocketResponse(
            timeout=CLOSE_SECONDS,
            heartbeat=HEARTBEAT_SECONDS,
            max_msg_size=self.max_frame_bytes,
            compress=False,
            autoping=True,
        )
        try:
            if not socket.can_prepare(request).ok:
                raise JoinRefused(426, Reason.NOT_A_WEBSOCKET, "connect here with a WebSocket")
            with self.gatekeeper.traced(request, "/rtc"):
                return await self._admitted(request, socket)
        except JoinRefused as refusal:
            return self._refuse("rtc", refusal)

    async def _admitted(self, request: web.Request, socket: web.WebSocketResponse) -> web.StreamResponse:
        """Here or at the room's gateway; at its successor, if it turns out to be gone."""
        for attempt in range(1, ATTEMPTS + 1):
            admission = await self.gatekeeper.admit(request)
            with self.addresses.hold(admission.hello.client_address):
                if attempt == 1:
                    self.metrics.joins.labels("rtc", "Admitted").inc()
                if admission.owner is None:
                    return await self._run(request, socket, admission)
                try:
                    return await self.forwarder.websocket(request, socket, admission)
                except OwnerUnreachable:
                    self.gatekeeper.unreachable(admission.owner.gateway)
                    if attempt == ATTEMPTS:
                        raise
        raise AssertionError("the last attempt returns or raises")

    async def validate(self, request: web.Request) -> web.StreamResponse:
        """The verdict of `join`, for clients that cannot see the error of a failed upgrade."""
        try:
            admission = await self.gatekeeper.admit(request)
            if admission.owner is not None:
                try:
                    return await self.forwarder.validate(request, admission)
                except OwnerUnreachable:
                    self.gatekeeper.unreachable(admission.owner.gateway)
                    raise
        except JoinRefused as refusal:
            return self._refuse("validate", refusal)
        self.metrics.joins.labels("validate", "Admitted").inc()
        return web.Response(text="success")

    async def _run(
        self, request: web.Request, socket: web.WebSocketResponse, admission: Admission
    ) -> web.StreamResponse:
        hello = admission.hello
        await socket.prepare(request)
        wire = AiohttpWire(socket, request, self.metrics)
        with structlog.contextvars.bound_contextvars(room=hello.room, identity=hello.identity):
            async with Channel(wire, self.metrics) as channel:
                self.metrics.sessions.inc()
                renew = partial(self._renew_token, hello.claims, channel)
                renewal = LateTask(self.renew_seconds, renew, "renew-token")
                try:
                    await self.run_session(hello, channel)
                except asyncio.CancelledError:
                    raise
                except Exception:
                    self.metrics.session_errors.inc()
                    _log.exception("session failed", reason=Reason.INTERNAL_ERROR)
                    await channel.close(CLOSE_INTERNAL, Reason.INTERNAL_ERROR)
                finally:
                    self.metrics.sessions.dec()
                    await renewal.aclose()
        return socket

    async def _renew_token(self, claims: Claims, channel: SignalChannel) -> None:
        """Hand out a token that outlives the first one: a resume checks it again.

        Without its API key there is none, and the session ends with the token that it has.
        """
        while True:
            token = self.gatekeeper.renewed_token(claims)
            if token is None:
                await asyncio.sleep(max(0.0, claims.expires_at - time.time()))
                _log.info("token expired", reason=Reason.TOKEN_EXPIRED, api_key=claims.api_key)
                farewell = leave(models.DisconnectReason.PARTICIPANT_REMOVED, rtc.LeaveRequest.DISCONNECT)
                await channel.send(rtc.SignalResponse(leave=farewell))
                await channel.close(CLOSE_POLICY, Reason.TOKEN_EXPIRED)
                return
            await channel.send(rtc.SignalResponse(refresh_token=token))
            await asyncio.sleep(self.renew_seconds)

    def _refuse(self, endpoint: str, refusal: JoinRefused) -> web.Response:
        self.metrics.joins.labels(endpoint, refusal.reason).inc()
        _log.info("join refused", endpoint=endpoint, reason=refusal.reason, why=refusal.message)
        return refusal_response(refusal)


def refusal_response(refusal: JoinRefused) -> web.Response:
    """Plain text, which the clients show to their users; the reason also as a header."""
    headers: dict[str, str] = {"X-Headwater-Reason": refusal.reason}
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if refusal.status == 503:
        headers["Retry-After"] = "1"
    return web.Response(status=refusal.status, text=refusal.message, headers=headers)
