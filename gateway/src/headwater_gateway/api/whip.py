"""WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep): one offer by HTTP, one answer, one resource.

POST /whip/{room}, POST /whep/{room}[/from/{identity}]: 201 with the answer, or 307 to the gateway nearest to
the client. PATCH on the resource: trickled candidates (nothing to do: the node is ICE-lite and learns them
from checks) and ICE restarts. DELETE ends it. The bearer token is a LiveKit access token; its room and grants
hold as for any join.
"""

import re
from dataclasses import replace
from typing import Final

import structlog
from aiohttp import web
from headwater_api.ids import ParticipantIdentity, ParticipantSid, RegionName, RoomId
from headwater_api.reasons import Reason
from livekit.protocol import models

from headwater_gateway.api.context import ApiContext, Caller
from headwater_gateway.api.errors import ApiError, to_api_error
from headwater_gateway.api.rest import problem
from headwater_gateway.http.admission import Admission
from headwater_gateway.room.ids import SystemIds
from headwater_gateway.room.model import JoinRequest
from headwater_gateway.room.ports import Joined, JoinRefusal
from headwater_gateway.sdp.render import join_lines, transport_lines
from headwater_gateway.sdp.types import LocalTransport, SdpError
from headwater_gateway.signal.http_session import HttpSession
from headwater_gateway.signal.session_runner import STATUS_OF, join_request
from headwater_gateway.signal.types import JoinRefused
from headwater_gateway.tracing import JOIN, stage

SDP: Final = "application/sdp"
FRAGMENT: Final = "application/trickle-ice-sdpfrag"
MAX_SDP: Final = 64 * 1024
_UFRAG: Final = re.compile(r"^a=ice-ufrag:([A-Za-z0-9+/]{4,256})\s*$", re.MULTILINE)
_MEDIA: Final = re.compile(r"^m=(\w+) .*?(?=^m=|\Z)", re.MULTILINE | re.DOTALL)
_MID: Final = re.compile(r"^a=mid:([^\s]{1,16})\s*$", re.MULTILINE)

log = structlog.get_logger(__name__)


