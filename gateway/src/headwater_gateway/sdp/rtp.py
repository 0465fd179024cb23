"""Codecs, header extensions and layers of one m-line."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

from headwater_api.nodev1 import node_pb2

from headwater_gateway.sdp.parse import Body, Section, identifier, number
from headwater_gateway.sdp.types import SdpError

Codec: TypeAlias = node_pb2.Codec.ValueType
Kind: TypeAlias = node_pb2.Kind.ValueType
Extension: TypeAlias = node_pb2.Extension.ValueType

MAX_FMTP: Final = 1024  # characters: it is repeated to each subscriber

CODEC_NAMES: Final[Mapping[str, Codec]] = {
    "opus": node_pb2.CODEC_OPUS,
    "red": node_pb2.CODEC_RED,
    "pcmu": node_pb2.CODEC_PCMU,
    "pcma": node_pb2.CODEC_PCMA,
    "vp8": node_pb2.CODEC_VP8,
    "h264": node_pb2.CODEC_H264,
    "vp9": node_pb2.CODEC_VP9,
    "av1": node_pb2.CODEC_AV1,
    "h265": node_pb2.CODEC_H265,
    "rtx": node_pb2.CODEC_RTX,
}
# As written in a=rtpmap.
RTPMAP_NAMES: Final[Mapping[Codec, str]] = {
    node_pb2.CODEC_OPUS: "opus",
    node_pb2.CODEC_RED: "red",
    node_pb2.CODEC_PCMU: "PCMU",
    node_pb2.CODEC_PCMA: "PCMA",
    node_pb2.CODEC_VP8: "VP8",
    node_pb2.CODEC_H264: "H264",
    node_pb2.CODEC_VP9: "VP9",
    node_pb2.CODEC_AV1: "AV1",
    node_pb2.CODEC_H265: "H265",
    node_pb2.CODEC_RTX: "rtx",
}
AUDIO_CODECS: Final = (node_pb2.CODEC_OPUS, node_pb2.CODEC_PCMU, node_pb2.CODEC_PCMA)
VIDEO_CODECS: Final = (
    node_pb2.CODEC_VP8,
    node_pb2.CODEC_H264,
    node_pb2.CODEC_VP9,
    node_pb2.CODEC_AV1,
    node_pb2.CODEC_H265,
)
_STATIC: Final[Mapping[int, tuple[str, int]]] = {0: ("pcmu", 8000), 8: ("pcma", 8000)}  # RFC 3551

_SDES = "urn:ietf:params:rtp-hdrext:sdes:"
_GOOGLE = "http://www.webrtc.org/experiments/rtp-hdrext/"
EXTENSION_URIS: Final[Mapping[Extension, str]] = {
    node_pb2.EXTENSION_MID: _SDES + "mid",
    node_pb2.EXTENSION_RID: _SDES + "rtp-stream-id",
    node_pb2.EXTENSION_REPAIRED_RID: _SDES + "repaired-rtp-stream-id",
    node_pb2.EXTENSION_AUDIO_LEVEL: "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
    node_pb2.EXTENSION_TRANSPORT_CC: "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
    node_pb2.EXTENSION_ABS_SEND_TIME: _GOOGLE + "abs-send-time",
    node_pb2.EXTENSION_VIDEO_ORIENTATION: "urn:3gpp:video-orientation",
    node_pb2.EXTENSION_PLAYOUT_DELAY: _GOOGLE + "playout-delay",
    node_pb2.EXTENSION_ABS_CAPTURE_TIME: _GOOGLE + "abs-capture-time",
    node_pb2.EXTENSION_DEPENDENCY_DESCRIPTOR: (
        "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
    ),
}
_EXTENSIONS: Final = {uri: extension for extension, uri in EXTENSION_URIS.items()}
_WANTED: Final[Mapping[Kind, frozenset[Extension]]] = {
    node_pb2.KIND_AUDIO: frozenset(
        {
            node_pb2.EXTENSION_MID,
            node_pb2.EXTENSION_AUDIO_LEVEL,
            node_pb2.EXTENSION_TRANSPORT_CC,
            node_pb2.EXTENSION_ABS_SEND_TIME,
            node_pb2.EXTENSION_ABS_CAPTURE_TIME,
        }
    ),
    node_pb2.KIND_VIDEO: frozenset(
        {
            node_pb2.EXTENSION_MID,
            node_pb2.EXTENSION_RID,
            node_pb2.EXTENSION_REPAIRED_RID,
            node_pb2.EXTENSION_TRANSPORT_CC,
            node_pb2.EXTENSION_ABS_SEND_TIME,
            node_pb2.EXTENSION_VIDEO_ORIENTATION,
            node_pb2.EXTENSION_PLAYOUT_DELAY,
            node_pb2.EXTENSION_ABS_CAPTURE_TIME,
            node_pb2.EXTENSION_DEPENDENCY_DESCRIPTOR,
        }
    ),
}
_KINDS: Final[Mapping[str, Kind]] = {"audio": node_pb2.KIND_AUDIO, "video": node_pb2.KIND_VIDEO}
MAX_LAYERS: Final = 3
# libwebrtc's names for quarter, half and full picture: their order in the offer says nothing.
_RID_ORDER: Final[Mapping[str, int]] = {"q": 0, "h": 1, "f": 2}
_MAX_EXTENSIONS = 64
# 15 is reserved in one of the forms, and both are in use (RFC 8285 §4.2).
_ONE_BYTE_IDS: Final = frozenset(range(1, 15))
_TWO_BYTE_IDS: Final = _ONE_BYTE_IDS | frozenset(range(16, 256))
_KNOWN = 256  # bodies of m-lines whose codecs and extensions are remembered


@dataclass(frozen=True, slots=True)
class Format:
    """One payload type of an m-line."""

    payload_type: int
    codec: Codec
    clock_rate: int  # Hz
    channels: int
    fmtp: str
    feedback: frozenset[str]

    @property
    def parameters(self) -> dict[str, str]:
        """The fmtp split into names (lower case) and values."""
        return fmtp_parameters(self.fmtp)


def fmtp_parameters(fmtp: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in fmtp.split(";") if part.strip())
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def kind_of(section: Section) -> Kind:
    return _KINDS.get(section.kind, node_pb2.KIND_UNSPECIFIED)


def formats(section: Section) -> tuple[Format, ...]:
    """The payload types of codecs that we know, in the m-line's order of preference."""
    try:
        return _formats(section.body)
    except SdpError as error:
        raise SdpError(f"mid {section.mid}: {error}") from None


