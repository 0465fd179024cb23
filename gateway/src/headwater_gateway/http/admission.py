"""From a request to a ClientHello, or to a refusal. GET /rtc and GET /rtc/validate share it wholly."""

import hmac
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from aiohttp import web
from headwater_api.ids import GatewayId, RegionName, RoomId
from headwater_api.reasons import Reason
from headwater_api.traces import HEADER

from headwater_gateway.auth import TokenVerifier, bearer_token
from headwater_gateway.geo.client_address import client_address
from headwater_gateway.geo.region import Locator, RegionUnknown, check_override, resolve
from headwater_gateway.http.doorkeeper import peer_address
from headwater_gateway.http.limits import JoinLimiter
from headwater_gateway.http.query import JoinQuery, is_resume, parse_query
from headwater_gateway.metrics import Metrics
from headwater_gateway.room.roster import SERVER_PREFIX
from headwater_gateway.settings import Settings
from headwater_gateway.signal.types import (
    Claims,
    ClientHello,
    GatewayPeer,
    JoinRefused,
    RegionSource,
    RoomPlane,
)
from headwater_gateway.tracing import JOIN, stage

# A gateway that passes a session on vouches for the client's address with the secret they share.
HEADER_CLIENT = "X-Headwater-Client"
HEADER_VOUCHER = "X-Headwater-Voucher"
HEADER_HOPS = "X-Headwater-Hops"

_ROOM = re.compile(r"[^\x00-\x1f\x7f]{1,256}\Z")


@dataclass(frozen=True, slots=True)
class Admission:
    """An admitted client, or one whose room lives on another gateway."""

    hello: ClientHello
    token: str
    owner: GatewayPeer | None
    hops: int = 0  # gateways that have passed it on so far


def voucher(secret: str, address: str, token: str) -> str:
    """Proof that a gateway saw this client at this address."""
    return hmac.new(secret.encode(), f"{address}\n{token}".encode(), "sha256").hexdigest()


def is_vouched(request: web.Request, secret: str, address: str, token: str) -> bool:
    """Whether a gateway, which knows the secret, says so of this address and token."""
    given = request.headers.get(HEADER_VOUCHER, "")
    return hmac.compare_digest(voucher(secret, address, token).encode(), given.encode())


def check_origin(request: web.Request, allowed: frozenset[str]) -> None:
    """Browsers say which page asks (RFC 6454). JoinRefused 403: it is none of those that may."""
    origin = request.headers.get("Origin")
    if allowed and origin is not None and origin.lower() not in allowed:
        raise JoinRefused(403, Reason.ORIGIN_NOT_ALLOWED, "pages of this origin may not use this server")


