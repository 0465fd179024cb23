"""Whatever bytes come, the SDP code answers or raises SdpError; nothing else, and in bounded time."""

import contextlib
import itertools

from headwater_api.nodev1 import node_pb2
from headwater_gateway.sdp import PublisherNegotiation, SdpError, SendTrack, SubscriberNegotiation, parse, rtp
from headwater_gateway.sdp.viewer import answer_viewer
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.sdp_fixtures import LOCAL, NAMES, sdp

_TEXTS = [sdp(name) for name in NAMES]
_LINES = sorted({line for text in _TEXTS for line in text.split("\r\n")})
_line = st.one_of(
    st.sampled_from(_LINES), st.text(max_size=60), st.from_regex(r"[a-z]=[ -~]{0,40}", fullmatch=True)
)


_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]


@st.composite
def _mutated(draw: st.DrawFn) -> str:
    """A real description with some lines cut, doubled, swapped, replaced or damaged."""
    lines = draw(st.sampled_from(_TEXTS)).split("\r\n")
    for _ in range(draw(st.integers(1, 8))):
        at = draw(st.integers(0, len(lines) - 1))
        match draw(st.integers(0, 4)):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, lines[at])
            case 2:
                lines[at] = draw(_line)
            case 3:
                cut = draw(st.integers(0, len(lines[at])))
                lines[at] = lines[at][:cut] + draw(st.text(max_size=8)) + lines[at][cut:]
            case _:
                lines[at] = lines[at].replace(
                    draw(st.sampled_from("0123456789:; /")),
                    draw(st.sampled_from(["", "-1", "99999999999", "٣", ";"])),
                )
        if not lines:
            return ""
    return "\r\n".join(lines)


def _exercise(text: str) -> None:
    with contextlib.suppress(SdpError):
        answer = PublisherNegotiation().answer(text, LOCAL, redundant=lambda cid: True)
        assert answer.sdp.count("\r\nm=") == text.replace("\r\n", "\n").count("\nm=")
        assert "\n\n" not in answer.sdp
    subscriber = SubscriberNegotiation()
    vp8 = node_pb2.CodecMap(codec=node_pb2.CODEC_VP8, clock_rate=90000)
    subscriber.add_track(SendTrack("TR_1", "PA_1", node_pb2.KIND_VIDEO, vp8, 1, 2))
    opus = node_pb2.CodecMap(codec=node_pb2.CODEC_OPUS, clock_rate=48000, channels=2)
    subscriber.add_track(SendTrack("TR_2", "PA_1", node_pb2.KIND_AUDIO, opus, 3, is_redundant=True))
    subscriber.offer(LOCAL)
    with contextlib.suppress(SdpError):
        subscriber.apply_answer(text)
    with contextlib.suppress(SdpError):
        viewer = answer_viewer(text, LOCAL, itertools.count(1).__next__, "stream")
        assert viewer.sdp.count("\r\nm=") == text.replace("\r\n", "\n").count("\nm=")
        assert "\n\n" not in viewer.sdp


@settings(max_examples=400, deadline=1000, suppress_health_check=_SLOW)
@given(_mutated())
def test_damaged_descriptions_raise_only_sdp_errors(text: str) -> None:
    _exercise(text)


@settings(max_examples=200, deadline=1000)
@given(st.one_of(st.text(), st.lists(_line, max_size=60).map(lambda lines: "v=0\r\n" + "\r\n".join(lines))))
@example("v=0\r\nm=\r\n")
@example("v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF \ud800\r\na=mid:0")
@example("v=0\r\na=group:\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\na=setup:active\r\na=rtcp-mux")
@example("v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\na=setup:active\r\na=rtcp-mux\r\na=ssrc-group:")
def test_arbitrary_text_raises_only_sdp_errors(text: str) -> None:
    _exercise(text)


def _told(text: str) -> object:
    try:
        answer = PublisherNegotiation().answer(text, LOCAL)
    except SdpError as error:
        return str(error)
    return answer.sdp, [(s, *map(str, (*s.codecs, *s.extensions, *s.layers))) for s in answer.sections]


@settings(max_examples=150, deadline=2000, suppress_health_check=_SLOW)
@given(st.lists(_mutated(), min_size=2, max_size=4))
def test_what_others_have_said_changes_no_answer(texts: list[str]) -> None:
    """M-lines that are equal but for their own attributes are read once, for all clients."""
    alone = []
    for text in texts:
        for known in (parse._body, rtp._formats, rtp._extensions):
            known.cache_clear()
        alone.append(_told(text))
    assert [_told(text) for text in (*texts, *texts)] == alone * 2
