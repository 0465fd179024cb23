"""What a bot is, apart from the SDK: light enough for the command line to import."""

import time
from dataclasses import dataclass, field


def now_ms() -> int:
    """Milliseconds of the machine's monotonic clock, the same in every process."""
    return time.monotonic_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class BotSpec:
    """One bot. `url` is the gateway's WebSocket address, `?region=` included."""

    identity: str
    source: int
    url: str
    token: str = field(repr=False)
    width: int = 320
    height: int = 180
    fps: int = 15
    bitrate: int = 250_000
    simulcast: bool = False
    publish: bool = True
    picture: bool = True  # of what it publishes; the tone is always there
    watch: bool = True  # whether the pictures of others are looked at; they are received and decoded anyway
    hear_ms: int = 200  # how finely the tones of others are looked for; 0: not at all
