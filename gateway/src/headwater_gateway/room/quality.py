"""Connection quality of each participant, from loss and round-trip time."""

from dataclasses import dataclass, field
from typing import Final

from headwater_api.ids import ParticipantSid
from livekit.protocol import models, rtc

INTERVAL_S: Final = 5.0
STALE_S: Final = 12.0


def rate(uplink_loss: float, downlink_loss: float, rtt_ms: float) -> tuple[models.ConnectionQuality, float]:
    """(ConnectionQuality, score 1…4.5) from loss ratios 0…1 and milliseconds.

    A simplified E-model (ITU-T G.107): delay costs little below 160 ms one way, loss from the first per cent.
    """
    loss = 100.0 * max(0.0, min(1.0, max(uplink_loss, downlink_loss)))
    delay = max(0.0, rtt_ms) / 2
    r = 93.2 - (delay / 40 if delay < 160 else (delay - 120) / 10) - 2.5 * loss
    r = max(0.0, min(100.0, r))
    score = max(1.0, 1 + 0.035 * r + 7e-6 * r * (r - 60) * (100 - r))
    if score >= 4.1:
        return models.ConnectionQuality.EXCELLENT, score
    if score >= 3.0:
        return models.ConnectionQuality.GOOD, score
    return models.ConnectionQuality.POOR, score


@dataclass(slots=True)
class QualityBoard:
    """The last verdict for each participant."""

    _verdicts: dict[ParticipantSid, tuple[models.ConnectionQuality, float, float]] = field(
        default_factory=dict
    )
    due: float | None = None  # monotonic seconds

    def hear(self, sid: ParticipantSid, verdict: tuple[models.ConnectionQuality, float], now: float) -> None:
        self._verdicts[sid] = (*verdict, now)
        if self.due is None:
            self.due = now + 1.0

    def lost(self, sid: ParticipantSid, now: float) -> None:
        """The client's signalling is away."""
        self.hear(sid, (models.ConnectionQuality.LOST, 0.0), now)

    def forget(self, sid: ParticipantSid) -> None:
        self._verdicts.pop(sid, None)

    def report(self, now: float) -> list[rtc.ConnectionQualityInfo]:
        """All fresh verdicts. Sets the next due time while there are any."""
        fresh = {s: v for s, v in self._verdicts.items() if now - v[2] <= STALE_S}
        self._verdicts = fresh
        self.due = now + INTERVAL_S if fresh else None
        return [
            rtc.ConnectionQualityInfo(participant_sid=sid, quality=quality, score=score)
            for sid, (quality, score, _) in fresh.items()
        ]
