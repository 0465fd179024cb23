"""All rooms of this gateway: made on join, found by name, told what nodes and Meetings do."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import Context
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol

import structlog
from headwater_api.ids import (
    ClusterName,
    GatewayId,
    NodeId,
    ParticipantIdentity,
    ParticipantSid,
    RegionName,
    RoomId,
)
from headwater_api.nodev1 import node_pb2
from headwater_api.reasons import Reason
from headwater_dial.nodes import Dialer
from headwater_planner.cluster_policy import ClusterPolicy
from headwater_planner.place import Placement, PlacementView, RegionView
from livekit.protocol import models

from headwater_gateway.nodes.facts import NodeFacts
from headwater_gateway.nodes.pool import NodePool
from headwater_gateway.room import moderation
from headwater_gateway.room.access import Access
from headwater_gateway.room.actor import RoomActor
from headwater_gateway.room.effects import ChatSaid, Happened, Row
from headwater_gateway.room.ids import SystemIds
from headwater_gateway.room.keeper import SnapshotKeeper
from headwater_gateway.room.model import IdSource, JoinRequest, RoomConfig
from headwater_gateway.room.outlets import OnSnapshot
from headwater_gateway.room.policy import check_join, choose_node
from headwater_gateway.room.ports import HANDED_OVER, ClientPort, Joined, JoinRefusal
from headwater_gateway.room.quality import rate
from headwater_gateway.room.relayed import restart_over
from headwater_gateway.room.rules import check_rules
from headwater_gateway.room.snapshot import Claim
from headwater_gateway.room.state import RoomState

if TYPE_CHECKING:
    from headwater_gateway.join_traces import JoinTraces

log = structlog.get_logger(__name__)

MAX_ROOMS: Final = 20_000
MAX_ENDED: Final = 20_000
MAX_ROOM_NAME: Final = 256
MAX_EARLY: Final = 8192  # events of a room that is being taken over: the state of two transports of each
VERDICT_KEPT_S: Final = 0.05


def no_regions() -> tuple[RegionView, ...]:
    """Before any SFUCluster is known."""
    return ()


def no_limits() -> Mapping[ClusterName, frozenset[RegionName]]:
    """No SFUCluster keeps participants out of a region."""
    return {}


Listener = Callable[[Row, Happened], None]


ChatListener = Callable[[RoomId, ChatSaid], None]


def nobody_reads(_: RoomId, __: ChatSaid) -> None:
    """No chat history."""


def nobody_listens(_: Row, __: Happened) -> None:
    """No webhooks."""


def no_policies() -> Mapping[ClusterName, ClusterPolicy]:
    """Defaults for each SFUCluster."""
    return {}


@dataclass(slots=True)
class DirectoryOptions:
    """What the gateway allows. `regions` gives the fleet's regions with their coordinates.

    `cluster_regions`: where each SFUCluster lets participants be placed; empty means everywhere.
    """

    auto_create: bool = True
    defaults: RoomConfig = field(default_factory=RoomConfig)
    regions: Callable[[], tuple[RegionView, ...]] = no_regions
    cluster_regions: Callable[[], Mapping[ClusterName, frozenset[RegionName]]] = no_limits
    policies: Callable[[], Mapping[ClusterName, ClusterPolicy]] = no_policies
    # Told of each snapshot, to keep it elsewhere than on nodes too; and of rooms that live here no more.
    on_snapshot: OnSnapshot = lambda *_: None
    on_room_gone: Callable[[RoomActor], None] = lambda _: None


class Figures(Protocol):
    """Counts for the metrics."""

    def happened(self, event: str, row: Row, participant: models.ParticipantInfo | None) -> None: ...

    def quality(self, event: node_pb2.QualityEvent, verdict: models.ConnectionQuality) -> None: ...


class RoomDirectory:
    """Owner of every room actor. Also the listener of the node pool."""

    def __init__(
        self,
        controller_id: GatewayId,
        token: str,
        options: DirectoryOptions,
        *,
        ids: IdSource | None = None,
        clock: Callable[[], float] = time.monotonic,
        unix_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        dialer: Dialer | None = None,
    ) -> None:
        self._options = options
        self._ids = ids or SystemIds()
        self._clock, self._unix_ms = clock, unix_ms
        self.controller_id = controller_id
        self._rooms: dict[RoomId, RoomActor] = {}
        self._ended: dict[RoomId, int] = {}  # the epochs of rooms that ended here
        self._tasks: dict[RoomId, asyncio.Task[None]] = {}
        self._early: dict[RoomId, deque[tuple[NodeId, node_pb2.Event]]] = {}
        self._meetings: dict[RoomId, RoomConfig] = {}
        self._last_verdict: tuple[RoomConfig, float, Placement] | None = None
        self._moved_before = 0
        self._on_happened: Listener = nobody_listens
        self.figures: Figures | None = None
        self._on_chat: ChatListener = nobody_reads
        self.pool = NodePool(token, controller_id, self, clock=clock, dialer=dialer)

    # -- joins -----------------------------------------------------------------------------------

    def check(self, room_id: RoomId, request: JoinRequest) -> Placement:
        """Where that participant would be placed if it joined now. JoinRefusal; no side effect."""
        actor = self._rooms.get(room_id)
        if actor is not None and not actor.state.ended:
            check_join(actor.state, request, self._unix_ms())
            config = actor.state.config
        else:
            config = self._config_of(room_id)
            check_rules(config, Access(), request, self._unix_ms())
            self._check_room_left()
        return self._verdict(config)

    def _verdict(self, config: RoomConfig) -> Placement:
        """Where somebody of no particular wish would go, VERDICT_KEPT_S ago at most: the join asks anew."""
        now, known = self._clock(), self._last_verdict
        if known is not None and known[0] is config and now - known[1] <= VERDICT_KEPT_S:
            return known[2]
        placement = choose_node(self._view(), config)
        self._last_verdict = config, now, placement
        return placement

    def _view(self) -> PlacementView:
        options = self._options
        regions = options.cluster_regions()
        return PlacementView(options.regions(), self.pool.views(), regions, options.policies())

    async def join(self, room_id: RoomId, request: JoinRequest, port: ClientPort) -> tuple[RoomActor, Joined]:
        """Join, making the room if need be. JoinRefusal, TimeoutError."""
        actor = self._open(room_id)
        try:
            return actor, await actor.join(request, port)
        except JoinRefusal as refusal:
            # The room may have ended between look-up and join: a new one takes its place, once.
            if refusal.reason is not Reason.ROOM_CLOSED:
                raise
        actor = self._open(room_id)
        return actor, await actor.join(request, port)

    def open(self, room_id: RoomId) -> RoomActor:
        """The room of that name, made if need be, though ad-hoc rooms be off. JoinRefusal: it may not be."""
        return self._open(room_id, is_asked_for=True)

    @property
    def traces(self) -> "JoinTraces | None":
        """Where joins are traced."""
        return self.pool.traces

    def trace(self, traces: "JoinTraces | None") -> None:
        """Trace the joins from now on."""
        self.pool.traces = traces

    def _tell(self, row: Row, happened: Happened) -> None:
        if self.traces is not None and happened.participant is not None:
            self.traces.happened(happened.event, ParticipantSid(happened.participant.sid))
        if self.figures is not None:
            self.figures.happened(happened.event, row, happened.participant)
        self._on_happened(row, happened)

    def knock(self, room_id: RoomId, identity: ParticipantIdentity, name: str) -> None:
        """Somebody waits to be let in: the room's hosts are told."""
        unix_ms = self._unix_ms()
        with contextlib.suppress(JoinRefusal):
            self._open(room_id).inform(lambda state, _: moderation.knock(state, identity, name, unix_ms))

    def listen(self, on_happened: Listener, on_chat: ChatListener) -> None:
        """Hear of what applications are told (webhooks), and of chat. Must not block."""
        self._on_happened, self._on_chat = on_happened, on_chat

    def room(self, room_id: RoomId) -> RoomActor | None:
        return self._rooms.get(room_id)

    def rooms(self) -> tuple[RoomActor, ...]:
        return tuple(self._rooms.values())

    def moved_total(self) -> int:
        """Participants sent to another node since the start."""
        return self._moved_before + sum(actor.state.moved for actor in self._rooms.values())

    def _config_of(self, room_id: RoomId, *, is_asked_for: bool = False) -> RoomConfig:
        config = self._meetings.get(room_id)
        if config is not None:
            return config
        if not room_id or len(room_id) > MAX_ROOM_NAME:
            raise JoinRefusal(
                Reason.ROOM_NOT_FOUND, f"a room's name must have 1 to {MAX_ROOM_NAME} characters"
            )
        if not self._options.auto_create and not is_asked_for:
            raise JoinRefusal(
                Reason.ROOM_NOT_FOUND,
                f"requested room does not exist: no Meeting is called {room_id!r} and ad-hoc rooms are off",
            )
        return self._options.defaults

    def _check_room_left(self) -> None:
        if len(self._rooms) >= MAX_ROOMS:
            raise JoinRefusal(Reason.RATE_LIMITED, "this gateway has all the rooms that it can keep")

    def _open(self, room_id: RoomId, *, is_asked_for: bool = False) -> RoomActor:
        known = self._rooms.get(room_id)
        if known is not None and not known.state.ended:
            return known
        if known is not None and known.is_handed_over:
            raise JoinRefusal(Reason.STALE_EPOCH, HANDED_OVER)
        config = self._config_of(room_id, is_asked_for=is_asked_for)
        if known is not None:  # its task's end is not noted yet
            self._forget(room_id, known)
        self._check_room_left()
        unix_ms = self._unix_ms()
        state = RoomState(
            room_id=room_id,
            sid=self._ids.sid("RM_"),
            config=config,
            created_ms=unix_ms,
            created_at=self._clock(),
            ids=self._ids,
        )
        state.happened("room_started")
        return self.install(state, SnapshotKeeper(self.claim(room_id, unix_ms)))

    def claim(self, room_id: RoomId, at_least: int) -> Claim:
        """One that nodes obey over all that they and this gateway know of. `at_least`: an epoch."""
        seen = (row.epoch for row in self.pool.room_reports(room_id).values())
        newest = max([self._ended.get(room_id, 0), *seen])
        return Claim(max(at_least, newest + 1), self.controller_id)

    def has_ended(self, room_id: RoomId, epoch: int) -> bool:
        """Whether the room of that epoch has ended here: nodes may still report it for a moment."""
        return self._ended.get(room_id, -1) >= epoch

    def expect(self, room_id: RoomId, *, is_coming: bool) -> None:
        """The room is about to live here, or is not after all: what its nodes say meanwhile waits for it."""
        if is_coming:
            self._early.setdefault(room_id, deque(maxlen=MAX_EARLY))
        else:
            self._early.pop(room_id, None)

    def install(self, state: RoomState, keeper: SnapshotKeeper) -> RoomActor:
        """Let a room live here from now on."""
        room_id = state.room_id
        actor = RoomActor(
            state,
            self.pool,
            keeper=keeper,
            view=self._view,
            clock=self._clock,
            unix_ms=self._unix_ms,
            on_happened=self._tell,
            on_snapshot=self._options.on_snapshot,
            on_chat=lambda said: self._on_chat(room_id, said),
        )
        self._rooms[room_id] = actor
        for node_id, event in self._early.pop(room_id, ()):
            actor.node_event(node_id, event)
        # An own context: the first participant's log fields are not the room's.
        task = asyncio.create_task(actor.run(), name=f"room {room_id}", context=Context())
        self._tasks[room_id] = task
        task.add_done_callback(lambda done: self._on_ended(room_id, actor, done))
        return actor

    def _on_ended(self, room_id: RoomId, actor: RoomActor, task: asyncio.Task[None]) -> None:
        self._forget(room_id, actor)
        if not task.cancelled() and task.exception() is not None:
            log.error("room.task_failed", room=room_id, exc_info=task.exception())

    def _forget(self, room_id: RoomId, actor: RoomActor) -> None:
        if self._rooms.get(room_id) is not actor:
            return
        self._moved_before += actor.state.moved
        del self._rooms[room_id]
        self._tasks.pop(room_id, None)
        if not actor.is_handed_over:
            self._ended[room_id] = actor.keeper.claim.epoch
            while len(self._ended) > MAX_ENDED:
                del self._ended[next(iter(self._ended))]
        self._options.on_room_gone(actor)

    # -- Meetings --------------------------------------------------------------------------------

    def meeting_seen(self, room_id: RoomId, config: RoomConfig) -> None:
        """A Meeting is there or has changed: its policy holds from now on."""
        self._meetings[room_id] = config
        actor = self._rooms.get(room_id)
        if actor is not None:
            actor.inform(lambda state, now: _set_config(state, config))

    def meeting(self, room_id: RoomId) -> RoomConfig | None:
        """The policy of a room's Meeting; None for an ad-hoc room."""
        return self._meetings.get(room_id)

    def meeting_gone(self, room_id: RoomId) -> None:
        """A Meeting was deleted: its room ends."""
        if self._meetings.pop(room_id, None) is None:
            return
        actor = self._rooms.get(room_id)
        if actor is not None:
            actor.end(models.DisconnectReason.ROOM_DELETED, "the Meeting was deleted")

    # -- nodes (NodeListener) --------------------------------------------------------------------

    def on_node_up(self, facts: NodeFacts) -> None:
        """A node that was taken for dead may be back, with rooms that have gone on without it."""
        for actor in self._rooms.values():
            actor.node_back(facts.node_id)

    def on_node_lost(self, node_id: NodeId, why: str) -> None:
        for actor in self._rooms.values():
            if node_id in actor.state.nodes:
                actor.node_lost(node_id, why)

    def on_turn_lost(self, address: str) -> None:
        """A TURN server dies or goes: whoever is relayed by it restarts ICE over another one."""
        for actor in self._rooms.values():
            actor.inform(lambda state, _: _restart_over(state, address))

    def on_node_event(self, node_id: NodeId, event: node_pb2.Event) -> None:
        actor = self._rooms.get(RoomId(event.room_id))
        if actor is not None and not actor.state.ended:
            actor.node_event(node_id, event)
        elif (early := self._early.get(RoomId(event.room_id))) is not None:
            early.append((node_id, event))
        if self.figures is not None and event.HasField("quality"):
            said = event.quality
            verdict, _ = rate(said.uplink_loss, said.downlink_loss, said.rtt_ms)
            self.figures.quality(said, verdict)

    # -- end -------------------------------------------------------------------------------------

    async def aclose(self, deadline_s: float = 2.0) -> None:
        """Let go of every room, for another gateway to go on with, and end every task within the deadline."""
        tasks = list(self._tasks.values())
        for actor in self._rooms.values():
            # An empty room too: its lock and its bans are acknowledged, and hold for whoever comes next.
            actor.hand_over("the gateway shuts down")
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=deadline_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self.pool.aclose(drain_s=deadline_s)


def _restart_over(state: RoomState, address: str) -> None:
    sent = restart_over(state, address)
    if sent:
        log.info("room.ice_restarts_pushed", room=state.room_id, turn=address, participants=len(sent))


def _set_config(state: RoomState, config: RoomConfig) -> None:
    # What the API has set stays: a Meeting says nothing of it.
    config = replace(config, metadata=state.config.metadata)
    if state.config != config:
        state.config = config
        state.tell_all_room()