@lru_cache(_KNOWN)
def _formats(body: Body) -> tuple[Format, ...]:
    maps = _by_payload_type(body, "rtpmap")
    fmtps = _by_payload_type(body, "fmtp")
    if any(len(fmtp) > MAX_FMTP for fmtp in fmtps.values()):
        raise SdpError(f"an a=fmtp has more than {MAX_FMTP} characters")
    feedback = _feedback(body)
    found: list[Format] = []
    what = f"format of m={body.kind}"
    for text in body.formats:
        pt = number(text, what, 0, 127)
        name, clock, channels = _rtpmap(maps.get(pt), pt)
        if name in CODEC_NAMES:
            codec = CODEC_NAMES[name]
            found.append(
                Format(pt, codec, clock, channels, fmtps.get(pt, ""), frozenset(feedback.get(pt, ())))
            )
    return tuple(found)


def _by_payload_type(body: Body, name: str) -> dict[int, str]:
    values: dict[int, str] = {}
    what = f"payload type of a={name}"
    for value in body.attributes.get(name, ()):
        pt, _, rest = value.partition(" ")
        values.setdefault(number(pt, what, 0, 127), rest.strip())
    return values


def _feedback(body: Body) -> dict[int, set[str]]:
    """a=rtcp-fb per payload type; `*` stands for all (RFC 4585 §4.2)."""
    feedback: dict[int, set[str]] = {}
    for value in body.attributes.get("rtcp-fb", ()):
        target, _, kind = value.partition(" ")
        if target == "*":
            targets: Iterable[int] = [
                int(f) for f in body.formats if f.isascii() and f.isdigit() and len(f) < 4
            ]
        else:
            targets = [number(target, "payload type of a=rtcp-fb", 0, 127)]
        for pt in targets:
            feedback.setdefault(pt, set()).add(" ".join(kind.split()).lower())
    return feedback


