"""Answers to real and made-up publisher offers."""

import asyncio

import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, VideoStreamTrack
from headwater_api.nodev1 import node_pb2
from headwater_gateway.sdp import PublisherNegotiation, SdpError
from support.sdp_fixtures import LOCAL, RESTARTED, sdp


def _lines(text: str, prefix: str) -> list[str]:
    return [line for line in text.split("\r\n") if line.startswith(prefix)]


def test_simulcast_offer_gets_three_layers_and_the_echo_that_keeps_them() -> None:
    answer = PublisherNegotiation().answer(sdp("chromium_simulcast_offer"), LOCAL)
    audio, video = answer.sections
    assert (audio.kind, video.kind) == (node_pb2.KIND_AUDIO, node_pb2.KIND_VIDEO)
    assert [(layer.rid, layer.spatial) for layer in video.layers] == [("q", 0), ("h", 1), ("f", 2)]
    assert [c.codec for c in video.codecs] == [node_pb2.CODEC_VP8, node_pb2.CODEC_RTX]
    assert video.codecs[1].apt == video.codecs[0].payload_type
    assert video.codecs[0].nack and video.codecs[0].pli and video.codecs[0].transport_cc
    echoed = {e.extension for e in video.extensions}
    assert echoed == {
        node_pb2.EXTENSION_MID,
        node_pb2.EXTENSION_RID,
        node_pb2.EXTENSION_REPAIRED_RID,
        node_pb2.EXTENSION_TRANSPORT_CC,
        node_pb2.EXTENSION_VIDEO_ORIENTATION,
        node_pb2.EXTENSION_PLAYOUT_DELAY,
    }
    assert _lines(answer.sdp, "a=simulcast:") == ["a=simulcast:recv q;h;f"]
    assert _lines(answer.sdp, "a=rid:") == ["a=rid:q recv", "a=rid:h recv", "a=rid:f recv"]
    assert [c.codec for c in audio.codecs] == [node_pb2.CODEC_OPUS]
    assert node_pb2.EXTENSION_AUDIO_LEVEL in {e.extension for e in audio.extensions}


def test_answer_says_what_an_ice_lite_dtls_server_must() -> None:
    offer = sdp("chromium_simulcast_offer")
    answer = PublisherNegotiation().answer(offer, LOCAL)
    assert "a=ice-lite" in answer.sdp
    assert set(_lines(answer.sdp, "a=setup:")) == {"a=setup:passive"}
    assert _lines(answer.sdp, "a=group:") == _lines(offer, "a=group:")
    assert _lines(answer.sdp, "a=candidate:")[0].endswith("127.16.0.5 7882 typ host")
    assert len(_lines(answer.sdp, "a=candidate:")) == 2
    assert len(_lines(answer.sdp, "a=rtcp-mux")) == 2
    assert answer.has_data
    assert _lines(answer.sdp, "a=sctp-port:") == ["a=sctp-port:5000"]
    assert answer.remote_fingerprint.startswith("sha-256 ")
    assert f"a=ice-ufrag:{answer.remote_ufrag}" in offer


def test_cid_is_the_msid_track_id() -> None:
    offer = sdp("chromium_simulcast_offer")
    answer = PublisherNegotiation().answer(offer, LOCAL)
    named = {line.split()[1] for line in _lines(offer, "a=msid:")}
    assert {section.cid for section in answer.sections} == named


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("chromium_simulcast_offer", node_pb2.CODEC_VP8),
        ("chromium_h264_offer", node_pb2.CODEC_H264),
        ("chromium_vp9_offer", node_pb2.CODEC_VP9),
    ],
)
def test_first_codec_of_the_offer_is_answered(name: str, codec: int) -> None:
    video = PublisherNegotiation().answer(sdp(name), LOCAL).sections[1]
    assert video.codecs[0].codec == codec


def test_h264_is_answered_in_packetization_mode_1() -> None:
    video = PublisherNegotiation().answer(sdp("chromium_h264_offer"), LOCAL).sections[1]
    assert "packetization-mode=1" in video.codecs[0].fmtp
    assert "profile-level-id=42e0" in video.codecs[0].fmtp


