"""The nouns of a room."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from headwater_api.ids import (
    ClusterName,
    NodeId,
    ParticipantIdentity,
    ParticipantSid,
    RegionName,
    TrackSid,
    TransportId,
)
from headwater_api.nodev1 import node_pb2
from livekit.protocol import models

from headwater_gateway.room.access import Role
from headwater_gateway.room.codec import TRANSIENT
from headwater_gateway.room.crossing import Forwarded
from headwater_gateway.sdp.types import OfferedSection

HIGHEST_SPATIAL: Final = 2
AUDIO: Final = models.TrackType.AUDIO  # looked up by name at each use otherwise
RESUME_PROTOCOL: Final = 13
NOWHERE: Final = RegionName("")


class IdSource(Protocol):
    """Where ids and secrets come from; a seeded one makes a room reproducible."""

    def sid(self, prefix: str) -> str:
        """A new id: `PA_…`, `TR_…`, `RM_…`, `LK_…`."""

    def secret(self, length: int) -> bytes:
        """Unpredictable bytes."""

    def number(self) -> int:
        """1 … 2^32-1: an SSRC or a link token."""


def publisher_transport(sid: ParticipantSid) -> TransportId:
    """The transport on which the participant sends."""
    return TransportId(f"{sid}/pub")


def subscriber_transport(sid: ParticipantSid) -> TransportId:
    """The transport on which the participant receives."""
    return TransportId(f"{sid}/sub")


def transport_owner(transport_id: str) -> ParticipantSid:
    """The participant of a transport id."""
    return ParticipantSid(transport_id.partition("/")[0])


@dataclass(frozen=True, slots=True)
class RoomConfig:
    """A room's policy: from its Meeting, or the gateway's defaults. Seconds; 0 participants: no limit."""

    max_participants: int = 0
    empty_timeout_s: int = 300  # nobody has ever joined
    departure_timeout_s: int = 20  # everybody has left
    locked: bool = False
    has_ended: bool = False  # its Meeting is over: nobody new comes in
    metadata: str = ""
    allowed_regions: frozenset[RegionName] = frozenset()
    denied_regions: frozenset[RegionName] = frozenset()
    cluster: ClusterName | None = None  # only its nodes; None: any
    max_spatial: int = HIGHEST_SPATIAL
    resume_grace_s: float = 10.0  # media of a client that lost its WebSocket is kept that long
    move_grace_s: float = 20.0  # so long the roster keeps a participant whose node died
    # A Meeting's rules. An ad-hoc room has none: whoever has a token for it comes in.
    is_declared: bool = False
    unreadable: str = ""  # why the Meeting's object cannot be read: nobody new comes in
    title: str = ""
    password: str = ""  # fingerprint of the password's hash; empty: none is asked for
    waiting_room: bool = False
    invited: frozenset[ParticipantIdentity] = frozenset()  # empty: everybody with a token
    hosts: frozenset[ParticipantIdentity] = frozenset()
    join_before_host: bool = True
    opens_at_ms: int = 0  # Unix; only hosts come in earlier
    mute_on_entry: bool = False
    allow_screen_share: bool = True
    e2ee_required: bool = False
    recording_consent: bool = False  # who has not consented does not come in while the room is recorded
    audio_top_n: int = 0  # so many microphones are forwarded, the loudest; 0: all


@dataclass(frozen=True, slots=True)
class Wish:
    """Where a participant wants to be, or was found to be; and round-trip times that its client measured."""

    region: RegionName = NOWHERE
    rtts_ms: Mapping[RegionName, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """A verified participant that wants in."""

    identity: ParticipantIdentity
    name: str = ""
    metadata: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    permission: models.ParticipantPermission = field(default_factory=models.ParticipantPermission)
    kind: models.ParticipantInfo.Kind = models.ParticipantInfo.STANDARD
    region: RegionName = NOWHERE
    rtts_ms: Mapping[RegionName, float] = field(default_factory=dict)
    auto_subscribe: bool = True
    protocol: int = 0
    client_protocol: int = 0
    role: Role = Role.PARTICIPANT  # by its token
    password: str = ""  # fingerprint of the hash that its password was proved against
    issued_at: int = 0  # its token was made then (Unix seconds); 0: the token does not say
    consents_to_recording: bool = False
    is_http: bool = False  # WHIP, WHEP: no WebSocket; it lives as long as its one transport
    meeting: str = ""  # its token is good for a Meeting of that name only, not for an ad-hoc room


@dataclass(frozen=True, slots=True)
class TrackSetting:
    """What a subscriber asked of a track."""

    disabled: bool = False
    quality: models.VideoQuality = models.VideoQuality.HIGH
    width: int = 0
    height: int = 0
    priority: int = 0  # higher: the last to lose bandwidth


@dataclass(frozen=True, slots=True)
class Audience:
    """Whom a publisher lets subscribe. Ids of participants → their tracks; None stands for all tracks."""

    everyone: bool = True
    by_identity: Mapping[str, frozenset[str] | None] = field(default_factory=dict)
    by_sid: Mapping[str, frozenset[str] | None] = field(default_factory=dict)

    def admits(self, sid: ParticipantSid, identity: ParticipantIdentity, track: TrackSid) -> bool:
        """Whether that participant may have that track."""
        if self.everyone:
            return True
        for table, key in ((self.by_identity, str(identity)), (self.by_sid, str(sid))):
            if key in table:
                tracks = table[key]
                return tracks is None or track in tracks
        return False


@dataclass(slots=True)
class PublishedTrack:
    """A track from add_track on; `section` is there once an offer has brought its m-line."""

    sid: TrackSid
    publisher: ParticipantSid
    cid: str
    info: models.TrackInfo
    section: OfferedSection | None = None
    codec: node_pb2.CodecMap | None = None
    was_subscribed: bool = False
    dynacast: tuple[bool, ...] = ()  # the layers that the publisher was last told to send
    bound_at: float | None = None  # its m-line was agreed then (monotonic seconds)
    # Its media has arrived, so its client has a publication that updates of its layers can be applied to:
    # clients drop those that come sooner, and they are not told again.
    is_settled: bool = False
    # A host has muted it: it is not forwarded, whatever the client sends, until its owner unmutes it.
    is_silenced: bool = False
    # What whoever asked for nothing particular gets of it: one object for all of them.
    usual: "WantedTrack | None" = field(default=None, metadata=TRANSIENT)

    @property
    def is_live(self) -> bool:
        return self.section is not None and self.codec is not None

    @property
    def is_voice(self) -> bool:
        """Forwarded only while it is among the loudest, in rooms where not everybody is heard."""
        return self.info.source == models.TrackSource.MICROPHONE

    @property
    def kind(self) -> node_pb2.Kind.ValueType:
        return node_pb2.KIND_AUDIO if self.info.type == AUDIO else node_pb2.KIND_VIDEO


@dataclass(frozen=True, slots=True)
class WantedTrack:
    """One track that a subscriber is to get now, and how much of it."""

    track_sid: TrackSid
    publisher: ParticipantSid
    stream_id: str
    kind: node_pb2.Kind.ValueType
    codec: node_pb2.CodecMap
    max_spatial: int = HIGHEST_SPATIAL
    paused: bool = False
    is_screen: bool = False
    priority: int = 0
    is_redundant: bool = False  # audio with copies of earlier frames


@dataclass(frozen=True, slots=True)
class TransportMemo:
    """What was last agreed for one transport, so that a successor can go on with it."""

    ufrag: str = ""
    pwd: str = ""
    remote_fingerprint: str = ""
    remote_ufrag: str = ""


@dataclass(slots=True)
class Migration:
    """A participant's way to another node, which already is its `node_id`."""

    source: NodeId | None  # where it comes from, as long as that node lives
    since: float  # monotonic seconds
    why: str
    back_at: float | None = None  # its client has resumed
    uplink_up: bool = False
    downlink_up: bool = False