class Whip:
    """The handlers, and the resources of this gateway."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._ids = SystemIds()
        self._resources: dict[ParticipantSid, HttpSession] = {}

    def add(self, app: web.Application) -> None:
        """Route both protocols."""
        for path in ("/whip/{room}", "/whep/{room}", "/whep/{room}/from/{identity}"):
            app.router.add_post(path, self.post)
            app.router.add_options(path, _options)
        for path in ("/whip/{room}/{sid}", "/whep/{room}/{sid}"):
            app.router.add_patch(path, self.patch)
            app.router.add_delete(path, self.delete)
            app.router.add_options(path, _options)

    async def post(self, request: web.Request) -> web.StreamResponse:
        """A new resource."""
        try:
            with self._context.gatekeeper.traced(request, f"/{request.path.split('/')[1]}"):
                return await self._post(request)
        except Exception as error:
            return _refused(error)

    async def _post(self, request: web.Request) -> web.StreamResponse:
        if request.content_type != SDP:
            raise JoinRefused(415, Reason.REQUEST_MALFORMED, f"Content-Type must be {SDP}")
        raw = await request.read()
        if len(raw) > MAX_SDP:
            raise JoinRefused(413, Reason.SDP_TOO_LARGE, f"the offer has more than {MAX_SDP} bytes")
        admission = await self._context.gatekeeper.admit(request, room=request.match_info["room"])
        elsewhere = self._nearer(admission, request)
        if elsewhere:
            return web.Response(status=307, headers={"Location": elsewhere})
        if admission.owner is not None:
            hello = admission.hello
            caller = Caller(hello.claims, admission.token, hello.client_address, is_gateway=False)
            answer = await self._context.forward(request, raw, caller, admission.owner)
            if (trace := JOIN.get()) is not None:
                trace.passed_on()
            return answer
        return await self._open(request, admission, raw)

    def _nearer(self, admission: Admission, request: web.Request) -> str:
        """Where a client of another region is served better; empty: here."""
        settings, region = self._context.settings, admission.hello.region
        url = settings.region_urls.get(region, "")
        if not url or region == settings.region or admission.hops:
            return ""
        return f"{url}{request.path_qs}"

    async def _open(self, request: web.Request, admission: Admission, raw: bytes) -> web.Response:
        publishes = request.path.startswith("/whip/")
        hello = admission.hello
        wanted = join_request(hello)
        _check_grant(wanted, publishes=publishes)
        source = request.match_info.get("identity")
        session = HttpSession(
            hello.room,
            hello.identity,
            self._ids,
            publishes=publishes,
            source=ParticipantIdentity(source) if source else None,
        )
        try:
            with stage("room"):
                room, joined = await self._context.directory.join(
                    hello.room, _as_http(wanted, publishes=publishes), session
                )
        except JoinRefusal as refusal:
            raise JoinRefused(STATUS_OF.get(refusal.reason, 503), refusal.reason, refusal.sentence) from None
        try:
            with stage("answer"):
                answer = session.start(room, joined, raw.decode("utf-8"))
        except (SdpError, UnicodeDecodeError) as error:
            room.leave(joined.sid, models.DisconnectReason.JOIN_FAILURE)
            raise JoinRefused(400, Reason.SDP_INVALID, f"the offer is refused: {error}"[:300]) from None
        self._resources[joined.sid] = session
        session.on_over = lambda: self._forget(joined.sid)
        log.info("resource.opened", room=hello.room, participant=joined.sid, publishes=publishes)
        kind = "whip" if publishes else "whep"
        headers = {
            "Location": f"/{kind}/{request.rel_url.raw_parts[2]}/{joined.sid}",
            "ETag": f'"{session.tag}"',
            "Accept-Patch": FRAGMENT,
        }
        response = web.Response(status=201, text=answer, content_type=SDP, headers=headers)
        for link in self._links(hello.region, joined):
            response.headers.add("Link", link)
        return response

    def _forget(self, sid: ParticipantSid) -> None:
        self._resources.pop(sid, None)

    def _links(self, region: RegionName, joined: Joined) -> list[str]:
        """RFC 9725 §4.6: TURN servers as Link headers."""
        links = []
        for server in self._context.plane.ice_servers(region, joined.sid, joined.facts.node_id):
            secret = ""
            if server.username:
                secret = f'; username="{server.username}"; credential="{server.credential}"'
                secret += '; credential-type="password"'
            links += [f'<{url}>; rel="ice-server"{secret}' for url in server.urls]
        return links

    # -- a resource ------------------------------------------------------------------------------

    async def patch(self, request: web.Request) -> web.StreamResponse:
        """Candidates, or an ICE restart."""
        try:
            raw = await request.read()
            found = await self._find(request, raw)
            return found if isinstance(found, web.Response) else self._patch(request, raw, found)
        except Exception as error:
            return _refused(error)

    def _patch(self, request: web.Request, raw: bytes, session: HttpSession) -> web.Response:
        if request.content_type != FRAGMENT:
            raise JoinRefused(415, Reason.REQUEST_MALFORMED, f"Content-Type must be {FRAGMENT}")
        condition = request.headers.get("If-Match")
        if condition is None:
            raise JoinRefused(
                428, Reason.REQUEST_MALFORMED, "send If-Match with the ETag, or * to restart ICE"
            )
        ufrag = _UFRAG.search(raw.decode(errors="replace"))
        if condition.strip() == "*":
            if ufrag is None:
                raise JoinRefused(400, Reason.SDP_INVALID, "an ICE restart needs a=ice-ufrag")
            local = session.restart(ufrag.group(1))
            text = _fragment(raw.decode(errors="replace"), local)
            headers = {"ETag": f'"{session.tag}"'}
            return web.Response(status=200, text=text, content_type=FRAGMENT, headers=headers)
        if condition.strip() != f'"{session.tag}"':
            raise JoinRefused(
                412, Reason.REQUEST_MALFORMED, "the ETag is not that of the current ICE session"
            )
        return web.Response(status=204)

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """The end."""
        try:
            found = await self._find(request, b"")
            if isinstance(found, web.Response):
                return found
            found.leave()
            return web.Response(status=200)
        except Exception as error:
            return _refused(error)

    async def _find(self, request: web.Request, raw: bytes) -> HttpSession | web.Response:
        """The caller's own resource, or the answer of the gateway that has it. ApiError not_found."""
        caller = self._context.caller(request)
        sid = ParticipantSid(request.match_info["sid"])
        session = self._resources.get(sid)
        if session is None and not caller.is_gateway:
            peer = await self._context.owner(RoomId(request.match_info["room"]), caller, resumes=True)
            if peer is not None:
                return await self._context.forward(request, raw, caller, peer)
        if session is None:
            session = await self._adopt(RoomId(request.match_info["room"]), sid, caller.claims.identity)
        mine = session is not None and session.identity == caller.claims.identity
        if session is None or not mine or session.room_id != request.match_info["room"]:
            raise ApiError(
                "not_found", "there is no such resource: send a new offer", Reason.PARTICIPANT_NOT_FOUND
            )
        return session

    async def _adopt(
        self, room_id: RoomId, sid: ParticipantSid, identity: ParticipantIdentity
    ) -> HttpSession | None:
        """The resource of a room that was taken over: the gateway that opened it is gone, its media flows."""
        room = self._context.directory.room(room_id)
        left = room.state.participants.get(sid) if room is not None else None
        facts = self._context.directory.pool.facts(left.node_id) if left is not None else None
        if room is None or left is None or facts is None or not left.is_http or left.identity != identity:
            return None
        session = HttpSession.adopted(room, left, facts, self._ids)
        if not await room.attach(sid, session, frozenset(left.wanted)):
            return None
        self._resources[sid] = session
        session.on_over = lambda: self._forget(sid)
        log.info("resource.adopted", room=room_id, participant=sid, publishes=session.publishes)
        return session


