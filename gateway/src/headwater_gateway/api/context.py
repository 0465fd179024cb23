"""What every call of the API needs: who asks, which gateway keeps the room, and the way there."""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

import aiohttp
import jwt
import structlog
from aiohttp import web
from headwater_api.ids import ParticipantIdentity, RoomId
from headwater_api.reasons import Reason
from headwater_api.wellknown import HEADER_TOKEN
from multidict import CIMultiDict

from headwater_gateway import tracing
from headwater_gateway.api.errors import ApiError
from headwater_gateway.auth import KeyStore, bearer_token
from headwater_gateway.bodies import BodyTooLarge, read_body
from headwater_gateway.http.admission import HEADER_CLIENT, HEADER_VOUCHER, Gatekeeper, check_origin, voucher
from headwater_gateway.owners import MAX_HOPS
from headwater_gateway.room.actor import RoomActor
from headwater_gateway.room.directory import RoomDirectory
from headwater_gateway.settings import Settings
from headwater_gateway.signal.types import Claims, GatewayPeer, RoomPlane, VideoGrant

FORWARD_S: Final = 70.0  # a PerformRpc may take a minute
MAX_ANSWER: Final = 8 * 1024 * 1024
MINTED_S: Final = 60
JOIN_AUDIENCE: Final = "headwater.join"  # of a meeting's join link
# Answers' headers that are passed on.
_KEPT: Final = (
    "content-type",
    "x-headwater-reason",
    "location",
    "etag",
    "link",
    "accept-patch",
    "retry-after",
    "cache-control",
    "www-authenticate",
)
_SENT: Final = ("Content-Type", "Accept", "If-Match", "Authorization", "Origin")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified caller. `is_gateway`: another gateway passed the call on; it must not be passed on again."""

    claims: Claims
    token: str
    address: str
    is_gateway: bool


@dataclass(frozen=True, slots=True)
class ApiContext:
    """Shared by all handlers of one gateway."""

    settings: Settings
    keys: KeyStore
    gatekeeper: Gatekeeper
    plane: RoomPlane
    session: aiohttp.ClientSession

    @property
    def directory(self) -> RoomDirectory:
        return self.plane.directory

    def caller(self, request: web.Request, *, audience: str = "") -> Caller:
        """Who asks. JoinRefused 401: its token is missing or bad. `audience`: tokens for it will do too."""
        elsewhere = request.headers.get(HEADER_TOKEN) or request.query.get("access_token")
        token = bearer_token(request.headers.get("Authorization"), elsewhere)
        claims = self.gatekeeper.verifier.verify(token, time.time(), time.monotonic(), also_for=audience)
        address, vouched = self.gatekeeper.address_of(request, token)
        if not vouched:
            check_origin(request, self.settings.allowed_origins)
        return Caller(claims, token, address, vouched)

    def stranger(self, request: web.Request) -> Caller:
        """Somebody without a token, who may do nothing that needs a grant."""
        check_origin(request, self.settings.allowed_origins)
        address, _ = self.gatekeeper.address_of(request, "")
        return Caller(Claims("", ParticipantIdentity(""), "", VideoGrant()), "", address, is_gateway=False)

    async def owner(self, room: RoomId, caller: Caller, *, resumes: bool = False) -> GatewayPeer | None:
        """The gateway to pass a call about the room on to; None: this one carries it out. JoinRefused.

        `resumes`: the caller has been in the room, so it is there even if no report has shown it yet.
        """
        return await self.plane.owner(room, hops=MAX_HOPS if caller.is_gateway else 0, resumes=resumes)

    def room(self, name: str) -> RoomActor:
        """A room that lives here. ApiError not_found."""
        actor = self.directory.room(RoomId(name))
        if actor is None or actor.state.ended:
            raise ApiError("not_found", "requested room does not exist", Reason.ROOM_NOT_FOUND)
        return actor

    def mint(self, api_key: str, claims: dict[str, object], seconds: int = MINTED_S) -> str:
        """A token in an application's name. ApiError: its API key is gone."""
        secret = self.keys.secret(api_key, time.monotonic())
        if secret is None:
            raise ApiError("unauthenticated", "the API key is gone", Reason.API_KEY_UNKNOWN)
        now = int(time.time())
        audience = {"aud": self.settings.token_audience} if self.settings.token_audience else {}
        payload = {**audience, "nbf": now, "exp": now + seconds, **claims, "iss": api_key}
        return jwt.encode(payload, secret, algorithm="HS256")

    async def forward(
        self, request: web.Request, body: bytes, caller: Caller, peer: GatewayPeer
    ) -> web.Response:
        """The room's own gateway carries the call out; its answer, unchanged. ApiError unavailable."""
        headers = {k: request.headers[k] for k in _SENT if k in request.headers}
        headers.setdefault("Authorization", f"Bearer {caller.token}")
        status, answer, got = await self.call(
            peer,
            request.method,
            request.path_qs,
            body=body,
            headers=headers,
            address=caller.address,
            token=caller.token,
        )
        kept = CIMultiDict((k, v) for k, v in got.items() if k.lower() in _KEPT)
        return web.Response(status=status, body=answer, headers=kept)

    async def call(
        self,
        peer: GatewayPeer,
        method: str,
        path: str,
        *,
        body: bytes,
        headers: dict[str, str],
        address: str,
        token: str,
        deadline_s: float = FORWARD_S,
    ) -> tuple[int, bytes, CIMultiDict[str]]:
        """One request to another gateway, vouched for. ApiError unavailable: it does not answer."""
        vouched = {
            **headers,
            HEADER_CLIENT: address,
            HEADER_VOUCHER: voucher(self.settings.node_token, address, token),
            **tracing.headers(),
        }
        try:
            async with (
                asyncio.timeout(deadline_s),
                self.session.request(
                    method,
                    peer.url + path,
                    data=body,
                    headers=vouched,
                    allow_redirects=False,
                    **peer.checked,
                ) as response,
            ):
                answer = await read_body(response.content, MAX_ANSWER)
                return response.status, answer, CIMultiDict(response.headers)
        except BodyTooLarge as error:
            raise ApiError("unavailable", f"the room's gateway answers too much: {error}") from None
        except (aiohttp.ClientError, TimeoutError, OSError):
            log.warning(
                "owner of the room unreachable", reason=Reason.OWNER_UNREACHABLE, gateway=peer.gateway
            )
            self.plane.unreachable(peer.gateway)
            raise ApiError(
                "unavailable", "the room's gateway cannot be reached now: try again", Reason.OWNER_UNREACHABLE
            ) from None
