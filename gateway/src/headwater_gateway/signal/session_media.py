"""The two transports of one session: negotiation in, node commands and descriptions out. No I/O."""

import json
from dataclasses import dataclass, replace
from typing import Final

from headwater_api.ids import ParticipantSid, TrackSid
from headwater_api.nodev1 import node_pb2
from livekit.protocol import rtc

from headwater_gateway.nodes.facts import NodeFacts
from headwater_gateway.room.model import (
    IdSource,
    Participant,
    WantedTrack,
    publisher_transport,
    subscriber_transport,
)
from headwater_gateway.sdp import (
    Candidate,
    LocalTransport,
    OfferedSection,
    PublisherNegotiation,
    SendTrack,
    SubscriberNegotiation,
)
from headwater_gateway.sdp.render import MAX_MESSAGE_SIZE, candidate_lines
from headwater_gateway.signal.offer_pace import OfferPace

UFRAG_BYTES: Final = 6
PWD_BYTES: Final = 18
LOSSY: Final = "_lossy"
# RFC 8832: the node opens these on the subscriber transport once SCTP is up.
DATA_CHANNELS: Final = (
    node_pb2.DataChannel(label="_reliable", ordered=True, max_retransmits=-1),
    node_pb2.DataChannel(label=LOSSY, ordered=False, max_retransmits=0),
)
# A DTLS server's streams are the odd ones, in the order of opening (RFC 8832 §6).
OPEN_CHANNELS: Final = tuple(
    node_pb2.DataChannel(
        label=channel.label,
        ordered=channel.ordered,
        max_retransmits=channel.max_retransmits,
        established=True,
        stream_id=2 * place + 1,
    )
    for place, channel in enumerate(DATA_CHANNELS)
)
MAX_CHANNELS: Final = 16
MAX_STREAM: Final = 65_534
MAX_LABEL: Final = 128
MAX_CIDS: Final = 1000  # of which add_track's wishes are remembered


@dataclass(frozen=True, slots=True)
class Answered:
    """An offer's answer and what goes with it."""

    sdp: str
    sections: tuple[OfferedSection, ...]
    commands: tuple[node_pb2.Command, ...]

    def summary(self) -> list[str]:
        """The m-lines in use, for the log."""
        return [f"{s.mid} {node_pb2.Kind.Name(s.kind)} {s.cid}" for s in self.sections if not s.inactive]


@dataclass(frozen=True, slots=True)
class Taken:
    """What a client's answer leads to."""

    commands: tuple[node_pb2.Command, ...]
    track_sids: tuple[str, ...]  # carried from now on