@dataclass(slots=True)
class Participant:
    """A row of the roster."""

    sid: ParticipantSid
    identity: ParticipantIdentity
    name: str
    metadata: str
    attributes: dict[str, str]
    permission: models.ParticipantPermission
    kind: models.ParticipantInfo.Kind
    region: RegionName
    wish: Wish
    node_id: NodeId
    joined_at_ms: int  # Unix
    auto_subscribe: bool
    protocol: int = 0
    client_protocol: int = 0
    state: models.ParticipantInfo.State = models.ParticipantInfo.JOINED
    version: int = 1
    disconnect_reason: models.DisconnectReason = models.DisconnectReason.UNKNOWN_REASON
    sections: tuple[OfferedSection, ...] = ()
    tracks: dict[TrackSid, PublishedTrack] = field(default_factory=dict)
    choices: dict[TrackSid, bool] = field(default_factory=dict)
    settings: dict[TrackSid, TrackSetting] = field(default_factory=dict)
    audience: Audience = field(default_factory=Audience)
    wanted: dict[TrackSid, WantedTrack] = field(default_factory=dict)
    # Of its reliable data: the last that any owner of the room has taken up, and the last that this one has.
    data_sequence: int = 0
    own_data_sequence: int = field(default=0, metadata=TRANSIENT)
    # By transport: the address that the client's packets come from.
    paths: dict[str, str] = field(default_factory=dict)
    transports: dict[TransportId, TransportMemo] = field(default_factory=dict)
    # The client's WebSocket is away since then (monotonic seconds); None while it is there.
    detached_at: float | None = None
    has_hung_up: bool = False  # it has closed its media connection itself (DTLS close_notify)
    # The node died: sent away to rejoin. The row stays until it does, or until move_grace_s has passed.
    moving_at: float | None = None
    # It is led to another node without a new join.
    migration: Migration | None = None
    has_uplink: bool = False  # its publisher connection has been negotiated
    # The SSRCs of its m-lines' layers, by mid, as its node has learnt them.
    sources: dict[str, tuple[node_pb2.Layer, ...]] = field(default_factory=dict)
    role: Role = Role.PARTICIPANT
    is_http: bool = False
    # Its room was taken over and its client is not back yet: it has no session that could lead it elsewhere.
    is_awaited: bool = False
    forwarded: Forwarded | None = None  # it is in another room, and shown here
    # What of its row seldom changes, as it was last told; and the fields that it was made from.
    row: tuple[object, models.ParticipantInfo] | None = field(default=None, metadata=TRANSIENT)

    @property
    def uplink_node(self) -> NodeId | None:
        """Where its tracks enter; None while that node is dead or the client is on its way to rejoin."""
        if self.moving_at is not None:
            return None
        if self.migration is not None and not self.migration.uplink_up:
            return self.migration.source
        return self.node_id

    @property
    def nodes(self) -> tuple[NodeId, ...]:
        """The nodes that have transports of it: two during a migration."""
        if self.migration is None or self.migration.source is None:
            return (self.node_id,)
        return (self.node_id, self.migration.source)

    @property
    def resumes(self) -> bool:
        """Whether its client resumes when its WebSocket ends: those from before protocol 13 may not."""
        return self.protocol >= RESUME_PROTOCOL

    @property
    def is_hidden(self) -> bool:
        return self.permission.hidden
