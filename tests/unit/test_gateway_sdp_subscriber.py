"""Offers to subscribers, and what is made of their answers."""

import random

import pytest
from headwater_api.nodev1 import node_pb2
from headwater_gateway.sdp import (
    PublisherNegotiation,
    SdpError,
    SendTrack,
    StaleAnswer,
    SubscriberNegotiation,
    subscriber,
)
from headwater_gateway.sdp import parse as parse_module
from headwater_gateway.sdp.parse import Description, parse
from headwater_gateway.sdp.slots import Slot
from headwater_gateway.sdp.subscriber import MAX_TRACKS
from support.sdp_fixtures import LOCAL, RESTARTED, sdp

VP8 = node_pb2.CodecMap(codec=node_pb2.CODEC_VP8, clock_rate=90000)
H264 = node_pb2.CodecMap(codec=node_pb2.CODEC_H264, clock_rate=90000, fmtp="packetization-mode=1")
OPUS = node_pb2.CodecMap(codec=node_pb2.CODEC_OPUS, clock_rate=48000, channels=2, fmtp="useinbandfec=1")


def _video(sid: str, codec: node_pb2.CodecMap = VP8, ssrc: int = 1000, **more: str) -> SendTrack:
    return SendTrack(sid, "PA_a", node_pb2.KIND_VIDEO, codec, ssrc, ssrc + 1, **more)


def _audio(sid: str, ssrc: int = 500) -> SendTrack:
    return SendTrack(sid, "PA_a", node_pb2.KIND_AUDIO, OPUS, ssrc)


def _redundant(sid: str, ssrc: int = 500) -> SendTrack:
    return SendTrack(sid, "PA_a", node_pb2.KIND_AUDIO, OPUS, ssrc, is_redundant=True)


def _answer(offer: str, reject: tuple[str, ...] = (), inactive: tuple[str, ...] = ()) -> str:
    """A client that takes everything but the m-lines named."""
    blocks = offer.split("\r\nm=")
    out = [blocks[0].replace("a=ice-lite\r\n", "")]
    for offered in blocks[1:]:
        block = offered
        mid = next(li[6:] for li in block.split("\r\n") if li.startswith("a=mid:"))
        if mid in reject:
            block = block.replace(" 9 ", " 0 ", 1)
        if mid in inactive:
            block = block.replace("a=sendonly", "a=inactive")
        kept = [li for li in block.split("\r\n") if not li.startswith(("a=msid", "a=ssrc", "a=candidate"))]
        out.append("\r\n".join(kept))
    text = "\r\nm=".join(out)
    return (
        text.replace("a=sendonly", "a=recvonly")
        .replace("a=setup:actpass", "a=setup:active")
        .replace("a=ice-ufrag:abcd", "a=ice-ufrag:peer")
    )


def _mids(offer: str) -> list[tuple[str, str, str]]:
    parsed: Description = parse(offer)
    return [(s.mid, s.kind, s.direction) for s in parsed.sections]


def _offer(negotiation: SubscriberNegotiation) -> str:
    return negotiation.offer(LOCAL)[1]