def _check_grant(request: JoinRequest, *, publishes: bool) -> None:
    allowed = request.permission.can_publish if publishes else request.permission.can_subscribe
    if not allowed:
        grant = "canPublish" if publishes else "canSubscribe"
        raise JoinRefused(403, Reason.GRANT_MISSING, f"the access token denies video.{grant}")


def _as_http(request: JoinRequest, *, publishes: bool) -> JoinRequest:
    return replace(request, is_http=True, auto_subscribe=not publishes)


def _fragment(asked: str, local: LocalTransport) -> str:
    """The node's side of an ICE restart (RFC 8840), for the m-line that the client named first."""
    media = _MEDIA.search(asked)
    kind = media.group(1) if media else "audio"
    mid = _MID.search(asked)
    lines = [line for line in transport_lines(local, "passive", True) if line.startswith(_ICE)]
    return join_lines(
        [
            "a=ice-lite",
            f"m={kind} 9 UDP/TLS/RTP/SAVPF 0",
            f"a=mid:{mid.group(1) if mid else '0'}",
            *lines,
        ]
    )


_ICE: Final = ("a=ice-", "a=candidate:", "a=end-of-candidates")


async def _options(_: web.Request) -> web.Response:
    headers = {
        "Access-Control-Allow-Methods": "POST, PATCH, DELETE, OPTIONS",
        "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match",
        "Access-Control-Expose-Headers": "Location, ETag, Link, Accept-Patch",
        "Access-Control-Max-Age": "86400",
        "Accept-Post": SDP,
    }
    return web.Response(status=204, headers=headers)


def _refused(error: Exception) -> web.Response:
    """RFC 9457-like: our error object, with the status that the protocol asks for."""
    if isinstance(error, JoinRefused):
        headers = {"X-Headwater-Reason": str(error.reason)}
        if error.status == 503:
            headers["Retry-After"] = "1"
        body = {"error": {"reason": error.reason, "message": error.message}}
        return web.json_response(body, status=error.status, headers=headers)
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return web.json_response({"error": {"reason": "SdpTooLarge", "message": "too large"}}, status=413)
    return problem(to_api_error(error))
