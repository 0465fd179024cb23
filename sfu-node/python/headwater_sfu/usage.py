"""What this process costs: CPU and memory, from the kernel."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_STATM: Final = Path("/proc/self/statm")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Sample:
    """CPU seconds used so far, at a monotonic time, both in seconds."""

    cpu_s: float
    at_s: float


def take_sample(now_s: float) -> Sample:
    times = os.times()
    return Sample(times.user + times.system, now_s)


def cpu_percent(before: Sample, after: Sample, cores: int) -> float:
    """Percent of all `cores` used between the samples; 0 where no time has passed."""
    elapsed = after.at_s - before.at_s
    if elapsed <= 0:
        return 0.0
    return max(0.0, 100.0 * (after.cpu_s - before.cpu_s) / (elapsed * cores))


def rss_bytes() -> int:
    """Resident memory in bytes; 0 where the kernel does not tell."""
    try:
        return int(_STATM.read_text().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0
