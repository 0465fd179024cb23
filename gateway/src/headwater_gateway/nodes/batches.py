"""What several rooms have to tell one node, in one call; each is answered by itself."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Final, NamedTuple, TypeAlias

import grpc
from headwater_api.nodev1 import node_pb2

from headwater_gateway.tasks import report

Metadata: TypeAlias = tuple[tuple[str, str], ...]
# Request, deadline in seconds, more metadata than all calls have. Raises grpc.aio.AioRpcError.
Apply: TypeAlias = Callable[[node_pb2.ApplyRequest, float, Metadata], Awaitable[node_pb2.ApplyResponse]]
ApplyBatch: TypeAlias = Callable[[node_pb2.ApplyBatchRequest, float], Awaitable[node_pb2.ApplyBatchResponse]]

MAX_ROOMS: Final = 64  # in one call: nodes carry them out one after the other
MAX_BYTES: Final = 4_000_000  # in one call, but for a room that alone has more
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


class _Waiting(NamedTuple):
    request: node_pb2.ApplyRequest
    deadline_s: float
    answer: "asyncio.Future[node_pb2.ApplyResponse]"


class Batches:
    """The calls to one node. What is applied in one turn of the loop goes in one call."""

    def __init__(self, single: Apply, several: ApplyBatch) -> None:
        self._single, self._several = single, several
        self._waiting: list[_Waiting] = []
        self._calls: set[asyncio.Task[None]] = set()
        self._is_old = False

    def node_is_up(self) -> None:
        """It may be another incarnation, which may be newer."""
        self._is_old = False

    async def apply(
        self, request: node_pb2.ApplyRequest, deadline_s: float, more: Metadata = ()
    ) -> node_pb2.ApplyResponse:
        """One room's commands. With metadata of its own it is a call of its own.

        Raises grpc.aio.AioRpcError with what the node said to this room.
        """
        if more:
            return await self._single(request, deadline_s, more)
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._flush)
        waiting = _Waiting(request, deadline_s, loop.create_future())
        self._waiting.append(waiting)
        return await waiting.answer

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for part in _parts(waiting):
            task = asyncio.create_task(self._call(part), name="node-call")
            report(task, "node.task_failed")
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)

    async def _call(self, part: list[_Waiting]) -> None:
        try:
            if len(part) == 1:
                await self._alone(part[0])
            elif self._is_old:
                await asyncio.gather(*map(self._alone, part))
            else:
                await self._together(part)
        except Exception as error:  # no answer at all would end each room's commands without a word
            _refuse(part, grpc.StatusCode.INTERNAL, f"the call failed: {error!r}")
            raise
        finally:
            for waiting in part:
                waiting.answer.cancel()  # where the call was cancelled, so are they

    async def _alone(self, waiting: _Waiting) -> None:
        try:
            _answer(waiting, await self._single(waiting.request, waiting.deadline_s, ()))
        except grpc.aio.AioRpcError as error:
            _refuse([waiting], error.code(), error.details())

    async def _together(self, part: list[_Waiting]) -> None:
        request = node_pb2.ApplyBatchRequest(requests=[waiting.request for waiting in part])
        try:
            response = await self._several(request, min(waiting.deadline_s for waiting in part))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                self._is_old = True
                await asyncio.gather(*map(self._alone, part))
            else:
                _refuse(part, error.code(), error.details())
            return
        for waiting, outcome in zip(part, response.outcomes, strict=False):
            if outcome.code:
                _refuse([waiting], _CODES.get(outcome.code, grpc.StatusCode.UNKNOWN), outcome.details)
            else:
                _answer(waiting, outcome.response)
        _refuse(part[len(response.outcomes) :], grpc.StatusCode.INTERNAL, "the node gave no answer for it")


def _parts(waiting: Iterable[_Waiting]) -> Iterator[list[_Waiting]]:
    """What goes in one call each, in order."""
    part, size = list[_Waiting](), 0
    for one in waiting:
        its_size = one.request.ByteSize()
        if part and (len(part) == MAX_ROOMS or size + its_size > MAX_BYTES):
            yield part
            part, size = [], 0
        part.append(one)
        size += its_size
    yield part


def _answer(waiting: _Waiting, response: node_pb2.ApplyResponse) -> None:
    if not waiting.answer.done():  # it may have been cancelled
        waiting.answer.set_result(response)


def _refuse(part: Iterable[_Waiting], code: grpc.StatusCode, details: str | None) -> None:
    for waiting in part:
        if not waiting.answer.done():
            empty = grpc.aio.Metadata()
            waiting.answer.set_exception(grpc.aio.AioRpcError(code, empty, empty, details, None))
