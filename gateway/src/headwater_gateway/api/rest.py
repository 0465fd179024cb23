"""REST over aiohttp: endpoints as a table, of which both the routes and the OpenAPI description are made."""

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import structlog
from aiohttp import web
from headwater_api.ids import RoomId
from headwater_api.meeting import ENDED, Meeting
from headwater_api.reasons import Reason
from pydantic import BaseModel, ValidationError

from headwater_gateway.api.context import ApiContext, Caller
from headwater_gateway.api.errors import ApiError, to_api_error
from headwater_gateway.api.schemas import Body
from headwater_gateway.passwords import TooManyAttempts
from headwater_gateway.room.access import Access, Role
from headwater_gateway.room.model import Participant
from headwater_gateway.room.rules import is_void, may_moderate

MEETING_ID: Final = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
PERSON_ID: Final = re.compile(r"[^\x00-\x1f\x7f]{1,256}")
_STATUS_OF: Final = {
    Reason.ROOM_LOCKED: 423,
    Reason.PARTICIPANT_NOT_MOVABLE: 409,
    Reason.RATE_LIMITED: 429,
    Reason.MEETING_ENDED: 404,
    Reason.ROOM_CLOSED: 404,
    Reason.TOKEN_REVOKED: 401,
    Reason.GRANT_MISSING: 403,
    Reason.PASSWORD_REQUIRED: 403,
    Reason.NOT_INVITED: 403,
    Reason.BANNED: 403,
    Reason.MEETING_NOT_STARTED: 403,
    Reason.CONSENT_REQUIRED: 403,
    Reason.ADMISSION_DENIED: 403,
    Reason.ROOM_FULL: 403,
    Reason.PUBLISH_NOT_ALLOWED: 403,
    Reason.COMMAND_TIMEOUT: 503,
    Reason.MEETING_UNREADABLE: 503,
}
B = TypeVar("B", bound=Body)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Query:
    """A number in the query."""

    name: str
    lowest: int
    highest: int
    default: int


@dataclass(frozen=True, slots=True)
class RestCall:
    """One verified call. `body` is of the endpoint's own model."""

    caller: Caller
    request: web.Request
    body: Body | None
    query: dict[str, int]

    def of(self, model: type[B]) -> B:
        """The body."""
        assert isinstance(self.body, model)
        return self.body

    @property
    def meeting_id(self) -> str:
        return self.request.match_info.get("meeting_id", "")

    @property
    def participant_id(self) -> str:
        return self.request.match_info.get("participant_id", "")


Answer = BaseModel | tuple[int, BaseModel] | web.Response


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path. `in_room`: carried out by the gateway that keeps the meeting's room.

    `is_open`: it needs no token, and its caller has no grants.
    """

    method: str
    path: str
    summary: str
    handle: Callable[[RestCall], Awaitable[Answer]]
    gives: dict[int, type[BaseModel] | str]  # status → model, or the media type of a text
    takes: type[Body] | None = None
    in_room: bool = True
    query: tuple[Query, ...] = ()
    audience: str = ""
    is_open: bool = False


class Rest:
    """Runs endpoints."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def add(self, app: web.Application, endpoint: Endpoint) -> None:
        """Route it."""

        async def handler(request: web.Request) -> web.StreamResponse:
            try:
                return await self._run(endpoint, request)
            except Exception as error:
                return problem(_to_rest_error(error))

        app.router.add_route(endpoint.method, endpoint.path, handler)

    async def _run(self, endpoint: Endpoint, request: web.Request) -> web.Response:
        if endpoint.is_open:
            caller = self._context.stranger(request)
        else:
            caller = self._context.caller(request, audience=endpoint.audience)
        raw = await request.read()
        body = _parse(endpoint, request, raw)
        call = RestCall(caller, request, body, _numbers(endpoint, request))
        if "{meeting_id}" in endpoint.path and not re.fullmatch(MEETING_ID, call.meeting_id):
            raise ApiError("not_found", "there is no such meeting", Reason.ROOM_NOT_FOUND)
        if "{participant_id}" in endpoint.path and not PERSON_ID.fullmatch(call.participant_id):
            raise ApiError("not_found", "nobody has such an id", Reason.PARTICIPANT_NOT_FOUND)
        peer = None
        if endpoint.in_room:
            peer = await self._context.owner(RoomId(call.meeting_id), caller)
        if peer is not None:
            return await self._context.forward(request, raw, caller, peer)
        answer = await endpoint.handle(call)
        if isinstance(answer, web.Response):
            return answer
        status, model = answer if isinstance(answer, tuple) else (min(endpoint.gives), answer)
        return web.json_response(text=model.model_dump_json(), status=status)