def _round(negotiation: SubscriberNegotiation, reject: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """Offer, answer, and (mid, track) of what was accepted."""
    offer_id, offer = negotiation.offer(LOCAL)
    accepted = negotiation.apply_answer(_answer(offer, reject), offer_id)
    return [(s.mid, s.track_id) for s in accepted.sections]


def test_first_offer_has_only_the_data_channel() -> None:
    negotiation = SubscriberNegotiation()
    assert (negotiation.dirty, negotiation.pending) == (True, False)
    offer = _offer(negotiation)
    assert _mids(offer) == [("0", "application", "sendrecv")]
    assert "a=ice-lite" in offer and "a=setup:actpass" in offer and "a=group:BUNDLE 0\r\n" in offer
    assert (negotiation.dirty, negotiation.pending) == (False, True)


def test_tracks_carry_msid_and_ssrcs() -> None:
    negotiation = SubscriberNegotiation()
    negotiation.add_track(_video("TR_v"))
    negotiation.add_track(_audio("TR_a"))
    offer = _offer(negotiation)
    assert "a=msid:PA_a|TR_v TR_v\r\n" in offer
    assert "a=ssrc-group:FID 1000 1001\r\n" in offer
    assert "a=msid:PA_a|TR_a TR_a\r\n" in offer
    assert [m[1:] for m in _mids(offer)] == [
        ("application", "sendrecv"),
        ("video", "sendonly"),
        ("audio", "sendonly"),
    ]


def test_chromium_accepts_four_codecs_in_one_answer() -> None:
    publishers = [
        PublisherNegotiation().answer(sdp(f"chromium_{name}_offer"), LOCAL).sections
        for name in ("simulcast", "h264", "vp9")
    ]
    sources = [publishers[0][0], publishers[0][1], publishers[1][1], publishers[2][1]]
    negotiation = SubscriberNegotiation()
    for n, source in enumerate(sources):
        rtx = 2000 + n if source.kind == node_pb2.KIND_VIDEO else 0
        negotiation.add_track(SendTrack(f"TR_{n}", "PA_a", source.kind, source.codecs[0], 1000 + n, rtx))
    offer_id, _ = negotiation.offer(LOCAL)
    taken = negotiation.apply_answer(sdp("chromium_sub_four_answer"), offer_id)
    assert [s.track_id for s in taken.sections] == ["TR_0", "TR_1", "TR_2", "TR_3"]
    assert [s.rtx_ssrc for s in taken.sections] == [0, 2001, 2002, 2003]
    assert [s.codecs[0].codec for s in taken.sections] == [
        node_pb2.CODEC_OPUS,
        node_pb2.CODEC_VP8,
        node_pb2.CODEC_H264,
        node_pb2.CODEC_VP9,
    ]
    assert all(e.extension for s in taken.sections for e in s.extensions)
    assert not taken.refused


def test_m_line_is_reused_only_after_the_client_saw_it_empty() -> None:
    """A track event needs an answer without the track in between."""
    negotiation = SubscriberNegotiation()
    negotiation.add_track(_video("TR_1", stream_id="camera"))
    assert _round(negotiation) == [("1", "TR_1")]
    negotiation.remove_track("TR_1")
    negotiation.add_track(_video("TR_2", ssrc=2000))
    assert _round(negotiation) == [("2", "TR_2")]
    negotiation.add_track(_video("TR_3", ssrc=3000, stream_id="camera"))
    offer_id, offer = negotiation.offer(LOCAL)
    assert "a=msid:PA_a|TR_3 TR_3" in offer  # named by the stream: the receiver keeps its first track id
    accepted = negotiation.apply_answer(_answer(offer), offer_id).sections
    assert [(s.mid, s.track_id, s.ssrc) for s in accepted] == [("1", "TR_3", 3000), ("2", "TR_2", 2000)]


def test_audio_does_not_take_a_video_line() -> None:
    negotiation = SubscriberNegotiation()
    negotiation.add_track(_video("TR_v"))
    _round(negotiation)
    negotiation.remove_track("TR_v")
    _round(negotiation)
    negotiation.add_track(_audio("TR_a"))
    assert _round(negotiation) == [("2", "TR_a")]


def test_mids_and_payload_types_never_move() -> None:
    negotiation = SubscriberNegotiation()
    seen: dict[str, tuple[str, ...]] = {}
    for n in range(12):
        negotiation.add_track(_video(f"TR_{n}", H264 if n % 2 else VP8, ssrc=1000 + 10 * n))
        if n >= 4:
            negotiation.remove_track(f"TR_{n - 4}")
        offer_id, offer = negotiation.offer(LOCAL)
        for section in parse(offer).sections:
            names = tuple(v for v in section.all("rtpmap"))
            for pt, name in (value.split(" ") for value in names):
                assert seen.setdefault(pt, (name,)) == (name,)
        negotiation.apply_answer(_answer(offer), offer_id)
    assert len(parse(_offer(negotiation)).sections) < 12


def test_rejected_track_gets_no_section_and_is_not_offered_again() -> None:
    negotiation = SubscriberNegotiation()
    negotiation.add_track(_video("TR_v"))
    negotiation.add_track(_audio("TR_a"))
    offer_id, offer = negotiation.offer(LOCAL)
    taken = negotiation.apply_answer(_answer(offer, reject=("1",)), offer_id)
    assert ([s.track_id for s in taken.sections], taken.refused) == (["TR_a"], ("TR_v",))
    offer = _offer(negotiation)
    assert "TR_v" not in offer
    assert "m=video 0 " in offer
    assert "a=group:BUNDLE 0 2\r\n" in offer


def test_chromium_refuses_a_codec_it_does_not_know() -> None:
    negotiation = SubscriberNegotiation()
    h265 = node_pb2.CodecMap(codec=node_pb2.CODEC_H265, clock_rate=90000, fmtp="profile-id=1")
    for n in range(5):
        negotiation.add_track(_audio("TR_0") if n == 0 else _video(f"TR_{n}", ssrc=1000 + 10 * n))
    negotiation.add_track(_video("TR_x", h265, ssrc=9000))
    answer = parse(sdp("chromium_sub_refused_answer"))
    offer_id, _ = negotiation.offer(LOCAL)
    assert len(answer.sections) == 6
    with pytest.raises(SdpError, match="m-line"):
        negotiation.apply_answer(sdp("chromium_sub_refused_answer"), offer_id)
    negotiation.remove_track("TR_4")
    other = SubscriberNegotiation()
    for n in range(4):
        other.add_track(_audio("TR_0") if n == 0 else _video(f"TR_{n}", ssrc=1000 + 10 * n))
    other.add_track(_video("TR_x", h265, ssrc=9000))
    offer_id, _ = other.offer(LOCAL)
    taken = other.apply_answer(sdp("chromium_sub_refused_answer"), offer_id)
    assert "TR_x" in taken.refused


def test_refused_track_may_be_added_anew() -> None:
    negotiation = SubscriberNegotiation()
    negotiation.add_track(_video("TR_v"))
    assert _round(negotiation, reject=("1",)) == []
    negotiation.remove_track("TR_v")
    negotiation.add_track(_video("TR_v"))
    assert negotiation.dirty
    assert _round(negotiation) == [("2", "TR_v")]


def test_inactive_answer_refuses_without_killing_the_line() -> None:
    negotiation = SubscriberNegotiation()
    negotiation.add_track(_video("TR_v"))
    offer_id, offer = negotiation.offer(LOCAL)
    assert negotiation.apply_answer(_answer(offer, inactive=("1",)), offer_id).refused == ("TR_v",)
    assert "m=video 9 " in _offer(negotiation)


def test_answer_without_rtx_gives_none() -> None:
    negotiation = SubscriberNegotiation()
    negotiation.add_track(_video("TR_v"))
    offer_id, offer = negotiation.offer(LOCAL)
    answer = _answer(offer).replace("rtx/90000", "xyz/90000")
    section = negotiation.apply_answer(answer, offer_id).sections[0]
    assert (section.rtx_ssrc, len(section.codecs)) == (0, 1)


def test_stale_answers_are_told_apart() -> None:
    negotiation = SubscriberNegotiation()
    first, offer = negotiation.offer(LOCAL)
    second, newer = negotiation.offer(RESTARTED)
    assert second > first
    assert "a=ice-ufrag:efgh" in newer
    with pytest.raises(StaleAnswer):
        negotiation.apply_answer(_answer(offer), first)
    negotiation.apply_answer(_answer(newer))
    with pytest.raises(StaleAnswer):
        negotiation.apply_answer(_answer(newer))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("a=setup:active", "a=setup:passive", "active"),
        ("a=mid:1", "a=mid:9", "a=mid:1"),
        ("a=fingerprint:", "a=nothing:", "fingerprint"),
    ],
)
def test_bad_answers_change_nothing(old: str, new: str, says: str) -> None:
    negotiation = SubscriberNegotiation()
    negotiation.add_track(_video("TR_v"))
    offer_id, offer = negotiation.offer(LOCAL)
    answer = _answer(offer)
    with pytest.raises(SdpError, match=says):
        negotiation.apply_answer(answer.replace(old, new), offer_id)
    assert negotiation.pending
    assert len(negotiation.apply_answer(answer, offer_id).sections) == 1


