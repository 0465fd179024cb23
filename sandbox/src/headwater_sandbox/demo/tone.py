"""A tone of its own for each source, and its detection (Goertzel's algorithm)."""

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

BASE_HZ: Final = 400.0
# Far enough apart for 100 ms blocks (10 Hz bins), and no tone is a harmonic of another one nearby.
STEP_HZ: Final = 70.0
AMPLITUDE: Final = 0.25
# Share of a block's energy that must lie at the frequency. Opus keeps a pure tone above 0.9.
HEARD_SHARE: Final = 0.5
# Below this RMS (of full scale 1) there is silence, whatever its spectrum.
SILENCE_RMS: Final = 0.01


def frequency(source: int) -> float:
    """The tone of a source, Hz. Raises ValueError past the band that Opus keeps at any bitrate."""
    if not 0 <= source < 36:
        raise ValueError(f"source {source}: tones are defined from 0 to 35")
    return BASE_HZ + STEP_HZ * source


def tone_block(hz: float, rate: int, start: int, count: int) -> NDArray[np.int16]:
    """`count` samples of a sine from sample number `start` on, so that blocks join without clicks."""
    phase = 2 * np.pi * hz * (start + np.arange(count)) / rate
    return np.asarray(np.sin(phase) * AMPLITUDE * 32767, dtype=np.int16)


def tone_share(samples: NDArray[np.int16], hz: float, rate: int) -> float:
    """Share (0 to 1) of the block's energy at `hz`; 0 for silence."""
    x = samples.astype(np.float32) / 32768
    energy = float(np.dot(x, x))
    if len(x) == 0 or energy / len(x) < SILENCE_RMS**2:
        return 0.0
    cosine, sine = _waves(hz, rate, len(x))
    power = float(np.dot(x, cosine)) ** 2 + float(np.dot(x, sine)) ** 2
    return min(1.0, 2 * power / (len(x) * energy))


@lru_cache(maxsize=256)
def _waves(hz: float, rate: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Goertzel's recurrence in closed form is one bin of the Fourier transform: its two waves."""
    angle = 2 * np.pi * hz / rate * np.arange(count)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def tone_heard(samples: NDArray[np.int16], hz: float, rate: int) -> bool:
    return tone_share(samples, hz, rate) >= HEARD_SHARE
