"""What this process costs and was granted, from the kernel: CPU, memory, receive buffers."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_STATM: Final = Path("/proc/self/statm")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_INTERNET: Final = (socket.AF_INET, socket.AF_INET6)


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


def receive_buffer_bytes(port: int) -> int:
    """The smallest receive buffer of this process's UDP sockets on that port, as net.core.rmem_max counts.

    Without CAP_NET_ADMIN the kernel grants at most that, silently. 0: there is no such socket.
    """
    granted = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            duplicate = os.dup(int(entry))
        except OSError:
            continue  # closed meanwhile
        try:
            held = socket.socket(fileno=duplicate)
        except OSError:
            os.close(duplicate)  # not a socket: the constructor leaves what it refuses open
            continue
        with held:
            internet = held.type == socket.SOCK_DGRAM and held.family in _INTERNET
            if internet and held.getsockname()[1] == port:
                # The kernel sets aside twice what was asked for, and says so (socket(7)).
                granted.append(held.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2)
    return min(granted, default=0)
