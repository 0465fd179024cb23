"""How many connections one client address may hold."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from headwater_api.reasons import Reason

from headwater_gateway.limits import Rate
from headwater_gateway.signal.types import JoinRefused

JOINS_BURST: Final = 10.0  # seconds of the rate
USER_JOINS_PER_S: Final = 2.0
USER_BURST: Final = 40.0
ROOM_JOINS_PER_S: Final = 500.0
ROOM_BURST: Final = 2000.0


class JoinLimiter:
    """How often an address, a user of a room, and all of a room may ask to join. 0 an address: any."""

    def __init__(self, per_address: int) -> None:
        self._addresses = Rate(per_address, per_address * JOINS_BURST) if per_address else None
        self._users = Rate(USER_JOINS_PER_S, USER_BURST)
        self._rooms = Rate(ROOM_JOINS_PER_S, ROOM_BURST)

    def check(self, address: str, room: str, identity: str, now: float) -> None:
        """Count one attempt. JoinRefused 429: too many (monotonic seconds)."""
        if self._addresses is not None and not self._addresses.take(address, now):
            raise JoinRefused(429, Reason.RATE_LIMITED, "too many joins from your address: wait a moment")
        if not self._users.take(f"{room}\n{identity}", now):
            raise JoinRefused(429, Reason.RATE_LIMITED, "this participant joins too often: wait a moment")
        if not self._rooms.take(room, now):
            raise JoinRefused(429, Reason.RATE_LIMITED, "too many join this room at once: try again")


class AddressLimiter:
    """Counts open WebSockets by client address. A `most` of 0 sets no limit."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[str, int] = {}

    @contextmanager
    def hold(self, address: str) -> Iterator[None]:
        """Count one connection for the block. JoinRefused 429 at the limit."""
        count = self._open.get(address, 0)
        if self._most and count >= self._most:
            raise JoinRefused(
                429, Reason.TOO_MANY_SESSIONS, f"{count} connections from your address are open: close some"
            )
        self._open[address] = count + 1
        try:
            yield
        finally:
            left = self._open[address] - 1
            if left:
                self._open[address] = left
            else:
                del self._open[address]

    def count(self, address: str) -> int:
        return self._open.get(address, 0)
