"""Is our own event loop alive? Nothing else may decide this process's liveness."""

import asyncio
import time
from typing import Final

PERIOD_S: Final = 0.25
# A loop that was late by this much is stuck, not busy: the kubelet may restart the Pod.
STUCK_S: Final = 5.0


class LoopWatch:
    """Measures how late the loop runs a timer, in seconds."""

    def __init__(self) -> None:
        self.lag_s = 0.0

    @property
    def healthy(self) -> bool:
        return self.lag_s < STUCK_S

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            due = time.monotonic() + PERIOD_S
            await asyncio.sleep(PERIOD_S)
            self.lag_s = max(0.0, time.monotonic() - due)
