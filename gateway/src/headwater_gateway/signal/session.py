"""One participant's session: what its client says and hears, over one WebSocket after another."""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog
from headwater_api.ids import ParticipantIdentity, ParticipantSid, RoomId, TrackSid
from headwater_api.reasons import Reason
from livekit.protocol import models, rtc

from headwater_gateway.nodes.facts import NodeFacts
from headwater_gateway.room.actor import RoomActor
from headwater_gateway.room.model import IdSource, Participant, WantedTrack
from headwater_gateway.room.ports import Joined
from headwater_gateway.room.tracks import codec_named, may_be_redundant
from headwater_gateway.room.wire import leave
from headwater_gateway.sdp import SdpError, StaleAnswer
from headwater_gateway.signal.greeting import complete, server_info
from headwater_gateway.signal.later import REVIVED_ANSWER_S, Later, Wakeup, now
from headwater_gateway.signal.notices import Drop, End, Message, Move, Notice, Wanted
from headwater_gateway.signal.session_media import SessionMedia
from headwater_gateway.signal.types import (
    CLOSE_GOING_AWAY,
    CLOSE_NORMAL,
    CLOSE_SERVICE_RESTART,
    IceServers,
    SignalChannel,
    no_ice_servers,
)

log = structlog.get_logger(__name__)

MAX_NOTICES: Final = 4096
MAX_SDP_FAULTS: Final = 5
SYNC_DEADLINE_S: Final = 3.0


