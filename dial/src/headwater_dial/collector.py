"""How often a program that keeps much and leaves little behind looks for garbage."""

import gc
from typing import Final

# Container objects made before the youngest are looked through (Python's own: 700), and collections of one
# generation before the next: a gateway's sessions go with their last reference, and the operator reads lists
# of thousands again and again over a memory that hardly changes.
THRESHOLDS: Final = (20_000, 20, 20)


def spare_collector() -> None:
    """Cycles are looked for seldom."""
    gc.set_threshold(*THRESHOLDS)