def test_codec_of_add_track_wins_over_the_order_and_stays() -> None:
    offer = sdp("chromium_simulcast_offer")
    negotiation = PublisherNegotiation()
    cid = negotiation.answer(offer, LOCAL).sections[1].cid
    assert negotiation.answer(offer, LOCAL, {cid: node_pb2.CODEC_VP9}).sections[1].codecs[0].codec == (
        node_pb2.CODEC_VP9
    )
    assert negotiation.answer(offer, LOCAL).sections[1].codecs[0].codec == node_pb2.CODEC_VP9


def test_codec_that_is_not_offered_falls_back() -> None:
    offer = sdp("chromium_simulcast_offer").replace("H265", "XYZ")
    negotiation = PublisherNegotiation()
    cid = negotiation.answer(offer, LOCAL).sections[1].cid
    video = negotiation.answer(offer, LOCAL, {cid: node_pb2.CODEC_H265}).sections[1]
    assert video.codecs[0].codec == node_pb2.CODEC_VP8


def test_audio_is_answered_with_redundancy_first_where_the_track_allows_it() -> None:
    offer, negotiation = sdp("chromium_simulcast_offer"), PublisherNegotiation()
    cid = negotiation.answer(offer, LOCAL).sections[0].cid
    answer = negotiation.answer(offer, LOCAL, redundant={cid}.__contains__)
    audio, video = answer.sections
    opus, red = audio.codecs
    assert (opus.codec, red.codec, red.apt) == (
        node_pb2.CODEC_OPUS,
        node_pb2.CODEC_RED,
        opus.payload_type,
    )
    assert audio.is_redundant and not video.is_redundant
    line = next(line for line in _lines(answer.sdp, "m=audio"))
    assert line.endswith(f" {red.payload_type} {opus.payload_type}")
    assert f"a=rtpmap:{red.payload_type} red/48000/2\r\n" in answer.sdp
    assert f"a=fmtp:{red.payload_type} {opus.payload_type}/{opus.payload_type}\r\n" in answer.sdp
    assert "useinbandfec=1" in opus.fmtp
    assert not _lines(answer.sdp, f"a=rtcp-fb:{red.payload_type} ")


@pytest.mark.parametrize("fmtp", ["a=fmtp:63 111/9\r\n", "a=fmtp:63 9/9\r\n", ""])
def test_redundancy_of_anything_but_the_chosen_codec_is_declined(fmtp: str) -> None:
    offer = sdp("chromium_simulcast_offer").replace("a=fmtp:63 111/111\r\n", fmtp)
    answer = PublisherNegotiation().answer(offer, LOCAL, redundant=lambda cid: True)
    assert [c.codec for c in answer.sections[0].codecs] == [node_pb2.CODEC_OPUS]
    assert "red/" not in answer.sdp


def test_redundancy_is_of_opus_alone() -> None:
    """Nodes take what is inside for Opus."""
    offer = sdp("chromium_simulcast_offer").replace("opus/48000/2", "L16/48000/2")
    offer = offer.replace("a=rtpmap:9 G722/8000", "a=rtpmap:9 PCMU/48000/2").replace("111/111", "9/9")
    answer = PublisherNegotiation().answer(offer, LOCAL, redundant=lambda cid: True)
    assert [c.codec for c in answer.sections[0].codecs] == [node_pb2.CODEC_PCMU]
    assert "red/" not in answer.sdp


def test_two_layers_are_ordered_by_name_not_by_place() -> None:
    video = PublisherNegotiation().answer(sdp("chromium_two_layers_offer"), LOCAL).sections[1]
    assert [layer.rid for layer in video.layers] == ["q", "h"]


def test_stopped_and_recycled_m_lines_keep_their_place() -> None:
    negotiation = PublisherNegotiation()
    negotiation.answer(sdp("chromium_simulcast_offer"), LOCAL)
    stopped = negotiation.answer(sdp("chromium_stopped_offer"), LOCAL)
    assert [s.inactive for s in stopped.sections] == [False, True]
    offer = sdp("chromium_recycled_offer")
    recycled = negotiation.answer(offer, LOCAL)
    assert _lines(recycled.sdp, "a=mid:") == _lines(offer, "a=mid:")
    assert [s.inactive for s in recycled.sections if s.kind == node_pb2.KIND_VIDEO] == [True, False]