def _rtpmap(value: str | None, pt: int) -> tuple[str, int, int]:
    if value is None:
        name, clock = _STATIC.get(pt, ("", 0))
        return name, clock, 1
    name, *rest = value.split("/")
    if not rest:
        raise SdpError(f"a=rtpmap:{pt} must be <name>/<clock rate>, is {value[:40]!r}")
    clock = number(rest[0].strip(), f"clock rate of a=rtpmap:{pt}", 1, 1_000_000)
    channels = number(rest[1].strip(), f"channels of a=rtpmap:{pt}", 1, 8) if len(rest) > 1 else 1
    return name.strip().lower(), clock, channels


def choose(
    offered: Sequence[Format], kind: Kind, preferred: Codec | None
) -> tuple[Format, Format | None] | None:
    """The one media format to answer with, and its RTX. None: nothing in common."""
    supported = AUDIO_CODECS if kind == node_pb2.KIND_AUDIO else VIDEO_CODECS
    media = [f for f in offered if f.codec in supported]
    if not media:
        return None
    codec = preferred if any(f.codec == preferred for f in media) else media[0].codec
    if kind == node_pb2.KIND_AUDIO and preferred is None:
        codec = min((f.codec for f in media), key=AUDIO_CODECS.index)
    best = min((f for f in media if f.codec == codec), key=_rank)
    return best, rtx_of(best, offered)


def _rank(format_: Format) -> int:
    """Lower is better among the profiles of one codec; ties keep the offer's order."""
    parameters = format_.parameters
    if format_.codec == node_pb2.CODEC_H264:
        # Mode 0 cannot carry a picture larger than a packet (RFC 6184 §6.2).
        constrained = parameters.get("profile-level-id", "").lower().startswith("42e0")
        return (0 if parameters.get("packetization-mode") == "1" else 2) + (0 if constrained else 1)
    if format_.codec == node_pb2.CODEC_VP9:
        return 0 if parameters.get("profile-id", "0") == "0" else 1
    if format_.codec == node_pb2.CODEC_AV1:
        return 0 if parameters.get("profile", "0") == "0" else 1
    return 0


def rtx_of(media: Format, offered: Sequence[Format]) -> Format | None:
    """The retransmission format of a media format (RFC 4588 §8.1); None: it has none."""
    apt = str(media.payload_type)
    return next(
        (f for f in offered if f.codec == node_pb2.CODEC_RTX and f.parameters.get("apt") == apt), None
    )


def extensions(
    section: Section, unusable: Sequence[str] = ("recvonly", "inactive"), is_described: bool = False
) -> tuple[node_pb2.ExtensionMap, ...]:
    """The header extensions to agree to, with the m-line's ids. `unusable`: directions (RFC 8285 §6) to skip.

    abs-send-time is only of use where transport-wide sequence numbers are not offered. Ids above 14 need
    two-byte headers, which only the dependency descriptor is worth; `is_described`: it may be used.
    """
    try:
        return _extensions(section.body, tuple(unusable), is_described)
    except SdpError as error:
        raise SdpError(f"mid {section.mid}: {error}") from None


@lru_cache(_KNOWN)
def _extensions(
    body: Body, unusable: tuple[str, ...], is_described: bool
) -> tuple[node_pb2.ExtensionMap, ...]:
    values = body.attributes.get("extmap", [])
    if len(values) > _MAX_EXTENSIONS:
        raise SdpError(f"more than {_MAX_EXTENSIONS} a=extmap")
    found: dict[Extension, int] = {}
    wanted = _WANTED.get(_KINDS.get(body.kind, node_pb2.KIND_UNSPECIFIED), frozenset())
    if not is_described:
        wanted -= {node_pb2.EXTENSION_DEPENDENCY_DESCRIPTOR}
    for value in values:
        key, _, uri = value.partition(" ")
        id_, _, direction = key.partition("/")
        entry = number(id_, "id of a=extmap", 1, 65535)
        extension = _EXTENSIONS.get(uri.strip().partition(" ")[0])
        described = extension == node_pb2.EXTENSION_DEPENDENCY_DESCRIPTOR
        usable = (
            entry in (_TWO_BYTE_IDS if described else _ONE_BYTE_IDS)
            and direction not in unusable
            and entry not in found.values()
        )
        if extension is not None and usable and extension in wanted:
            found.setdefault(extension, entry)
    if node_pb2.EXTENSION_TRANSPORT_CC in found:
        found.pop(node_pb2.EXTENSION_ABS_SEND_TIME, None)
    return tuple(node_pb2.ExtensionMap(id=entry, extension=extension) for extension, entry in found.items())


