"""The node's gRPC service. Requests and events pass as bytes, which the engine parses; batches are opened."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, Final, NamedTuple, Protocol

import grpc
import grpc.aio
from headwater_api.nodev1 import node_pb2

from headwater_sfu.drain import Stopping
from headwater_sfu.engine import Engine
from headwater_sfu.fanout import Fanout, Lagged

SERVICE: Final = "headwater.node.v1.Node"
# A room's snapshot rides in one command; anything near this is a fault of the sender.
MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
MAX_ROOMS: Final = 20_000
HANDED_OVER: Final = 1024  # events taken from the engine at once when a room changes gateways

Context = grpc.aio.ServicerContext[Any, Any]

log = logging.getLogger(__name__)


class Refused(NamedTuple):
    """How a call ends that does not what it is asked."""

    code: grpc.StatusCode
    details: str


class NodeState(Protocol):
    """What the service needs from the agent."""

    def set_draining(self, request: node_pb2.SetDrainingRequest) -> None:
        """Raises Stopping."""
        ...

    def latest_report(self) -> bytes:
        """A serialised `WatchResponse` with the newest report."""
        ...


class NodeService:
    """Handlers of `headwater.node.v1.Node`, on raw bytes."""

    def __init__(
        self, engine: Engine, stale_epoch: type[Exception], fanout: Fanout, state: NodeState
    ) -> None:
        self._engine = engine
        self._stale_epoch = stale_epoch
        self._fanout = fanout
        self._state = state
        self._controllers: dict[str, str] = {}  # by room: who commanded it last

    async def info(self, request: bytes, context: Context) -> bytes:
        return self._engine.info()

    async def apply(self, request: bytes, context: Context) -> bytes:
        answer = self._applied(request)
        if isinstance(answer, Refused):
            await context.abort(answer.code, answer.details)
            raise AssertionError("abort returned")
        return answer

    async def apply_batch(self, request: bytes, context: Context) -> bytes:
        """Each room's commands as by `apply`. Where the engine does not answer one, no other waits for it."""
        message = await _parse(node_pb2.ApplyBatchRequest, request, context)
        response = node_pb2.ApplyBatchResponse()
        silent: Refused | None = None
        for one in message.requests:
            answer = silent or self._applied(one.SerializeToString())
            outcome = response.outcomes.add()
            if not isinstance(answer, Refused):
                outcome.response.ParseFromString(answer)
                await asyncio.sleep(0)  # events and other calls go on in between
                continue
            outcome.code, outcome.details = answer.code.value[0], answer.details
            if answer.code is grpc.StatusCode.UNAVAILABLE:
                silent = answer
        return response.SerializeToString()

    def _applied(self, request: bytes) -> "bytes | Refused":
        """A serialised `ApplyResponse`, or what speaks against it."""
        try:
            answer = self._engine.apply(request)
            self._note_controller(request)
            return answer
        except self._stale_epoch as error:
            return Refused(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except ValueError as error:
            return Refused(grpc.StatusCode.INVALID_ARGUMENT, f"not an ApplyRequest: {error}")
        except (RuntimeError, TimeoutError) as error:
            log.error("the engine does not carry out commands", extra={"error": str(error)})
            return Refused(grpc.StatusCode.UNAVAILABLE, f"the engine does not answer: {error}")

    def _note_controller(self, request: bytes) -> None:
        """What no gateway has heard goes to the one that commands the room now, before anything newer."""
        message = node_pb2.ApplyRequest.FromString(request)
        room, controller = message.room_id, message.controller_id
        before = self._controllers.pop(room, "")
        self._controllers[room] = controller
        while len(self._controllers) > MAX_ROOMS:
            del self._controllers[next(iter(self._controllers))]
        taken_from = before if before != controller else ""
        if taken_from or len(self._fanout.parked):
            self._fanout.hand_over(room, controller, taken_from, self._engine.drain(HANDED_OVER))

    async def rooms(self, request: bytes, context: Context) -> bytes:
        try:
            return self._engine.rooms(request)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not a RoomsRequest: {error}")
        except (RuntimeError, TimeoutError) as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"the engine does not answer: {error}")
        raise AssertionError("abort returned")

    async def set_draining(self, request: bytes, context: Context) -> bytes:
        message = await _parse(node_pb2.SetDrainingRequest, request, context)
        try:
            self._state.set_draining(message)
        except Stopping as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        return node_pb2.SetDrainingResponse().SerializeToString()

    async def watch(self, request: bytes, context: Context) -> AsyncIterator[bytes]:
        message = await _parse(node_pb2.WatchRequest, request, context)
        watcher = self._fanout.add(message.controller_id)
        try:
            watcher.offer_report(self._state.latest_report())
            if message.controller_id:
                self._engine.resync(message.controller_id)
            while (payload := await watcher.next()) is not None:
                yield payload
        except Lagged:
            self._fanout.lagged_total += 1
            log.warning("watcher fell behind, dropped", extra={"controller_id": message.controller_id})
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, "the watcher fell behind: connect again to resync"
            )
        finally:
            self._fanout.remove(watcher)


async def _parse(kind: Any, request: bytes, context: Context) -> Any:
    message = kind()
    try:
        message.ParseFromString(request)
    except Exception as error:  # protobuf's DecodeError differs between its runtimes
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not a {kind.__name__}: {error}")
    return message


def make_handler(service: NodeService) -> "grpc.GenericRpcHandler[Any, Any]":
    """Maps the method names onto raw-bytes handlers: no serialisers, hence no second parse."""
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "Info": grpc.unary_unary_rpc_method_handler(service.info),
            "Apply": grpc.unary_unary_rpc_method_handler(service.apply),
            "ApplyBatch": grpc.unary_unary_rpc_method_handler(service.apply_batch),
            "Rooms": grpc.unary_unary_rpc_method_handler(service.rooms),
            "SetDraining": grpc.unary_unary_rpc_method_handler(service.set_draining),
            "Watch": grpc.unary_stream_rpc_method_handler(service.watch),
        },
    )
