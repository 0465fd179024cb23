"""Values that go in and out of a negotiation."""

from dataclasses import dataclass

from headwater_api.nodev1 import node_pb2


class SdpError(ValueError):
    """A description that is refused. The message names the line or attribute and the fix."""


class StaleAnswer(SdpError):
    """An answer to an offer that a newer one replaced: ignore it."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One address at which the node's media socket is reached (UDP)."""

    address: str
    port: int

    @classmethod
    def parse(cls, advertised: str) -> "Candidate":
        """From NodeFacts.client_addresses: `ip:port` or `[ip6]:port`. ValueError otherwise."""
        address, separator, port = advertised.rpartition(":")
        if not separator or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"media address {advertised!r} is not ip:port")
        return cls(address.strip("[]"), int(port))


@dataclass(frozen=True, slots=True)
class LocalTransport:
    """The node's end of one peer connection. `fingerprint` is "sha-256 AB:CD:…" (RFC 8122)."""

    ufrag: str
    pwd: str
    fingerprint: str
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class OfferedSection:
    """One audio or video m-line of a publisher's offer, as answered.

    `inactive` m-lines (rejected, recvonly, or with no codec in common) must not be configured.
    """

    mid: str
    kind: node_pb2.Kind.ValueType
    cid: str  # the track id of a=msid (the client's cid), or of a=ssrc msid:, or ""
    stream_id: str
    codecs: tuple[node_pb2.CodecMap, ...] = ()
    extensions: tuple[node_pb2.ExtensionMap, ...] = ()
    layers: tuple[node_pb2.Layer, ...] = ()
    inactive: bool = False

    @property
    def is_redundant(self) -> bool:
        """Audio that may come with copies of earlier frames (RFC 2198)."""
        return any(codec.codec == node_pb2.CODEC_RED for codec in self.codecs)

    def receive_section(
        self, track_id: str, muted: bool = False, voice: bool = False
    ) -> node_pb2.ReceiveSection:
        """The node's view of this m-line, for ConfigureReceive. `voice`: a microphone."""
        return node_pb2.ReceiveSection(
            mid=self.mid,
            kind=self.kind,
            track_id=track_id,
            codecs=self.codecs,
            extensions=self.extensions,
            layers=self.layers,
            muted=muted,
            voice=voice,
        )


@dataclass(frozen=True, slots=True)
class PublisherAnswer:
    """The answer to send, and what the node must be told."""

    sdp: str
    remote_fingerprint: str  # "sha-256 AB:CD:…"
    remote_ufrag: str
    sections: tuple[OfferedSection, ...]
    has_data: bool = False


@dataclass(frozen=True, slots=True)
class SubscriberAnswer:
    """What a client accepted: the whole set for ConfigureSend (max_spatial and paused are the caller's).

    `refused`: sids of tracks that were offered and not taken (codec unknown to the client, say); they are not
    offered again until they are removed and added.
    """

    remote_fingerprint: str
    remote_ufrag: str
    sections: tuple[node_pb2.SendSection, ...]
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SendTrack:
    """A track that a subscriber is to get.

    `codec` is OfferedSection.codecs[0] of the publisher; its payload type and feedback are not used.
    `stream_id` groups tracks for lip-sync; leave it empty for clients that take the track id from the stream
    (Firefox), and the stream id is then `PA_…|TR_…`. `is_redundant`: the publisher may send copies of earlier
    audio frames along (RFC 2198); a subscriber that does not take them gets the same track without.
    """

    track_sid: str
    participant_sid: str
    kind: node_pb2.Kind.ValueType
    codec: node_pb2.CodecMap
    ssrc: int
    rtx_ssrc: int = 0  # 0: no RTX
    stream_id: str = ""
    is_redundant: bool = False
