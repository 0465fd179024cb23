"""A participant that came by one HTTP request (WHIP, WHEP): it has no WebSocket and lives with its transport.

The room's ClientPort. What the room says to its clients falls silent here: such a client hears nothing but
its media. It cannot be led to another node either: it is let go, sees its connection end and asks again.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import structlog
from headwater_api.ids import ParticipantIdentity, ParticipantSid, RoomId, TrackSid, TransportId
from headwater_api.nodev1 import node_pb2
from livekit.protocol import models, rtc

from headwater_gateway.nodes.facts import NodeFacts
from headwater_gateway.room.actor import RoomActor
from headwater_gateway.room.model import (
    HIGHEST_SPATIAL,
    IdSource,
    Participant,
    TransportMemo,
    WantedTrack,
    publisher_transport,
    subscriber_transport,
)
from headwater_gateway.room.ports import Joined
from headwater_gateway.sdp import Candidate, LocalTransport, OfferedSection, PublisherNegotiation
from headwater_gateway.sdp.types import SdpError
from headwater_gateway.sdp.viewer import ViewerLine, answer_viewer
from headwater_gateway.signal.session_media import PWD_BYTES, UFRAG_BYTES

MAX_TRACKS: Final = 8

log = structlog.get_logger(__name__)


class HttpSession:
    """One resource. `publishes`: it sends (WHIP); else it receives (WHEP), of `source` only if set."""

    def __init__(
        self,
        room_id: RoomId,
        identity: ParticipantIdentity,
        ids: IdSource,
        *,
        publishes: bool,
        source: ParticipantIdentity | None = None,
    ) -> None:
        self.room_id, self.identity, self.publishes = room_id, identity, publishes
        self._ids, self._source = ids, source
        self.sid = ParticipantSid("")
        self.is_over = False
        self.on_over: Callable[[], None] = lambda: None
        self._room: RoomActor | None = None
        self._local: LocalTransport | None = None
        self._fingerprint = ""
        self._lines: tuple[ViewerLine, ...] = ()
        self._wanted: dict[TrackSid, WantedTrack] = {}
        self._carried: dict[str, TrackSid] = {}  # mid → track

    @classmethod
    def adopted(cls, room: RoomActor, left: Participant, facts: NodeFacts, ids: IdSource) -> "HttpSession":
        """The resource of somebody whose room was taken over: it can be deleted, and restart ICE.

        What a receiving one gets stays as it is: only its node knows which m-lines it has.
        """
        publishes = TransportId(publisher_transport(left.sid)) in left.transports
        made = cls(room.state.room_id, left.identity, ids, publishes=publishes)
        made.sid, made._room = left.sid, room
        memo = left.transports.get(TransportId(made._transport), TransportMemo())
        made._local = replace(made._credentials(facts), ufrag=memo.ufrag, pwd=memo.pwd)
        made._fingerprint = memo.remote_fingerprint
        return made

    # -- ClientPort ------------------------------------------------------------------------------

    def deliver(self, message: rtc.SignalResponse, encoded: bytes) -> None:
        pass  # nobody to tell

    def change_wanted(self, changed: tuple[WantedTrack, ...], dropped: tuple[TrackSid, ...]) -> None:
        self._wanted.update({track.track_sid: track for track in changed})
        for sid in dropped:
            self._wanted.pop(sid, None)
        if self._lines and self._room is not None:
            self._room.command(self.sid, [self._configure_send()])

    def move(
        self, facts: NodeFacts, why: str, *, was_connected: bool, delay_s: float, head_start_s: float
    ) -> None:
        if self._room is not None:
            self._room.leave(self.sid, models.DisconnectReason.MIGRATION)
        self.end(None, why)

    def end(self, leave: rtc.LeaveRequest | None, why: str) -> None:
        if not self.is_over:
            self.is_over = True
            log.info("resource.ended", room=self.room_id, participant=self.sid, reason=why)
            self.on_over()

    def drop(self, why: str) -> None:
        self.end(None, why)

    # -- life ------------------------------------------------------------------------------------

    @property
    def tag(self) -> str:
        """Names the ICE session: the entity tag of RFC 9725 §4.3.1."""
        return self._local.ufrag if self._local is not None else ""

    @property
    def _transport(self) -> str:
        return publisher_transport(self.sid) if self.publishes else subscriber_transport(self.sid)

    def start(self, room: RoomActor, joined: Joined, offer_sdp: str) -> str:
        """Open the transport and answer the offer. SdpError: refused."""
        self.sid, self._room = joined.sid, room
        self._local = self._credentials(joined.facts)
        if self.publishes:
            redundant = room.takes_redundancy
            answer = PublisherNegotiation().answer(offer_sdp, self._local, redundant=lambda cid: redundant)
            remote = (answer.remote_fingerprint, answer.remote_ufrag)
            sections = [s for s in answer.sections if not s.inactive]
            if not sections or len(sections) > MAX_TRACKS:
                raise SdpError(f"offer 1 to {MAX_TRACKS} m-lines that send")
            self._open(*remote)
            for section in sections:
                room.request(self.sid, rtc.SignalRequest(add_track=_track(section)))
            room.publish(self.sid, answer.sections)
            return answer.sdp
        seen = answer_viewer(offer_sdp, self._local, self._ids.number, self.sid)
        self._lines = seen.lines
        self._open(seen.remote_fingerprint, seen.remote_ufrag)
        room.command(self.sid, [self._configure_send()])
        return seen.sdp

    def _credentials(self, facts: NodeFacts) -> LocalTransport:
        return LocalTransport(
            ufrag=self._ids.secret(UFRAG_BYTES).hex(),
            pwd=self._ids.secret(PWD_BYTES).hex(),
            fingerprint=facts.dtls_fingerprint,
            candidates=tuple(Candidate.parse(address) for address in facts.client_addresses),
        )

    def _open(self, fingerprint: str, ufrag: str) -> None:
        assert self._room is not None and self._local is not None
        self._fingerprint = fingerprint
        create = node_pb2.CreateTransport(
            transport_id=self._transport,
            participant_id=self.sid,
            local_ufrag=self._local.ufrag,
            local_pwd=self._local.pwd,
        )
        self._room.command(self.sid, [node_pb2.Command(create_transport=create), self._remote(ufrag)])

    def _remote(self, ufrag: str) -> node_pb2.Command:
        remote = node_pb2.SetRemote(
            transport_id=self._transport, remote_fingerprint=self._fingerprint, remote_ufrag=ufrag
        )
        return node_pb2.Command(set_remote=remote)

    def restart(self, ufrag: str) -> LocalTransport:
        """An ICE restart: the node's new credentials."""
        assert self._room is not None and self._local is not None
        self._local = LocalTransport(
            self._ids.secret(UFRAG_BYTES).hex(),
            self._ids.secret(PWD_BYTES).hex(),
            self._local.fingerprint,
            self._local.candidates,
        )
        again = node_pb2.RestartIce(
            transport_id=self._transport, local_ufrag=self._local.ufrag, local_pwd=self._local.pwd
        )
        self._room.command(self.sid, [node_pb2.Command(restart_ice=again), self._remote(ufrag)])
        return self._local

    def leave(self) -> None:
        """The client has deleted the resource."""
        if self._room is not None:
            self._room.leave(self.sid, models.DisconnectReason.CLIENT_INITIATED)
        self.end(None, "the client deleted it")

    # -- receiving -------------------------------------------------------------------------------

    def _configure_send(self) -> node_pb2.Command:
        """Put a track on each m-line: the one that is there stays as long as it lives."""
        sections: list[node_pb2.SendSection] = []
        taken: set[TrackSid] = set()
        for line in self._lines:
            known = self._carried.get(line.mid)
            choices = [known, *self._wanted] if known in self._wanted else list(self._wanted)
            for sid in choices:
                section = self._section(line, sid, taken)
                if section is not None and sid is not None:
                    taken.add(sid)
                    self._carried[line.mid] = sid
                    sections.append(section)
                    break
        configure = node_pb2.ConfigureSend(transport_id=self._transport, sections=sections)
        return node_pb2.Command(configure_send=configure)

    def _section(
        self, line: ViewerLine, sid: TrackSid | None, taken: set[TrackSid]
    ) -> node_pb2.SendSection | None:
        track = self._wanted.get(sid) if sid is not None else None
        if track is None or sid in taken or track.kind != line.kind or not self._is_of_source(track):
            return None
        section = line.carry(track.track_sid, track.codec)
        if section is not None:
            section.max_spatial, section.paused = min(track.max_spatial, HIGHEST_SPATIAL), track.paused
        return section

    def _is_of_source(self, track: WantedTrack) -> bool:
        if self._source is None or self._room is None:
            return True
        publisher = self._room.state.participants.get(track.publisher)
        return publisher is not None and publisher.identity == self._source


def _track(section: OfferedSection) -> rtc.AddTrackRequest:
    """What a signalling client would have announced."""
    video = section.kind == node_pb2.KIND_VIDEO
    cid = section.cid or f"mid-{section.mid}"
    source = models.TrackSource.CAMERA if video else models.TrackSource.MICROPHONE
    kind = models.TrackType.VIDEO if video else models.TrackType.AUDIO
    return rtc.AddTrackRequest(cid=cid, name=cid, type=kind, source=source)