def test_placeholders_are_answered_inactive_with_the_echo() -> None:
    """Rust clients put recvonly m-lines into the publisher's offer; a later track uses them."""
    offer = sdp("chromium_simulcast_offer").replace("a=sendonly", "a=recvonly")
    answer = PublisherNegotiation().answer(offer, LOCAL)
    assert all(section.inactive for section in answer.sections)
    assert _lines(answer.sdp, "a=inactive") == ["a=inactive"] * 2
    assert sum("rtp-stream-id" in line for line in _lines(answer.sdp, "a=extmap:")) == 2


def test_ice_restart_is_seen() -> None:
    negotiation = PublisherNegotiation()
    before = sdp("chromium_recycled_offer")
    assert not negotiation.is_ice_restart(before)
    negotiation.answer(before, LOCAL)
    assert not negotiation.is_ice_restart(before)
    restart = sdp("chromium_restart_offer")
    assert negotiation.is_ice_restart(restart)
    answer = negotiation.answer(restart, RESTARTED)
    assert set(_lines(answer.sdp, "a=ice-ufrag:")) == {"a=ice-ufrag:efgh"}


def test_unknown_codec_rejects_only_its_m_line() -> None:
    offer = sdp("chromium_simulcast_offer")
    for name in ("VP8", "VP9", "H264", "AV1", "H265"):
        offer = offer.replace(f"{name}/90000", "XYZ/90000")
    answer = PublisherNegotiation().answer(offer, LOCAL)
    assert [s.inactive for s in answer.sections] == [False, True]
    assert any(line.startswith("m=video 0 ") for line in answer.sdp.split("\r\n"))
    assert (
        _lines(answer.sdp, "a=group:BUNDLE") == ["a=group:BUNDLE 0 2"]
        or "1" not in _lines(answer.sdp, "a=group:BUNDLE")[0].split()
    )


def test_extensions_beyond_one_byte_ids_are_left_out() -> None:
    offer = sdp("chromium_simulcast_offer")
    line = next(li for li in _lines(offer, "a=extmap:") if li.endswith("repaired-rtp-stream-id"))
    answer = PublisherNegotiation().answer(offer.replace(line, "a=extmap:15 " + line.split()[1]), LOCAL)
    ids = {e.extension for e in answer.sections[1].extensions}
    assert node_pb2.EXTENSION_REPAIRED_RID not in ids
    assert node_pb2.EXTENSION_RID in ids


def test_ssrc_groups_name_the_layer_where_there_is_no_rid() -> None:
    offer = sdp("chromium_h264_offer")
    layer = PublisherNegotiation().answer(offer, LOCAL).sections[1].layers[0]
    media, rtx = _lines(offer, "a=ssrc-group:FID ")[0].split()[1:]
    assert (layer.rid, layer.ssrc, layer.rtx_ssrc) == ("", int(media), int(rtx))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("a=setup:actpass", "a=setup:passive", "a=setup"),
        ("a=rtcp-mux\r\n", "", "rtcp-mux"),
        ("a=group:BUNDLE", "a=group:LS", "BUNDLE"),
        ("a=fingerprint:sha-256", "a=fingerprint:sha-1", "sha-256"),
        ("a=ice-ufrag:", "a=ice-ufrag:?", "ice-ufrag"),
        ("a=mid:0", "a=mid:1", "twice"),
        ("a=mid:0", "a=mid:" + "x" * 17, "a=mid"),
        ("UDP/TLS/RTP/SAVPF", "RTP/AVP", "SAVPF"),
        ("m=audio 9", "m=audio 99999", "port"),
        ("v=0", "v=1", "v=0"),
        ("s=-", "s=\x00", "control"),
        ("a=rtpmap:111 opus/48000/2", "a=rtpmap:111 opus/99999999/2", "clock rate"),
        ("s=-", "s=" + "x" * 9000, "line 3"),
        ("t=0 0", "nonsense", "x=value"),
        ("s=-", "s=a\ra=candidate:1", "carriage return"),
        ("a=fmtp:111 ", "a=fmtp:111 x=" + "y" * 1100 + ";", "a=fmtp"),
    ],
)
def test_bad_offers_are_refused_by_name(old: str, new: str, says: str) -> None:
    offer = sdp("chromium_simulcast_offer")
    assert old in offer
    with pytest.raises(SdpError, match=says):
        PublisherNegotiation().answer(offer.replace(old, new), LOCAL)


