"""Rooms change gateways: taking over those whose gateway is gone, giving up those that another one has."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, Protocol

import structlog
from headwater_api.ids import GatewayId, NodeId, RoomId
from headwater_api.nodev1 import node_pb2
from headwater_api.reasons import Reason

from headwater_gateway.room import takeover
from headwater_gateway.room.actor import RoomActor
from headwater_gateway.room.directory import RoomDirectory
from headwater_gateway.room.keeper import SnapshotKeeper
from headwater_gateway.room.model import IdSource
from headwater_gateway.room.snapshot import Claim, holder_of

log = structlog.get_logger(__name__)

ASK_S: Final = 0.6
ASK_AGAIN_S: Final = 1.2


class Archive(Protocol):
    """A place beside the nodes where snapshots are kept and claims are made."""

    async def read(self, room_id: RoomId) -> tuple[int, list[bytes]]:
        """The highest epoch claimed there, and snapshots. (0, []) when it is away."""

    async def claim(self, room_id: RoomId, epoch: int) -> None:
        """Note that this gateway has the room under that epoch. Nothing happens when it is away."""


class NodesSilent(Exception):
    """Nodes report the room and do not answer: what they hold must not be replaced by an empty room."""


class _Left:
    """What was left of a room when it was looked at."""

    def __init__(
        self,
        nodes: frozenset[NodeId],
        archived: int,
        blobs: list[bytes],
        held: Mapping[NodeId, node_pb2.RoomHeld | None],
    ) -> None:
        """`nodes`: those that were up; `held`: what those hold that answered; `archived`: an epoch, or 0."""
        rows = [row for row in held.values() if row is not None]
        self.nodes, self.held = nodes, held
        self.found = takeover.read_inheritance(rows, blobs)
        self.epoch = max(self.found.epoch, archived)
        self.holder = holder_of(rows)

    def version(self, node_id: NodeId) -> int:
        """Of the snapshot on that node; 0: none."""
        row = self.held.get(node_id)
        return row.snapshot_version if row is not None else 0


class Succession:
    """Takes rooms over, one at a time each: whoever asks meanwhile waits for the same result."""

    def __init__(
        self,
        directory: RoomDirectory,
        ids: IdSource,
        clock: Callable[[], float],
        archive: Archive,
        is_gone: Callable[[GatewayId], bool] = lambda _: True,
    ) -> None:
        self._directory, self._ids, self._clock, self._archive = directory, ids, clock, archive
        self._is_gone = is_gone
        self._running: dict[RoomId, asyncio.Task[RoomActor | Claim | None]] = {}
        self._healing: set[asyncio.Task[None]] = set()
        self.taken_total = 0

    async def take_over(self, room_id: RoomId) -> RoomActor | Claim | None:
        """The room with all that is left of it, owned by this gateway. None: nothing is left.

        A claim: the nodes obey another gateway, which lives or did a moment ago, whatever they last reported.

        The claim is over all that nodes and the archive have seen, so that whoever had the room is refused.
        NodesSilent: it is not known what is left.
        """
        task = self._running.get(room_id)
        if task is None:
            task = asyncio.create_task(self._take_over(room_id), name=f"take over {room_id}")
            self._running[room_id] = task
            task.add_done_callback(lambda _: self._running.pop(room_id, None))
        return await asyncio.shield(task)

    async def _take_over(self, room_id: RoomId) -> RoomActor | Claim | None:
        directory = self._directory
        started = self._clock()
        left = await self._look(room_id, frozenset(view.node_id for view in directory.pool.views()))
        if (known := self._living(room_id)) is not None:
            return known
        holder = left.holder
        is_others = holder is not None and holder.gateway != directory.controller_id
        if holder is not None and is_others and not self._is_gone(holder.gateway):
            return holder
        if not left.epoch:
            silent = directory.pool.room_reports(room_id).keys() - left.held.keys()
            if silent:
                raise NodesSilent(f"nodes that have the room do not answer: {', '.join(sorted(silent))}")
            return None
        claim = directory.claim(room_id, left.epoch + 1)
        if not is_others:
            return await self._settle(room_id, claim, left, started)
        directory.expect(room_id, is_coming=True)
        try:
            settled = await self._fence(room_id, claim, left)
            known = self._living(room_id)
            if not isinstance(settled, _Left):
                return known or settled
            return known or await self._settle(room_id, claim, settled, started)
        finally:
            directory.expect(room_id, is_coming=False)

    def _living(self, room_id: RoomId) -> RoomActor | None:
        known = self._directory.room(room_id)
        return known if known is not None and not known.state.ended else None

    async def _look(self, room_id: RoomId, nodes: frozenset[NodeId]) -> _Left:
        (epoch, blobs), held = await asyncio.gather(self._archive.read(room_id), self._ask(room_id, nodes))
        return _Left(nodes, epoch, blobs, held)

    async def _fence(self, room_id: RoomId, claim: Claim, left: _Left) -> _Left | Claim | None:
        """From here on the old owner, which may live, can store nothing. What it stored until then counts.

        It was told so, and its host too. A claim: a third gateway was faster. None: it has ended the room.
        """
        pool = self._directory.pool
        holders = frozenset(node_id for node_id, row in left.held.items() if row is not None)
        was = takeover.rebuild(left.found, room_id, self._ids, self._clock())
        top_n = was.config.audio_top_n if was is not None else 0
        await pool.claim_room(room_id, claim.epoch, holders, ASK_S, audio_top_n=top_n)
        again = await pool.rooms_held(room_id, holders, ASK_S, with_blobs=False)
        rows = {node_id: row for node_id, row in again.items() if row is not None}
        greatest = holder_of(rows.values()) or claim
        if greatest > claim:  # made a moment ago: it lives, though this gateway may not have heard it yet
            log.info("room.taken_by_another", room=room_id, gateway=greatest.gateway)
            return greatest
        had = any(left.version(node_id) for node_id in rows)
        if had and not any(row.snapshot_version for row in rows.values()):
            log.info("room.ended_meanwhile", room=room_id)
            close = (node_pb2.Command(close_room=node_pb2.CloseRoom()),)
            await pool.claim_room(room_id, claim.epoch, rows.keys(), ASK_S, commands=close)
            return None
        changed = [n for n, row in rows.items() if row.snapshot_version != left.version(n)]
        if not changed:
            return left
        newer = await pool.rooms_held(room_id, changed, ASK_S)
        log.info("room.changed_meanwhile", room=room_id, nodes=sorted(newer))
        epoch, blobs = await self._archive.read(room_id)
        return _Left(left.nodes, epoch, blobs, {**left.held, **newer})

    async def _settle(self, room_id: RoomId, claim: Claim, left: _Left, started: float) -> RoomActor | None:
        """Let the room go on here."""
        directory, found, now = self._directory, left.found, self._clock()
        state = takeover.rebuild(found, room_id, self._ids, now)
        if state is None:
            log.warning("room.lost", room=room_id, reason=Reason.STALE_EPOCH, why="no snapshot is left")
            return None
        # A node that did not answer in time may have the room: it is taken to have it until it says no.
        used = {participant.node_id for participant in state.participants.values()}
        held = left.held
        holders = frozenset(n for n in left.nodes if (held[n] is not None if n in held else n in used))
        alive = {n: facts for n in left.nodes if (facts := directory.pool.facts(n)) is not None}
        meeting = directory.meeting(room_id)
        config = replace(meeting, metadata=state.config.metadata) if meeting is not None else None
        takeover.adopt(state, alive, holders, config, now)
        keeper = SnapshotKeeper(claim, found.version, found.seen)
        keeper.due = now
        actor = directory.install(state, keeper)
        self.taken_total += 1
        log.warning(
            "room.taken_over",
            room=room_id,
            epoch=claim.epoch,
            participants=len(state.participants),
            nodes=sorted(state.nodes),
            snapshots=[f"{s.claim.gateway}/{s.version}" for s in found.snapshots],
            seconds=round(self._clock() - started, 3),
        )
        await self._archive.claim(room_id, claim.epoch)
        return actor

    def heal_soon(self, actor: RoomActor, strangers: frozenset[NodeId]) -> None:
        """`heal`, in a task of its own."""
        task = asyncio.create_task(self.heal(actor, strangers), name=f"heal {actor.state.room_id}")
        self._healing.add(task)
        task.add_done_callback(self._on_healed)

    def _on_healed(self, task: asyncio.Task[None]) -> None:
        self._healing.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("room.heal_failed", exc_info=task.exception())

    async def heal(self, actor: RoomActor, strangers: frozenset[NodeId]) -> None:
        """Nodes obey an older claim on a room that lives here: take them in, with what their owner knew."""
        room_id, pool = actor.state.room_id, self._directory.pool
        held = await pool.rooms_held(room_id, strangers, ASK_S)
        rows = [
            row
            for row in held.values()
            if row is not None and row.controller_id != self._directory.controller_id
        ]
        if not rows or actor.state.ended:
            return
        found = takeover.read_inheritance(rows)
        alive = {n: facts for n in held if (facts := pool.facts(n)) is not None}
        log.warning(
            "room.healed",
            room=room_id,
            nodes=sorted(held),
            owners=sorted({row.controller_id for row in rows}),
            snapshots=len(found.snapshots),
        )
        keeper = actor.keeper
        keeper.version = max(keeper.version, found.version)
        for key, version in found.seen.items():
            keeper.seen[key] = max(version, keeper.seen.get(key, -1))
        other = takeover.rebuild(found, room_id, self._ids, self._clock())
        actor.inform(lambda state, now: takeover.merge_in(state, other, alive, now))
        keeper.due = self._clock()

    async def _ask(self, room_id: RoomId, nodes: frozenset[NodeId]) -> dict[NodeId, node_pb2.RoomHeld | None]:
        """All nodes, once more those that did not answer: one that is slow may hold what nobody else does."""
        pool = self._directory.pool
        held = await pool.rooms_held(room_id, nodes, ASK_S)
        late = nodes - held.keys() & pool.room_reports(room_id).keys()
        if late:
            held |= await pool.rooms_held(room_id, late, ASK_AGAIN_S)
        return held

    async def aclose(self) -> None:
        """End what runs."""
        tasks = [*self._running.values(), *self._healing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
