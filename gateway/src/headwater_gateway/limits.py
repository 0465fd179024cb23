"""How often somebody may do something: token buckets by key, bounded in memory. Time is an argument."""

from collections import OrderedDict
from typing import Final

KEYS: Final = 10_000


class Rate:
    """So many a second for each key, and so many at once. Seconds as every `now`."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second, self._burst = per_second, burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, when

    def take(self, key: str, now: float) -> bool:
        """Whether it may, now; if so it counts."""
        tokens, since = self._buckets.get(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._per_second)
        allowed = tokens >= 1
        self._buckets[key] = (tokens - 1 if allowed else tokens, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > KEYS:  # the key that was quiet for longest: its bucket is the fullest
            self._buckets.popitem(last=False)
        return allowed