class Session:
    """Between a client's channel and its room; the room's ClientPort.

    The room's notices are queued and worked off by `run`, so that a room never waits for a client.
    """

    def __init__(
        self,
        room_id: RoomId,
        identity: ParticipantIdentity,
        ids: IdSource,
        unix_ms: Callable[[], int],
        ice_servers: IceServers = no_ice_servers,
    ) -> None:
        self._ice_servers = ice_servers
        self.room_id, self.identity = room_id, identity
        self.sid = ParticipantSid("")
        self._ids, self._unix_ms = ids, unix_ms
        self._notices: deque[Notice] = deque()
        self._wake = asyncio.Event()
        self._channel: SignalChannel | None = None
        self._room: RoomActor | None = None
        self._media: SessionMedia | None = None
        self._sdp_faults = 0
        self._left_out = 0
        self._later, self._soon = Later(), Wakeup(lambda: self._notify(Wanted((), ())))
        self._is_over = self._is_busy = self._is_revived = False
        self._log = log.bind(room=room_id, identity=identity)

    def belongs_to(self, room_id: RoomId, identity: ParticipantIdentity) -> bool:
        """Whether that participant of that room may resume it."""
        return not self._is_over and (self.room_id, self.identity) == (room_id, identity)

    # -- ClientPort ------------------------------------------------------------------------------

    def deliver(self, message: rtc.SignalResponse, encoded: bytes) -> None:
        channel = self._channel
        # Most of what a gateway does is this. Nothing that waits for the session's own task is overtaken.
        if channel is None or self._notices or self._is_busy or not channel.send_at_once(encoded):
            self._notify(Message(message, encoded))

    def change_wanted(self, changed: tuple[WantedTrack, ...], dropped: tuple[TrackSid, ...]) -> None:
        if self._channel is None or self._notices or self._is_busy:
            self._notify(Wanted(changed, dropped))
            return
        try:
            self._note_wanted(changed, dropped)
            # Else an offer is out, and its answer leads to the next: many changes, one turn of the task.
            if self._is_offer_due():
                self._notify(Wanted((), ()))
        except Exception:
            self._fail("change_wanted")

    def move(
        self, facts: NodeFacts, why: str, *, was_connected: bool, delay_s: float, head_start_s: float
    ) -> None:
        self._notify(Move(facts, why, was_connected, delay_s, head_start_s))

    def end(self, leave: rtc.LeaveRequest | None, why: str) -> None:
        self._notices.append(End(leave, why))
        self._wake.set()

    def drop(self, why: str) -> None:
        self._notices.append(Drop(why))
        self._wake.set()

    def _notify(self, notice: Message | Wanted | Move) -> None:
        if len(self._notices) >= MAX_NOTICES:
            # Only a stuck task gets here: slow clients are the channel's business.
            self._notices.clear()
            farewell = leave(models.DisconnectReason.STATE_MISMATCH, rtc.LeaveRequest.RECONNECT)
            self._notices.append(End(farewell, "too many notices are waiting"))
        else:
            self._notices.append(notice)
        self._wake.set()

    # -- life ------------------------------------------------------------------------------------

    async def start(self, room: RoomActor, joined: Joined, channel: SignalChannel) -> None:
        """The client is in: say so first, then open its transports."""
        self.sid, self._room, self._channel = joined.sid, room, channel
        self._log = self._log.bind(participant=joined.sid, node=joined.facts.node_id)
        self._media = SessionMedia(joined.sid, joined.facts, self._ids)
        self._facts = joined.facts
        complete(joined.response, joined.facts, self._ice_servers(self.sid, joined.facts.node_id))
        await channel.send(rtc.SignalResponse(join=joined.response))
        room.command(self.sid, self._media.create())
        # Clients wait for the subscriber connection: offer it even before there is a track. Tracks come once
        # it is answered: not every client can set it up together with many tracks (decision 0128).
        await self._offer_if_due()

    async def resume(self, channel: SignalChannel, last_sequence: int) -> None:
        """The client is back on a new WebSocket: ICE restarts on both transports, the roster is told anew."""
        assert self._room is not None and self._media is not None
        older, self._channel = self._channel, channel
        if older is not None:
            self._retire(older, CLOSE_GOING_AWAY, "resumed elsewhere")
        response = rtc.ReconnectResponse(
            server_info=server_info(self._facts),
            last_message_seq=last_sequence,
            ice_servers=self._ice_servers(self.sid, self._facts.node_id),
        )
        await channel.send(rtc.SignalResponse(reconnect=response))
        self._room.tell_all(self.sid)
        self._room.command(self.sid, self._media.restart_subscriber())
        await self._room.carried_out(self.sid)
        await self._offer()

    async def revive(
        self, room: RoomActor, left: Participant, joined: Joined, channel: SignalChannel, last_sequence: int
    ) -> bool:
        """The client of a room that was taken over is back. False: it did not say what it has agreed so far.

        What its connections carry is taken from its own `sync_state`, which is newer than any snapshot.
        """
        self.sid, self._room, self._facts = joined.sid, room, joined.facts
        self._log = self._log.bind(participant=joined.sid, node=joined.facts.node_id)
        response = rtc.ReconnectResponse(
            server_info=server_info(self._facts),
            last_message_seq=last_sequence,
            ice_servers=self._ice_servers(self.sid, self._facts.node_id),
        )
        await channel.send(rtc.SignalResponse(reconnect=response))
        try:
            async with asyncio.timeout(SYNC_DEADLINE_S):
                sync = await self._await_sync(channel)
            if sync is None:
                return False
            self._media = SessionMedia.resumed(left, joined.facts, self._ids, sync.sync_state.offer.sdp)
            carried = tuple(left.wanted.values())
            if not await room.attach(self.sid, self, frozenset(left.wanted)):
                return False
        except (TimeoutError, SdpError) as error:
            self._log.warning("resume.impossible", detail=f"{type(error).__name__}: {error}"[:300])
            return False
        self._channel, self._is_revived = channel, True
        # The roster first: clients drop the media of somebody that they have not heard of, and in the other
        # half of a split room there may be many such.
        while self._notices and isinstance(self._notices[0], Message):
            await self._perform(self._notices.popleft())
        room.request(self.sid, sync)
        # What it gets now must be in the first offer, or the m-lines would be freed for a moment.
        self._media.want(carried, ())
        room.command(self.sid, self._media.restart_subscriber())
        await room.carried_out(self.sid)
        await self._offer()
        return True

    async def _await_sync(self, channel: SignalChannel) -> rtc.SignalRequest | None:
        """The client's `sync_state`: the first thing that it says after a resume, but for pings."""
        while (request := await channel.recv()) is not None:
            if request.WhichOneof("message") == "sync_state":
                return request
        return None

    def _retire(self, older: SignalChannel, code: int, reason: str, delay_s: float = 0.0) -> None:
        """Close a WebSocket that was; its network may be gone, so nothing waits for it."""
        self._later.do(delay_s, partial(older.close, code, reason))

    async def serve(self, channel: SignalChannel) -> None:
        """Work off the client's messages until its channel ends; the client then has its grace to return."""
        assert self._room is not None
        try:
            await self._work_off(self._room, channel)
        finally:
            if self._channel is channel and not self._is_over:
                self._channel = None
                self._room.detach(self.sid)

    async def _work_off(self, room: RoomActor, channel: SignalChannel) -> None:
        while (request := await channel.recv()) is not None:
            if self._is_over or self._channel is not channel:
                return
            try:
                await self._handle(room, request)
            except SdpError as error:
                await self._on_sdp_error(request, error)
            except Exception:
                self._fail(str(request.WhichOneof("message")))
                return

    def _fail(self, kind: str) -> None:
        """A fault of ours that one client's message brings out ends that client's session, no other."""
        assert self._room is not None
        self._log.exception("session.request_failed", kind=kind)
        self.end(leave(models.DisconnectReason.UNKNOWN_REASON, rtc.LeaveRequest.DISCONNECT), "fault")
        self._room.leave(self.sid, models.DisconnectReason.UNKNOWN_REASON)

    async def run(self) -> None:
        """Work off the room's notices until the end of the session."""
        while not self._is_over:
            await self._wake.wait()
            self._wake.clear()
            self._is_busy = True
            while self._notices and not self._is_over:
                await self._perform(self._notices.popleft())
            self._is_busy = False
        await self._later.finish()

    async def _perform(self, notice: Notice) -> None:
        match notice:
            case Message(message, encoded):
                if self._channel is not None:
                    await self._channel.send_encoded(encoded, message)
            case Wanted(changed, dropped):
                self._note_wanted(changed, dropped)
                await self._offer_if_due()
            case Move():
                await self._move(notice)
            case End(farewell, why):
                await self._finish(farewell, why)
            case Drop(why):
                await self._finish(None, why, CLOSE_GOING_AWAY)

    async def _move(self, notice: Move) -> None:
        """New transports first; then a client that publishes is made to resume, since only its own offer can
        restart that connection. One that only listens needs no more than our next offer.

        Its WebSocket is closed: after a `leave{RESUME}`, clients of the Rust engine take the end of their own
        old stream for a second failure, and answer the next one with a full reconnect. The new addresses go
        ahead: DTLS starts anew with the fingerprint, towards the old node until a check has met the new one.
        """
        assert self._media is not None and self._room is not None
        facts = notice.facts
        self._log.info("session.moves", node=facts.node_id, source=self._facts.node_id, reason=notice.why)
        self._facts = facts
        self._room.prepared(self.sid, self._media.move_to(facts, has_channels=notice.was_connected))
        for ahead in self._media.addresses_ahead():
            await self._send(rtc.SignalResponse(trickle=ahead))
        if not self._media.has_uplink:
            self._later.do(notice.head_start_s, self._offer_if_due)
        elif self._channel is not None:
            text, delay_s = "resume to go on at another node", notice.head_start_s + notice.delay_s
            self._retire(self._channel, CLOSE_SERVICE_RESTART, text, delay_s)

    async def _finish(self, farewell: rtc.LeaveRequest | None, why: str, code: int = CLOSE_NORMAL) -> None:
        self._is_over = True
        self._soon.cancel()
        channel, self._channel = self._channel, None
        self._log.info("session.ended", reason=why)
        if channel is not None:
            if farewell is not None:
                await channel.send(rtc.SignalResponse(leave=farewell))
            await channel.close(code)

    async def _send(self, response: rtc.SignalResponse) -> None:
        if self._channel is not None:
            await self._channel.send(response)

    # -- the client's messages -------------------------------------------------------------------

    async def _handle(self, room: RoomActor, request: rtc.SignalRequest) -> None:
        assert self._media is not None
        match request.WhichOneof("message"):
            case "offer":
                await self._on_offer(room, request.offer)
            case "answer":
                await self._on_answer(room, request.answer)
            case "trickle":
                pass  # the node is ICE-lite: it learns the client's address from its checks
            case "ping":
                await self._send(rtc.SignalResponse(pong=self._unix_ms()))
            case "ping_req":
                pong = rtc.Pong(last_ping_timestamp=request.ping_req.timestamp, timestamp=self._unix_ms())
                await self._send(rtc.SignalResponse(pong_resp=pong))
                await self._send(rtc.SignalResponse(pong=pong.timestamp))
            case "leave":
                room.leave(self.sid, models.DisconnectReason.CLIENT_INITIATED)
                self.end(None, "the client left")
            case "sync_state":
                room.command(self.sid, self._media.adopt_channels(request.sync_state))
                room.request(self.sid, request)
            case "add_track":
                added = request.add_track
                self._media.prefer(added.cid, codec_named(added), redundant=may_be_redundant(added))
                room.request(self.sid, request)
            case _:
                room.request(self.sid, request)

    async def _on_offer(self, room: RoomActor, offer: rtc.SessionDescription) -> None:
        assert self._media is not None
        answered = self._media.answer(offer.sdp, redundancy=room.takes_redundancy)
        room.publish(self.sid, answered.sections, answered.commands)
        restarts = any(command.HasField("restart_ice") for command in answered.commands)
        if restarts:
            await room.carried_out(self.sid)
        self._log.debug("session.offer_answered", offer=offer.id, sections=answered.summary())
        answer = rtc.SessionDescription(type="answer", sdp=answered.sdp, id=offer.id)
        response = rtc.SignalResponse(answer=answer)
        if restarts and self._is_revived and self._channel is not None:
            self._is_revived = False
            self._later.do(REVIVED_ANSWER_S, partial(self._channel.send, response))
        else:
            await self._send(response)

    async def _on_answer(self, room: RoomActor, answer: rtc.SessionDescription) -> None:
        assert self._media is not None
        try:
            taken = self._media.apply_answer(answer.sdp, answer.id)
        except StaleAnswer as stale:
            self._log.debug("session.stale_answer", detail=str(stale))
            return
        self._log.debug("session.answer_taken", offer=answer.id, tracks=taken.track_sids)
        room.subscribed(self.sid, taken.track_sids, taken.commands)
        await self._offer_if_due()

    async def _on_sdp_error(self, request: rtc.SignalRequest, error: SdpError) -> None:
        self._sdp_faults += 1
        kind = request.WhichOneof("message")
        self._log.warning(
            "session.sdp_refused", reason=Reason.SDP_INVALID, kind=kind, detail=str(error)[:300]
        )
        response = rtc.RequestResponse(
            reason=rtc.RequestResponse.INVALID_REQUEST, message=f"session description refused: {error}"[:500]
        )
        await self._send(rtc.SignalResponse(request_response=response))
        if self._sdp_faults >= MAX_SDP_FAULTS and self._room is not None:
            farewell = leave(models.DisconnectReason.STATE_MISMATCH, rtc.LeaveRequest.DISCONNECT)
            self.end(farewell, "its session descriptions cannot be used")
            self._room.leave(self.sid, models.DisconnectReason.STATE_MISMATCH)

    # -- the subscriber transport ----------------------------------------------------------------

    def _note_wanted(self, changed: tuple[WantedTrack, ...], dropped: tuple[TrackSid, ...]) -> None:
        assert self._media is not None and self._room is not None
        self._room.command(self.sid, self._media.want(changed, dropped))

    def _is_offer_due(self) -> bool:
        """One at a time, and only with a client to answer. Of one to come the task is told in time."""
        assert self._media is not None
        wait = self._media.offer_in(now()) if self._channel is not None else None
        if wait:
            self._soon.after(wait)
        return wait == 0.0

    async def _offer_if_due(self) -> None:
        if self._is_offer_due():
            await self._offer()

    async def _offer(self) -> None:
        assert self._media is not None
        try:
            offer_id, sdp = self._media.offer(now())
        except SdpError as error:
            self._log.warning("session.offer_impossible", detail=str(error))
            farewell = leave(models.DisconnectReason.STATE_MISMATCH, rtc.LeaveRequest.RECONNECT)
            self.end(farewell, "its subscriber connection is used up")
            return
        if self._media.left_out() > self._left_out:
            self._log.warning(
                "session.tracks_left_out", reason=Reason.TOO_MANY_TRACKS, tracks=self._media.left_out()
            )
        self._left_out = self._media.left_out()
        offer = rtc.SessionDescription(type="offer", sdp=sdp, id=offer_id)
        await self._send(rtc.SignalResponse(offer=offer))
