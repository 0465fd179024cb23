"""What one subscriber got from one publisher. Pure bookkeeping: times come in as arguments."""

from collections import deque
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:  # it brings numpy, which the command line can do without
    from headwater_sandbox.demo.watermark import Mark

FPS_WINDOW_MS: Final = 2000
TONE_FRESH_MS: Final = 1000


@dataclass(frozen=True, slots=True)
class PairReport:
    """The state of a (subscriber, publisher) pair; `latency_ms` and `gap_ms` since the last report.

    `gap_ms` is the longest time without a decoded frame, one that still lasts included. It spans
    tracks: a publisher that comes back under a new track has a gap, not a new start.
    """

    publisher: str
    frames: int
    unreadable: int
    crossed: int  # frames that carry another source's mark: media went to the wrong track
    fps: float
    last_frame_ms: int | None
    first_frame_ms: int | None
    gap_ms: int
    tone: bool
    width: int
    height: int
    latency_ms: list[int] = field(default_factory=list)
    tone_gap_ms: int = 0  # as gap_ms: the longest time without the publisher's tone

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "PairReport":
        return cls(**data)


class PairRecorder:
    """Collects frames and tones of one publisher at one subscriber."""

    def __init__(self, publisher: str) -> None:
        self.publisher = publisher
        self._frames = 0
        self._unreadable = 0
        self._crossed = 0
        self._recent: deque[int] = deque()
        self._latency: list[int] = []
        self._first_ms: int | None = None
        self._last_ms: int | None = None
        self._gap_ms = 0
        self._tone_ms: int | None = None
        self._tone_gap_ms = 0
        self._size = (0, 0)

    def on_marked_frame(self, now_ms: int, mark: "Mark | None", source: int, size: tuple[int, int]) -> None:
        """A decoded frame of a bot's track, which must carry that bot's mark to count."""
        if mark is None:
            self._unreadable += 1
        elif mark.source != source:
            self._crossed += 1
        else:
            self._latency.append(now_ms - mark.at_ms)
            self.on_frame(now_ms, size)

    def on_frame(self, now_ms: int, size: tuple[int, int]) -> None:
        """A decoded frame that counts."""
        self._frames += 1
        self._size = size
        self._recent.append(now_ms)
        if self._last_ms is not None:
            self._gap_ms = max(self._gap_ms, now_ms - self._last_ms)
        if self._first_ms is None:
            self._first_ms = now_ms
        self._last_ms = now_ms

    def on_tone(self, now_ms: int, heard: bool) -> None:
        if heard:
            if self._tone_ms is not None:
                self._tone_gap_ms = max(self._tone_gap_ms, now_ms - self._tone_ms)
            self._tone_ms = now_ms

    def take(self, now_ms: int) -> PairReport:
        """The report, and a new interval for latency and gap."""
        while self._recent and self._recent[0] <= now_ms - FPS_WINDOW_MS:
            self._recent.popleft()
        gap = self._gap_ms
        if self._last_ms is not None:
            gap = max(gap, now_ms - self._last_ms)
        tone_gap = self._tone_gap_ms
        if self._tone_ms is not None:
            tone_gap = max(tone_gap, now_ms - self._tone_ms)
        report = PairReport(
            publisher=self.publisher,
            frames=self._frames,
            unreadable=self._unreadable,
            crossed=self._crossed,
            fps=len(self._recent) * 1000 / FPS_WINDOW_MS,
            last_frame_ms=self._last_ms,
            first_frame_ms=self._first_ms,
            gap_ms=gap,
            tone=self._tone_ms is not None and now_ms - self._tone_ms <= TONE_FRESH_MS,
            width=self._size[0],
            height=self._size[1],
            latency_ms=self._latency,
            tone_gap_ms=tone_gap,
        )
        self._latency = []
        self._gap_ms = self._tone_gap_ms = 0
        return report
