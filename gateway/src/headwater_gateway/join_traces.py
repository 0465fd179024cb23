"""Spans of joins by OpenTelemetry, from request to connected media. Loaded only where joins are traced."""

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TypeVar

import grpc
from headwater_api.ids import NodeId, ParticipantSid, RegionName, RoomId
from headwater_api.nodev1 import node_pb2
from headwater_api.reasons import Reason
from headwater_api.traces import APPLY, HEADER, NODE, OUTCOME, REASON, REGION, ROOM, room_hash
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes

from headwater_gateway.tracing import JOIN

# Placed, and no word since of media or of an end: the room lives elsewhere, or the client waits.
GIVEN_UP_S: Final = 60.0
MAX_OPEN: Final = 10_000

T = TypeVar("T")
Metadata = tuple[tuple[str, str], ...]
# What sends a node commands: request, deadline in seconds, more metadata.
Apply = Callable[[node_pb2.ApplyRequest, float, Metadata], Awaitable[node_pb2.ApplyResponse]]

_header = TraceContextTextMapPropagator()


class JoinTrace:
    """One join's spans. The outermost ends once, by what became of the join."""

    def __init__(self, traces: "JoinTraces", tracer: Tracer, root: Span) -> None:
        self._traces, self._tracer, self._root = traces, tracer, root
        self._within = [trace.set_span_in_context(root, Context())]  # spans that are open, innermost last
        self.placed_at: float | None = None
        self.sid = ParticipantSid("")
        self.room = RoomId("")
        self.transports: set[str] = set()  # on its node

    @property
    def root(self) -> Context:
        """The parent of what belongs to the whole join."""
        return self._within[0]

    def about(self, room: RoomId, region: RegionName, source: str) -> None:
        """Which room, and where the client was found to be."""
        self.room = room
        self._root.set_attributes({ROOM: room_hash(room), REGION: region, "headwater.region_source": source})

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A part of it."""
        span = self._tracer.start_span(name, self._within[-1])
        inner = trace.set_span_in_context(span, Context())
        self._within.append(inner)
        try:
            yield
        except Exception as error:
            span.set_attribute("error.type", type(error).__name__)  # its text may say too much
            raise
        finally:
            self._within.remove(inner)
            span.end()

    def carried(self, name: str, decide: Callable[[float], T]) -> Callable[[float], T]:
        """`decide` as a part of it, whoever calls."""

        def decided(now: float) -> T:
            outer = JOIN.set(self)
            try:
                with self.stage(name):
                    return decide(now)
            finally:
                JOIN.reset(outer)

        return decided

    def headers(self) -> Mapping[str, str]:
        """For a request that is a part of it."""
        carrier: dict[str, str] = {}
        _header.inject(carrier, self._within[-1])
        return carrier

    def placed(self, sid: ParticipantSid, node: NodeId, region: RegionName, reason: Reason) -> None:
        """It has a node: what that is told of the participant from now on belongs to it."""
        attributes = {NODE: node, REGION: region, REASON: reason}
        trace.get_current_span(self._within[-1]).set_attributes(attributes)
        self.sid = sid
        self._traces.placed(self)

    def refused(self, reason: Reason, *, is_ours: bool) -> None:
        """`is_ours`: the fault is not the client's."""
        self._root.set_attribute(REASON, reason)
        self.end("refused", failed=is_ours)

    def passed_on(self) -> None:
        """The room's gateway has the client."""
        self.end("passed on")

    def leave(self) -> None:
        """The request is over; a client that has a node may still connect to it."""
        if self.placed_at is None:
            self.end("not placed")

    def end(self, outcome: str, *, failed: bool = False) -> None:
        """Only the first counts."""
        if not self._root.is_recording():
            return
        self._root.set_attribute(OUTCOME, outcome)
        if failed:
            self._root.set_status(Status(StatusCode.ERROR))
        self._root.end()
        self._traces.ended(self)


