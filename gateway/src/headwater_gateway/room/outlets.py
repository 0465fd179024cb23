"""Carries out what a room's decisions want: to its nodes, to its clients' sessions, to the application."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from headwater_api.ids import NodeId, ParticipantSid, RoomId
from headwater_api.nodev1 import node_pb2
from livekit.protocol import models, rtc

from headwater_gateway.nodes.commands import CommandQueue
from headwater_gateway.nodes.pool import NodePool
from headwater_gateway.room import effects
from headwater_gateway.room.calls import PendingCalls
from headwater_gateway.room.keeper import SnapshotKeeper, matters
from headwater_gateway.room.policy import View
from headwater_gateway.room.ports import ClientPort
from headwater_gateway.room.shelf import Shelf
from headwater_gateway.room.state import RoomState
from headwater_gateway.room.wire import leave

log = structlog.get_logger(__name__)

OnSnapshot = Callable[[RoomId, SnapshotKeeper, node_pb2.PutSnapshot], None]


@dataclass(frozen=True, slots=True)
class Listeners:
    """Whom the world outside the room tells what. None may block or raise.

    The first three hear of nodes: one was lost, refused a command, obeys a later owner.
    """

    lost: Callable[[NodeId, str], None]
    refused: Callable[[NodeId, node_pb2.Command, str], None]
    superseded: Callable[[str], None]
    happened: Callable[[effects.Row, effects.Happened], None]
    chat: Callable[[effects.ChatSaid], None]
    snapshot: OnSnapshot


class Outlets:
    """One room's ways out. Used by the room's own task only."""

    def __init__(
        self, state: RoomState, pool: NodePool, keeper: SnapshotKeeper, view: View, listeners: Listeners
    ) -> None:
        self._state, self._pool, self._keeper, self._view = state, pool, keeper, view
        self._listeners = listeners
        self._queues: dict[NodeId, CommandQueue] = {}
        self._closing: dict[NodeId, CommandQueue] = {}
        self._shelf = Shelf(state)
        self._log = log.bind(room=state.room_id)
        self.ports: dict[ParticipantSid, ClientPort] = {}
        self.calls = PendingCalls()

    @property
    def has_keeper(self) -> bool:
        """There is a node that keeps the room's snapshots."""
        return bool(self._state.nodes) or self._shelf.node_id is not None

    def perform(self, now: float) -> None:
        """Everything that the last decisions want, in order."""
        for effect in self._state.take_effects():
            if self._keeper.due is None and matters(effect):
                self._keeper.touch(now)
            match effect:
                case effects.ToClients(sids, message):
                    self._tell_clients(sids, message)
                case effects.ToNode(node_id, commands):
                    self._send(node_id, commands)
                case effects.ReleaseNode(node_id, dead):
                    self._release(node_id, dead=dead)
                case effects.RoomEnded(why):
                    self._log.info("room.ended", reason=why)
                case effects.Happened() | effects.RpcAnswered() | effects.ChatSaid():
                    self._tell_application(effect)
                case _:
                    self._tell_session(effect)

    def keep(self, now: float, worked: Callable[[], float] = time.thread_time) -> None:
        """Give the nodes the snapshot that is due. `worked`: this thread's processor seconds.

        Not the clock's: a process that stood just then would keep nothing for twenty times as long.
        """
        keeper = self._keeper
        if keeper.due is None or now < keeper.due or self._state.ended:
            return
        began = worked()
        put = keeper.make(self._state, now)
        keeper.spent(worked() - began)
        if put is None:
            return
        for node_id in list(self._state.nodes) or self._shelf.find(self._view()):
            if (queue := self._queue(node_id)) is not None:
                queue.store(put)
        self._listeners.snapshot(self._state.room_id, keeper, put)

    def tidy(self, now: float) -> None:
        """A node that only kept the room's snapshot, and is needed no more, is let go."""
        left = self._shelf.leave(self._view()) if self._shelf.node_id is not None else None
        if left is not None:
            self._dismiss(left)
            self._keeper.touch(now)

    def fence(self, node_id: NodeId, now: float) -> None:
        """A node that was lost is back: whatever it still has of this room must end."""
        if node_id not in self._state.nodes:
            self._log.info("room.node_fenced", node=node_id)
            self._dismiss(node_id)
            self._keeper.touch(now)  # it may have been the one that kept the room

    def close(self, *, is_handed_over: bool, is_superseded: bool) -> None:
        """The room's end here. Nodes go on without us if another gateway has, or will have, the room."""
        farewell = leave(models.DisconnectReason.STATE_MISMATCH, rtc.LeaveRequest.RECONNECT)
        for port in self.ports.values():  # none left, unless the task itself was ended
            port.end(farewell, "the room has ended")
        shelf = self._shelf.node_id
        if shelf is not None and not is_handed_over and shelf not in self._state.nodes:
            self._dismiss(shelf)
        for queue in self._queues.values():
            if is_superseded:
                queue.abandon()
            else:
                queue.close()
        self._keeper.close()

    def carried_out(self, node_id: NodeId) -> "asyncio.Future[None] | None":
        """Done once the node has all its commands so far; None: it has none waiting."""
        queue = self._queues.get(node_id)
        return queue.carried_out() if queue is not None else None

    # -- nodes -------------------------------------------------------------------------------------

    def _send(self, node_id: NodeId, commands: tuple[node_pb2.Command, ...]) -> None:
        queue = self._queue(node_id)
        if queue is not None:
            queue.send(commands)

    def _dismiss(self, node_id: NodeId) -> None:
        self._send(node_id, (node_pb2.Command(close_room=node_pb2.CloseRoom()),))
        self._release(node_id, dead=False)

    def _queue(self, node_id: NodeId) -> CommandQueue | None:
        queue = self._queues.get(node_id)
        if queue is None and (closing := self._closing.pop(node_id, None)) is not None and closing.reopen():
            # The farewell to the node has not gone out yet: what comes now must come after it.
            queue = self._queues[node_id] = closing
        if queue is None:
            listeners = self._listeners
            try:
                queue = self._pool.open_queue(
                    node_id,
                    self._state.room_id,
                    self._keeper.claim.epoch,
                    audio_top_n=lambda: self._state.config.audio_top_n,
                    on_failed=lambda why: listeners.lost(node_id, why),
                    on_refused=lambda command, error: listeners.refused(node_id, command, error),
                    on_stale=listeners.superseded,
                    on_stored=self._keeper.stored,
                )
            except KeyError:
                listeners.lost(node_id, "its Pod is gone")
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

    # -- clients and the application -----------------------------------------------------------------

    def _tell_clients(self, sids: tuple[ParticipantSid, ...], message: rtc.SignalResponse) -> None:
        encoded = message.SerializeToString()
        for sid in sids:
            if (port := self.ports.get(sid)) is not None:
                port.deliver(message, encoded)

    def _tell_session(self, effect: effects.ToSession) -> None:
        port = self.ports.get(effect.sid)
        if port is None:
            return
        match effect:
            case effects.ChangeWanted(_, changed, dropped):
                port.change_wanted(changed, dropped)
            case effects.MoveSession(_, facts, why, was_connected, delay_s, head_start_s):
                port.move(facts, why, was_connected=was_connected, delay_s=delay_s, head_start_s=head_start_s)
            case effects.EndSession(sid, farewell, why):
                del self.ports[sid]
                port.end(farewell, why)
            case effects.DropSession(sid, why):
                del self.ports[sid]
                port.drop(why)

    def _tell_application(self, effect: effects.ToApplication) -> None:
        if isinstance(effect, effects.RpcAnswered):
            self.calls.answer(effect.answer)
        elif isinstance(effect, effects.ChatSaid):
            self._listeners.chat(effect)
        else:
            self._listeners.happened(self._state.info, effect)