def layers(section: Section) -> tuple[node_pb2.Layer, ...]:
    """What the m-line will send: rids (RFC 8853), else ssrc groups, else one SSRC, else one open layer."""
    rids = send_rids(section)
    if rids:
        return tuple(node_pb2.Layer(rid=rid, spatial=index) for index, rid in enumerate(rids))
    ssrcs, repairs = _ssrcs(section)
    if not ssrcs:
        return (node_pb2.Layer(),)
    return tuple(
        node_pb2.Layer(spatial=index, ssrc=ssrc, rtx_ssrc=repairs.get(ssrc, 0))
        for index, ssrc in enumerate(ssrcs)
    )


def send_rids(section: Section) -> list[str]:
    """Rids the client sends, smallest picture first, at most three."""
    declared = []
    for value in section.all("rid"):
        rid, _, rest = value.partition(" ")
        if rest.split(" ")[0] == "send":
            declared.append(identifier(rid, "a=rid"))
    ordered = [rid for rid in _simulcast_order(section) if rid in declared]
    rids = list(dict.fromkeys([*ordered, *declared]))
    if all(rid in _RID_ORDER for rid in rids):
        rids.sort(key=_RID_ORDER.__getitem__)
    return rids[:MAX_LAYERS]


def _simulcast_order(section: Section) -> list[str]:
    words = (section.first("simulcast") or "").split()
    for direction, streams in zip(words[::2], words[1::2], strict=False):
        if direction == "send":
            # Alternatives are split by ",", "~" marks a stream that starts paused (RFC 8853 §5.1).
            return [stream.split(",")[0].removeprefix("~") for stream in streams.split(";")]
    return []


def _ssrcs(section: Section) -> tuple[list[int], dict[int, int]]:
    """Media SSRCs in layer order, and media SSRC → RTX SSRC."""
    listed = [number(v.partition(" ")[0], "a=ssrc", 1, 2**32 - 1) for v in section.all("ssrc")]
    ssrcs = list(dict.fromkeys(listed))
    simulcast: list[int] = []
    repairs: dict[int, int] = {}
    for value in section.all("ssrc-group"):
        semantics, *members = value.split() or [""]
        numbers = [number(m, f"a=ssrc-group:{semantics[:10]}", 1, 2**32 - 1) for m in members]
        if semantics == "FID" and len(numbers) == 2:
            repairs[numbers[0]] = numbers[1]
        elif semantics == "SIM":
            simulcast = numbers[:MAX_LAYERS]
    if simulcast:
        return simulcast, repairs
    media = [ssrc for ssrc in ssrcs if ssrc not in repairs.values()]
    return media[:1], repairs


def own_ssrcs(section: Section) -> tuple[int, int]:
    """Media and RTX SSRC of an m-line with one source. SdpError: it names none."""
    media, repairs = _ssrcs(section)
    if not media:
        raise SdpError(f"mid {section.mid}: no a=ssrc")
    return media[0], repairs.get(media[0], 0)


def track_ids(section: Section) -> tuple[str, str]:
    """(stream id, track id) of a=msid, else of the older a=ssrc … msid: (RFC 8830)."""
    value = section.first("msid")
    if value is None:
        value = next((t.partition(" msid:")[2] for t in section.all("ssrc") if " msid:" in t), "")
    parts = value.split()
    if not parts or len(value) > 512:
        return "", ""
    stream = "" if parts[0] == "-" else parts[0]
    return stream, parts[1] if len(parts) > 1 else ""