class JoinTraces:
    """The joins of this gateway that are on their way."""

    def __init__(self, provider: trace.TracerProvider, clock: Callable[[], float] = time.monotonic) -> None:
        self._tracer = provider.get_tracer("headwater_gateway")
        self._clock = clock
        self._placed: dict[ParticipantSid, JoinTrace] = {}  # and not connected yet, oldest first
        self._by_transport: dict[str, JoinTrace] = {}
        self._newest: dict[RoomId, JoinTrace] = {}

    def begin(self, route: str, parent: str | None) -> JoinTrace | None:
        """A join. `parent`: the header of the gateway that passes it on, which has decided whether it is
        traced; None: nobody has, and the sampler decides. None is the answer where it is not traced."""
        self._give_up()
        context = Context()
        if parent is not None:
            context = _header.extract({HEADER: parent}, context)
            if not trace.get_current_span(context).get_span_context().trace_flags.sampled:
                return None
        root = self._tracer.start_span("join", context, SpanKind.SERVER, {"http.route": route})
        return JoinTrace(self, self._tracer, root) if root.is_recording() else None

    def placed(self, join: JoinTrace) -> None:
        """It has a participant now."""
        join.placed_at = self._clock()
        self._placed[join.sid], self._newest[join.room] = join, join
        while len(self._placed) > MAX_OPEN:
            next(iter(self._placed.values())).end("not followed", failed=True)

    def happened(self, event: str, sid: ParticipantSid) -> None:
        """What applications are told of a participant."""
        join = self._placed.get(sid)
        if join is not None and event == "participant_joined":
            join.end("connected")
        elif join is not None and event == "participant_connection_aborted":
            join.end("left", failed=True)

    def ended(self, join: JoinTrace) -> None:
        """Nothing belongs to it any more."""
        self._placed.pop(join.sid, None)
        if self._newest.get(join.room) is join:
            del self._newest[join.room]
        for transport in join.transports:
            self._by_transport.pop(transport, None)

    def _give_up(self) -> None:
        since = self._clock() - GIVEN_UP_S
        for join in list(self._placed.values()):
            if join.placed_at is None or join.placed_at > since:
                return
            join.end("no media", failed=True)

    def close(self) -> None:
        """End all, as they are."""
        for join in list(self._placed.values()):
            join.end("gateway stopped")

    # -- commands to nodes -----------------------------------------------------------------------

    def commands(self, node_id: NodeId, apply: Apply) -> "TracedCommands":
        """A node's `apply`, with a span in each join that its commands are for."""
        return TracedCommands(self, node_id, apply)

    def calls(self, request: node_pb2.ApplyRequest, node_id: NodeId) -> list[Span]:
        """A span for each join that they are for. The first goes to the node, others link to it."""
        if not self._placed:
            return []
        count = len(request.commands)
        attributes: Attributes = {"rpc.system": "grpc", NODE: node_id, "headwater.commands": count}
        spans: list[Span] = []
        for join in self._joins(request):
            links = [Link(spans[0].get_span_context())] if spans else []
            spans.append(self._tracer.start_span(APPLY, join.root, SpanKind.CLIENT, attributes, links))
        return spans

    def _joins(self, request: node_pb2.ApplyRequest) -> tuple[JoinTrace, ...]:
        found: dict[JoinTrace, None] = {}
        for command in request.commands:
            kind = command.WhichOneof("command")
            join = None
            if kind == "create_transport":
                join = self._placed.get(ParticipantSid(command.create_transport.participant_id))
                if join is not None:
                    join.transports.add(command.create_transport.transport_id)
                    self._by_transport[command.create_transport.transport_id] = join
            elif kind == "set_remote":
                join = self._by_transport.get(command.set_remote.transport_id)
            elif kind == "open_relay":  # for the node that the newest participant has brought in
                join = self._newest.get(RoomId(request.room_id))
            if join is not None:
                found[join] = None
        return tuple(found)


class TracedCommands:
    """The way to one node, for a room's queue of commands."""

    def __init__(self, traces: JoinTraces, node_id: NodeId, apply: Apply) -> None:
        self._traces, self._node_id, self._apply = traces, node_id, apply

    async def apply(self, request: node_pb2.ApplyRequest, deadline_s: float) -> node_pb2.ApplyResponse:
        """Raises grpc.aio.AioRpcError."""
        spans = self._traces.calls(request, self._node_id)
        carrier: dict[str, str] = {}
        if spans:
            _header.inject(carrier, trace.set_span_in_context(spans[0], Context()))
        try:
            return await self._apply(request, deadline_s, tuple(carrier.items()))
        except grpc.aio.AioRpcError as error:
            for span in spans:
                span.set_attribute("error.type", error.code().name)
                span.set_status(Status(StatusCode.ERROR))
            raise
        finally:
            for span in spans:
                span.end()
