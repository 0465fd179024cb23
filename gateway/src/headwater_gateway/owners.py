"""Which gateway has a room, and what becomes of rooms whose gateway is gone.

The nodes are the directory: each says once a second who commands the rooms that it has. A room that no node
has is given a gateway by the archive, where there is one, or by hashing.
"""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Final, Protocol

import structlog
from headwater_api.ids import GatewayId, NodeId, RoomId
from headwater_api.nodev1 import node_pb2
from headwater_api.reasons import Reason

from headwater_gateway.directory.hashing import choose
from headwater_gateway.directory.liveness import Verdict
from headwater_gateway.directory.peers import Peers
from headwater_gateway.fleet import Fleet
from headwater_gateway.room.directory import RoomDirectory
from headwater_gateway.room.snapshot import Claim, holder_of
from headwater_gateway.room.succession import NodesSilent, Succession
from headwater_gateway.signal.types import GatewayPeer, JoinRefused

log = structlog.get_logger(__name__)

MAX_HOPS: Final = 2
LOOK_S: Final = 0.5
ASK_S: Final = 0.4
# A gateway that nobody's client asks for is succeeded once it has been dead for so long.
MOURN_S: Final = 1.0
# Reports are up to a second old: a node seen under another claim for so long really obeys it.
STRANGE_S: Final = 2.5
# A room is given up to a gateway with a greater claim that has not taken our nodes over for so long.
GIVE_UP_S: Final = 8.0
AT_ONCE: Final = 16


class Registrar(Protocol):
    """Who gave a room to whom, where gateways agree on it beforehand."""

    async def assign(self, room: RoomId, wanted: GatewayId) -> GatewayId:
        """The gateway that has been given the room; `wanted` if none was, or the registrar is away."""


