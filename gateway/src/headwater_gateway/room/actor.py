"""The room's one task: takes messages in order, lets pure functions decide, carries out the effects."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import structlog
from headwater_api.ids import NodeId, ParticipantSid, TrackSid
from headwater_api.nodev1 import node_pb2
from headwater_api.reasons import Reason
from livekit.protocol import models, rtc

from headwater_gateway.nodes.pool import NodePool
from headwater_gateway.room import effects, events, migration, roster, tracks
from headwater_gateway.room.calls import PendingCalls
from headwater_gateway.room.inbox import Inbox
from headwater_gateway.room.keeper import STORED_DEADLINE_S, SnapshotKeeper, promised
from headwater_gateway.room.mailbox import Job, Share
from headwater_gateway.room.memo import note_commands, pass_on
from headwater_gateway.room.model import JoinRequest, transport_owner
from headwater_gateway.room.mover import Mover
from headwater_gateway.room.outlets import Listeners, OnSnapshot, Outlets
from headwater_gateway.room.policy import View
from headwater_gateway.room.ports import ClientPort, Joined
from headwater_gateway.room.requests import handle_request
from headwater_gateway.room.rules import is_barred
from headwater_gateway.room.state import RoomState
from headwater_gateway.room.timers import next_deadline, run_due
from headwater_gateway.room.wire import leave
from headwater_gateway.sdp.types import OfferedSection

log = structlog.get_logger(__name__)

PASSING: Final = ("audio_levels", "quality", "data")
ANSWER_DEADLINE_S: Final = 5.0
TELL_DEADLINE_S: Final = 0.5
# So long a busy room works before everything else in the process has its turn: beats to peers among it.
TURN_S: Final = 0.01

T = TypeVar("T")
Commands = Iterable[node_pb2.Command]


class RoomActor:
    """Owner of one RoomState. All public methods may be called from any task of the loop."""

    def __init__(
        self,
        state: RoomState,
        pool: NodePool,
        *,
        keeper: SnapshotKeeper,
        view: View,
        clock: Callable[[], float],
        unix_ms: Callable[[], int],
        on_happened: Callable[[effects.Row, effects.Happened], None],
        on_snapshot: OnSnapshot,
        on_chat: Callable[[effects.ChatSaid], None],
    ) -> None:
        self._state = state
        self._pool = pool
        self.keeper = keeper
        self._view = view
        self._clock, self._unix_ms = clock, unix_ms
        self._inbox = Inbox(state, clock)
        self._log = log.bind(room=state.room_id)
        self.mover = Mover(state, pool, view, unix_ms)
        listeners = Listeners(
            self.node_lost, self._on_refused, self._on_superseded, on_happened, on_chat, on_snapshot
        )
        self._out = Outlets(state, pool, keeper, view, listeners)
        self._is_superseded = False
        self._was_due = False  # the last turn was the timers'

    @property
    def dropped_events(self) -> int:
        """Messages that found no place."""
        return self._inbox.dropped

    @property
    def is_handed_over(self) -> bool:
        """The room goes on at another gateway."""
        return self._inbox.is_handed_over

    @property
    def calls(self) -> PendingCalls:
        """Calls of the API that wait for a participant's answer."""
        return self._out.calls

    @property
    def state(self) -> RoomState:
        """For reading by status pages and tests; only the actor's own task changes it."""
        return self._state

    @property
    def takes_redundancy(self) -> bool:
        """Every node to which the room may spread knows RED (RFC 2198)."""
        return self._pool.all_can(node_pb2.FEATURE_REDUNDANT_AUDIO)

    # -- called by sessions ----------------------------------------------------------------------

    async def join(self, request: JoinRequest, port: ClientPort) -> Joined:
        """Place a participant and put it on the roster. JoinRefusal, TimeoutError."""
        answer = self._inbox.decide(lambda now: self._join(request, port, now))
        try:
            async with asyncio.timeout(ANSWER_DEADLINE_S):
                return await answer
        except (TimeoutError, asyncio.CancelledError):
            # The answer may have come at the same moment: nobody else would take the participant off.
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                self.leave(answer.result().sid, models.DisconnectReason.JOIN_FAILURE)
            raise

    def request(self, sid: ParticipantSid, request: rtc.SignalRequest) -> None:
        """A client's request that concerns the room."""
        self._inbox.post(sid, lambda now: handle_request(self._state, sid, request, now), Share.REQUEST)

    def publish(
        self, sid: ParticipantSid, sections: Iterable[OfferedSection], commands: Commands = ()
    ) -> None:
        """The m-lines of the publisher's answered offer, after the commands that the offer leads to."""
        rows, batch = tuple(sections), tuple(commands)

        def job(now: float) -> None:
            if (participant := pass_on(self._state, sid, batch)) is not None:
                tracks.set_sections(self._state, participant, rows, now)

        self._inbox.post(sid, job, Share.REQUEST)

    def command(self, sid: ParticipantSid, commands: Commands) -> None:
        """Commands for the participant's own transports."""
        if batch := tuple(commands):
            self._inbox.post(sid, lambda _: pass_on(self._state, sid, batch), Share.REQUEST)

    def prepared(self, sid: ParticipantSid, commands: tuple[node_pb2.Command, ...]) -> None:
        """The session has made the participant's transports for its new node."""

        def job(_: float) -> None:
            if (participant := self._state.participants.get(sid)) is not None:
                note_commands(participant, commands)
            migration.prepare(self._state, sid, commands)

        self._inbox.post(sid, job)

    async def carried_out(self, sid: ParticipantSid) -> None:
        """Wait, for a moment at most, until the participant's node has what it was told so far.

        A client that checks new ICE credentials before its node knows them tries again only after seconds.
        """
        told = asyncio.Event()

        def job(_: float) -> None:
            participant = self._state.participants.get(sid)
            done = self._out.carried_out(participant.node_id) if participant is not None else None
            if done is None:
                told.set()
            else:
                done.add_done_callback(lambda _: told.set())

        if self._inbox.post(sid, job, Share.REQUEST):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TELL_DEADLINE_S):
                    await told.wait()

    def detach(self, sid: ParticipantSid) -> None:
        """The client's WebSocket is gone: it may come back within the grace."""

        def job(now: float) -> None:
            participant = self._state.participants.get(sid)
            if participant is not None and participant.detached_at is None:
                participant.detached_at = now
                self._state.quality.lost(sid, now)

        self._inbox.post(sid, job)

    async def resume(self, sid: ParticipantSid) -> int | None:
        """The client is back. The last sequence of its reliable data, or None if it is not known here."""
        answer: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        if not self._inbox.post(sid, lambda now: self._resume(sid, answer, now)):
            return None
        async with asyncio.timeout(ANSWER_DEADLINE_S):
            return await answer

    def tell_all(self, sid: ParticipantSid) -> None:
        """Send the client the whole roster and who speaks: it may have missed updates."""
        self._inbox.post(sid, lambda _: roster.tell_everything(self._state, sid))

    def subscribed(self, sid: ParticipantSid, track_sids: Iterable[str], commands: Commands) -> None:
        """The client has taken these tracks: its node is told, and publishers of their first subscriber."""
        taken, batch = tuple(track_sids), tuple(commands)

        def job(_: float) -> None:
            pass_on(self._state, sid, batch)
            tracks.note_subscribed(self._state, taken)

        self._inbox.post(sid, job, Share.REQUEST)

    def leave(self, sid: ParticipantSid, reason: models.DisconnectReason) -> None:
        """The participant goes for good."""

        def job(now: float) -> None:
            roster.remove(self._state, sid, reason, now)
            self._out.ports.pop(sid, None)

        self._inbox.post(sid, job)

    # -- called by the directory -----------------------------------------------------------------

    def node_event(self, node_id: NodeId, event: node_pb2.Event) -> None:
        """An event of one of the room's nodes."""
        sender = transport_owner(event.data.transport_id) if event.HasField("data") else None
        share = Share.PASSING if event.WhichOneof("event") in PASSING else Share.EVENT
        self._inbox.post(sender, lambda now: self._on_event(node_id, event, now), share)

    def node_lost(self, node_id: NodeId, why: str) -> None:
        """A node has died: its participants are sent to rejoin."""
        self._inbox.post(None, lambda now: self.mover.lose_node(node_id, why, now))

    def node_back(self, node_id: NodeId) -> None:
        """A node is up, perhaps one that the room has given up: what that still holds of the room ends."""
        if self.mover.is_lost(node_id):
            self._inbox.post(None, lambda now: self._on_found(node_id, now))

    def end(self, reason: models.DisconnectReason, why: str, *, comes_back: bool = False) -> None:
        """Close the room. `comes_back`: its clients are asked to join again, at another gateway."""
        self._inbox.post(
            None, lambda _: roster.end(self._state, reason, why, comes_back=comes_back), Share.LAST
        )

    def hand_over(self, why: str, *, is_superseded: bool = False) -> None:
        """Let go of the room without ending it: media flows on, clients resume where it is taken over."""

        def job(now: float) -> None:
            self._is_superseded, self._inbox.is_handed_over = is_superseded, True
            if not is_superseded:
                self.keeper.due = now
                self._out.keep(now)
            roster.hand_over(self._state, why)

        self._inbox.post(None, job, Share.LAST)

    async def attach(self, sid: ParticipantSid, port: ClientPort, carried: frozenset[TrackSid]) -> bool:
        """A client of a room that was taken over has a session again, which carries what is `carried`.

        Once this returns the session has been told the roster. False: the participant has gone meanwhile.
        TimeoutError: the room is too busy.
        """
        attached: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def job(_: float) -> None:
            if attached.done():
                return  # nobody waits any more
            participant = self._state.participants.get(sid)
            is_here = participant is not None and participant.moving_at is None
            attached.set_result(is_here)  # what it leads to is told before the waiting task has its turn
            if participant is None or not is_here:
                return
            participant.is_awaited = False
            self._out.ports[sid] = port
            wanted = tuple(participant.wanted.values())
            dropped = tuple(carried - participant.wanted.keys())
            roster.tell_everything(self._state, sid)
            self._state.effects.append(effects.ChangeWanted(sid, wanted, dropped))

        if not self._inbox.post(sid, job):
            raise TimeoutError("the room takes no more messages")
        async with asyncio.timeout(ANSWER_DEADLINE_S):
            return await attached

    async def ask(self, decide: Callable[[RoomState, float], T], *, proves: bool = False) -> T:
        """Have `decide` made between two messages, and its result. RoomError of it; TimeoutError.

        JoinRefusal: the room has ended, or is too busy. A change of who is in and of who may come in is
        acknowledged once another process holds it too: a gateway that has lost the room cannot. `proves`: it
        is to show that it has not, though nothing changes.
        """
        kept: list[asyncio.Future[None]] = []

        def guarded(now: float) -> T:
            before = None if proves else promised(self._state)
            try:
                return decide(self._state, now)
            finally:
                if promised(self._state) != before:
                    kept.append(self.keeper.urge(now))

        answer = self._inbox.decide(guarded)
        async with asyncio.timeout(ANSWER_DEADLINE_S):
            result = await answer
            # Of a room that is over, and goes on nowhere, nothing is kept.
            if kept and self._out.has_keeper and (self.is_handed_over or not self._state.ended):
                async with asyncio.timeout(STORED_DEADLINE_S):
                    await kept[0]
            return result

    def inform(self, change: Callable[[RoomState, float], None]) -> None:
        """A change of policy, decided elsewhere, to be made between two messages."""
        self._inbox.post(None, lambda now: change(self._state, now))

    # -- the task --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until the room has ended. Whatever goes wrong in one message concerns its sender only."""
        turn_over = self._clock() + TURN_S
        try:
            while not self._state.ended:
                if self._clock() >= turn_over:  # a mailbox that is never empty does not suspend by itself
                    await asyncio.sleep(0)
                    turn_over = self._clock() + TURN_S
                await self._step()
        finally:
            self._refuse_rest()
            self._out.close(is_handed_over=self.is_handed_over, is_superseded=self._is_superseded)

    async def _step(self) -> None:
        now, due = self._clock(), self.keeper.due
        wait = next_deadline(self._state, now)
        wait = wait if due is None else min(wait, due - now)
        # A busy mailbox must not starve the timers, nor a due time that stays in the past the mailbox.
        message = await self._inbox.get(max(wait, 0.0)) if wait > 0 or self._was_due else None
        self._was_due = message is None
        blame, job = message or (None, self._run_due)
        self._guard(blame, job)
        self._out.perform(self._clock())
        self._out.keep(self._clock())

    def _run_due(self, now: float) -> None:
        run_due(self._state, now)
        self._out.tidy(now)
        self.mover.run_due(now)

    def _guard(self, blame: ParticipantSid | None, job: Job) -> None:
        try:
            job(self._clock())
        except Exception:
            self._log.exception("room.message_failed", participant=blame)
            if blame is not None and blame in self._state.participants:
                farewell = leave(models.DisconnectReason.UNKNOWN_REASON, rtc.LeaveRequest.DISCONNECT)
                self._state.effects.append(
                    effects.EndSession(blame, farewell, "its request could not be carried out")
                )
                roster.remove(self._state, blame, models.DisconnectReason.PARTICIPANT_REMOVED, self._clock())

    def _refuse_rest(self) -> None:
        """Whoever still waits for an answer of an ended room gets a refusal."""
        for job in self._inbox.rest():
            self._guard(None, job)
        self._state.take_effects()

    # -- jobs ------------------------------------------------------------------------------------

    def _join(self, request: JoinRequest, port: ClientPort, now: float) -> Joined:
        come = self.mover.admit(request, now)
        self._out.ports[come.participant.sid] = port
        welcome = roster.welcome(self._state, come.participant, come.placement.region)
        return Joined(come.participant.sid, come.facts, welcome)

    def _resume(self, sid: ParticipantSid, answer: "asyncio.Future[int | None]", now: float) -> None:
        participant = self._state.participants.get(sid)
        if answer.cancelled():
            return
        is_here = participant is not None and participant.moving_at is None
        if participant is None or not is_here or is_barred(self._state.access, participant.identity):
            answer.set_result(None)
            return
        participant.detached_at = None
        migration.client_is_back(participant, now)
        answer.set_result(participant.data_sequence)

    def _on_event(self, node_id: NodeId, event: node_pb2.Event, now: float) -> None:
        if event.HasField("room_closed"):
            self.mover.room_closed(node_id, event.room_closed.reason, now)
            return
        remark = events.handle_event(self._state, node_id, event, now)
        if remark:
            self._log.info("room.node_event", node=node_id, remark=remark)

    def _on_found(self, node_id: NodeId, now: float) -> None:
        self.mover.found(node_id)
        self._out.fence(node_id, now)

    def _on_superseded(self, why: str) -> None:
        """A node serves a later room of that name: the clients are to find the gateway that has it."""
        self._log.warning("room.superseded", reason=Reason.STALE_EPOCH, why=why)
        self.hand_over("another gateway has the room", is_superseded=True)

    def _on_refused(self, node_id: NodeId, command: node_pb2.Command, error: str) -> None:
        kind = command.WhichOneof("command")
        self._log.warning("node.command_refused", node=node_id, command=kind, error=error)
        if kind == "create_transport":
            self.mover.failed.note(node_id, self._clock())
        self.inform(lambda state, now: events.handle_refusal(state, command, error, now))
