"""The watermark and the tone through real codecs: what the bots rely on."""

from fractions import Fraction

import av
import numpy as np
import pytest
from headwater_sandbox.demo.tone import frequency, tone_block, tone_heard, tone_share
from headwater_sandbox.demo.watermark import MAX_SOURCE, Mark, Painter, encode_bits, read_mark
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

MARKS = st.builds(Mark, st.integers(0, MAX_SOURCE), st.integers(0, 2**24 - 1), st.integers(0, 2**40 - 1))


def luma_of(painter: Painter, mark: Mark) -> NDArray[np.uint8]:
    data = np.frombuffer(painter.paint(mark, 90), dtype=np.uint8)
    return data[: painter.width * painter.height].reshape(painter.height, painter.width)


@given(MARKS)
def test_a_mark_reads_back_at_every_layer_size(mark: Mark) -> None:
    luma = luma_of(Painter(320, 180), mark)
    assert read_mark(luma) == mark
    assert read_mark(luma[::2, ::2]) == mark


@given(MARKS, st.integers(0, 91))
def test_a_single_wrong_block_is_noticed(mark: Mark, position: int) -> None:
    luma = luma_of(Painter(320, 180), mark).copy()
    y, x = divmod(position, 20)
    block = (slice(y * 16, y * 16 + 16), slice(x * 16, x * 16 + 16))
    luma[block] = 248 - luma[block]
    assert read_mark(luma) is None


@pytest.mark.parametrize("level", [0, 16, 128, 235, 255])
def test_a_plain_picture_holds_no_mark(level: int) -> None:
    assert read_mark(np.full((180, 320), level, dtype=np.uint8)) is None


def test_noise_holds_no_mark() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (180, 320), dtype=np.uint8)
    assert read_mark(noise) is None


def test_a_source_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="source"):
        encode_bits(Mark(MAX_SOURCE + 1, 0, 0))


@pytest.mark.parametrize(("width", "height", "bitrate"), [(320, 180, 80_000), (640, 360, 200_000)])
def test_the_mark_survives_vp8_at_a_low_bitrate(width: int, height: int, bitrate: int) -> None:
    painter = Painter(width, height)
    encoder = av.CodecContext.create("libvpx", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.bit_rate, encoder.time_base, encoder.framerate = bitrate, Fraction(1, 15), Fraction(15, 1)
    encoder.options = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}
    decoder = av.CodecContext.create("vp8", "r")
    sent = [Mark(7, n, 1_000_000 + n * 66) for n in range(60)]
    read = []
    for n, mark in enumerate(sent):
        data = np.frombuffer(painter.paint(mark, 120), dtype=np.uint8).reshape(height * 3 // 2, width)
        frame = av.VideoFrame.from_ndarray(data, format="yuv420p")
        frame.pts = n
        for packet in encoder.encode(frame):
            for picture in decoder.decode(packet):
                read.append(read_mark(picture.to_ndarray(format="yuv420p")[:height]))
    good = [mark for mark in read if mark is not None]
    assert len(good) >= 57
    assert set(good) <= set(sent)


def test_each_tone_is_told_from_every_other_through_opus() -> None:
    for source in range(0, 12, 3):
        heard = through_opus(tone_block(frequency(source), 48_000, 0, 48_000))
        block = heard[24_000:28_800]
        detected = [other for other in range(12) if tone_heard(block, frequency(other), 48_000)]
        assert detected == [source]


def test_silence_and_noise_are_no_tone() -> None:
    assert tone_share(np.zeros(800, dtype=np.int16), frequency(0), 8000) == 0.0
    noise = np.random.default_rng(2).integers(-8000, 8000, 800).astype(np.int16)
    assert not any(tone_heard(noise, frequency(source), 8000) for source in range(12))


def through_opus(samples: NDArray[np.int16]) -> NDArray[np.int16]:
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format, encoder.bit_rate = 48_000, "mono", "s16", 24_000
    decoder = av.CodecContext.create("libopus", "r")
    decoder.sample_rate, decoder.layout, decoder.format = 48_000, "mono", "s16"
    out = []
    for start in range(0, len(samples), 960):
        frame = av.AudioFrame.from_ndarray(samples[None, start : start + 960], format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48_000, start
        for packet in encoder.encode(frame):
            out += [decoded.to_ndarray().ravel() for decoded in decoder.decode(packet)]
    return np.concatenate(out)