class SessionMedia:
    """Both peer connections of a participant on one node."""

    def __init__(self, sid: ParticipantSid, facts: NodeFacts, ids: IdSource) -> None:
        self._sid, self._facts, self._ids = sid, facts, ids
        self._publisher = PublisherNegotiation()
        self._subscriber, self._pace = SubscriberNegotiation(), OfferPace()
        self._local = {t: self._credentials() for t in self._transports()}
        self._next_publisher: LocalTransport | None = None  # on the node that it moves to
        self._has_moved = False
        self._is_downlink_new = False  # its credentials have not been offered yet
        self._remote: dict[str, tuple[str, str]] = {}
        self._preferred: dict[str, node_pb2.Codec.ValueType] = {}
        self._redundant: set[str] = set()  # cids whose audio may come with copies of earlier frames
        self._wanted: dict[TrackSid, WantedTrack] = {}
        self._ssrcs: dict[TrackSid, tuple[int, int]] = {}
        self._sending: tuple[node_pb2.SendSection, ...] = ()  # what the last ConfigureSend said

    @classmethod
    def resumed(cls, left: Participant, facts: NodeFacts, ids: IdSource, offer_sdp: str) -> "SessionMedia":
        """The connections of a participant of a room that was taken over, as its last owner left them.

        `offer_sdp`: the last offer to the subscriber that the client has taken; empty: none. SdpError.
        """
        made = cls(left.sid, facts, ids)
        publisher, _ = made._transports()
        for transport, memo in left.transports.items():
            if memo.ufrag:
                made._local[transport] = replace(made._local[transport], ufrag=memo.ufrag, pwd=memo.pwd)
            if memo.remote_fingerprint:
                made._remote[transport] = (memo.remote_fingerprint, memo.remote_ufrag)
        codecs = {s.mid: (s.cid, s.codecs[0].codec) for s in left.sections if s.codecs}
        made._redundant = {s.cid for s in left.sections if s.is_redundant}
        made._publisher = PublisherNegotiation.resumed(made._remote.get(publisher, ("", ""))[1], codecs)
        if offer_sdp:
            made._subscriber = SubscriberNegotiation.resumed(offer_sdp)
            made._ssrcs = {TrackSid(sid): ssrcs for sid, ssrcs in made._subscriber.ssrcs().items()}
        return made

    def _transports(self) -> tuple[str, str]:
        return publisher_transport(self._sid), subscriber_transport(self._sid)

    def _credentials(self) -> LocalTransport:
        return LocalTransport(
            ufrag=self._ids.secret(UFRAG_BYTES).hex(),
            pwd=self._ids.secret(PWD_BYTES).hex(),
            fingerprint=self._facts.dtls_fingerprint,
            candidates=tuple(Candidate.parse(a) for a in self._facts.client_addresses),
        )

    def create(self) -> tuple[node_pb2.Command, ...]:
        """The commands that make both transports."""
        publisher, subscriber = self._transports()
        return (
            self._create(publisher, self._local[publisher], ()),
            self._create(subscriber, self._local[subscriber], DATA_CHANNELS),
        )

    def _create(
        self, transport: str, local: LocalTransport, channels: tuple[node_pb2.DataChannel, ...]
    ) -> node_pb2.Command:
        command = node_pb2.CreateTransport(
            transport_id=transport,
            participant_id=self._sid,
            local_ufrag=local.ufrag,
            local_pwd=local.pwd,
            remote_fingerprint=self._remote.get(transport, ("", ""))[0],
            data_channels=channels,
            max_message_size=MAX_MESSAGE_SIZE,
        )
        return node_pb2.Command(create_transport=command)

    # -- another node ----------------------------------------------------------------------------

    @property
    def has_uplink(self) -> bool:
        """The client has negotiated its publisher connection."""
        return publisher_transport(self._sid) in self._remote

    def move_to(self, facts: NodeFacts, *, has_channels: bool) -> tuple[node_pb2.Command, ...]:
        """Both transports anew, on another node. The next ICE restart of each connection leads there.

        `has_channels`: the data channels of the subscriber connection are open at the client.
        What is sent gets new SSRCs: the new node does not know where the old one's numbering stood.
        """
        publisher, subscriber = self._transports()
        self._facts, self._has_moved = facts, True
        uplink, self._local[subscriber] = self._credentials(), self._credentials()
        self._is_downlink_new = True
        if self.has_uplink:
            self._next_publisher = uplink
        else:
            self._local[publisher] = uplink
        self._ssrcs.clear()
        for track in self._wanted.values():
            self._subscriber.add_track(self._send_track(track))
        self._subscriber.restart()
        commands = [
            self._create(publisher, uplink, ()),
            self._create(
                subscriber, self._local[subscriber], OPEN_CHANNELS if has_channels else DATA_CHANNELS
            ),
        ]
        if self._sending:
            commands.append(self._configure_send(self._renumbered()))
        return tuple(commands)

    def addresses_ahead(self) -> tuple[rtc.TrickleRequest, ...]:
        """The new node's addresses, under the credentials of the ICE restart that will lead there.

        A client may learn candidates of a generation to come (by the `ufrag`, RFC 9429 §3.5.2.1); it
        checks them once it has the password, which comes with the description.
        """
        ahead = [(rtc.SignalTarget.SUBSCRIBER, self._local[subscriber_transport(self._sid)])]
        if self._next_publisher is not None:
            ahead.append((rtc.SignalTarget.PUBLISHER, self._next_publisher))
        return tuple(
            rtc.TrickleRequest(target=target, candidateInit=_candidate_init(line, local.ufrag))
            for target, local in ahead
            for line in candidate_lines(local.candidates)
        )

    def adopt_channels(self, state: rtc.SyncState) -> tuple[node_pb2.Command, ...]:
        """The channels that the client once opened to send on: a new node has not seen them opened."""
        channels = [
            node_pb2.DataChannel(
                label=channel.label,
                ordered=channel.label != LOSSY,
                max_retransmits=0 if channel.label == LOSSY else -1,
                established=True,
                stream_id=channel.id,
            )
            for channel in state.data_channels[:MAX_CHANNELS]
            if channel.target == rtc.SignalTarget.PUBLISHER
            and channel.id <= MAX_STREAM
            and len(channel.label) <= MAX_LABEL
        ]
        if not channels or not self._has_moved:
            return ()
        transport = publisher_transport(self._sid)
        command = node_pb2.AdoptDataChannels(transport_id=transport, data_channels=channels)
        return (node_pb2.Command(adopt_data_channels=command),)

    def _renumbered(self) -> list[node_pb2.SendSection]:
        """What was sent last, under the new SSRCs: the node asks for it before the client has answered."""
        sections = []
        for before in self._sending:
            numbers = self._ssrcs.get(TrackSid(before.track_id))
            if numbers is not None:
                section = node_pb2.SendSection()
                section.CopyFrom(before)
                section.ssrc, section.rtx_ssrc = numbers[0], numbers[1] if before.rtx_ssrc else 0
                sections.append(section)
        return sections

    # -- publisher -------------------------------------------------------------------------------

    def prefer(self, cid: str, codec: node_pb2.Codec.ValueType, *, redundant: bool) -> None:
        """add_track named a codec for this cid, and says whether RED (RFC 2198) may be used for it."""
        if codec and len(self._preferred) < MAX_CIDS:
            self._preferred[cid] = codec
        if redundant and len(self._redundant) < MAX_CIDS:
            self._redundant.add(cid)
        elif not redundant:
            self._redundant.discard(cid)

    def answer(self, offer_sdp: str, *, redundancy: bool) -> Answered:
        """Answer a publisher's offer. `redundancy`: all nodes know RED (RFC 2198). SdpError: refused."""
        transport = publisher_transport(self._sid)
        commands: list[node_pb2.Command] = []
        if self._publisher.is_ice_restart(offer_sdp):
            if self._next_publisher is not None:
                self._local[transport], self._next_publisher = self._next_publisher, None
            else:
                commands.append(self._restart(transport))
        answer = self._publisher.answer(
            offer_sdp,
            self._local[transport],
            self._preferred,
            lambda cid: redundancy and cid in self._redundant,
        )
        commands += self._set_remote(transport, answer.remote_fingerprint, answer.remote_ufrag)
        return Answered(answer.sdp, answer.sections, tuple(commands))

    def _restart(self, transport: str) -> node_pb2.Command:
        local = self._local[transport] = self._credentials()
        command = node_pb2.RestartIce(transport_id=transport, local_ufrag=local.ufrag, local_pwd=local.pwd)
        return node_pb2.Command(restart_ice=command)

    def _set_remote(self, transport: str, fingerprint: str, ufrag: str) -> list[node_pb2.Command]:
        if self._remote.get(transport) == (fingerprint, ufrag):
            return []
        self._remote[transport] = (fingerprint, ufrag)
        command = node_pb2.SetRemote(
            transport_id=transport, remote_fingerprint=fingerprint, remote_ufrag=ufrag
        )
        return [node_pb2.Command(set_remote=command)]

    # -- subscriber ------------------------------------------------------------------------------

    def want(
        self, changed: tuple[WantedTrack, ...], dropped: tuple[TrackSid, ...]
    ) -> tuple[node_pb2.Command, ...]:
        """Tracks to carry from now on, or otherwise; and no more. Other layers alone need no new offer."""
        commands: list[node_pb2.Command] = []
        for track in changed:
            old = self._wanted.get(track.track_sid)
            self._wanted[track.track_sid] = track
            if old is None or (old.codec, old.is_redundant) != (track.codec, track.is_redundant):
                self._subscriber.add_track(self._send_track(track))
            else:
                commands.append(
                    self._update(track.track_sid, track.max_spatial, track.paused, track.priority)
                )
        for sid in dropped:
            if self._wanted.pop(sid, None) is not None:
                self._subscriber.remove_track(sid)
                self._ssrcs.pop(sid, None)
                commands.append(self._update(sid, 0, paused=True))  # until the next offer takes the m-line
        # A track that waits for its first answer gets the newest setting with that.
        carried = {section.track_id for section in self._sending}
        return tuple(c for c in commands if c.update_subscription.track_id in carried)

    def _send_track(self, track: WantedTrack) -> SendTrack:
        if track.track_sid not in self._ssrcs:
            video = track.kind == node_pb2.KIND_VIDEO
            self._ssrcs[track.track_sid] = (self._ids.number(), self._ids.number() if video else 0)
        ssrc, rtx_ssrc = self._ssrcs[track.track_sid]
        return SendTrack(
            track_sid=track.track_sid,
            participant_sid=track.publisher,
            kind=track.kind,
            codec=track.codec,
            ssrc=ssrc,
            rtx_ssrc=rtx_ssrc,
            stream_id=track.stream_id,
            is_redundant=track.is_redundant,
        )

    def _update(self, track_sid: str, max_spatial: int, paused: bool, priority: int = 0) -> node_pb2.Command:
        command = node_pb2.UpdateSubscription(
            transport_id=subscriber_transport(self._sid),
            track_id=track_sid,
            max_spatial=max_spatial,
            paused=paused,
            priority=priority,
        )
        return node_pb2.Command(update_subscription=command)

    def offer_in(self, now: float) -> float | None:
        """Seconds until the next offer is to go; None: nothing changed, or one waits for its answer."""
        if not self._subscriber.dirty or self._subscriber.pending:
            return None
        return 0.0 if self._is_downlink_new else self._pace.wait(now, only_ends=self._subscriber.only_ends)

    def left_out(self) -> int:
        """How many wanted tracks find no place on the connection."""
        return len(self._subscriber.left_out)

    def offer(self, now: float) -> tuple[int, str]:
        """The next offer. SdpError: the connection is used up, the client must reconnect."""
        self._is_downlink_new = False
        if self._subscriber.is_opened:  # the first offer is the connection's: no track waits because of it
            self._pace.offered(now)
        return self._subscriber.offer(self._local[subscriber_transport(self._sid)])

    def restart_subscriber(self) -> tuple[node_pb2.Command, ...]:
        """New ICE credentials for the next offer, whatever offer was lost with the old WebSocket."""
        if self._is_downlink_new:
            return ()
        return (self._restart(subscriber_transport(self._sid)),)

    def apply_answer(self, sdp: str, offer_id: int) -> Taken:
        """Take the answer to the current offer. SdpError, StaleAnswer."""
        transport = subscriber_transport(self._sid)
        answer = self._subscriber.apply_answer(sdp, offer_id)
        commands = self._set_remote(transport, answer.remote_fingerprint, answer.remote_ufrag)
        sections: list[node_pb2.SendSection] = []
        for section in answer.sections:
            wanted = self._wanted.get(TrackSid(section.track_id))
            if wanted is None:
                continue  # taken back meanwhile; the next offer frees its m-line
            section.max_spatial, section.paused = wanted.max_spatial, wanted.paused
            section.screen, section.priority = wanted.is_screen, wanted.priority
            sections.append(section)
        commands.append(self._configure_send(sections))
        return Taken(tuple(commands), tuple(s.track_id for s in sections))

    def _configure_send(self, sections: list[node_pb2.SendSection]) -> node_pb2.Command:
        self._sending = tuple(sections)
        configure = node_pb2.ConfigureSend(transport_id=subscriber_transport(self._sid), sections=sections)
        return node_pb2.Command(configure_send=configure)


def _candidate_init(line: str, ufrag: str) -> str:
    """As `RTCIceCandidateInit`. The first m-line carries the bundle, whatever its mid is."""
    return json.dumps({"candidate": f"{line} ufrag {ufrag}", "sdpMid": "", "sdpMLineIndex": 0})
