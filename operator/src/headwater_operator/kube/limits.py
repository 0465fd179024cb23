"""A token bucket, so that no storm of changes becomes a storm of writes."""

import asyncio
from collections.abc import Callable


class TokenBucket:
    """At most `burst` at once and `rate_per_s` in the long run."""

    def __init__(self, *, rate_per_s: float, burst: int, monotonic: Callable[[], float]) -> None:
        self._rate = rate_per_s
        self._burst = float(burst)
        self._monotonic = monotonic
        self._tokens = float(burst)
        self._at = monotonic()

    def try_take(self) -> float:
        """0.0 and one token gone, or the seconds until there may be one."""
        now = self._monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._rate

    async def take(self) -> None:
        """Waits for a token: never longer than the callers ahead of it need."""
        while (wait := self.try_take()) > 0.0:  # noqa: ASYNC110  tokens come with time
            await asyncio.sleep(wait)
