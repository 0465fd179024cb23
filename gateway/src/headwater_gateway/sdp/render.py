"""Writes descriptions: the lines that answers and offers share."""

from collections.abc import Iterable, Sequence

from headwater_api.nodev1 import node_pb2

from headwater_gateway.sdp.rtp import EXTENSION_URIS, RTPMAP_NAMES
from headwater_gateway.sdp.types import Candidate, LocalTransport

# What one data message may hold; LiveKit's clients take 64 000 where nothing is said.
MAX_MESSAGE_SIZE = 65_536
SCTP_PORT = 5000


def session_lines(session_id: int, version: int, bundle: Sequence[str], is_mixed: bool) -> list[str]:
    """`is_mixed`: extension headers of both forms may go in one stream, as long descriptors need it."""
    lines = [
        "v=0",
        f"o=headwater {session_id} {version} IN IP4 127.0.0.1",
        "s=-",
        "t=0 0",
        "a=ice-lite",
    ]
    if bundle:
        lines.append("a=group:BUNDLE " + " ".join(bundle))
    if is_mixed:
        lines.append("a=extmap-allow-mixed")
    lines.append("a=msid-semantic:WMS *")
    return lines


def transport_lines(local: LocalTransport, setup: str, with_candidates: bool) -> list[str]:
    """Credentials on every m-line, candidates on the one that carries the bundle (RFC 8843 §7.1.3)."""
    lines = [
        "c=IN IP4 0.0.0.0",
        f"a=ice-ufrag:{local.ufrag}",
        f"a=ice-pwd:{local.pwd}",
        f"a=fingerprint:{local.fingerprint}",
        f"a=setup:{setup}",
    ]
    if with_candidates:
        lines += [f"a={line}" for line in candidate_lines(local.candidates)]
        lines.append("a=end-of-candidates")
    return lines


def candidate_lines(candidates: Iterable[Candidate]) -> list[str]:
    """Host candidates (RFC 8839 §5.1), the first one preferred."""
    lines = []
    for index, candidate in enumerate(candidates):
        priority = (126 << 24) | ((65535 - index) << 8) | 255  # host (RFC 8445 §5.1.2.1)
        lines.append(f"candidate:{index + 1} 1 udp {priority} {candidate.address} {candidate.port} typ host")
    return lines


def media_line(kind: str, port: int, protocol: str, codecs: Iterable[node_pb2.CodecMap]) -> str:
    """Redundant audio stands first: clients send what does."""
    ordered = sorted(codecs, key=lambda codec: codec.codec != node_pb2.CODEC_RED)
    return f"m={kind} {port} {protocol} " + " ".join(str(codec.payload_type) for codec in ordered)


def codec_lines(codecs: Iterable[node_pb2.CodecMap], ccm_fir: bool) -> list[str]:
    """a=rtpmap, a=fmtp and a=rtcp-fb."""
    lines: list[str] = []
    for codec in codecs:
        pt = codec.payload_type
        channels = f"/{codec.channels}" if codec.channels > 1 else ""
        lines.append(f"a=rtpmap:{pt} {RTPMAP_NAMES[codec.codec]}/{codec.clock_rate}{channels}")
        if codec.codec == node_pb2.CODEC_RTX:
            lines.append(f"a=fmtp:{pt} apt={codec.apt}")
            continue
        if codec.fmtp:
            lines.append(f"a=fmtp:{pt} {codec.fmtp}")
        if codec.codec == node_pb2.CODEC_RED:
            continue  # feedback is the media format's
        wanted = {
            "nack": codec.nack,
            "nack pli": codec.pli,
            "ccm fir": codec.pli and ccm_fir,
            "transport-cc": codec.transport_cc,
        }
        lines += [f"a=rtcp-fb:{pt} {feedback}" for feedback, agreed in wanted.items() if agreed]
    return lines


def extension_lines(extensions: Iterable[node_pb2.ExtensionMap]) -> list[str]:
    return [f"a=extmap:{entry.id} {EXTENSION_URIS[entry.extension]}" for entry in extensions]


def data_lines(
    mid: str, local: LocalTransport, setup: str, with_candidates: bool, protocol: str
) -> list[str]:
    return [
        f"m=application 9 {protocol} webrtc-datachannel",
        *transport_lines(local, setup, with_candidates),
        f"a=mid:{mid}",
        f"a=sctp-port:{SCTP_PORT}",
        f"a=max-message-size:{MAX_MESSAGE_SIZE}",
    ]


def join_lines(lines: Iterable[str]) -> str:
    return "\r\n".join(lines) + "\r\n"