def test_adding_the_same_track_again_needs_no_offer() -> None:
    negotiation = SubscriberNegotiation()
    negotiation.add_track(_video("TR_v"))
    _round(negotiation)
    negotiation.add_track(_video("TR_v"))
    assert not negotiation.dirty
    negotiation.add_track(_video("TR_v", ssrc=7000))
    offer_id, offer = negotiation.offer(LOCAL)
    assert "a=ssrc:7000 " in offer
    assert negotiation.apply_answer(_answer(offer), offer_id).sections[0].ssrc == 7000


def test_removing_an_unknown_track_says_so() -> None:
    assert not SubscriberNegotiation().remove_track("TR_none")


@pytest.mark.parametrize("stream", ["x\r\na=candidate:1", "a b", "x" * 65, "\u2028"])
def test_a_publishers_stream_name_cannot_write_into_an_offer(stream: str) -> None:
    negotiation = SubscriberNegotiation()
    negotiation.add_track(_video("TR_v", stream_id=stream))
    offer = _offer(negotiation)
    assert "a=msid:PA_a|TR_v TR_v\r\n" in offer and stream not in offer
    named = SubscriberNegotiation()
    named.add_track(_video("TR_v", stream_id="camera"))
    assert "a=msid:PA_a|camera TR_v\r\n" in _offer(named)


