"""Who speaks: deltas of loudness from the nodes' audio levels."""

import math
from dataclasses import dataclass, field
from typing import Final

from headwater_api.ids import ParticipantSid
from livekit.protocol import models

INTERVAL_S: Final = 0.3
ACTIVE_BELOW_DBOV: Final = 35  # louder than -35 dBov counts as speech
SILENT: Final = 127
STALE_S: Final = 1.5  # no level for that long: silent
STEPS: Final = 8  # loudness is told in eighths: small changes are no news


def linear_level(dbov: int) -> float:
    """-dBov 0 (loud) … 127 (silent) as 0…1, in steps."""
    if dbov >= ACTIVE_BELOW_DBOV:
        return 0.0
    amplitude = math.pow(10, -dbov / 20)
    # Speech sits around -30 dBov: the square root spreads it over the scale.
    return max(1, round(math.sqrt(amplitude) * STEPS)) / STEPS


@dataclass(slots=True)
class SpeakerBoard:
    """Last loudness by participant and track, and what clients were told."""

    _levels: dict[ParticipantSid, dict[str, tuple[int, float]]] = field(default_factory=dict)
    _told: dict[ParticipantSid, float] = field(default_factory=dict)
    due: float | None = None  # monotonic seconds

    def hear(self, sid: ParticipantSid, track: str, dbov: int, now: float) -> None:
        """A level of one track."""
        self._levels.setdefault(sid, {})[track] = (dbov, now)
        if self.due is None and (dbov < ACTIVE_BELOW_DBOV or sid in self._told):
            self.due = now + INTERVAL_S

    def forget(self, sid: ParticipantSid) -> None:
        """The participant has left: nobody needs to be told, the roster says it."""
        self._levels.pop(sid, None)
        self._told.pop(sid, None)

    def active(self) -> list[models.SpeakerInfo]:
        """Who speaks now, as last told; for a client that comes back."""
        return [models.SpeakerInfo(sid=sid, level=level, active=True) for sid, level in self._told.items()]

    def changes(self, now: float) -> list[models.SpeakerInfo]:
        """What is new since the last call. Sets the next due time while somebody speaks."""
        news: list[models.SpeakerInfo] = []
        for sid, tracks in self._levels.items():
            for track in [t for t, (_, at) in tracks.items() if now - at > STALE_S]:
                del tracks[track]  # muted or unpublished
            level = linear_level(min((dbov for dbov, _ in tracks.values()), default=SILENT))
            if level == self._told.get(sid, 0.0):
                continue
            if level:
                self._told[sid] = level
            else:
                self._told.pop(sid, None)
            news.append(models.SpeakerInfo(sid=sid, level=level, active=level > 0))
        self.due = now + INTERVAL_S if self._told else None
        return news
