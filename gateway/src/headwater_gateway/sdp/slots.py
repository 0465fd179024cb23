"""The m-lines of a subscriber's connection: how each is offered, and what an answer makes of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from headwater_api.nodev1 import node_pb2

from headwater_gateway.sdp import maps, render, rtp
from headwater_gateway.sdp.parse import Section
from headwater_gateway.sdp.types import SendTrack

_PROTOCOL = "UDP/TLS/RTP/SAVPF"
_EXTENSION_IDS = {
    node_pb2.EXTENSION_MID: 1,
    node_pb2.EXTENSION_AUDIO_LEVEL: 2,
    node_pb2.EXTENSION_TRANSPORT_CC: 3,
    node_pb2.EXTENSION_VIDEO_ORIENTATION: 4,
    node_pb2.EXTENSION_PLAYOUT_DELAY: 5,
    node_pb2.EXTENSION_ABS_CAPTURE_TIME: 6,
    node_pb2.EXTENSION_DEPENDENCY_DESCRIPTOR: 7,
}
_EXTENSIONS_OF = {
    node_pb2.KIND_AUDIO: (
        node_pb2.EXTENSION_MID,
        node_pb2.EXTENSION_AUDIO_LEVEL,
        node_pb2.EXTENSION_TRANSPORT_CC,
        node_pb2.EXTENSION_ABS_CAPTURE_TIME,
    ),
    node_pb2.KIND_VIDEO: (
        node_pb2.EXTENSION_MID,
        node_pb2.EXTENSION_TRANSPORT_CC,
        node_pb2.EXTENSION_VIDEO_ORIENTATION,
        node_pb2.EXTENSION_PLAYOUT_DELAY,
        node_pb2.EXTENSION_ABS_CAPTURE_TIME,
    ),
}
# By kind, and whether it is AV1, whose layers receivers know by the dependency descriptor alone.
_EXTENSION_MAPS = {
    (kind, is_av1): tuple(
        node_pb2.ExtensionMap(id=_EXTENSION_IDS[e], extension=e)
        for e in (*extensions, *((node_pb2.EXTENSION_DEPENDENCY_DESCRIPTOR,) if is_av1 else ()))
    )
    for kind, extensions in _EXTENSIONS_OF.items()
    for is_av1 in (False, True)
}
_EXTENSION_LINES = {key: render.extension_lines(maps) for key, maps in _EXTENSION_MAPS.items()}


@dataclass(slots=True)
class Slot:
    """One m-line. It keeps its mid and its place for the whole connection."""

    mid: str
    kind: rtp.Kind
    track: SendTrack | None
    codecs: tuple[node_pb2.CodecMap, ...]
    stream: str
    dead: bool = False  # the client rejected the m-line (port 0): its transceiver is stopped
    free: bool = False  # the client has answered it without a track: a new one raises a new track event
    # The hash of the client's last words on it, what they were about, and what was made of them.
    taken: "tuple[int, SendTrack | None, tuple[node_pb2.CodecMap, ...], node_pb2.SendSection] | None" = None
    # What was last offered of it, without the transport's lines, and what that was about.
    drawn: "tuple[tuple[object, ...], str, str] | None" = None

    def still(self, words: int) -> node_pb2.SendSection | None:
        """What was made of these words before; None: they or the m-line have changed."""
        known = self.taken
        is_same = known is not None and known[0] == words and known[1] is self.track
        return known[3] if known is not None and is_same and known[2] is self.codecs else None


def slot_lines(slot: Slot, transport: Sequence[str]) -> list[str]:
    """The m-line in an offer, with the lines of the `transport` that carries it."""
    about = (slot.track, slot.codecs, slot.stream, slot.dead)
    if slot.drawn is None or slot.drawn[0] != about:
        slot.drawn = about, _media_line(slot), "\r\n".join(_lines(slot))
    _, media, lines = slot.drawn
    return [media, "c=IN IP4 0.0.0.0", lines] if slot.dead else [media, *transport, lines]


def _media_line(slot: Slot) -> str:
    kind = "video" if slot.kind == node_pb2.KIND_VIDEO else "audio"
    return render.media_line(kind, 0 if slot.dead else 9, _PROTOCOL, slot.codecs)


def _lines(slot: Slot) -> list[str]:
    if slot.dead:
        return [f"a=mid:{slot.mid}", "a=inactive"]
    lines = [
        f"a=mid:{slot.mid}",
        "a=inactive" if slot.track is None else "a=sendonly",
        "a=rtcp-mux",
        "a=rtcp-rsize",
        *render.codec_lines(slot.codecs, ccm_fir=True),
        *_EXTENSION_LINES[_key(slot)],
    ]
    return lines if slot.track is None else lines + _source_lines(slot, slot.track)


def _key(slot: Slot) -> tuple[rtp.Kind, bool]:
    return slot.kind, any(c.codec == node_pb2.CODEC_AV1 for c in slot.codecs)


def _source_lines(slot: Slot, track: SendTrack) -> list[str]:
    msid = f"{slot.stream} {track.track_sid}"
    lines = [f"a=msid:{msid}"]
    if track.rtx_ssrc:
        lines.append(f"a=ssrc-group:FID {track.ssrc} {track.rtx_ssrc}")
    for ssrc in (track.ssrc, track.rtx_ssrc):
        if ssrc:
            lines += [f"a=ssrc:{ssrc} cname:{track.participant_sid}", f"a=ssrc:{ssrc} msid:{msid}"]
    return lines


def accept(slot: Slot, answered: Section, is_mixed: bool) -> node_pb2.SendSection | None:
    """The m-line as the client took it; None if it did not. `is_mixed`: the whole answer is."""
    if slot.track is None or slot.dead or answered.rejected:
        return None
    if answered.direction not in ("recvonly", "sendrecv"):
        return None
    formats = rtp.formats(answered)
    offered = slot.codecs[0]
    media = next((f for f in formats if f.codec == offered.codec), None)
    if media is None:
        return None
    codecs = [_with_payload_type(offered, media.payload_type)]
    for other in slot.codecs[1:]:
        is_rtx = other.codec == node_pb2.CODEC_RTX
        found = rtp.rtx_of(media, formats) if is_rtx else maps.redundant_of(media, formats)
        if found is not None:
            codecs.append(_with_payload_type(other, found.payload_type, media.payload_type))
    return node_pb2.SendSection(
        mid=slot.mid,
        kind=slot.kind,
        track_id=slot.track.track_sid,
        ssrc=slot.track.ssrc,
        rtx_ssrc=slot.track.rtx_ssrc if codecs[-1].codec == node_pb2.CODEC_RTX else 0,
        codecs=codecs,
        extensions=_agreed(slot, answered, is_mixed),
    )


def _agreed(slot: Slot, answered: Section, is_mixed: bool) -> list[node_pb2.ExtensionMap]:
    """The extensions that were offered and taken under their ids."""
    known = rtp.extensions(answered, unusable=("sendonly", "inactive"), is_described=is_mixed)
    taken = {(e.id, e.extension) for e in known}
    return [e for e in _EXTENSION_MAPS[_key(slot)] if (e.id, e.extension) in taken]


def _with_payload_type(codec: node_pb2.CodecMap, payload_type: int, apt: int = 0) -> node_pb2.CodecMap:
    if codec.payload_type == payload_type and codec.apt == apt:
        return codec  # as nearly always
    changed = node_pb2.CodecMap()
    changed.CopyFrom(codec)
    changed.payload_type = payload_type
    changed.apt = apt
    return changed
