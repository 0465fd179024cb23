"""Allocations and traffic, read from what coturn prints. Pure: lines and times in, figures out.

coturn reports a session's bytes after each 4096 packets and at its end, so that rates lag by some seconds.
Its own Prometheus exporter is missing in many builds, and its control port is kept closed.
"""

import re
from dataclasses import dataclass
from typing import Final

MAX_SESSIONS: Final = 100_000
# A session that has not reported for so long has nearly no traffic.
RATE_LIFE_S: Final = 60.0

_NEW: Final = re.compile(r"session (\d+): new, ")
_GONE: Final = re.compile(r"session (\d+): delete: ")
_USAGE: Final = re.compile(r"session (\d+): (peer )?usage: .* rb=(\d+), .*sb=(\d+)\s*$")
_REFUSED: Final = re.compile(r"processed, error (\d{3}): ")


@dataclass(slots=True)
class _Session:
    since: float
    pending: int = 0
    mbps: float = 0.0
    rated_at: float = 0.0


class Usage:
    """Counts since the start. `now` is in seconds of any clock that only goes forward."""

    def __init__(self) -> None:
        self._sessions: dict[str, _Session] = {}
        self.allocations_total = 0
        self.client_bytes = 0  # to and from clients
        self.peer_bytes = 0  # to and from SFU nodes
        self.errors: dict[str, int] = {}  # STUN error code (RFC 8489 §14.8) → count

    @property
    def allocations(self) -> int:
        """Allocations that live now."""
        return len(self._sessions)

    def mbps(self, now: float) -> float:
        """What is sent, to clients and to SFU nodes, Mbit/s."""
        alive = (s.mbps for s in self._sessions.values() if now - s.rated_at < RATE_LIFE_S)
        return sum(alive)

    def line(self, text: str, now: float) -> None:
        """One line of coturn's log; most say nothing of interest."""
        if (match := _USAGE.search(text)) is not None:
            self._on_usage(match, now)
        elif (match := _NEW.search(text)) is not None:
            if len(self._sessions) < MAX_SESSIONS:
                self._sessions[match.group(1)] = _Session(since=now)
            self.allocations_total += 1
        elif (match := _GONE.search(text)) is not None:
            self._sessions.pop(match.group(1), None)
        elif (match := _REFUSED.search(text)) is not None:
            code = match.group(1)
            self.errors[code] = self.errors.get(code, 0) + 1

    def _on_usage(self, match: re.Match[str], now: float) -> None:
        received, sent = int(match.group(3)), int(match.group(4))
        if match.group(2):
            self.peer_bytes += received + sent
        else:
            self.client_bytes += received + sent
        session = self._sessions.get(match.group(1))
        if session is None:
            return
        session.pending += sent
        if match.group(2):  # the second line of a pair
            elapsed = max(now - session.since, 0.001)
            session.mbps = session.pending * 8 / elapsed / 1e6
            session.pending, session.since, session.rated_at = 0, now, now
