"""Spans of the node's part in joins, by OpenTelemetry. Loaded only where traces are asked for.

A gateway that traces a join says so in the metadata of its calls. The node begins no trace itself.
"""

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import grpc
import grpc.aio
from headwater_api.nodev1 import node_pb2
from headwater_api.traces import APPLY, HEADER, OUTCOME, ROOM, room_hash
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

GIVEN_UP_S: Final = 60.0
MAX_WAITING: Final = 4096
# How a transport's wait for its client ends, but for the connection itself.
FAILED: Final = (node_pb2.TRANSPORT_FAILED, node_pb2.TRANSPORT_CLOSED)

_header = TraceContextTextMapPropagator()
Call = Callable[[bytes, Any], Awaitable[bytes]]


class NodeTraces(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not generic at run time
    """A span for each call of a traced join, and for each transport that it makes until that is connected."""

    def __init__(self, provider: trace.TracerProvider, clock: Callable[[], float] = time.monotonic) -> None:
        self._tracer = provider.get_tracer("headwater_sfu")
        self._clock = clock
        self._waiting: dict[str, tuple[float, Span]] = {}  # by transport, oldest first

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        metadata = dict(handler_call_details.invocation_metadata or ())
        if handler_call_details.method != f"/{APPLY}" or HEADER not in metadata:
            return handler
        parent = _header.extract({HEADER: metadata[HEADER]}, Context())
        if not trace.get_current_span(parent).get_span_context().trace_flags.sampled:
            return handler

        async def traced(request: bytes, context: Any) -> bytes:
            return await self._apply(handler.unary_unary, request, context, parent)

        return grpc.unary_unary_rpc_method_handler(traced)

    async def _apply(self, call: Call, raw: bytes, context: Any, parent: Context) -> bytes:
        span = self._tracer.start_span(APPLY, parent, SpanKind.SERVER, {"rpc.system": "grpc"})
        try:
            answer = await call(raw, context)
        except BaseException:
            span.set_status(Status(StatusCode.ERROR))
            raise
        else:
            request = node_pb2.ApplyRequest.FromString(raw)
            span.set_attributes(
                {ROOM: room_hash(request.room_id), "headwater.commands": len(request.commands)}
            )
            self._await_transports(request, node_pb2.ApplyResponse.FromString(answer), span)
            return answer
        finally:
            span.end()

    def _await_transports(
        self, request: node_pb2.ApplyRequest, answer: node_pb2.ApplyResponse, call: Span
    ) -> None:
        self.tidy()
        parent = trace.set_span_in_context(call, Context())
        for command, result in zip(request.commands, answer.results, strict=False):
            if not command.HasField("create_transport") or result.error:
                continue
            create = command.create_transport
            # Ids are the gateway's: what tells a client's two transports apart here is who opens channels.
            channels = {"headwater.data_channels": len(create.data_channels)}
            span = self._tracer.start_span("connect", parent, attributes=channels)
            self._waiting[create.transport_id] = (self._clock(), span)

    def heard(self, events: Iterable[tuple[str, bytes]]) -> None:
        """What the engine tells the gateways: pairs of controller id and serialised `WatchResponse`."""
        if not self._waiting:
            return
        for _, payload in events:
            for event in node_pb2.WatchResponse.FromString(payload).events:
                if not event.HasField("transport"):
                    continue
                state = event.transport.state
                if state == node_pb2.TRANSPORT_CONNECTED or state in FAILED:
                    self._end(
                        event.transport.transport_id, node_pb2.TransportState.Name(state), state in FAILED
                    )

    def tidy(self) -> None:
        """End those for which nobody came."""
        since = self._clock() - GIVEN_UP_S
        for transport, (at, _) in list(self._waiting.items()):
            if at > since and len(self._waiting) <= MAX_WAITING:
                return
            self._end(transport, "nobody came", True)

    def close(self) -> None:
        """End all."""
        for transport in list(self._waiting):
            self._end(transport, "node stopped", False)

    def _end(self, transport: str, outcome: str, is_failure: bool) -> None:
        _, span = self._waiting.pop(transport, (0.0, None))
        if span is None:
            return
        span.set_attribute(OUTCOME, outcome)
        if is_failure:
            span.set_status(Status(StatusCode.ERROR))
        span.end()
