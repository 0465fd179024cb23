"""An SFU node without media: the node's gRPC service on a free or given port, for tests of its callers.

It keeps epochs and snapshots of rooms as a node does, records Apply and SetDraining calls, sends its `report`
on every Watch stream (at once and then each `interval_s`), and events when told to. `with_token` refuses
callers without that bearer token.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc
from headwater_api.nodev1 import node_pb2, node_pb2_grpc

Responder = Callable[[node_pb2.ApplyRequest], node_pb2.ApplyResponse]
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_QUEUE = 1000


def accept_all(request: node_pb2.ApplyRequest) -> node_pb2.ApplyResponse:
    """Every command done."""
    return node_pb2.ApplyResponse(results=[node_pb2.CommandResult() for _ in request.commands])


@dataclass
class FakeNode(node_pb2_grpc.NodeServicer):
    """One node. Change `report`, then `push()`; `emit` sends events to a controller's streams."""

    node_id: str
    region: str = "eu"
    with_token: str = ""
    max_connections: int = 1000
    incarnation: str = "1"
    media_address: str = "127.0.0.1:7882"
    interval_s: float = 0.2
    respond: Responder = accept_all
    refuse_with: grpc.StatusCode | None = None  # every Apply fails with that status
    applied: deque[node_pb2.ApplyRequest] = field(default_factory=lambda: deque(maxlen=_QUEUE))
    drained: deque[bool] = field(default_factory=lambda: deque(maxlen=_QUEUE))
    held: dict[str, node_pb2.RoomHeld] = field(default_factory=dict)  # rooms commanded and not closed
    is_old: bool = False  # it knows no ApplyBatch and no redundant audio
    calls: int = 0  # with commands
    refused: int = 0
    opened: int = 0  # Watch streams so far
    frozen: bool = False  # as by SIGSTOP: connections stay open, nothing is answered
    silent: bool = False  # streams stay open, nothing is sent: a node that hangs
    address: str = ""  # set while it serves
    report: node_pb2.NodeReport = field(default_factory=node_pb2.NodeReport)

    def __post_init__(self) -> None:
        self.report.node_id = self.node_id
        self.report.region = self.region
        self.report.incarnation = self.incarnation
        self.report.max_connections = self.max_connections
        self._streams: dict[asyncio.Queue[node_pb2.WatchResponse], str] = {}

    @property
    def watchers(self) -> list[str]:
        """The controller ids of the open Watch streams."""
        return list(self._streams.values())

    def set_rooms(self, rooms: dict[str, int], links: list[node_pb2.LinkReport] | None = None) -> None:
        """Participants by room; connections are twice as many. Sent at once."""
        del self.report.rooms[:]
        del self.report.links[:]
        self.report.rooms.extend(
            node_pb2.RoomReport(room_id=room, participants=n) for room, n in rooms.items()
        )
        self.report.links.extend(links or [])
        self.report.participants = sum(rooms.values())
        self.report.connections = 2 * self.report.participants
        self.push()

    def push(self) -> None:
        """Sends the report to every stream now."""
        for queue in self._streams:
            _offer(queue, self._report())

    def emit(self, *events: node_pb2.Event, controller_id: str | None = None) -> None:
        """Sends events to that controller's streams, or to those of every controller that has a name."""
        for queue, controller in self._streams.items():
            if controller and controller_id in (None, controller):
                _offer(queue, node_pb2.WatchResponse(events=events))

    async def Info(self, request: node_pb2.InfoRequest, context: Context) -> node_pb2.NodeInfo:
        await self._check(context)
        return node_pb2.NodeInfo(
            node_id=self.node_id,
            region=self.region,
            incarnation=self.incarnation,
            media_addresses=[self.media_address],
            dtls_fingerprint="sha-256 " + ":".join(["AB"] * 32),
            wire_version=1,
            features=[] if self.is_old else [node_pb2.FEATURE_REDUNDANT_AUDIO],
            max_connections=self.max_connections,
        )

    async def Apply(self, request: node_pb2.ApplyRequest, context: Context) -> node_pb2.ApplyResponse:
        await self._check(context)
        self.calls += 1
        outcome = self._applied(request)
        if outcome.code:
            code = next(code for code in grpc.StatusCode if code.value[0] == outcome.code)
            await context.abort(code, outcome.details)
        return outcome.response

    async def ApplyBatch(
        self, request: node_pb2.ApplyBatchRequest, context: Context
    ) -> node_pb2.ApplyBatchResponse:
        await self._check(context)
        self.calls += 1
        if self.is_old:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        return node_pb2.ApplyBatchResponse(outcomes=[self._applied(one) for one in request.requests])

    def _applied(self, request: node_pb2.ApplyRequest) -> node_pb2.ApplyOutcome:
        self.applied.append(request)
        if self.refuse_with is not None:
            return node_pb2.ApplyOutcome(code=self.refuse_with.value[0], details="refused")
        held = self.held.get(request.room_id)
        if held is not None and (request.epoch, request.controller_id) < (held.epoch, held.controller_id):
            stale = grpc.StatusCode.FAILED_PRECONDITION.value[0]
            return node_pb2.ApplyOutcome(code=stale, details=f"the epoch is older than {held.epoch}")
        self._hold(request)
        return node_pb2.ApplyOutcome(response=self.respond(request))

    def _hold(self, request: node_pb2.ApplyRequest) -> None:
        held = self.held.setdefault(request.room_id, node_pb2.RoomHeld(room_id=request.room_id))
        held.epoch, held.controller_id = request.epoch, request.controller_id
        held.lease_left_ms = request.lease_ms
        for command in request.commands:
            put = command.put_snapshot
            if command.HasField("put_snapshot") and put.version > held.snapshot_version:
                held.snapshot_version, held.snapshot = put.version, put.blob
            if command.HasField("close_room"):
                self.held.pop(request.room_id, None)

    async def Rooms(self, request: node_pb2.RoomsRequest, context: Context) -> node_pb2.RoomsResponse:
        await self._check(context)
        named = request.room_ids or list(self.held)
        answer = node_pb2.RoomsResponse(rooms=[self.held[room] for room in named if room in self.held])
        if not request.with_blobs:
            for row in answer.rooms:
                row.ClearField("snapshot")
        return answer

    async def SetDraining(
        self, request: node_pb2.SetDrainingRequest, context: Context
    ) -> node_pb2.SetDrainingResponse:
        await self._check(context)
        self.drained.append(request.draining)
        self.report.draining = request.draining
        self.report.ClearField("drain")
        if request.draining:
            self.report.drain.CopyFrom(
                node_pb2.DrainState(
                    reason=request.reason, move_rate=request.move_rate, deadline_ms=request.deadline_ms
                )
            )
        self.push()
        return node_pb2.SetDrainingResponse()

    async def Watch(
        self, request: node_pb2.WatchRequest, context: Context
    ) -> AsyncIterator[node_pb2.WatchResponse]:
        await self._check(context)
        queue: asyncio.Queue[node_pb2.WatchResponse] = asyncio.Queue(_QUEUE)
        self._streams[queue] = request.controller_id
        self.opened += 1
        try:
            response = self._report()
            while True:
                if not self.silent and not self.frozen:
                    yield response
                try:
                    async with asyncio.timeout(self.interval_s):
                        response = await queue.get()
                except TimeoutError:
                    response = self._report()
        finally:
            del self._streams[queue]

    def _report(self) -> node_pb2.WatchResponse:
        response = node_pb2.WatchResponse()
        response.report.CopyFrom(self.report)
        told = {row.room_id for row in self.report.rooms}
        for room in self.held.values():
            if room.room_id not in told:
                response.report.rooms.add(
                    room_id=room.room_id,
                    epoch=room.epoch,
                    controller_id=room.controller_id,
                    snapshot_version=room.snapshot_version,
                )
        return response

    async def _check(self, context: Context) -> None:
        while self.frozen:
            await asyncio.sleep(0.01)
        given = dict(context.invocation_metadata() or ()).get("authorization", "")
        if self.with_token and given != f"Bearer {self.with_token}":
            self.refused += 1
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong or missing node token")


def _offer(queue: asyncio.Queue[node_pb2.WatchResponse], response: node_pb2.WatchResponse) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(response)


@asynccontextmanager
async def serving(node: FakeNode, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[FakeNode]:
    """Serves the node within the block; `node.address` is "host:port"."""
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    node_pb2_grpc.add_NodeServicer_to_server(node, server)
    bound = server.add_insecure_port(f"{host}:{port}")
    node.address = f"{host}:{bound}"
    await server.start()
    try:
        yield node
    finally:
        await server.stop(None)
