"""What two rooms tell each other of a participant of the one that is shown in the other as well."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from headwater_api.ids import (
    LinkId,
    NodeId,
    ParticipantIdentity,
    ParticipantSid,
    RegionName,
    RoomId,
    TrackSid,
)
from headwater_api.nodev1 import node_pb2
from livekit.protocol import models

from headwater_gateway.sdp.types import OfferedSection

NO_NODE: Final = NodeId("")


@dataclass(frozen=True, slots=True)
class Crossing:
    """A relay link between two rooms: from the participant's node in its own room (far) to that here (near).

    Both may be one node, so each end has a token of its own. Both ends are opened from this, again after a
    takeover: so it keeps the keys.
    """

    link_id: LinkId
    near: NodeId
    far: NodeId
    near_address: str
    far_address: str
    near_key: bytes  # what the near end sends with
    far_key: bytes
    near_token: int
    far_token: int

    def near_end(self) -> node_pb2.Command:
        """For the node in the room that shows the participant."""
        link = node_pb2.OpenRelay(
            link_id=self.link_id,
            peer_node_id=self.far,
            peer_address=self.far_address,
            tx_key=self.near_key,
            rx_key=self.far_key,
            link_token=self.near_token,
            peer_token=self.far_token,
        )
        return node_pb2.Command(open_relay=link)

    def far_end(self) -> node_pb2.Command:
        """For the node in the participant's own room."""
        link = node_pb2.OpenRelay(
            link_id=self.link_id,
            peer_node_id=self.near,
            peer_address=self.near_address,
            tx_key=self.far_key,
            rx_key=self.near_key,
            link_token=self.far_token,
            peer_token=self.near_token,
        )
        return node_pb2.Command(open_relay=link)

    def closed(self) -> node_pb2.Command:
        """For either end."""
        return node_pb2.Command(close_relay=node_pb2.CloseRelay(link_id=self.link_id))


@dataclass(slots=True)
class Forwarded:
    """Of a participant that is in another room: which, and how its tracks come from there."""

    source: RoomId
    heard_at: float  # its room last said that it is there (monotonic seconds)
    crossing: Crossing | None = None
    broken_since: float | None = None  # the link is not up
    silenced: frozenset[TrackSid] = frozenset()  # by a host of its own room
    held: frozenset[TrackSid] = frozenset()  # by a host of this one


@dataclass(slots=True)
class Showing:
    """A participant of ours that is shown in another room too, as that room last asked for it."""

    identity: ParticipantIdentity
    asked_at: float  # monotonic seconds
    crossing: Crossing | None = None  # open at our end
    layers: dict[TrackSid, int] = field(default_factory=dict)  # the highest that somebody there wants


@dataclass(frozen=True, slots=True)
class Ask:
    """What the room that shows a participant wants of the participant's own room.

    `seen`: the mark of what it was told last: the answer waits a moment for something else. `is_over`: it is
    not shown any more.
    """

    source: RoomId
    identity: ParticipantIdentity
    shown_as: ParticipantSid
    crossing: Crossing | None = None
    layers: Mapping[TrackSid, int] = field(default_factory=dict)
    seen: str = ""
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class SeenTrack:
    sid: TrackSid
    info: models.TrackInfo
    section: OfferedSection
    codec: node_pb2.CodecMap
    is_silenced: bool = False


@dataclass(frozen=True, slots=True)
class Sight:
    """The participant as its own room knows it. No node: it is on its way to one."""

    identity: ParticipantIdentity
    region: RegionName
    node_id: NodeId = NO_NODE
    address: str = ""
    name: str = ""
    metadata: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    permission: models.ParticipantPermission = field(default_factory=models.ParticipantPermission)
    kind: models.ParticipantInfo.Kind = models.ParticipantInfo.STANDARD
    tracks: tuple[SeenTrack, ...] = ()
    is_linked: bool = False  # its end of the link that was asked for is open


@dataclass(frozen=True, slots=True)
class Start:
    """`destination` is to show a participant of `source` from now on."""

    source: RoomId
    destination: RoomId
    sight: Sight
