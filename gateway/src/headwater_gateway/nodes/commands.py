"""The ordered stream of one room's commands to one node."""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import grpc
import structlog
from headwater_api.ids import GatewayId, NodeId, RoomId
from headwater_api.nodev1 import node_pb2

from headwater_gateway.nodes.turns import Turns
from headwater_gateway.tasks import wake

log = structlog.get_logger(__name__)

APPLY_DEADLINE_S: Final = 2.0
ATTEMPTS: Final = 3
RENEW_EVERY_S: Final = 15.0
# Longer than clients try to come back: media flows on while no gateway lives, and for the next one to adopt.
LEASE_MS: Final = 180_000
MAX_PENDING: Final = 4096
MAX_BATCH: Final = 256
MAX_BATCH_BYTES: Final = 1_000_000
# Nobody waits for what ends: transports of those who have left go with the next call, or so much later.
LAZY_S: Final = 0.1


class Applier(Protocol):
    """Carries one ApplyRequest to the node. Raises grpc.aio.AioRpcError."""

    async def apply(self, request: node_pb2.ApplyRequest, deadline_s: float) -> node_pb2.ApplyResponse: ...


class CommandQueue:
    """Sends in order, batches what piled up meanwhile, renews the lease when idle.

    `on_failed(sentence)` is called once, when the node takes no more commands: the room then treats it as
    lost. `on_stale(sentence)` instead, when the node obeys a room of a later epoch.
    `audio_top_n()` is told with each call: the room's policy of that moment.
    `on_refused(command, error)` tells of a single command that the node would not carry out,
    `on_stored(version)` of a snapshot that the node has.
    """

    def __init__(
        self,
        node_id: NodeId,
        *,
        room_id: RoomId,
        epoch: int,
        controller_id: GatewayId,
        applier: Applier,
        turns: Turns,
        audio_top_n: Callable[[], int],
        on_failed: Callable[[str], None],
        on_refused: Callable[[node_pb2.Command, str], None],
        on_stale: Callable[[str], None],
        on_stored: Callable[[int], None],
        rng: random.Random,
    ) -> None:
        self.node_id = node_id
        self._room_id, self._epoch, self._controller_id = room_id, epoch, controller_id
        self._applier, self._turns, self._audio_top_n = applier, turns, audio_top_n
        self._on_failed, self._on_refused, self._on_stale = on_failed, on_refused, on_stale
        self._on_stored = on_stored
        self._snapshot: node_pb2.PutSnapshot | None = None
        self._rng = rng
        self._pending: deque[node_pb2.Command] = deque()
        self._wake = asyncio.Event()
        self._is_due = False  # something is to be sent now
        self._lazy: asyncio.TimerHandle | None = None
        self._closing = False
        self._failed = False
        self._ended = False
        self._queued = self._done = 0  # commands so far
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._rest: asyncio.Future[None] | None = None  # before the next call, unless somebody comes to wait

    def send(self, commands: Iterable[node_pb2.Command]) -> None:
        """Queue commands. A queue that overflows means a node that takes nothing: it is given up."""
        if self._failed or self._closing:
            return
        before, can_wait = len(self._pending), True
        for command in commands:
            kind = command.WhichOneof("command")
            self._pending.append(command)
            can_wait = can_wait and kind == "close_transport"
            if kind == "close_room":
                self._snapshot = None  # of the room that ends: it would begin it anew
        self._queued += len(self._pending) - before
        if not can_wait:
            self._hurry()
        elif self._lazy is None:
            self._lazy = asyncio.get_running_loop().call_later(LAZY_S, self._hurry)
        if len(self._pending) > MAX_PENDING:
            self._fail(f"more than {MAX_PENDING} commands are waiting", self._on_failed)

    def _hurry(self) -> None:
        self._is_due = True
        self._wake.set()

    def carried_out(self) -> "asyncio.Future[None]":
        """Done once the node has been given all that is queued now, or will take nothing more."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((self._queued, done))
        self._tell_waiting()
        if not done.done():
            self._hurry()
            wake(self._rest)
        return done

    def _tell_waiting(self) -> None:
        due = [done for count, done in self._waiting if count <= self._done or self._failed]
        self._waiting = [w for w in self._waiting if w[0] > self._done and not self._failed]
        for done in due:
            if not done.done():
                done.set_result(None)

    def store(self, snapshot: node_pb2.PutSnapshot) -> None:
        """Put a snapshot on the node. Only the newest is sent."""
        if not self._failed and not self._closing:
            self._snapshot = snapshot
            self._hurry()

    def close(self) -> None:
        """Send what is queued, then end."""
        self._closing = True
        self._hurry()

    def reopen(self) -> bool:
        """Take commands again, behind those that are still queued. False: it has ended."""
        if self._failed or self._ended:
            return False
        self._closing = False
        return True

    def abandon(self) -> None:
        """End at once and report nothing more: the node is known to be gone."""
        self._failed = True
        self._pending.clear()
        self._wake.set()
        wake(self._rest)
        self._tell_waiting()

    async def run(self) -> None:
        """Until closed and empty, abandoned or failed."""
        try:
            await self._run()
        finally:
            if self._lazy is not None:
                self._lazy.cancel()

    async def _run(self) -> None:
        while not self._failed:
            if self._closing and not self._has_any():
                self._ended = True
                return
            if not (self._is_due and self._has_any()):
                self._wake.clear()
                try:
                    async with asyncio.timeout(RENEW_EVERY_S * (0.8 + 0.2 * self._rng.random())):
                        await self._wake.wait()
                except TimeoutError:
                    pass  # an empty Apply renews the lease
                else:
                    continue
            await self._turn()
            before = len(self._pending)
            batch = self._take_batch()
            taken, self._is_due = before - len(self._pending), self._has_any()
            await self._deliver(batch)
            self._done += taken
            self._tell_waiting()

    def _has_any(self) -> bool:
        return bool(self._pending) or self._snapshot is not None

    async def _turn(self) -> None:
        """Until the next call may go."""
        while (pause := self._turns.wait(is_awaited=bool(self._waiting))) > 0:
            self._rest = self._turns.rest(pause)
            try:
                await self._rest
            finally:
                self._rest = None
        self._turns.take()

    def _take_batch(self) -> list[node_pb2.Command]:
        batch: list[node_pb2.Command] = []
        size = 0
        if self._lazy is not None:
            self._lazy.cancel()
            self._lazy = None
        while self._pending and len(batch) < MAX_BATCH and size < MAX_BATCH_BYTES:
            command = self._pending.popleft()
            size += command.ByteSize()
            batch.append(command)
            if command.HasField("close_room"):
                return batch  # nodes refuse what follows in the same call; the next one begins the room anew
        if self._snapshot is not None:
            batch.append(node_pb2.Command(put_snapshot=self._snapshot))
            self._snapshot = None
        return batch

    async def _deliver(self, batch: list[node_pb2.Command]) -> None:
        request = node_pb2.ApplyRequest(
            room_id=self._room_id,
            epoch=self._epoch,
            controller_id=self._controller_id,
            lease_ms=LEASE_MS,
            commands=batch,
            audio_top_n=self._audio_top_n(),
        )
        for attempt in range(1, ATTEMPTS + 1):
            try:
                response = await self._applier.apply(request, APPLY_DEADLINE_S)
            except grpc.aio.AioRpcError as error:
                if self._failed:
                    return
                stale = error.code() == grpc.StatusCode.FAILED_PRECONDITION
                if stale or attempt == ATTEMPTS:
                    tell = self._on_stale if stale else self._on_failed
                    self._fail(f"{error.code().name}: {error.details()}", tell)
                    return
                await asyncio.sleep(0.1 * attempt * (0.5 + self._rng.random()))
            else:
                self._report_refusals(batch, response)
                return

    def _report_refusals(self, batch: list[node_pb2.Command], response: node_pb2.ApplyResponse) -> None:
        for command, result in zip(batch, response.results, strict=False):
            if result.error:
                self._on_refused(command, result.error)
            elif command.HasField("put_snapshot"):
                self._on_stored(command.put_snapshot.version)

    def _fail(self, sentence: str, tell: Callable[[str], None]) -> None:
        self._failed = True
        self._pending.clear()
        self._wake.set()
        self._tell_waiting()
        log.warning("node.commands_failed", node=self.node_id, room=self._room_id, reason=sentence)
        tell(sentence)
