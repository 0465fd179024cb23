"""Answers to a publisher's offers."""

from collections.abc import Callable, Mapping

from headwater_api.nodev1 import node_pb2

from headwater_gateway.sdp import maps, render, rtp
from headwater_gateway.sdp.parse import Description, Section, parse
from headwater_gateway.sdp.types import LocalTransport, OfferedSection, PublisherAnswer, SdpError

_DATA_PROTOCOLS = ("UDP/DTLS/SCTP", "TCP/DTLS/SCTP")


class PublisherNegotiation:
    """One publisher peer connection's answers, over all its renegotiations.

    Remembers the codec of each m-line, so that a renegotiation does not switch a running track.
    """

    def __init__(self, session_id: int = 1) -> None:
        self._session_id = session_id
        self._version = 0
        self._ufrag = ""
        self._codecs: dict[str, tuple[str, rtp.Codec]] = {}  # mid → (cid, codec answered)

    @classmethod
    def resumed(
        cls, ufrag: str, codecs: Mapping[str, tuple[str, rtp.Codec]], session_id: int = 1
    ) -> "PublisherNegotiation":
        """The negotiation of another gateway: the client's ufrag, and for each mid the cid and the codec."""
        made = cls(session_id)
        made._ufrag, made._codecs = ufrag, dict(codecs)
        return made

    def is_ice_restart(self, offer_sdp: str) -> bool:
        """Whether the offer has new ICE credentials: answer with new local ones (RFC 8839 §4.4.1)."""
        return bool(self._ufrag) and parse(offer_sdp).ufrag != self._ufrag

    def answer(
        self,
        offer_sdp: str,
        local: LocalTransport,
        preferred: Mapping[str, node_pb2.Codec.ValueType] | None = None,
        redundant: Callable[[str], bool] = lambda cid: False,
    ) -> PublisherAnswer:
        """Answer an offer. `preferred`: the codec of each cid that add_track named. SdpError: refused.

        `redundant`: whether the track of a cid may send Opus with copies of earlier frames (RFC 2198).
        """
        offer = parse(offer_sdp)
        _check(offer)
        sections = [
            self._negotiate(s, preferred or {}, redundant, offer.is_mixed)
            for s in offer.sections
            if s.kind in ("audio", "video")
        ]
        by_mid = {section.mid: section for section in sections}
        bundled = offer.bundle or tuple(s.mid for s in offer.sections)
        alive = [s.mid for s in offer.sections if s.mid in bundled and _is_answered(s, by_mid)]
        self._version += 1
        lines = render.session_lines(
            self._session_id, self._version, alive if offer.bundle else (), offer.is_mixed
        )
        for section in offer.sections:
            first = bool(alive) and section.mid == alive[0]
            lines += _section_lines(section, by_mid.get(section.mid), local, first, section.mid in alive)
        result = PublisherAnswer(
            sdp=render.join_lines(lines),
            remote_fingerprint=offer.fingerprint,
            remote_ufrag=offer.ufrag,
            sections=tuple(sections),
            has_data=any(s.kind == "application" and not s.rejected for s in offer.sections),
        )
        self._remember(sections, result.remote_ufrag)
        return result

    def _negotiate(
        self,
        section: Section,
        preferred: Mapping[str, node_pb2.Codec.ValueType],
        redundant: Callable[[str], bool],
        is_mixed: bool,
    ) -> OfferedSection:
        kind = rtp.kind_of(section)
        stream, cid = rtp.track_ids(section)
        offered = () if section.rejected else rtp.formats(section)
        known_cid, known_codec = self._codecs.get(section.mid, ("", None))
        wanted = preferred.get(cid, known_codec if known_cid == cid else None)
        chosen = rtp.choose(offered, kind, wanted)
        if chosen is None:
            return OfferedSection(section.mid, kind, cid, stream, inactive=True)
        media, rtx = chosen
        copies = maps.redundant_of(media, offered) if kind == node_pb2.KIND_AUDIO and redundant(cid) else None
        return OfferedSection(
            mid=section.mid,
            kind=kind,
            cid=cid,
            stream_id=stream,
            codecs=maps.codec_maps(media, rtx, copies),
            extensions=rtp.extensions(section, is_described=is_mixed and media.codec == node_pb2.CODEC_AV1),
            layers=rtp.layers(section) if kind == node_pb2.KIND_VIDEO else rtp.layers(section)[:1],
            inactive=section.direction in ("recvonly", "inactive"),
        )

    def _remember(self, sections: list[OfferedSection], ufrag: str) -> None:
        self._ufrag = ufrag
        for section in sections:
            if section.codecs and not section.inactive:
                self._codecs[section.mid] = (section.cid, section.codecs[0].codec)


def _check(offer: Description) -> None:
    """What no answer of ours could repair."""
    if not offer.sections:
        raise SdpError("the offer has no m-line")
    live = [s for s in offer.sections if not s.rejected]
    if len(live) > 1 and not set(offer.bundle) >= {s.mid for s in live}:
        raise SdpError("all m-lines must be in one a=group:BUNDLE")
    if offer.setup not in ("actpass", "active"):
        raise SdpError(f"a=setup:{offer.setup[:20]} cannot be answered: offer actpass")
    for section in live:
        if section.kind in ("audio", "video"):
            if "rtcp-mux" not in section.attributes:
                raise SdpError(f"mid {section.mid}: a=rtcp-mux is required")
            if section.protocol not in ("UDP/TLS/RTP/SAVPF", "RTP/SAVPF", "UDP/TLS/RTP/SAVP"):
                raise SdpError(f"mid {section.mid}: protocol {section.protocol} is not UDP/TLS/RTP/SAVPF")


def _is_answered(section: Section, media: Mapping[str, OfferedSection]) -> bool:
    if section.rejected:
        return False
    if section.kind == "application":
        return section.protocol in _DATA_PROTOCOLS
    return section.mid in media and bool(media[section.mid].codecs)


def _section_lines(
    section: Section, media: OfferedSection | None, local: LocalTransport, first: bool, alive: bool
) -> list[str]:
    if not alive:
        return [
            f"m={section.kind} 0 {section.protocol} {section.formats[0]}",
            "c=IN IP4 0.0.0.0",
            f"a=mid:{section.mid}",
            "a=inactive",
        ]
    if media is None:
        return render.data_lines(section.mid, local, "passive", first, section.protocol)
    lines = [
        render.media_line(section.kind, 9, section.protocol, media.codecs),
        *render.transport_lines(local, "passive", first),
        f"a=mid:{section.mid}",
        "a=inactive" if media.inactive else "a=recvonly",
        "a=rtcp-mux",
    ]
    if "rtcp-rsize" in section.attributes:
        lines.append("a=rtcp-rsize")
    lines += render.codec_lines(media.codecs, ccm_fir=_offers_fir(section))
    lines += render.extension_lines(media.extensions)
    rids = [layer.rid for layer in media.layers if layer.rid]
    if rids and not media.inactive:
        lines += [f"a=rid:{rid} recv" for rid in rids]
        if "simulcast" in section.attributes:
            # Without this line Chromium sends the first encoding only.
            lines.append("a=simulcast:recv " + ";".join(rids))
    return lines


def _offers_fir(section: Section) -> bool:
    return any(value.lower().endswith("ccm fir") for value in section.all("rtcp-fb"))
