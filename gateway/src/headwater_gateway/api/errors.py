"""How the API says no: one error type, told as Twirp or as REST.

Twirp's codes and their HTTP statuses: https://twitchtv.github.io/twirp/docs/spec_v7.html
"""

from typing import Final

from headwater_api.reasons import Reason

from headwater_gateway.room.ports import JoinRefusal, RoomError
from headwater_gateway.signal.types import JoinRefused

STATUS_OF_CODE: Final = {
    "invalid_argument": 400,
    "malformed": 400,
    "unauthenticated": 401,
    "permission_denied": 403,
    "not_found": 404,
    "bad_route": 404,
    "deadline_exceeded": 408,
    "already_exists": 409,
    "failed_precondition": 412,
    "resource_exhausted": 429,
    "internal": 500,
    "unimplemented": 501,
    "unavailable": 503,
}
_CODE_OF_REASON: Final = {
    Reason.PARTICIPANT_NOT_FOUND: "not_found",
    Reason.TRACK_NOT_FOUND: "not_found",
    Reason.ROOM_NOT_FOUND: "not_found",
    Reason.ROOM_CLOSED: "not_found",
    Reason.PUBLISH_NOT_ALLOWED: "failed_precondition",
    Reason.METADATA_TOO_LARGE: "invalid_argument",
    Reason.METADATA_NOT_ALLOWED: "invalid_argument",
    Reason.RATE_LIMITED: "resource_exhausted",
    Reason.PARAMETER_INVALID: "invalid_argument",
    Reason.PARTICIPANT_NOT_MOVABLE: "failed_precondition",
}
_CODE_OF_STATUS: Final = {400: "invalid_argument", 401: "unauthenticated", 403: "permission_denied"}


class ApiError(Exception):
    """A call that is not carried out. The sentence goes to the caller: it names the fix and no secret."""

    def __init__(self, code: str, sentence: str, reason: Reason = Reason.PARAMETER_INVALID) -> None:
        super().__init__(sentence)
        self.code, self.sentence, self.reason = code, sentence, reason

    @property
    def status(self) -> int:
        return STATUS_OF_CODE[self.code]


def to_api_error(error: Exception) -> ApiError:
    """What the layers below raise, in the API's terms. Anything else is a fault of ours: re-raised."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RoomError | JoinRefusal):
        code = _CODE_OF_REASON.get(error.reason, "unavailable")
        return ApiError(code, error.sentence, error.reason)
    if isinstance(error, JoinRefused):
        return ApiError(_CODE_OF_STATUS.get(error.status, "unavailable"), error.message, error.reason)
    if isinstance(error, TimeoutError):
        return ApiError("deadline_exceeded", "the room did not answer in time", Reason.COMMAND_TIMEOUT)
    raise error
