"""Answers to a viewer's one offer (WHEP): m-lines that it receives on, with tracks as they come and go.

Nobody can make the viewer a new offer, so its m-lines stay as they are: the answer takes every codec that
both ends know, and the track behind an m-line may change at any time, on the same SSRC.
"""

from collections.abc import Callable
from dataclasses import dataclass

from headwater_api.nodev1 import node_pb2

from headwater_gateway.sdp import maps, render, rtp
from headwater_gateway.sdp.parse import Section, parse
from headwater_gateway.sdp.types import LocalTransport, SdpError

MAX_LINES = 16


@dataclass(frozen=True, slots=True)
class ViewerLine:
    """One m-line that the viewer receives on. `codecs`: each media codec with its RTX, if there is one."""

    mid: str
    kind: rtp.Kind
    ssrc: int
    rtx_ssrc: int
    codecs: tuple[tuple[node_pb2.CodecMap, ...], ...]
    extensions: tuple[node_pb2.ExtensionMap, ...]

    def carry(self, track_id: str, codec: node_pb2.CodecMap) -> node_pb2.SendSection | None:
        """The track on this m-line, for ConfigureSend; None: the viewer does not know its codec."""
        agreed = next((row for row in self.codecs if row[0].codec == codec.codec), None)
        if agreed is None:
            return None
        return node_pb2.SendSection(
            mid=self.mid,
            kind=self.kind,
            track_id=track_id,
            ssrc=self.ssrc,
            rtx_ssrc=self.rtx_ssrc if len(agreed) > 1 else 0,
            codecs=agreed,
            extensions=self.extensions,
        )


@dataclass(frozen=True, slots=True)
class ViewerAnswer:
    """The answer to send, and what the node must be told."""

    sdp: str
    remote_fingerprint: str
    remote_ufrag: str
    lines: tuple[ViewerLine, ...]


def answer_viewer(
    offer_sdp: str, local: LocalTransport, number: Callable[[], int], name: str
) -> ViewerAnswer:
    """Answer a viewer's offer. `number` makes SSRCs, `name` is the stream's. SdpError: refused."""
    offer = parse(offer_sdp)
    if offer.setup not in ("actpass", "active"):
        raise SdpError(f"a=setup:{offer.setup[:20]} cannot be answered: offer actpass")
    if len(offer.sections) > MAX_LINES:
        raise SdpError(f"the offer has more than {MAX_LINES} m-lines")
    lines_of = ((s.mid, _line(s, number, offer.is_mixed)) for s in offer.sections)
    made = {mid: line for mid, line in lines_of if line is not None}
    if not made:
        raise SdpError("the offer has no m-line to receive Opus, VP8, H264, VP9 or AV1 on")
    if len(made) > 1 and not set(offer.bundle) >= set(made):
        raise SdpError("all m-lines must be in one a=group:BUNDLE")
    lines = render.session_lines(1, 1, list(made) if offer.bundle else (), offer.is_mixed)
    first = next(iter(made))
    for section in offer.sections:
        lines += _answer_lines(
            section, made.get(section.mid), local, name, with_candidates=section.mid == first
        )
    return ViewerAnswer(render.join_lines(lines), offer.fingerprint, offer.ufrag, tuple(made.values()))


def _line(section: Section, number: Callable[[], int], is_mixed: bool) -> ViewerLine | None:
    if section.kind not in ("audio", "video") or section.rejected:
        return None
    if section.direction not in ("recvonly", "sendrecv") or "rtcp-mux" not in section.attributes:
        return None
    known = rtp.AUDIO_CODECS if section.kind == "audio" else rtp.VIDEO_CODECS
    formats = rtp.formats(section)
    rows: list[tuple[node_pb2.CodecMap, ...]] = []
    for media in formats:
        if media.codec in known and all(row[0].codec != media.codec for row in rows):
            rows.append(tuple(maps.codec_maps(media, rtp.rtx_of(media, formats))))
    if not rows:
        return None
    has_rtx = any(len(row) > 1 for row in rows)
    extensions = rtp.extensions(section, unusable=("sendonly", "inactive"), is_described=is_mixed)
    sent = (
        node_pb2.EXTENSION_MID,
        node_pb2.EXTENSION_AUDIO_LEVEL,
        node_pb2.EXTENSION_DEPENDENCY_DESCRIPTOR,
    )
    return ViewerLine(
        mid=section.mid,
        kind=rtp.kind_of(section),
        ssrc=number(),
        rtx_ssrc=number() if has_rtx else 0,
        codecs=tuple(rows),
        extensions=tuple(e for e in extensions if e.extension in sent),
    )


def _answer_lines(
    section: Section, line: ViewerLine | None, local: LocalTransport, name: str, *, with_candidates: bool
) -> list[str]:
    if line is None:
        return [
            f"m={section.kind} 0 {section.protocol} {section.formats[0]}",
            "c=IN IP4 0.0.0.0",
            f"a=mid:{section.mid}",
            "a=inactive",
        ]
    codecs = [codec for row in line.codecs for codec in row]
    msid = f"{name} {section.kind}"
    lines = [
        render.media_line(section.kind, 9, section.protocol, codecs),
        *render.transport_lines(local, "passive", with_candidates),
        f"a=mid:{section.mid}",
        "a=sendonly",
        "a=rtcp-mux",
        "a=rtcp-rsize",
        *render.codec_lines(codecs, ccm_fir=False),
        *render.extension_lines(line.extensions),
        f"a=msid:{msid}",
    ]
    if line.rtx_ssrc:
        lines.append(f"a=ssrc-group:FID {line.ssrc} {line.rtx_ssrc}")
    for ssrc in filter(None, (line.ssrc, line.rtx_ssrc)):
        lines += [f"a=ssrc:{ssrc} cname:{name}", f"a=ssrc:{ssrc} msid:{msid}"]
    return lines
