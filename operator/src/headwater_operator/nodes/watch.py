"""One report stream to each SFU node, and the cordon flag back to it.

The stream is opened with an empty controller id: reports only. It is broken off when a node is silent for
`SILENCE_S`, and opened again with a growing, jittered pause.
"""

import asyncio
from collections.abc import AsyncIterator, Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Final

import grpc
import structlog
from headwater_api import wellknown
from headwater_api.nodev1 import node_pb2, node_pb2_grpc
from headwater_dial.nodes import CannotVerify, Dialer

from headwater_operator.metrics import Metrics
from headwater_operator.nodes.inbox import Inbox, NodeKey, load_of

log = structlog.get_logger(__name__)
SILENCE_S: Final = 5.0
CALL_S: Final = 3.0
FIRST_PAUSE_S: Final = 0.2
MAX_PAUSE_S: Final = 5.0
# Names, figures and rooms of one node; a full one of 1000 rooms is below 100 kB.
_MAX_MESSAGE: Final = 4 * 1024 * 1024
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE),
    # One connection for one Pod: a successor at the same address must not inherit its state.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.initial_reconnect_backoff_ms", 200),
)


class NodeUnreachable(Exception):
    """A node did not answer a call, or refused it."""


@dataclass(frozen=True, slots=True)
class Target:
    """A Pod to listen to; `address` is "ip:port", `tls` whether its Pod was made with it."""

    uid: str
    address: str
    tls: bool = False


@dataclass(slots=True)
class _Stream:
    scope: Hashable
    target: Target
    channel: grpc.aio.Channel
    task: asyncio.Task[None]


class NodeStreams:
    """Owns the streams' tasks; `close` awaits them."""

    def __init__(
        self, inbox: Inbox, *, token: str, rng: Random, metrics: Metrics, tls_dir: Path | None = None
    ) -> None:
        self._inbox = inbox
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._rng = rng
        self._dialer = Dialer(tls_dir)
        self._metrics = metrics
        self._streams: dict[NodeKey, _Stream] = {}

    async def sync(self, scope: Hashable, targets: Mapping[NodeKey, Target]) -> None:
        """Makes the streams of `scope` (one fleet) those to `targets`; other scopes' are not touched."""
        mine = {key: stream.target for key, stream in self._streams.items() if stream.scope == scope}
        gone = [key for key, target in mine.items() if targets.get(key) != target]
        for key in gone:
            await self._stop(key)
        for key, target in targets.items():
            if key not in self._streams:
                channel = self._open(key, target)
                if channel is None:
                    continue
                task = asyncio.create_task(self._listen(key, target, channel), name=f"node-stream {key[1]}")
                self._streams[key] = _Stream(scope, target, channel, task)

    def _open(self, key: NodeKey, target: Target) -> grpc.aio.Channel | None:
        """None where the node cannot be checked: its reports are missing then, which the status says."""
        try:
            return self._dialer.open(target.address, _OPTIONS, tls=target.tls)
        except CannotVerify as error:
            log.error("node not verifiable", node=key[1], error=str(error))
            return None

    def is_drained(self, key: NodeKey, uid: str) -> bool:
        """Whether the last report of that Pod is fresh and says that it is cordoned and empty."""
        load = self._inbox.get(key, uid)
        return load is not None and load.fresh and load.draining and load.empty

    async def drain(self, key: NodeKey, reason: str, deadline: datetime, moves_per_s: float) -> None:
        """Cordons the node and tells it the terms of its drain. Raises NodeUnreachable."""
        request = node_pb2.SetDrainingRequest(
            draining=True,
            reason=reason,
            move_rate=moves_per_s,
            deadline_ms=int(deadline.timestamp() * 1000),
        )
        await self._set_draining(key, request)

    async def uncordon(self, key: NodeKey, reason: str) -> None:
        """Returns the node to service. Raises NodeUnreachable."""
        await self._set_draining(key, node_pb2.SetDrainingRequest(draining=False, reason=reason))

    async def _set_draining(self, key: NodeKey, request: node_pb2.SetDrainingRequest) -> None:
        stream = self._streams.get(key)
        if stream is None:
            raise NodeUnreachable(f"{key[1]} has no stream")
        stub = node_pb2_grpc.NodeStub(stream.channel)
        try:
            await stub.SetDraining(request, metadata=self._metadata, timeout=CALL_S)
        except grpc.aio.AioRpcError as error:
            raise NodeUnreachable(f"{key[1]}: {error.code().name}: {error.details()}") from error

    async def close(self) -> None:
        """Ends every stream."""
        for key in list(self._streams):
            await self._stop(key)

    async def _stop(self, key: NodeKey) -> None:
        stream = self._streams.pop(key)
        stream.task.cancel()
        await asyncio.gather(stream.task, return_exceptions=True)
        await stream.channel.close(None)
        self._inbox.forget(key)

    async def _listen(self, key: NodeKey, target: Target, channel: grpc.aio.Channel) -> None:
        pause = FIRST_PAUSE_S
        while True:
            heard = 0
            try:
                heard = await self._read(key, target, channel)
            except grpc.aio.AioRpcError as error:
                self._metrics.node_reports.labels(outcome=error.code().name.lower()).inc()
                if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
                    log.warning("node refused our token", node=key[1], variable=wellknown.ENV_NODE_TOKEN)
            except TimeoutError:
                self._metrics.node_reports.labels(outcome="silent").inc()
                log.info("node is silent", node=key[1], seconds=SILENCE_S)
            pause = FIRST_PAUSE_S if heard else min(MAX_PAUSE_S, pause * 2)
            await asyncio.sleep(pause * self._rng.uniform(0.5, 1.0))

    async def _read(self, key: NodeKey, target: Target, channel: grpc.aio.Channel) -> int:
        """Reads until the stream ends; the number of reports. Raises AioRpcError, TimeoutError on silence."""
        stub = node_pb2_grpc.NodeStub(channel)
        call = stub.Watch(node_pb2.WatchRequest(), metadata=self._metadata)
        responses: AsyncIterator[node_pb2.WatchResponse] = aiter(call)
        heard = 0
        try:
            while True:
                async with asyncio.timeout(SILENCE_S):
                    response = await anext(responses, None)
                if response is None:
                    return heard
                if response.HasField("report") and self._take(key, target, response.report):
                    heard += 1
                    self._metrics.node_streams.inc(1 if heard == 1 else 0)
        finally:
            self._metrics.node_streams.dec(1 if heard else 0)
            call.cancel()

    def _take(self, key: NodeKey, target: Target, report: node_pb2.NodeReport) -> bool:
        if report.node_id != key[1]:
            self._metrics.node_reports.labels(outcome="wrong_node").inc()
            log.warning("a report of another node", node=key[1], says=report.node_id[:64])
            return False
        self._inbox.put(key, target.uid, load_of(report))
        self._metrics.node_reports.labels(outcome="taken").inc()
        return True