@pytest.mark.parametrize(
    ("offer", "says"),
    [
        ("", "v=0"),
        ("v=0\r\n", "no m-line"),
        ("v=0\r\n" + "a=x\r\n" * 70_000, "characters"),
        ("v=0\r\n" + "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n" * 201, "200 m-lines"),
        ("v=0\r\n" + "a=x\r\n" * 5_000, None),
    ],
)
def test_absurd_sizes_are_refused(offer: str, says: str | None) -> None:
    with pytest.raises(SdpError, match=says):
        PublisherNegotiation().answer(offer, LOCAL)


async def test_aiortc_takes_the_answer() -> None:
    peer = RTCPeerConnection()
    try:
        peer.addTrack(AudioStreamTrack())
        peer.addTrack(VideoStreamTrack())
        peer.createDataChannel("_reliable")
        await peer.setLocalDescription(await peer.createOffer())
        answer = PublisherNegotiation().answer(peer.localDescription.sdp, LOCAL)
        # The transport has nobody at its other end: only the description is of interest.
        task = asyncio.ensure_future(peer.setRemoteDescription(RTCSessionDescription(answer.sdp, "answer")))
        await asyncio.wait({task}, timeout=5)
        assert peer.signalingState == "stable"
        assert [s.codecs[0].codec for s in answer.sections] == [node_pb2.CODEC_OPUS, node_pb2.CODEC_VP8]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    finally:
        await peer.close()


def test_rust_clients_placeholders_are_answered_by_mid() -> None:
    """Captured from the `livekit` wheel: six recvonly m-lines and the data channel, mids from 7 on."""
    offer = sdp("rust_placeholders_offer")
    answer = PublisherNegotiation().answer(offer, LOCAL)
    assert _lines(answer.sdp, "a=mid:") == _lines(offer, "a=mid:")
    assert len(answer.sections) == 6
    assert all(section.inactive and section.codecs for section in answer.sections)
    assert answer.has_data


_DESCRIPTOR = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"


def _as_av1(offer: str) -> tuple[str, dict[node_pb2.Extension.ValueType, int]]:
    """The answer, and the ids of the video's extensions."""
    cid = PublisherNegotiation().answer(offer, LOCAL).sections[1].cid
    answer = PublisherNegotiation().answer(offer, LOCAL, {cid: node_pb2.CODEC_AV1})
    assert answer.sections[1].codecs[0].codec == node_pb2.CODEC_AV1
    return answer.sdp, {e.extension: e.id for e in answer.sections[1].extensions}


def test_av1_is_described_where_long_extensions_may_be_sent() -> None:
    offer = sdp("chromium_simulcast_offer")
    answer, ids = _as_av1(offer)
    assert ids[node_pb2.EXTENSION_DEPENDENCY_DESCRIPTOR] == 12
    assert f"a=extmap:12 {_DESCRIPTOR}\r\n" in answer
    assert "a=extmap-allow-mixed\r\n" in answer.partition("m=")[0]
    answer, ids = _as_av1(offer.replace("a=extmap-allow-mixed\r\n", ""))
    assert node_pb2.EXTENSION_DEPENDENCY_DESCRIPTOR not in ids
    assert "allow-mixed" not in answer and _DESCRIPTOR not in answer


def test_a_description_may_have_a_two_byte_id() -> None:
    offer = sdp("chromium_simulcast_offer")
    for id_, taken in [(15, False), (16, True), (255, True), (256, False)]:
        _, ids = _as_av1(offer.replace("a=extmap:12 https", f"a=extmap:{id_} https"))
        assert ids.get(node_pb2.EXTENSION_DEPENDENCY_DESCRIPTOR) == (id_ if taken else None)


def test_other_codecs_are_not_described() -> None:
    answer = PublisherNegotiation().answer(sdp("chromium_simulcast_offer"), LOCAL)
    assert _DESCRIPTOR not in answer.sdp
