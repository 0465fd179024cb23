"""What can go wrong with the API server, as the loops need to tell it apart.

KubeError
├── Unavailable   try again later: network, timeout, 429, 5xx, shutting down
├── Conflict      409: somebody else wrote first, observe again
├── NotFound      404: the object (or its kind) is not there
├── Refused       other 4xx: the request is wrong or forbidden, a person must act
└── NotLeader     the Lease is not held: nothing was sent
"""

from http import HTTPStatus


class KubeError(Exception):
    """An API call that did not succeed; `status` is the HTTP status, 0 where there was none."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Unavailable(KubeError):
    """The API server cannot answer now; `retry_after_s` is what it asked for, 0 when it did not."""

    def __init__(self, message: str, *, status: int = 0, retry_after_s: float = 0.0) -> None:
        super().__init__(message, status=status)
        self.retry_after_s = retry_after_s


class Conflict(KubeError):
    """Another writer was faster, or the name is taken."""


class NotFound(KubeError):
    """No such object or kind."""


class Refused(KubeError):
    """The server will not do it, now or later, unless somebody changes something."""


class NotLeader(KubeError):
    """This replica may not write."""


def error_of(status: int, message: str, *, retry_after_s: float = 0.0) -> KubeError:
    """The error class for an HTTP status of 300 or more."""
    if status == HTTPStatus.NOT_FOUND:
        return NotFound(message, status=status)
    if status == HTTPStatus.CONFLICT:
        return Conflict(message, status=status)
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.UNAUTHORIZED) or status >= 500:
        # 401 is here because a rotated token is read again before the next call.
        return Unavailable(message, status=status, retry_after_s=retry_after_s)
    return Refused(message, status=status)
