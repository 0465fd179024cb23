"""Passes a session on to the gateway that owns the room."""

import asyncio
import contextlib
from urllib.parse import urlencode

import aiohttp
import structlog
from aiohttp import WSMsgType, web
from headwater_api.reasons import Reason

from headwater_gateway import tracing
from headwater_gateway.http.admission import (
    HEADER_CLIENT,
    HEADER_HOPS,
    HEADER_VOUCHER,
    Admission,
    voucher,
)
from headwater_gateway.http.websocket import HEARTBEAT_SECONDS
from headwater_gateway.metrics import Metrics
from headwater_gateway.signal.types import CLOSE_GOING_AWAY, CLOSE_NORMAL, GatewayPeer, JoinRefused
from headwater_gateway.tracing import JOIN, stage

_log = structlog.get_logger(__name__)
_CONNECT_SECONDS = 3.0
_REACH_SECONDS = 0.5  # gateways are near each other; a dead one must not cost the client more
_LAST_WORDS_SECONDS = 1.0  # for what a client said before it hung up


class OwnerUnreachable(JoinRefused):
    """The owner did not answer: it may be gone, and another gateway its successor."""


class Forwarder:
    """A relay of frames between a client and the owner. The owner checks the token again."""

    def __init__(self, secret: str, max_frame_bytes: int, metrics: Metrics) -> None:
        self._secret = secret
        self._max_frame = max_frame_bytes
        self._metrics = metrics
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Forwarder":
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_CONNECT_SECONDS, connect=_REACH_SECONDS),
            connector=aiohttp.TCPConnector(limit=0),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def validate(self, request: web.Request, admission: Admission) -> web.Response:
        """The owner's verdict."""
        status, text, reason = await self._ask(request, admission)
        headers = {"X-Headwater-Reason": reason} if reason else {}
        return web.Response(status=status, text=text, headers=headers)

    async def websocket(
        self, request: web.Request, client: web.WebSocketResponse, admission: Admission
    ) -> web.StreamResponse:
        """Connect to the owner, then upgrade the client, then relay until one side ends.

        JoinRefused: the owner refused (with its own status and words) or cannot be reached (503).
        """
        with stage("pass on"):
            owner = await self._connect(request, admission)
        if (trace := JOIN.get()) is not None:
            trace.passed_on()
        try:
            await client.prepare(request)
            await _relay(client, owner)
        finally:
            await owner.close()
        return client

    def _target(self, request: web.Request, admission: Admission, path: str) -> tuple[str, dict[str, str]]:
        address = admission.hello.client_address
        query = [(k, v) for k, v in request.query.items() if k != "access_token"]
        url = f"{_owner(admission).url}{path}?{urlencode(query)}"
        headers = {
            "Authorization": f"Bearer {admission.token}",
            HEADER_CLIENT: address,
            HEADER_HOPS: str(admission.hops + 1),
            HEADER_VOUCHER: voucher(self._secret, address, admission.token),
            **tracing.headers(),
        }
        return url, headers

    async def _connect(self, request: web.Request, admission: Admission) -> aiohttp.ClientWebSocketResponse:
        assert self._session is not None
        url, headers = self._target(request, admission, "/rtc")
        try:
            connected: aiohttp.ClientWebSocketResponse = await self._session.ws_connect(
                url,
                headers=headers,
                max_msg_size=self._max_frame * 8,
                heartbeat=HEARTBEAT_SECONDS,
                **_owner(admission).checked,
            )
        except aiohttp.WSServerHandshakeError as error:
            self._metrics.forwarded.labels("refused").inc()
            status, text, reason = await self._ask(request, admission)
            if status < 400:
                status, text = 503, f"the room's gateway answered {error.status}: connect again"
            raise JoinRefused(status, _reason(reason), text) from None
        except (aiohttp.ClientError, TimeoutError, OSError):
            raise self._unreachable(admission) from None
        self._metrics.forwarded.labels("connected").inc()
        return connected

    async def _ask(self, request: web.Request, admission: Admission) -> tuple[int, str, str]:
        assert self._session is not None
        url, headers = self._target(request, admission, "/rtc/validate")
        try:
            async with self._session.get(url, headers=headers, **_owner(admission).checked) as response:
                text = (await response.content.read(4096)).decode(errors="replace")
                return response.status, text, response.headers.get("X-Headwater-Reason", "")
        except (aiohttp.ClientError, TimeoutError, OSError):
            raise self._unreachable(admission) from None

    def _unreachable(self, admission: Admission) -> OwnerUnreachable:
        self._metrics.forwarded.labels("unreachable").inc()
        _log.warning(
            "owner of the room unreachable",
            reason=Reason.OWNER_UNREACHABLE,
            gateway=_owner(admission).gateway,
        )
        return OwnerUnreachable(
            503, Reason.OWNER_UNREACHABLE, "the room's gateway cannot be reached now: connect again"
        )


def _owner(admission: Admission) -> GatewayPeer:
    assert admission.owner is not None
    return admission.owner


def _reason(text: str) -> Reason:
    try:
        return Reason(text)
    except ValueError:
        return Reason.INTERNAL_ERROR


async def _relay(client: web.WebSocketResponse, owner: aiohttp.ClientWebSocketResponse) -> None:
    """Both directions, until either ends; the other is then closed with the owner's code or as going away."""
    to_owner = asyncio.create_task(_pump(client, owner), name="relay-to-owner")
    to_client = asyncio.create_task(_pump(owner, client), name="relay-to-client")
    try:
        await asyncio.wait({to_owner, to_client}, return_when=asyncio.FIRST_COMPLETED)
        if not to_owner.done() and not owner.closed:
            # The client reads no more, but its `leave` may be on the way: without it the room waits for it.
            await asyncio.wait({to_owner}, timeout=_LAST_WORDS_SECONDS)
        elif not to_client.done() and not client.closed:
            # The owner reads no more, but its farewell may be on the way: without it the client comes back.
            await asyncio.wait({to_client}, timeout=_LAST_WORDS_SECONDS)
    finally:
        for task in (to_owner, to_client):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    with contextlib.suppress(TimeoutError, ConnectionError):
        code = owner.close_code if owner.closed and owner.close_code else CLOSE_GOING_AWAY
        await asyncio.wait_for(client.close(code=code if code != 1006 else CLOSE_GOING_AWAY), 2.0)
    with contextlib.suppress(TimeoutError, ConnectionError):
        await asyncio.wait_for(owner.close(code=CLOSE_NORMAL), 2.0)


_Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


async def _pump(source: _Socket, sink: _Socket) -> None:
    """One frame at a time: the sink's drain is the back-pressure on the source."""
    with contextlib.suppress(ConnectionError):
        while True:
            message = await source.receive()
            if message.type is WSMsgType.BINARY:
                await sink.send_bytes(message.data)
            elif message.type is WSMsgType.TEXT:
                await sink.send_str(message.data)
            else:
                return
