"""Twirp over aiohttp: protobuf and JSON bodies, errors as JSON (Twirp wire protocol v7)."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog
from aiohttp import web
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from headwater_api.ids import RoomId
from headwater_api.reasons import Reason

from headwater_gateway.api.context import ApiContext, Caller
from headwater_gateway.api.errors import ApiError, to_api_error

PROTOBUF: Final = "application/protobuf"
JSON: Final = "application/json"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """One verified call."""

    caller: Caller
    request: web.Request
    body: bytes


@dataclass(frozen=True, slots=True)
class Method:
    """What a method takes and who carries it out.

    `room_of`: the room whose gateway does; an empty string: the gateway that was asked.
    """

    takes: type[Message]
    handle: Callable[[Call, Message], Awaitable[Message]]
    room_of: Callable[[Message], str]


class TwirpService:
    """POST /twirp/<package.Service>/<Method>."""

    def __init__(self, context: ApiContext, methods: dict[str, Method]) -> None:
        self._context, self._methods = context, methods

    async def handle(self, request: web.Request) -> web.Response:
        """One call, whatever becomes of it."""
        try:
            return await self._answer(request)
        except web.HTTPRequestEntityTooLarge:
            return error_response(ApiError("malformed", "the request is too large"))
        except Exception as error:
            return error_response(to_api_error(error))

    async def _answer(self, request: web.Request) -> web.Response:
        name = request.match_info["method"]
        method = self._methods.get(name)
        if method is None:
            raise ApiError("bad_route", f"no such method: {name[:80]!r}", Reason.PARAMETER_INVALID)
        if request.content_type not in (PROTOBUF, JSON):
            raise ApiError("bad_route", f"Content-Type must be {PROTOBUF} or {JSON}")
        caller = self._context.caller(request)
        body = await request.read()
        message = _decode(method.takes, body, request.content_type)
        room = method.room_of(message)
        peer = await self._context.owner(RoomId(room), caller) if room else None
        if peer is not None:
            return await self._context.forward(request, body, caller, peer)
        answer = await method.handle(Call(caller, request, body), message)
        return _encode(answer, request.content_type)


def _decode(kind: type[Message], body: bytes, content_type: str) -> Message:
    message = kind()
    try:
        if content_type == PROTOBUF:
            message.ParseFromString(body)
        else:
            json_format.Parse(body.decode("utf-8") or "{}", message, ignore_unknown_fields=True)
    except (DecodeError, json_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError("malformed", f"the body is no {kind.__name__}: {str(error)[:200]}") from None
    return message


def _encode(message: Message, content_type: str) -> web.Response:
    if content_type == PROTOBUF:
        return web.Response(body=message.SerializeToString(), content_type=PROTOBUF)
    text = json_format.MessageToJson(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, indent=None
    )
    return web.Response(text=text, content_type=JSON)


def error_response(error: ApiError) -> web.Response:
    """Twirp's error object, with our reason beside it."""
    body = {"code": error.code, "msg": error.sentence, "meta": {"reason": error.reason}}
    headers = {"X-Headwater-Reason": str(error.reason)}
    return web.json_response(body, status=error.status, headers=headers)
