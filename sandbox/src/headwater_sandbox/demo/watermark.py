"""A watermark that survives a video codec: who sent this frame, which one it is, and when.

The picture is a grid of 20 × 11 blocks, in proportions, so that a scaled simulcast layer reads the
same. The first 5 rows carry 100 bits, a block each, dark or light: a source id, a frame counter, the
capture time and a CRC over them. The remaining rows hold a slowly moving picture, so that the
encoder has something to do.
"""

import binascii
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

COLUMNS: Final = 20
ROWS: Final = 5
GRID_ROWS: Final = 11.25  # of a 16:9 picture with square blocks
_DARK: Final = 48
_LIGHT: Final = 200
_MID: Final = (_DARK + _LIGHT) / 2

_SOURCE_BITS: Final = 12
_COUNTER_BITS: Final = 24
_TIME_BITS: Final = 40
_CRC_BITS: Final = 16
_PAYLOAD_BITS: Final = _SOURCE_BITS + _COUNTER_BITS + _TIME_BITS
_USED_BITS: Final = _PAYLOAD_BITS + _CRC_BITS
_PAYLOAD_BYTES: Final = (_PAYLOAD_BITS + 7) // 8

_SAMPLES: Final = 9  # of each block

MAX_SOURCE: Final = 2**_SOURCE_BITS - 1


@dataclass(frozen=True, slots=True)
class Mark:
    """What a frame says of itself. `at_ms` is milliseconds of a clock that both ends share."""

    source: int
    counter: int
    at_ms: int


def encode_bits(mark: Mark) -> NDArray[np.uint8]:
    """The mark as 0 and 1, most significant first. Raises ValueError for a source out of range."""
    if not 0 <= mark.source <= MAX_SOURCE:
        raise ValueError(f"source {mark.source} is not from 0 to {MAX_SOURCE}")
    payload = mark.source
    payload = payload << _COUNTER_BITS | mark.counter % 2**_COUNTER_BITS
    payload = payload << _TIME_BITS | mark.at_ms % 2**_TIME_BITS
    word = payload << _CRC_BITS | _checksum(payload)
    return np.array([word >> shift & 1 for shift in range(_USED_BITS - 1, -1, -1)], dtype=np.uint8)


def _checksum(payload: int) -> int:
    # Started from a non-zero value: a black picture must not read as a valid mark of zeros.
    return binascii.crc_hqx(payload.to_bytes(_PAYLOAD_BYTES, "big"), 0xA5C3)


class Painter:
    """Draws marked I420 frames of one size."""

    def __init__(self, width: int, height: int) -> None:
        if width % 2 or height % 2 or width < COLUMNS * 4:
            raise ValueError(f"{width}x{height}: sides must be even, the width {COLUMNS * 4} or more")
        self.width = width
        self.height = height
        ys = (np.arange(height) * GRID_ROWS / height).astype(np.intp)
        xs = (np.arange(width) * COLUMNS / width).astype(np.intp)
        self._marked_height = int(np.searchsorted(ys, ROWS))
        self._index = ys[: self._marked_height, None] * COLUMNS + xs[None, :]
        self._ramp = (np.arange(width + 256) * 255 // max(1, width) % 256).astype(np.uint8)

    def paint(self, mark: Mark, hue: int) -> bytes:
        """One I420 frame (limited-range luma, then the two chroma planes). `hue` tints it, 0-255."""
        bits = np.zeros(COLUMNS * ROWS, dtype=np.uint8)
        bits[:_USED_BITS] = encode_bits(mark)
        levels = np.where(bits, _LIGHT, _DARK).astype(np.uint8)
        luma = np.empty((self.height, self.width), dtype=np.uint8)
        luma[: self._marked_height] = levels[self._index]
        shift = mark.counter * 2 % 256
        luma[self._marked_height :] = 64 + self._ramp[shift : shift + self.width] // 4
        quarter = self.width * self.height // 4
        return luma.tobytes() + bytes([hue]) * quarter + bytes([255 - hue]) * quarter


@lru_cache(maxsize=32)
def _sample_positions(width: int, height: int) -> NDArray[np.intp]:
    """For each bit, where in a flat luma plane to look: around the block's middle, off its ringing edges."""
    offsets = np.array([0.35, 0.5, 0.65])
    rows, columns = np.divmod(np.arange(_USED_BITS), COLUMNS)
    ys = ((rows[:, None] + offsets) * height / GRID_ROWS).astype(np.intp)
    xs = ((columns[:, None] + offsets) * width / COLUMNS).astype(np.intp)
    positions: NDArray[np.intp] = ys[:, :, None] * width + xs[:, None, :]
    return positions.reshape(_USED_BITS, _SAMPLES)


def read_mark(luma: NDArray[np.uint8]) -> Mark | None:
    """The mark of a luma plane of any size; None where its checksum does not hold."""
    height, width = luma.shape
    if width < 2 * COLUMNS or height < 2 * GRID_ROWS:
        return None
    samples = luma.reshape(-1)[_sample_positions(width, height)]
    dark_or_light = samples.sum(axis=1, dtype=np.int32) > _MID * _SAMPLES
    word = int.from_bytes(np.packbits(dark_or_light).tobytes(), "big") >> (-_USED_BITS % 8)
    payload, crc = word >> _CRC_BITS, word % 2**_CRC_BITS
    if _checksum(payload) != crc:
        return None
    return Mark(
        source=payload >> (_COUNTER_BITS + _TIME_BITS),
        counter=payload >> _TIME_BITS & (2**_COUNTER_BITS - 1),
        at_ms=payload & (2**_TIME_BITS - 1),
    )