class Owners:
    """Finds each room's gateway; `run` looks after rooms that nobody asks for."""

    def __init__(
        self,
        myself: GatewayId,
        fleet: Fleet,
        peers: Peers,
        directory: RoomDirectory,
        succession: Succession,
        *,
        registrar: Registrar,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._myself, self._fleet, self._peers = myself, fleet, peers
        self._directory, self._succession, self._registrar = directory, succession, registrar
        self._clock, self._rng = clock, rng or random.Random()
        self._dead_since: dict[GatewayId, float] = {}
        self._strange_since: dict[tuple[RoomId, NodeId], float] = {}
        self._split_since: dict[RoomId, float] = {}

    # -- finding ---------------------------------------------------------------------------------

    def serving(self) -> set[GatewayId]:
        """Gateways that take rooms: ready, and not known to be dead."""
        ready = {peer.gateway for peer in self._fleet.gateways.values()}
        alive = {g for g in ready if self._peers.verdict(g) is not Verdict.DEAD}
        return alive | {self._myself}

    async def find(self, room: RoomId, *, hops: int, resumes: bool) -> GatewayPeer | None:
        """The gateway that a client of the room must talk to; None: this one. JoinRefused: out of reach.

        A room whose gateway is dead is taken over here, if this gateway is its successor.
        """
        if self._lives_here(room):
            return None
        holder = holder_of(self._directory.pool.room_reports(room).values())
        if holder is None and resumes:
            holder = await self._ask_nodes(room)
        if holder is None or self._directory.has_ended(room, holder.epoch):
            return await self._place(room, hops)
        if holder.gateway != self._myself:
            verdict = await self._peers.settled(holder.gateway)
            if verdict is not Verdict.DEAD:
                return self._forward(holder.gateway, hops)
            successor = choose(room, self.serving())
            if successor != self._myself and hops < MAX_HOPS:
                return self._forward(successor, hops)
        try:
            taken = await self._succession.take_over(room)
        except NodesSilent as silent:
            raise JoinRefused(503, Reason.OWNER_UNREACHABLE, f"{silent}: connect again") from None
        return self._forward(taken.gateway, hops) if isinstance(taken, Claim) else None

    def _lives_here(self, room: RoomId) -> bool:
        actor = self._directory.room(room)
        return actor is not None and not actor.state.ended

    def _forward(self, gateway: GatewayId, hops: int) -> GatewayPeer:
        peer = self._fleet.peers.get(gateway)
        if peer is None or hops >= MAX_HOPS:
            message = "the room's gateway cannot be reached now: connect again"
            raise JoinRefused(503, Reason.OWNER_UNREACHABLE, message)
        return peer

    async def _place(self, room: RoomId, hops: int) -> GatewayPeer | None:
        """A room that nobody has. Who was sent here by another gateway stays."""
        if hops:
            return None
        wanted = choose(room, self.serving())
        given = await self._registrar.assign(room, wanted)
        if given != wanted and self._peers.verdict(given) is Verdict.DEAD and given != self._myself:
            given = wanted
        return None if given == self._myself else self._forward(given, hops)

    async def _ask_nodes(self, room: RoomId) -> Claim | None:
        """A client says that the room exists, and no report has shown it yet."""
        pool = self._directory.pool
        nodes = [view.node_id for view in pool.views()]
        held = await pool.rooms_held(room, nodes, ASK_S)
        return holder_of(row for row in held.values() if row is not None)

    def doubt(self, gateway: GatewayId) -> None:
        """It did not answer just now."""
        self._peers.doubt(gateway)

    # -- looking after -----------------------------------------------------------------------------

    async def run(self, is_ready: Callable[[], bool]) -> None:
        """For ever: rooms of dead gateways, rooms that two gateways have, rooms left from an earlier life."""
        while True:
            await asyncio.sleep(LOOK_S * (0.8 + 0.4 * self._rng.random()))
            if not is_ready():
                continue
            orphans = self._look(self._clock())
            for start in range(0, len(orphans), AT_ONCE):
                batch = [self._succession.take_over(room) for room in orphans[start : start + AT_ONCE]]
                for result in await asyncio.gather(*batch, return_exceptions=True):
                    if isinstance(result, Exception) and not isinstance(result, NodesSilent):
                        log.error("room.takeover_failed", exc_info=result)

    def _look(self, now: float) -> list[RoomId]:
        orphans = []
        reports = self._directory.pool.all_room_reports()
        serving = self.serving()
        strange: set[tuple[RoomId, NodeId]] = set()
        for room, rows in reports.items():
            holder = holder_of(rows.values())
            if holder is None:
                continue
            if self._lives_here(room):
                strange |= self._compare(room, rows, holder, now)
            elif self._is_orphan(room, holder, serving, now):
                orphans.append(room)
        self._heal(strange, now)
        self._split_since = {room: at for room, at in self._split_since.items() if self._lives_here(room)}
        self._dead_since = {
            g: since for g, since in self._dead_since.items() if self._peers.verdict(g) is Verdict.DEAD
        }
        return orphans

    def _is_orphan(self, room: RoomId, holder: Claim, serving: set[GatewayId], now: float) -> bool:
        if self._directory.has_ended(room, holder.epoch):
            return False
        if holder.gateway == self._myself:
            return True
        if self._peers.verdict(holder.gateway) is not Verdict.DEAD:
            return False
        since = self._dead_since.setdefault(holder.gateway, now)
        return now - since >= MOURN_S and choose(room, serving) == self._myself

    def _compare(
        self, room: RoomId, rows: dict[NodeId, node_pb2.RoomReport], holder: Claim, now: float
    ) -> set[tuple[RoomId, NodeId]]:
        """Give a room up to a greater claim. Nodes of a room of ours that obey a lesser one."""
        actor = self._directory.room(room)
        if actor is None:
            return set()
        mine = actor.keeper.claim
        if holder <= mine or holder.gateway == self._myself:
            self._split_since.pop(room, None)
            return {(room, node) for node, row in rows.items() if row.controller_id != self._myself}
        greater = {n for n, row in rows.items() if Claim(row.epoch, GatewayId(row.controller_id)) > mine}
        # The other owner takes our nodes in, with all who are there; until then they are served here.
        split_for = now - self._split_since.setdefault(room, now)
        if greater & actor.state.nodes.keys() or split_for >= GIVE_UP_S:
            self._split_since.pop(room, None)
            actor.hand_over("another gateway has the room", is_superseded=True)
        return set()

    def _heal(self, strange: set[tuple[RoomId, NodeId]], now: float) -> None:
        self._strange_since = {key: self._strange_since.get(key, now) for key in strange}
        due: dict[RoomId, set[NodeId]] = {}
        for (room, node), since in self._strange_since.items():
            if now - since >= STRANGE_S:
                due.setdefault(room, set()).add(node)
        for room, nodes in due.items():
            actor = self._directory.room(room)
            if actor is not None:
                self._succession.heal_soon(actor, frozenset(nodes))
                for node in nodes:
                    self._strange_since[(room, node)] = now
