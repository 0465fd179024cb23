"""A room's state and the few verbs that all its parts share. No I/O, no clock, no randomness of its own."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from headwater_api.ids import NodeId, ParticipantIdentity, ParticipantSid, RoomId, TrackSid
from headwater_api.nodev1 import node_pb2
from headwater_planner.place import Refusal
from livekit.protocol import models, rtc

from headwater_gateway.limits import Rate
from headwater_gateway.nodes.facts import NodeFacts
from headwater_gateway.room.access import Access
from headwater_gateway.room.codec import TRANSIENT
from headwater_gateway.room.crossing import Crossing, Showing
from headwater_gateway.room.effects import Effect, Happened, ToClients, ToNode
from headwater_gateway.room.links import CascadeState
from headwater_gateway.room.model import IdSource, Participant, PublishedTrack, RoomConfig
from headwater_gateway.room.quality import QualityBoard
from headwater_gateway.room.speakers import SpeakerBoard
from headwater_gateway.room.updates import UpdateBatch
from headwater_gateway.room.wire import participant_info, room_info


@dataclass(slots=True)
class RoomState:
    """Everything that is true of one room. `effects` collects what the last decisions want done.

    All fields but the TRANSIENT ones go to the gateway that takes the room over (`room.snapshot`).
    """

    room_id: RoomId
    sid: str
    config: RoomConfig
    created_ms: int  # Unix
    created_at: float  # monotonic seconds, as every `now`
    ids: IdSource = field(metadata=TRANSIENT)
    participants: dict[ParticipantSid, Participant] = field(default_factory=dict)
    by_identity: dict[ParticipantIdentity, ParticipantSid] = field(default_factory=dict, metadata=TRANSIENT)
    tracks: dict[TrackSid, PublishedTrack] = field(default_factory=dict, metadata=TRANSIENT)
    nodes: dict[NodeId, NodeFacts] = field(default_factory=dict, metadata=TRANSIENT)
    cascade: CascadeState = field(default_factory=CascadeState)
    updates: UpdateBatch = field(default_factory=UpdateBatch, metadata=TRANSIENT)
    speakers: SpeakerBoard = field(default_factory=SpeakerBoard, metadata=TRANSIENT)
    quality: QualityBoard = field(default_factory=QualityBoard, metadata=TRANSIENT)
    chat_rate: Rate = field(default_factory=lambda: Rate(per_second=5, burst=20), metadata=TRANSIENT)
    data_rate: Rate = field(default_factory=lambda: Rate(per_second=1000, burst=4000), metadata=TRANSIENT)
    access: Access = field(default_factory=Access)
    # By the participant's id in the other room: participants of ours that are shown there too.
    shown: dict[ParticipantSid, Showing] = field(default_factory=dict)
    effects: list[Effect] = field(default_factory=list, metadata=TRANSIENT)
    moved: int = 0  # participants sent to another node so far
    housekeeping_due: float = field(default=0.0, metadata=TRANSIENT)
    # Nodes that the room leaves, with the time of the last step off them; and of the next, if there are any.
    drains: dict[NodeId, float] = field(default_factory=dict, metadata=TRANSIENT)
    moves_due: float | None = field(default=None, metadata=TRANSIENT)
    stuck: dict[NodeId, Refusal] = field(
        default_factory=dict, metadata=TRANSIENT
    )  # to leave, with nowhere to go
    empty_since: float | None = None
    was_joined: bool = False
    ended: str = ""  # why, once it has ended

    # -- reading ---------------------------------------------------------------------------------

    def of_identity(self, identity: str) -> Participant | None:
        sid = self.by_identity.get(ParticipantIdentity(identity))
        return self.participants.get(sid) if sid is not None else None

    def visible(self) -> list[Participant]:
        return [p for p in self.participants.values() if not p.is_hidden]

    def node_of_track(self, track: PublishedTrack) -> NodeId | None:
        """Where the track enters; None once its publisher's node is gone."""
        publisher = self.participants.get(track.publisher)
        return publisher.uplink_node if publisher is not None else None

    def crossing_of(self, track: PublishedTrack) -> Crossing | None:
        """The link from another room by which the track comes; None: its publisher is in this one."""
        publisher = self.participants.get(track.publisher)
        forwarded = publisher.forwarded if publisher is not None else None
        return forwarded.crossing if forwarded is not None else None

    def counts(self) -> dict[NodeId, int]:
        """The room's participants on each of its nodes, as far as they are not on their way out."""
        found = dict.fromkeys(self.nodes, 0)
        for participant in self.participants.values():
            if participant.moving_at is None and participant.node_id in found:
                found[participant.node_id] += 1
        return found

    def info(self) -> models.Room:
        shown = self.visible()
        publishers = sum(1 for p in shown if p.tracks)
        return room_info(
            self.sid,
            self.room_id,
            self.config,
            self.created_ms,
            participants=len(shown),
            publishers=publishers,
            is_recorded=self.access.is_recorded,
        )

    # -- telling ---------------------------------------------------------------------------------

    def tell(self, sid: ParticipantSid, message: rtc.SignalResponse) -> None:
        self.effects.append(ToClients((sid,), message))

    def tell_all(self, message: rtc.SignalResponse) -> None:
        """To everybody that is here."""
        sids = tuple(p.sid for p in self.participants.values() if p.moving_at is None)
        if sids:
            self.effects.append(ToClients(sids, message))

    def tell_all_room(self) -> None:
        """The room's own row has changed."""
        self.tell_all(rtc.SignalResponse(room_update=rtc.RoomUpdate(room=self.info())))

    def command(self, node_id: NodeId, commands: Iterable[node_pb2.Command]) -> None:
        """Commands for a node of the room; dropped if it is none."""
        batch = tuple(commands)
        if batch and node_id in self.nodes:
            self.effects.append(ToNode(node_id, batch))

    def happened(
        self, event: str, participant: Participant | None = None, track: PublishedTrack | None = None
    ) -> None:
        """Tell the application, if it listens; of hidden participants too."""
        info = participant_info(participant) if participant is not None else None
        copy = None
        if track is not None:
            copy = models.TrackInfo()
            copy.CopyFrom(track.info)
        self.effects.append(Happened(event, info, copy))

    def announce(self, participant: Participant, now: float, *, at_once: bool = False) -> None:
        """The participant's row has changed. `at_once`: it waits only if another one has just gone out."""
        participant.version += 1
        self.updates.put(participant_info(participant), hidden=participant.is_hidden, now=now)
        if at_once and self.updates.may_hurry(now):
            self.flush_updates()

    def flush_updates(self) -> None:
        """Send the rows collected so far, in order."""
        visible, hidden = self.updates.take()
        if visible:
            self.tell_all(rtc.SignalResponse(update=rtc.ParticipantUpdate(participants=visible)))
        for row in hidden:
            if row.sid in self.participants:
                message = rtc.SignalResponse(update=rtc.ParticipantUpdate(participants=[row]))
                self.tell(ParticipantSid(row.sid), message)

    def take_effects(self) -> list[Effect]:
        taken, self.effects = self.effects, []
        return taken
