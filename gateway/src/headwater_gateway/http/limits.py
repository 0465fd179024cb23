"""How many connections one client address may hold."""

from collections.abc import Iterator
from contextlib import contextmanager

from headwater_api.reasons import Reason

from headwater_gateway.signal.types import JoinRefused


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
