"""When a service that fails is left alone, and when it is tried again. Pure."""

import random
from dataclasses import dataclass
from typing import Final

FAILURES: Final = 3  # in a row open it
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 5.0


@dataclass(slots=True)
class Breaker:
    """Closed: calls pass. Open: none does, until a pause has passed; then a single one finds out."""

    rng: random.Random
    failures: int = 0
    open_until: float = 0.0  # monotonic seconds
    _is_probing: bool = False

    @property
    def is_open(self) -> bool:
        return self.failures >= FAILURES

    def allows(self, now: float) -> bool:
        """Whether a call may be made now. Each allowed call is followed by one of the verdicts below."""
        if not self.is_open:
            return True
        if now < self.open_until or self._is_probing:
            return False
        self._is_probing = True
        return True

    def succeeded(self) -> None:
        self.failures, self._is_probing = 0, False

    def abandoned(self) -> None:
        """The caller gave the call up: it says nothing of the service."""
        self._is_probing = False

    def failed(self, now: float) -> None:
        """Pauses grow, with jitter so that gateways do not come back in step."""
        self.failures += 1
        self._is_probing = False
        if self.is_open:
            pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(10, self.failures - FAILURES))
            self.open_until = now + pause * (0.5 + 0.5 * self.rng.random())