class Gatekeeper:
    """Decides joins: token, grants, query, region, owner, and the rooms' own policy."""

    def __init__(
        self,
        settings: Settings,
        verifier: TokenVerifier,
        locator: Locator,
        plane: RoomPlane,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self.verifier = verifier
        self._locator = locator
        self._plane = plane
        self._metrics = metrics
        self._limiter = JoinLimiter(settings.max_joins_per_address)
        self.draining = False

    def renewed_token(self, claims: Claims) -> str | None:
        """A fresh token for a client that is in. None: its API key is gone."""
        return self.verifier.renew(claims, time.time(), time.monotonic())

    @property
    def allowed_origins(self) -> frozenset[str]:
        """Of pages that may ask; empty: any."""
        return self._settings.allowed_origins

    def unreachable(self, gateway: GatewayId) -> None:
        """A room's gateway did not answer."""
        self._plane.unreachable(gateway)

    async def admit(self, request: web.Request, *, room: str = "") -> Admission:
        """Raise JoinRefused, or say who joins. Asks the room policy unless another gateway owns the room.

        `room`: the path's, where the path names one.
        """
        started = time.monotonic()
        if self.draining:
            raise JoinRefused(503, Reason.SERVER_SHUTDOWN, "this gateway is shutting down: connect again")
        token = bearer_token(request.headers.get("Authorization"), request.query.get("access_token"))
        with stage("validate token"):
            claims = self.verifier.verify(token, time.time(), started)
        query = parse_query(request.query)
        name = _room(claims, replace(query, room=room) if room else query)
        address, vouched = self.address_of(request, token)
        hello = self._hello(claims, query, name, address)
        if (trace := JOIN.get()) is not None:
            trace.about(name, hello.region, hello.region_source)
        hops = _hops(request) if vouched else 0
        if not vouched:
            check_origin(request, self._settings.allowed_origins)
            self._limiter.check(address, name, claims.identity, started)
        with stage("find owner"):
            owner = await self._plane.owner(name, hops=hops, resumes=hello.reconnect)
        if owner is None:
            with stage("check"):
                hello = await self._plane.admit(hello)
        self._metrics.join_seconds.observe(time.monotonic() - started)
        return Admission(hello, token, owner, hops)

    @contextmanager
    def traced(self, request: web.Request, route: str) -> Iterator[None]:
        """What is done within is a join, and in its trace where joins are traced."""
        traces = self._plane.directory.traces
        if traces is None or is_resume(request.query):
            yield
            return
        trace = traces.begin(route, self._parent(request))
        if trace is None:
            yield
            return
        outer = JOIN.set(trace)
        try:
            yield
        except JoinRefused as refusal:
            trace.refused(refusal.reason, is_ours=refusal.status >= 500)
            raise
        finally:
            JOIN.reset(outer)
            trace.leave()

    def _parent(self, request: web.Request) -> str | None:
        """The trace that another gateway goes on with here. None: none has passed the client on.

        What a client says itself is not believed: whether it is traced is not its to choose.
        """
        if HEADER_VOUCHER not in request.headers:
            return None
        token = bearer_token(request.headers.get("Authorization"), request.query.get("access_token"))
        return request.headers.get(HEADER, "") if self.address_of(request, token)[1] else None

    def address_of(self, request: web.Request, token: str) -> tuple[str, bool]:
        """The client's address, and whether another gateway vouched for it."""
        told = request.headers.get(HEADER_CLIENT)
        if told is not None and is_vouched(request, self._settings.node_token, told, token):
            return told, True
        forwarded = request.headers.getall("X-Forwarded-For", [])
        return client_address(peer_address(request), forwarded, self._settings.trusted_proxies), False

    def _hello(self, claims: Claims, query: JoinQuery, room: RoomId, address: str) -> ClientHello:
        region, source, country = self._region(query.region, address)
        self._metrics.regions.labels(source).inc()
        return ClientHello(
            room=room,
            identity=claims.identity,
            claims=claims,
            region=region,
            region_source=source,
            client_address=address,
            country=country,
            rtts_ms=query.rtts_ms,
            protocol=query.protocol,
            client_protocol=query.client_protocol,
            sdk=query.sdk,
            version=query.version,
            os=query.os,
            browser=query.browser,
            device_model=query.device_model,
            network=query.network,
            auto_subscribe=query.auto_subscribe,
            adaptive_stream=query.adaptive_stream,
            publish_only=query.publish_only,
            reconnect=query.reconnect,
            reconnect_sid=query.reconnect_sid,
            reconnect_reason=query.reconnect_reason,
            password=query.password,
            consents_to_recording=query.recording_consent,
        )

    def _region(self, wanted: str, address: str) -> tuple[RegionName, RegionSource, str]:
        regions = self._plane.regions()
        found = resolve(
            address, regions, self._locator, (self._settings.default_region, self._settings.region)
        )
        country = found.place.country if found.place else ""
        if not wanted:
            source = RegionSource.GEOIP if found.place else RegionSource.DEFAULT
            return found.region, source, country
        if not self._settings.region_override:
            raise JoinRefused(400, Reason.PARAMETER_INVALID, "region= may not be chosen here: leave it out")
        try:
            return check_override(wanted, regions), RegionSource.OVERRIDE, country
        except RegionUnknown as error:
            raise JoinRefused(400, Reason.REGION_UNKNOWN, str(error)) from None


def _hops(request: web.Request) -> int:
    text = request.headers.get(HEADER_HOPS, "1")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 1


def _room(claims: Claims, query: JoinQuery) -> RoomId:
    """The room of the grant; a grant for any room takes it from the query."""
    if not claims.video.room_join:
        raise JoinRefused(403, Reason.GRANT_MISSING, "the access token lacks the grant video.roomJoin")
    if not claims.identity:
        raise JoinRefused(400, Reason.IDENTITY_MISSING, "the access token names no identity (sub)")
    if claims.identity.startswith(SERVER_PREFIX):
        raise JoinRefused(
            400, Reason.IDENTITY_INVALID, f"identities that start with {SERVER_PREFIX!r} are the server's"
        )
    if claims.video.room and query.room and claims.video.room != query.room:
        raise JoinRefused(403, Reason.GRANT_MISSING, "the access token is for another room than room=")
    room = claims.video.room or query.room
    if not room:
        raise JoinRefused(400, Reason.ROOM_NAME_MISSING, "no room: set video.room in the access token")
    if not _ROOM.match(room):
        raise JoinRefused(
            400, Reason.ROOM_NAME_INVALID, "the room's name must be 1 to 256 printable characters"
        )
    return RoomId(room)