def _parse(endpoint: Endpoint, request: web.Request, raw: bytes) -> Body | None:
    if endpoint.takes is None:
        return None
    if request.content_type != "application/json":
        raise ApiError("invalid_argument", "Content-Type must be application/json")
    try:
        return endpoint.takes.model_validate(json.loads(raw))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise ApiError("invalid_argument", f"{where}: {first['msg']}"[:300]) from None
    except (ValueError, RecursionError):
        raise ApiError("invalid_argument", "the body is not JSON") from None


def _numbers(endpoint: Endpoint, request: web.Request) -> dict[str, int]:
    values = {}
    for query in endpoint.query:
        text = request.query.get(query.name)
        if text is None:
            values[query.name] = query.default
            continue
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1
        if not query.lowest <= number <= query.highest:
            raise ApiError(
                "invalid_argument", f"{query.name} must be a number from {query.lowest} to {query.highest}"
            )
        values[query.name] = number
    return values


def _to_rest_error(error: Exception) -> ApiError:
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return ApiError("invalid_argument", "the body is too large")
    if isinstance(error, TooManyAttempts):
        return ApiError("resource_exhausted", str(error), Reason.RATE_LIMITED)
    return to_api_error(error)


def problem(error: ApiError) -> web.Response:
    """Our error object."""
    status = _STATUS_OF.get(error.reason, error.status)
    headers = {"X-Headwater-Reason": str(error.reason)}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status in (429, 503):
        headers["Retry-After"] = "5"
    body: dict[str, Any] = {"error": {"reason": error.reason, "message": error.sentence}}
    return web.json_response(body, status=status, headers=headers)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a caller is in a meeting. `is_application`: the backend, whose token may create rooms."""

    identity: str
    is_application: bool
    is_member: bool
    moderates: bool
    here: Participant | None


def standing(context: ApiContext, meeting_id: str, caller: Caller) -> Standing:
    """By its token, and by what the room says of it."""
    video, claim = caller.claims.video, caller.claims.meeting
    bound = video.room == meeting_id and (not claim.meeting or claim.meeting == meeting_id)
    is_application = video.room_create
    is_member = bound and (video.room_join or video.room_admin)
    actor = context.directory.room(RoomId(meeting_id))
    here = actor.state.of_identity(caller.claims.identity) if actor is not None and is_member else None
    by_token = video.room_admin or claim.role in (Role.HOST, Role.COHOST)
    access = actor.state.access if actor is not None else Access()
    who, made = caller.claims.identity, caller.claims.issued_at
    is_host = bound and may_moderate(
        access, who, made, by_token=by_token if here is None else here.role.moderates
    )
    is_member = is_member and not is_void(access, who, made)
    return Standing(who, is_application, is_member, is_application or is_host, here)


def need_member(context: ApiContext, call: RestCall) -> Standing:
    """ApiError 403: a stranger."""
    found = standing(context, call.meeting_id, call.caller)
    if not (found.is_member or found.is_application):
        raise ApiError("permission_denied", "the access token is not for this meeting", Reason.GRANT_MISSING)
    return found


def need_host(context: ApiContext, call: RestCall) -> Standing:
    """ApiError 403: neither host nor application."""
    found = need_member(context, call)
    if not found.moderates:
        raise ApiError("permission_denied", "only the meeting's hosts may do this", Reason.GRANT_MISSING)
    return found


def need_inside(context: ApiContext, call: RestCall) -> Standing:
    """ApiError 403: not in the meeting (in its waiting room, say), and neither host nor application."""
    found = need_member(context, call)
    if found.here is None and not found.moderates:
        raise ApiError("permission_denied", "join the meeting first", Reason.GRANT_MISSING)
    return found


def need_meeting(context: ApiContext, meeting_id: str) -> Meeting:
    """ApiError 404: there is none, or it has ended."""
    meeting = context.plane.meetings.get(meeting_id)
    if meeting is None:
        raise ApiError("not_found", "there is no such meeting", Reason.ROOM_NOT_FOUND)
    if any(c.type == ENDED and c.status == "True" for c in meeting.status.conditions):
        raise ApiError("not_found", "the meeting has ended", Reason.MEETING_ENDED)
    return meeting