def test_codec_variants_beyond_the_payload_types_are_left_out() -> None:
    negotiation = SubscriberNegotiation()
    variants = [
        node_pb2.CodecMap(codec=node_pb2.CODEC_H264, clock_rate=90000, fmtp=f"x={n}") for n in range(40)
    ]
    negotiation.add_track(_video("TR_good"))
    assert ("1", "TR_good") in _round(negotiation)
    for n, codec in enumerate(variants):
        negotiation.add_track(_video(f"TR_{n}", codec, ssrc=2000 + 2 * n))
    taken = {sid for _, sid in _round(negotiation)}
    assert "TR_good" in taken and 25 <= len(taken) < 41
    assert negotiation.left_out == {f"TR_{n}" for n in range(40)} - taken
    negotiation.add_track(_video("TR_late"))  # of a codec that has its number
    assert "TR_late" in {sid for _, sid in _round(negotiation)}
    assert negotiation.remove_track("TR_39") and "TR_39" not in negotiation.left_out


def test_a_running_track_that_changes_to_one_variant_too_many_is_left_out() -> None:
    negotiation = SubscriberNegotiation()
    negotiation.add_track(_video("TR_good"))
    for n in range(40):
        codec = node_pb2.CodecMap(codec=node_pb2.CODEC_H264, clock_rate=90000, fmtp=f"x={n}")
        negotiation.add_track(_video("TR_evil", codec, ssrc=5000))
        taken = {sid for _, sid in _round(negotiation)}
        assert "TR_good" in taken
    assert negotiation.left_out == {"TR_evil"}


def test_tracks_beyond_the_limit_are_left_out() -> None:
    negotiation = SubscriberNegotiation()
    for n in range(MAX_TRACKS + 3):
        negotiation.add_track(_audio(f"TR_{n}", ssrc=1 + n))
    assert len(negotiation.left_out) == 3
    assert len(_round(negotiation)) == MAX_TRACKS


def test_another_gateway_goes_on_from_the_clients_last_offer() -> None:
    first = SubscriberNegotiation()
    h264 = node_pb2.CodecMap(
        codec=node_pb2.CODEC_H264, clock_rate=90000, fmtp="packetization-mode=1;profile-level-id=42e01f"
    )
    for track in (_audio("TR_a"), _video("TR_v"), _video("TR_h", h264, 3000)):
        first.add_track(track)
    _round(first)
    first.remove_track("TR_v")
    _, last = first.offer(LOCAL)
    first.apply_answer(_answer(last))
    # As browsers write it: parameters in another order.
    known = last.replace(h264.fmtp, "profile-level-id=42e01f;packetization-mode=1")

    second = SubscriberNegotiation.resumed(known)
    assert second.ssrcs() == {"TR_a": (500, 0), "TR_h": (3000, 3001)}
    for track in (_audio("TR_a"), _video("TR_h", h264, 3000), _video("TR_new", VP8, 5000)):
        second.add_track(track)
    offer_id, offer = second.offer(RESTARTED)
    assert offer_id == 3
    assert _mids(offer) == [*_mids(known)[:2], ("2", "video", "sendonly"), *_mids(known)[3:]]

    def running(sdp: str) -> list[str]:
        block = sdp.split("\r\nm=")[4]
        return [li for li in block.split("\r\n") if li.startswith(("video", "a=rtpmap", "a=ssrc", "a=msid"))]

    assert running(offer) == running(known)
    taken = second.apply_answer(_answer(offer), offer_id)
    assert [(s.track_id, s.ssrc) for s in taken.sections] == [("TR_a", 500), ("TR_new", 5000), ("TR_h", 3000)]


