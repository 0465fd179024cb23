"""The room's one task: takes messages in order, lets pure functions decide, carries out the effects."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import structlog
from headwater_api.ids import LinkId, NodeId, ParticipantSid, RoomId, TrackSid
from headwater_api.nodev1 import node_pb2
from headwater_api.reasons import Reason
from livekit.protocol import models, rtc

from headwater_gateway.nodes.commands import CommandQueue
from headwater_gateway.nodes.pool import NodePool
from headwater_gateway.room import effects, events, links, migration, roster, tracks
from headwater_gateway.room.calls import PendingCalls
from headwater_gateway.room.keeper import STORED_DEADLINE_S, SnapshotKeeper, door, matters
from headwater_gateway.room.memo import note_commands
from headwater_gateway.room.model import JoinRequest, Wish, transport_owner
from headwater_gateway.room.mover import Mover
from headwater_gateway.room.policy import View, check_join, choose_node
from headwater_gateway.room.ports import ClientPort, Joined, JoinRefusal, RoomError
from headwater_gateway.room.requests import handle_request
from headwater_gateway.room.rules import is_barred
from headwater_gateway.room.shelf import Shelf
from headwater_gateway.room.state import RoomState
from headwater_gateway.room.timers import next_deadline, run_due
from headwater_gateway.room.wire import leave, participant_info
from headwater_gateway.sdp.types import OfferedSection

log = structlog.get_logger(__name__)

MAILBOX: Final = 8192
ANSWER_DEADLINE_S: Final = 5.0

Job = Callable[[float], None]
OnSnapshot = Callable[[RoomId, SnapshotKeeper, node_pb2.PutSnapshot], None]
T = TypeVar("T")


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
        on_happened: Callable[[models.Room, effects.Happened], None],
        on_snapshot: OnSnapshot,
        on_chat: Callable[[effects.ChatSaid], None],
    ) -> None:
        self._on_chat = on_chat
        self._on_happened, self._on_snapshot = on_happened, on_snapshot
        self._state = state
        self._pool = pool
        self.keeper = keeper
        self._view = view
        self._clock, self._unix_ms = clock, unix_ms
        self._mailbox: asyncio.Queue[tuple[ParticipantSid | None, Job]] = asyncio.Queue(MAILBOX)
        self._ports: dict[ParticipantSid, ClientPort] = {}
        self._queues: dict[NodeId, CommandQueue] = {}
        self._closing: dict[NodeId, CommandQueue] = {}
        self._log = log.bind(room=state.room_id)
        self._mover = Mover(state, pool, view, unix_ms)
        self._shelf = Shelf(state)
        self._is_superseded = False
        self.is_handed_over = False
        self.dropped_events = 0
        self.calls = PendingCalls()

    @property
    def state(self) -> RoomState:
        """For reading by status pages and tests; only the actor's own task changes it."""
        return self._state

    # -- called by sessions ----------------------------------------------------------------------

    async def join(self, request: JoinRequest, port: ClientPort) -> Joined:
        """Place a participant and put it on the roster. JoinRefusal, TimeoutError."""
        answer = self._decide(lambda now: self._join(request, port, now))
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
        self._post(sid, lambda now: handle_request(self._state, sid, request, now))

    def publish(self, sid: ParticipantSid, sections: Iterable[OfferedSection]) -> None:
        """The m-lines of the publisher's answered offer."""
        rows = tuple(sections)

        def job(now: float) -> None:
            participant = self._state.participants.get(sid)
            if participant is not None and participant.moving_at is None:
                tracks.set_sections(self._state, participant, rows, now)

        self._post(sid, job)

    def command(self, sid: ParticipantSid, commands: Iterable[node_pb2.Command]) -> None:
        """Commands for the participant's own transports."""
        batch = tuple(commands)

        def job(_: float) -> None:
            participant = self._state.participants.get(sid)
            if participant is not None and participant.moving_at is None:
                note_commands(participant, batch)
                self._state.command(participant.node_id, batch)

        self._post(sid, job)

    def prepared(self, sid: ParticipantSid, commands: tuple[node_pb2.Command, ...]) -> None:
        """The session has made the participant's transports for its new node."""

        def job(_: float) -> None:
            if (participant := self._state.participants.get(sid)) is not None:
                note_commands(participant, commands)
            migration.prepare(self._state, sid, commands)

        self._post(sid, job)

    def detach(self, sid: ParticipantSid) -> None:
        """The client's WebSocket is gone: it may come back within the grace."""

        def job(now: float) -> None:
            participant = self._state.participants.get(sid)
            if participant is not None and participant.detached_at is None:
                participant.detached_at = now
                self._state.quality.lost(sid, now)

        self._post(sid, job)

    async def resume(self, sid: ParticipantSid) -> int | None:
        """The client is back. The last sequence of its reliable data, or None if it is not known here."""
        answer: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        if not self._post(sid, lambda now: self._resume(sid, answer, now)):
            return None
        async with asyncio.timeout(ANSWER_DEADLINE_S):
            return await answer

    def tell_all(self, sid: ParticipantSid) -> None:
        """Send the client the whole roster and who speaks: it may have missed updates."""
        self._post(sid, lambda _: self._tell_all(sid))

    def subscribed(self, sid: ParticipantSid, track_sids: Iterable[str]) -> None:
        """The client has taken these tracks: their publishers are told of the first subscriber."""
        taken = tuple(track_sids)
        self._post(sid, lambda _: tracks.note_subscribed(self._state, taken))

    def leave(self, sid: ParticipantSid, reason: models.DisconnectReason) -> None:
        """The participant goes for good."""

        def job(now: float) -> None:
            roster.remove(self._state, sid, reason, now)
            self._ports.pop(sid, None)

        self._post(sid, job)

    # -- called by the directory -----------------------------------------------------------------

    def node_event(self, node_id: NodeId, event: node_pb2.Event) -> None:
        """An event of one of the room's nodes. Levels are dropped first when the room is behind."""
        behind = self._mailbox.qsize() > MAILBOX // 2
        if behind and event.WhichOneof("event") in ("audio_levels", "quality", "data"):
            self.dropped_events += 1
            return
        sender = transport_owner(event.data.transport_id) if event.HasField("data") else None
        self._post(sender, lambda now: self._on_event(node_id, event, now))

    def node_lost(self, node_id: NodeId, why: str) -> None:
        """A node has died: its participants are sent to rejoin."""
        self._post(None, lambda now: self._on_lost(node_id, why, now))

    def node_back(self, node_id: NodeId) -> None:
        """A node is up, perhaps one that the room has given up: what that still holds of the room ends."""
        if self._mover.is_lost(node_id):
            self._post(None, lambda _: self._fence(node_id))

    def end(self, reason: models.DisconnectReason, why: str, *, comes_back: bool = False) -> None:
        """Close the room. `comes_back`: its clients are asked to join again, at another gateway."""
        self._post(None, lambda _: roster.end(self._state, reason, why, comes_back=comes_back))

    def hand_over(self, why: str, *, is_superseded: bool = False) -> None:
        """Let go of the room without ending it: media flows on, clients resume where it is taken over."""

        def job(now: float) -> None:
            self._is_superseded, self.is_handed_over = is_superseded, True
            if not is_superseded:
                self.keeper.due = now
                self._keep()
            roster.hand_over(self._state, why)

        self._post(None, job)

    def attach(self, sid: ParticipantSid, port: ClientPort, carried: frozenset[TrackSid]) -> None:
        """A client of a room that was taken over has a session again, which carries what is `carried`."""

        def job(_: float) -> None:
            participant = self._state.participants.get(sid)
            if participant is None or participant.moving_at is not None:
                return
            self._ports[sid] = port
            wanted = tuple(participant.wanted.values())
            dropped = tuple(carried - participant.wanted.keys())
            self._state.effects.append(effects.ChangeWanted(sid, wanted, dropped))
            self._tell_all(sid)

        self._post(sid, job)

    async def ask(self, decide: Callable[[RoomState, float], T]) -> T:
        """Have `decide` made between two messages, and its result. RoomError of it; TimeoutError.

        JoinRefusal: the room has ended, or is too busy. A change of what decides who comes in is acknowledged
        once another process holds it too.
        """
        kept: list[asyncio.Future[None]] = []

        def guarded(now: float) -> T:
            before = door(self._state)
            try:
                return decide(self._state, now)
            finally:
                if door(self._state) != before:
                    kept.append(self.keeper.urge(now))

        answer = self._decide(guarded)
        async with asyncio.timeout(ANSWER_DEADLINE_S):
            result = await answer
            await self._until_kept(kept)
            return result

    @property
    def is_kept(self) -> bool:
        """There is a node that keeps the room's snapshots."""
        return bool(self._state.nodes) or self._shelf.node_id is not None

    async def _until_kept(self, kept: "list[asyncio.Future[None]]") -> None:
        """Who may come in is acknowledged only once a second place holds it. TimeoutError: none does."""
        if kept and self.is_kept and not self._state.ended:
            async with asyncio.timeout(STORED_DEADLINE_S):
                await kept[0]

    def _decide(self, decide: Callable[[float], T]) -> "asyncio.Future[T]":
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def job(now: float) -> None:
            if answer.cancelled():
                return
            try:
                if self._state.ended:
                    raise JoinRefusal(Reason.ROOM_CLOSED, f"the room has ended: {self._state.ended}")
                answer.set_result(decide(now))
            except (RoomError, JoinRefusal) as error:
                answer.set_exception(error)
            except BaseException:
                answer.cancel()
                raise

        if not self._post(None, job):
            raise JoinRefusal(Reason.RATE_LIMITED, "the room is busy; try again")
        return answer

    def inform(self, change: Callable[[RoomState, float], None]) -> None:
        """A change of policy, decided elsewhere, to be made between two messages."""
        self._post(None, lambda now: change(self._state, now))

    # -- the task --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until the room has ended. Whatever goes wrong in one message concerns its sender only."""
        try:
            while not self._state.ended:
                await self._step()
        finally:
            self._refuse_rest()
            self._clear_shelf()
            farewell = leave(models.DisconnectReason.STATE_MISMATCH, rtc.LeaveRequest.RECONNECT)
            for port in self._ports.values():  # none left, unless the task itself was ended
                port.end(farewell, "the room has ended")
            for queue in self._queues.values():
                if self._is_superseded:
                    queue.abandon()
                else:
                    queue.close()
            self.keeper.close()

    def _clear_shelf(self) -> None:
        queue = self._queues.get(self._shelf.node_id) if self._shelf.node_id is not None else None
        if queue is not None and not self.is_handed_over and self._shelf.node_id not in self._state.nodes:
            queue.send([node_pb2.Command(close_room=node_pb2.CloseRoom())])

    async def _step(self) -> None:
        wait = self._next_deadline(self._clock())
        blame: ParticipantSid | None = None
        job: Job = self._run_due
        if wait > 0:  # a busy mailbox must not starve the timers
            try:
                async with asyncio.timeout(wait):
                    blame, job = await self._mailbox.get()
            except TimeoutError:
                pass
        self._guard(blame, job)
        self._perform()
        self._keep()

    def _next_deadline(self, now: float) -> float:
        wait = next_deadline(self._state, now)
        return wait if self.keeper.due is None else min(wait, self.keeper.due - now)

    def _keep(self) -> None:
        """Give the nodes the snapshot that is due."""
        now = self._clock()
        if self.keeper.due is None or now < self.keeper.due or self._state.ended:
            return
        put = self.keeper.make(self._state, now)
        self.keeper.spent(self._clock() - now)
        if put is None:
            return
        for node_id in list(self._state.nodes) or self._shelf.find(self._view()):
            if (queue := self._queue(node_id)) is not None:
                queue.store(put)
        self._on_snapshot(self._state.room_id, self.keeper, put)

    def _run_due(self, now: float) -> None:
        run_due(self._state, now)
        left = self._shelf.leave(self._view())
        if left is not None and (queue := self._queue(left)) is not None:
            queue.send([node_pb2.Command(close_room=node_pb2.CloseRoom())])
            self._release(left, dead=False)
            self.keeper.touch(now)
        self._mover.run_due(now)

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

    def _post(self, blame: ParticipantSid | None, job: Job) -> bool:
        if self._state.ended:
            return False
        try:
            self._mailbox.put_nowait((blame, job))
        except asyncio.QueueFull:
            self.dropped_events += 1
            self._log.warning("room.mailbox_full", participant=blame)
            return False
        return True

    def _refuse_rest(self) -> None:
        """Whoever still waits for an answer of an ended room gets a refusal."""
        while not self._mailbox.empty():
            _, job = self._mailbox.get_nowait()
            self._guard(None, job)
        self._state.take_effects()

    # -- jobs ------------------------------------------------------------------------------------

    def _join(self, request: JoinRequest, port: ClientPort, now: float) -> Joined:
        state = self._state
        role = check_join(state, request, self._unix_ms())
        wish, failed = Wish(request.region, request.rtts_ms), self._mover.failed.at(now)
        answer = choose_node(self._view(), state.config, wish, state.counts(), failed)
        facts = self._pool.facts(answer.node_id)
        if facts is None:
            raise JoinRefusal(Reason.NO_CAPACITY, "the chosen node has just gone; try again")
        self._pool.promise(answer.node_id)
        participant = roster.join(state, request, facts, now=now, unix_ms=self._unix_ms(), role=role)
        self._ports[participant.sid] = port
        self._log.info(
            "join.placed",
            participant=participant.sid,
            identity=request.identity,
            node=answer.node_id,
            region=answer.region,
            reason=answer.reason,
            sentence=answer.sentence,
        )
        response = rtc.JoinResponse(
            room=state.info(),
            participant=participant_info(participant),
            other_participants=roster.others(state, participant.sid),
            server_region=answer.region,
        )
        return Joined(participant.sid, facts, response)

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

    def _tell_all(self, sid: ParticipantSid) -> None:
        state = self._state
        participant = state.participants.get(sid)
        if participant is None:
            return
        rows = [participant_info(participant), *roster.others(state, sid)]
        state.tell(sid, rtc.SignalResponse(update=rtc.ParticipantUpdate(participants=rows)))
        speaking = state.speakers.active()
        if speaking:
            state.tell(sid, rtc.SignalResponse(speakers_changed=rtc.SpeakersChanged(speakers=speaking)))

    def _on_event(self, node_id: NodeId, event: node_pb2.Event, now: float) -> None:
        if event.HasField("room_closed"):  # as good as dead, for this room
            self._mover.lose_node(node_id, f"the node closed the room: {event.room_closed.reason}", now)
            return
        remark = events.handle_event(self._state, node_id, event, now)
        if remark:
            self._log.info("room.node_event", node=node_id, remark=remark)

    def _on_lost(self, node_id: NodeId, why: str, now: float) -> None:
        self._mover.lose_node(node_id, why, now)

    def _fence(self, node_id: NodeId) -> None:
        self._mover.found(node_id)
        queue = self._queue(node_id) if node_id not in self._state.nodes else None
        if queue is not None:
            self._log.info("room.node_fenced", node=node_id)
            queue.send([node_pb2.Command(close_room=node_pb2.CloseRoom())])
            self._release(node_id, dead=False)

    def _on_superseded(self, why: str) -> None:
        """A node serves a later room of that name: the clients are to find the gateway that has it."""
        self._log.warning("room.superseded", reason=Reason.STALE_EPOCH, why=why)
        self.hand_over("another gateway has the room", is_superseded=True)

    def _on_refused(self, node_id: NodeId, command: node_pb2.Command, error: str) -> None:
        kind = command.WhichOneof("command")
        self._log.warning("node.command_refused", node=node_id, command=kind, error=error)
        if kind == "open_relay":
            link_id = LinkId(command.open_relay.link_id)
            self.inform(lambda state, _: links.reopen_link(state, link_id))
        elif kind == "create_transport":
            sid = transport_owner(command.create_transport.transport_id)
            why = f"its node refused it: {error}"
            self._mover.failed.note(node_id, self._clock())
            self.inform(lambda state, now: roster.send_away(state, sid, why, now))

    # -- effects ---------------------------------------------------------------------------------

    def _perform(self) -> None:
        for effect in self._state.take_effects():
            if matters(effect):
                self.keeper.touch(self._clock())
            match effect:
                case effects.ToNode(node_id, commands):
                    queue = self._queue(node_id)
                    if queue is not None:
                        queue.send(commands)
                case effects.ReleaseNode(node_id, dead):
                    self._release(node_id, dead=dead)
                case effects.RoomEnded(why):
                    self._log.info("room.ended", reason=why)
                case effects.Happened() | effects.RpcAnswered() | effects.ChatSaid():
                    self._tell_application(effect)
                case effects.ToClients(sids, message):
                    self._tell_clients(sids, message)
                case _:
                    self._tell_session(effect)

    def _tell_clients(self, sids: tuple[ParticipantSid, ...], message: rtc.SignalResponse) -> None:
        encoded = message.SerializeToString()
        for sid in sids:
            if (port := self._ports.get(sid)) is not None:
                port.deliver(message, encoded)

    def _tell_session(self, effect: effects.ToSession) -> None:
        port = self._ports.get(effect.sid)
        if port is None:
            return
        match effect:
            case effects.ChangeWanted(_, changed, dropped):
                port.change_wanted(changed, dropped)
            case effects.MoveSession(_, facts, why, was_connected):
                port.move(facts, why, was_connected=was_connected)
            case effects.EndSession(sid, farewell, why):
                del self._ports[sid]
                port.end(farewell, why)
            case effects.DropSession(sid, why):
                del self._ports[sid]
                port.drop(why)

    def _tell_application(self, effect: effects.ToApplication) -> None:
        if isinstance(effect, effects.RpcAnswered):
            self.calls.answer(effect.answer)
        elif isinstance(effect, effects.ChatSaid):
            self._on_chat(effect)
        else:
            self._on_happened(self._state.info(), effect)

    def _queue(self, node_id: NodeId) -> CommandQueue | None:
        queue = self._queues.get(node_id)
        if queue is None and (closing := self._closing.pop(node_id, None)) is not None and closing.reopen():
            # The farewell to the node has not gone out yet: what comes now must come after it.
            queue = self._queues[node_id] = closing
        if queue is None:
            try:
                queue = self._pool.open_queue(
                    node_id,
                    self._state.room_id,
                    self.keeper.claim.epoch,
                    on_failed=lambda why: self.node_lost(node_id, why),
                    on_refused=lambda command, error: self._on_refused(node_id, command, error),
                    on_stale=self._on_superseded,
                    on_stored=self.keeper.stored,
                )
            except KeyError:
                self.node_lost(node_id, "its Pod is gone")
                return None
            self._queues[node_id] = queue
        return queue

    def _release(self, node_id: NodeId, *, dead: bool) -> None:
        queue = self._queues.pop(node_id, None)
        if queue is None:
            return
        if dead:
            queue.abandon()
        else:
            queue.close()
            self._closing[node_id] = queue
