"""What the probe sends: a moving picture and a tone, made as they are needed."""

import math
from fractions import Fraction
from typing import Final

import numpy as np
from aiortc import AudioStreamTrack, VideoStreamTrack
from av import AudioFrame, VideoFrame

WIDTH: Final = 320
HEIGHT: Final = 180
SAMPLE_RATE: Final = 48_000
SAMPLES: Final = 960  # 20 ms
TONE_HZ: Final = 440.0
LEVEL: Final = 8000
# Far below the tone, far above what a codec makes of silence.
AUDIBLE_RMS: Final = 500.0


class Picture(VideoStreamTrack):
    """Grey that changes with each picture, 30 a second."""

    async def recv(self) -> VideoFrame:
        pts, time_base = await self.next_timestamp()
        shade = (pts // 3000 * 8) % 200 + 16
        frame = VideoFrame.from_ndarray(np.full((HEIGHT, WIDTH, 3), shade, dtype=np.uint8), format="rgb24")
        frame.pts, frame.time_base = pts, time_base
        return frame


class Tone(AudioStreamTrack):
    """440 Hz, mono, 20 ms a frame, paced by aiortc's own clock."""

    def __init__(self) -> None:
        super().__init__()
        self._at = 0

    async def recv(self) -> AudioFrame:
        await super().recv()  # keeps the pace
        steps = np.arange(self._at, self._at + SAMPLES)
        wave = (np.sin(2 * math.pi * TONE_HZ * steps / SAMPLE_RATE) * LEVEL).astype(np.int16)
        frame = AudioFrame.from_ndarray(wave.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, self._at, Fraction(1, SAMPLE_RATE)
        self._at += SAMPLES
        return frame


def audible(frame: AudioFrame) -> bool:
    samples = frame.to_ndarray().astype(np.float64)
    return bool(math.sqrt(float(np.mean(samples**2))) > AUDIBLE_RMS)
