"""Whatever strangers send a gateway, each reader gives a value or the error that its docstring names."""

import contextlib
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from google.protobuf import json_format
from headwater_gateway.api import twirp, whip
from headwater_gateway.api.errors import ApiError
from headwater_gateway.auth import KeyStore, TokenVerifier
from headwater_gateway.http.doorkeeper import SIGNATURE_V2, HeaderError, parse_header
from headwater_gateway.http.query import parse_query
from headwater_gateway.sdp.render import join_lines
from headwater_gateway.signal.channel import FrameError, decode
from headwater_gateway.signal.types import JoinRefused
from hypothesis import example, given, settings
from hypothesis import strategies as st
from livekit.protocol import models, room, rtc
from support.sdp_fixtures import LOCAL, NAMES, sdp

KEY, SECRET = "APIkey", "s" * 32
NOW = 1_800_000_000.0

_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.just("\ud800")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
_GRANTS = ("roomJoin", "room", "canPublish", "canPublishSources", "hidden", "destinationRoom", "agent")
_grant = st.dictionaries(st.sampled_from(_GRANTS), st.one_of(st.booleans(), st.text(max_size=8), _json))
_CLAIMS = ("sub", "name", "exp", "nbf", "iat", "aud", "kind", "metadata", "attributes", "headwater", "jti")
_claims = st.dictionaries(st.sampled_from(_CLAIMS), _json).flatmap(
    lambda claims: st.builds(
        lambda video, exp: {"exp": exp, **claims, "iss": KEY, "video": video},
        st.one_of(_grant, _json),
        st.just(NOW + 60),
    )
)


def _signals() -> list[rtc.SignalRequest]:
    """One of each kind that clients send most."""
    offer = rtc.SessionDescription(type="offer", sdp=sdp(NAMES[0]))
    return [
        rtc.SignalRequest(offer=offer),
        rtc.SignalRequest(answer=rtc.SessionDescription(type="answer", sdp=sdp(NAMES[-1]))),
        rtc.SignalRequest(trickle=rtc.TrickleRequest(candidateInit='{"candidate":"","sdpMid":"0"}')),
        rtc.SignalRequest(
            add_track=rtc.AddTrackRequest(
                cid="c",
                type=models.TrackType.VIDEO,
                layers=[models.VideoLayer(quality=models.VideoQuality.HIGH, width=1280, height=720)],
            )
        ),
        rtc.SignalRequest(subscription=rtc.UpdateSubscription(track_sids=["TR_1"], subscribe=True)),
        rtc.SignalRequest(ping_req=rtc.Ping(timestamp=1, rtt=2)),
        rtc.SignalRequest(leave=rtc.LeaveRequest()),
    ]


_FRAMES = [m.SerializeToString() for m in _signals()]
_TEXTS = [json_format.MessageToJson(m, indent=None) for m in _signals()]


@st.composite
def _damaged(draw: st.DrawFn, whole: list[bytes]) -> bytes:
    """A real message with some of its bytes cut, doubled or replaced."""
    data = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 3)):
            case 0:
                del data[at : at + draw(st.integers(1, 9))]
            case 1:
                data[at:at] = data[at : at + draw(st.integers(1, 30))]
            case 2:
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case _:
                data[at:at] = draw(st.binary(max_size=9))
    return bytes(data)


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> TokenVerifier:
    folder: Path = tmp_path_factory.mktemp("keys")
    (folder / KEY).write_text(SECRET)
    return TokenVerifier(KeyStore(folder))


def _verify(verifier: TokenVerifier, token: str) -> None:
    try:
        claims = verifier.verify(token, NOW, 0.0)
    except JoinRefused as refused:
        assert refused.status == 401 and refused.message
        return
    # What comes out goes into messages, which hold no lone surrogates.
    texts = [claims.identity, claims.name, claims.metadata, claims.video.room, claims.video.destination_room]
    texts += [claims.meeting.meeting, claims.meeting.password, *claims.video.can_publish_sources]
    texts += [*claims.attributes, *claims.attributes.values()]
    assert all(text.encode() or not text for text in texts)


