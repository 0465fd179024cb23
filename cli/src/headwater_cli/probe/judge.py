"""Is what the probe measured good enough? Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measured:
    """One run. None: it did not come to that."""

    published_s: float | None = None  # offer sent → ICE and DTLS up, publishing
    watching_s: float | None = None  # the same, watching
    first_frame_s: float | None = None  # watching asked for → first decoded picture
    audio_s: float | None = None  # watching asked for → first audible tone
    frames_per_second: float = 0.0
    loss_percent: float = 0.0
    rtt_ms: float | None = None
    publish_address: str = ""  # the node's address that ICE chose
    watch_address: str = ""
    error: str = ""


@dataclass(frozen=True)
class Limits:
    """What is asked of a run."""

    connect_s: float = 5.0
    first_frame_s: float = 5.0
    frames_per_second: float = 8.0
    loss_percent: float = 5.0


@dataclass(frozen=True, slots=True)
class Verdict:
    ok: bool
    sentence: str


def judge(measured: Measured, limits: Limits) -> list[Verdict]:
    """One sentence for each stage; nothing after the first stage that was not reached."""
    if measured.error and measured.published_s is None:
        return [Verdict(False, f"publishing: {measured.error}")]
    verdicts = [_within("publishing connected", measured.published_s, limits.connect_s)]
    if measured.error and measured.watching_s is None:
        return [*verdicts, Verdict(False, f"watching: {measured.error}")]
    verdicts.append(_within("watching connected", measured.watching_s, limits.connect_s))
    verdicts.append(_within("first picture", measured.first_frame_s, limits.first_frame_s))
    verdicts.append(_within("audible tone", measured.audio_s, limits.first_frame_s))
    if measured.first_frame_s is None:
        return verdicts
    rate, loss = measured.frames_per_second, measured.loss_percent
    verdicts.append(
        Verdict(
            rate >= limits.frames_per_second,
            f"{rate:.1f} pictures/s (at least {limits.frames_per_second:g})",
        )
    )
    verdicts.append(
        Verdict(loss <= limits.loss_percent, f"{loss:.1f} % loss (at most {limits.loss_percent:g} %)")
    )
    return verdicts


def _within(what: str, seconds: float | None, limit: float) -> Verdict:
    if seconds is None:
        return Verdict(False, f"{what}: not at all")
    return Verdict(seconds <= limit, f"{what} after {seconds:.2f} s (at most {limit:g} s)")