def test_what_is_no_offer_of_ours_is_refused() -> None:
    with pytest.raises(SdpError, match="not an m-line of an offer of ours"):
        SubscriberNegotiation.resumed(sdp("chromium_simulcast_offer"))


def test_transport_wide_feedback_is_offered_and_taken_only_where_the_client_agrees() -> None:
    negotiation = SubscriberNegotiation()
    negotiation.add_track(_video("TR_v"))
    negotiation.add_track(_audio("TR_a"))
    offer = _offer(negotiation)
    assert offer.count("transport-wide-cc-extensions-01") == 2
    assert sum(line.endswith(" transport-cc") for line in offer.split("\r\n")) == 2
    answer = _answer(offer)
    for section in negotiation.apply_answer(answer).sections:
        assert node_pb2.EXTENSION_TRANSPORT_CC in {e.extension for e in section.extensions}
    negotiation.add_track(_audio("TR_b"))
    lines = _answer(_offer(negotiation)).split("\r\n")
    without = "\r\n".join(line for line in lines if "transport-wide-cc" not in line)
    for section in negotiation.apply_answer(without).sections:
        assert {e.extension for e in section.extensions} & {node_pb2.EXTENSION_MID}
        assert node_pb2.EXTENSION_TRANSPORT_CC not in {e.extension for e in section.extensions}