@settings(max_examples=300, deadline=1000)
@given(_claims)
@example({"iss": KEY, "exp": NOW, "name": "\ud800"})
@example({"iss": KEY, "exp": NOW, "attributes": {"\udfff": ""}})
@example({"iss": KEY, "exp": 10**400})
@example({"iss": KEY, "exp": float("nan")})
def test_signed_claims_of_any_shape_are_read_or_refused(
    verifier: TokenVerifier, claims: dict[str, Any]
) -> None:
    _verify(verifier, jwt.api_jws.encode(json.dumps(claims).encode(), SECRET, algorithm="HS256"))


_TOKEN = jwt.encode(
    {"iss": KEY, "exp": NOW + 60, "sub": "me", "video": {"room": "r"}}, SECRET, algorithm="HS256"
)


@settings(max_examples=300, deadline=1000)
@given(
    st.one_of(st.text(), _damaged([_TOKEN.encode()]).map(lambda raw: raw.decode("utf-8", "surrogateescape")))
)
@example("..")
@example("a.e30.a")
@example("a." + "W1tb" * 5_000 + ".a")
@example("\ud800.\ud800.\ud800")
def test_tokens_of_any_shape_are_read_or_refused(verifier: TokenVerifier, token: str) -> None:
    _verify(verifier, token)


@settings(max_examples=400, deadline=1000)
@given(st.one_of(_damaged(_FRAMES), st.binary(), _damaged([t.encode() for t in _TEXTS]), st.text()))
@example("[" * 5000)
@example('{"offer":{"sdp":"\\ud800"}}')
@example('{"ping":1e999}')
def test_frames_are_messages_or_frame_errors(frame: bytes | str) -> None:
    for form in (
        frame,
        frame.decode("utf-8", "replace") if isinstance(frame, bytes) else frame.encode("utf-8", "replace"),
    ):
        with contextlib.suppress(FrameError):
            decode(form).SerializeToString()


_BODY = room.CreateRoomRequest(name="r", metadata="m", max_participants=3)


@settings(max_examples=300, deadline=1000)
@given(
    st.one_of(
        _damaged([_BODY.SerializeToString(), json_format.MessageToJson(_BODY).encode()]),
        st.binary(max_size=80),
    )
)
@example(b"[" * 50_000)
@example(b'{"name":"\\ud800"}')
@example(b'{"max_participants":1e400}')
def test_bodies_of_calls_are_messages_or_malformed(body: bytes) -> None:
    for kind in (twirp.PROTOBUF, twirp.JSON):
        try:
            twirp._decode(room.CreateRoomRequest, body, kind).SerializeToString()
        except ApiError as error:
            assert error.code == "malformed"


@settings(max_examples=300, deadline=1000)
@given(
    st.dictionaries(
        st.sampled_from(["room", "sid", "protocol", "rtt", "reconnect", "auto_subscribe", "client_protocol"]),
        st.one_of(st.text(), st.from_regex(r"[a-z]{0,3}[:,]?[0-9.]{0,8}", fullmatch=True)),
    )
)
@example({"protocol": "٣"})
@example({"rtt": ","})
def test_queries_are_read_or_refused(query: dict[str, str]) -> None:
    try:
        parse_query(query)
    except JoinRefused as refused:
        assert refused.status == 400


_V2 = SIGNATURE_V2 + bytes.fromhex("2111000c") + bytes(12)
_V6 = SIGNATURE_V2 + bytes.fromhex("21210024") + bytes(36)


@settings(max_examples=400, deadline=1000)
@given(st.one_of(st.binary(max_size=60), _damaged([_V2, _V6, b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"])))
@example(b"PROXY TCP6 fe80::1%\xff ::1 1 2\r\n")
def test_proxy_headers_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(HeaderError):
        found = parse_header(data)
        assert found is None or 0 < found[1] <= len(data)


_FRAGMENT = b"a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n"


@settings(max_examples=300, deadline=1000)
@given(st.one_of(_damaged([_FRAGMENT]), st.binary(max_size=200)))
@example(b"m=" * 30_000)
@example(b"a=ice-ufrag:" + b"a" * 60_000)
def test_the_answer_to_any_fragment_has_the_same_shape(raw: bytes) -> None:
    """A restart over WHIP: nothing of what the client sent may add a line to what it is told."""
    text = raw.decode(errors="replace")
    whip._UFRAG.search(text)
    answer = whip._fragment(text, LOCAL)
    assert len(answer.split("\r\n")) == len(whip._fragment("", LOCAL).split("\r\n"))
    assert answer == join_lines(answer.rstrip("\r\n").split("\r\n"))