@pytest.mark.parametrize("seed", range(12))
def test_what_is_answered_as_before_is_not_read_again_and_means_the_same(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two negotiations live through the same; one of them reads every answer wholly."""

    def live(seed: int) -> list[object]:
        rng, told, negotiation = random.Random(seed), list[object](), SubscriberNegotiation()
        for n in range(14):
            negotiation.add_track(_video(f"TR_{n}", rng.choice([VP8, H264]), 1000 + 10 * n))
            negotiation.add_track(_audio(f"TR_{rng.randrange(4)}a", rng.randrange(1, 3)))
            if rng.random() < 0.5:
                negotiation.remove_track(f"TR_{rng.randrange(n + 1)}")
            mids = [str(rng.randrange(1, 12)) for _ in range(2)]
            offer_id, offer = negotiation.offer(RESTARTED if rng.random() < 0.05 else LOCAL)
            answer = _answer(offer, tuple(mids[:1]) if rng.random() < 0.2 else (), tuple(mids[1:]))
            if rng.random() < 0.2:
                answer = answer.replace("a=ice-ufrag", "a=x", 1)
            try:
                taken = negotiation.apply_answer(answer, offer_id)
                told += [offer, taken.remote_ufrag, taken.refused, [str(s) for s in taken.sections]]
            except SdpError as error:
                told += [offer, str(error)]
        return told

    read = list[int]()
    whole = parse_module.parse

    def counting(sdp: str, *limits: int) -> Description:
        read.append(len(sdp))
        return whole(sdp, *limits)

    monkeypatch.setattr(subscriber, "parse", counting)
    mine, lengths = live(seed), sum(read)
    read.clear()
    monkeypatch.setattr(Slot, "still", lambda *_: None)
    assert mine == live(seed)
    assert lengths < 0.9 * sum(read), "most of it was known"


AV1 = node_pb2.CodecMap(codec=node_pb2.CODEC_AV1, clock_rate=90000, fmtp="profile=0")
_DESCRIPTOR = "dependency-descriptor"


def _described(negotiation: SubscriberNegotiation, without: str) -> list[bool]:
    """Whether each track's node is told of the descriptor, when the client's answer lacks such lines."""
    offer_id, offer = negotiation.offer(LOCAL)
    assert "a=extmap-allow-mixed\r\n" in offer.partition("m=")[0]
    answer = "".join(li for li in _answer(offer).splitlines(keepends=True) if without not in li)
    sections = negotiation.apply_answer(answer, offer_id).sections
    wanted = node_pb2.EXTENSION_DEPENDENCY_DESCRIPTOR
    return [any(e.extension == wanted for e in s.extensions) for s in sections]


@pytest.mark.parametrize(
    ("without", "described"), [("nothing", True), (_DESCRIPTOR, False), ("allow-mixed", False)]
)
def test_av1_alone_is_described_to_who_takes_it(without: str, described: bool) -> None:
    negotiation = SubscriberNegotiation()
    negotiation.add_track(_video("TR_1"))
    negotiation.add_track(_video("TR_2", AV1, ssrc=2000))
    negotiation.add_track(_audio("TR_3"))
    assert _described(negotiation, without) == [False, described, False]


def test_an_m_line_that_is_used_anew_is_described_by_its_new_codec() -> None:
    negotiation = SubscriberNegotiation()
    negotiation.add_track(_video("TR_1"))
    assert _described(negotiation, "nothing") == [False]
    negotiation.remove_track("TR_1")
    assert _described(negotiation, "nothing") == []
    negotiation.add_track(_video("TR_2", AV1, ssrc=2000))
    assert _described(negotiation, "nothing") == [True]


def test_redundant_audio_is_offered_beside_plain_and_sent_as_the_client_takes_it() -> None:
    negotiation = SubscriberNegotiation()
    negotiation.add_track(_redundant("TR_r"))
    negotiation.add_track(_audio("TR_a", 600))
    offer_id, offer = negotiation.offer(LOCAL)
    assert "m=audio 9 UDP/TLS/RTP/SAVPF 97 96\r\n" in offer
    assert "a=rtpmap:97 red/48000/2\r\na=fmtp:97 96/96\r\n" in offer
    assert "m=audio 9 UDP/TLS/RTP/SAVPF 96\r\n" in offer, "the other one stays plain"
    redundant, plain = negotiation.apply_answer(_answer(offer), offer_id).sections
    assert [(c.codec, c.payload_type, c.apt) for c in redundant.codecs] == [
        (node_pb2.CODEC_OPUS, 96, 0),
        (node_pb2.CODEC_RED, 97, 96),
    ]
    assert [c.codec for c in plain.codecs] == [node_pb2.CODEC_OPUS]
    assert (redundant.rtx_ssrc, plain.rtx_ssrc) == (0, 0)


def test_a_client_without_redundancy_gets_the_same_track_plain() -> None:
    negotiation = SubscriberNegotiation()
    negotiation.add_track(_redundant("TR_r"))
    offer_id, offer = negotiation.offer(LOCAL)
    text = _answer(offer).replace("SAVPF 97 96", "SAVPF 96")
    kept = [line for line in text.split("\r\n") if ":97 " not in line]
    accepted = negotiation.apply_answer("\r\n".join(kept), offer_id)
    assert not accepted.refused
    assert [c.codec for c in accepted.sections[0].codecs] == [node_pb2.CODEC_OPUS]


def test_a_successor_goes_on_with_redundant_audio_under_the_same_numbers() -> None:
    negotiation = SubscriberNegotiation()
    negotiation.add_track(_redundant("TR_r"))
    offer_id, offer = negotiation.offer(LOCAL)
    negotiation.apply_answer(_answer(offer), offer_id)
    successor = SubscriberNegotiation.resumed(offer)
    successor.add_track(_redundant("TR_r"))
    again = successor.offer(LOCAL)[1]
    assert [line for line in again.split("\r\n") if line.startswith("m=")] == [
        line for line in offer.split("\r\n") if line.startswith("m=")
    ]
    assert "a=rtpmap:97 red/48000/2\r\n" in again
