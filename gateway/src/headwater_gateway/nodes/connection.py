"""One node: its gRPC channel, its event stream and the verdict on its life."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol

import grpc
import structlog
from headwater_api.ids import GatewayId, NodeId
from headwater_api.nodev1 import node_pb2, node_pb2_grpc
from headwater_planner.place import NodeView

from headwater_gateway.backoff import Backoff
from headwater_gateway.nodes.batches import Batches, Metadata
from headwater_gateway.nodes.facts import NodeFacts, NodePod, Promises, node_view
from headwater_gateway.nodes.liveness import QUIET_S
from headwater_gateway.nodes.turns import Turns
from headwater_gateway.own_time import OwnTime

log = structlog.get_logger(__name__)

INFO_DEADLINE_S: Final = 0.5
PROBE_DEADLINE_S: Final = 0.2
PROBE_PAUSE_S: Final = 0.05
VIEW_KEPT_S: Final = 0.05

# Whether a node is dead that has been silent for so many seconds, after so many failed probes.
Judge = Callable[[float, int, bool], bool]

CHANNEL_OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    # Nodes are reached directly by Pod address; a proxy from the environment would be wrong.
    ("grpc.enable_http_proxy", 0),
)


class NodeListener(Protocol):
    """Whoever wants to know about nodes. Called on the event loop; must not block or raise."""

    def on_node_up(self, facts: NodeFacts) -> None: ...
    def on_node_lost(self, node_id: NodeId, why: str) -> None: ...
    def on_node_event(self, node_id: NodeId, event: node_pb2.Event) -> None: ...


def _is_refusal(error: grpc.aio.AioRpcError) -> bool:
    return error.code() == grpc.StatusCode.UNAVAILABLE and "refused" in (error.details() or "").lower()


class NodeConnection:
    """Keeps one node's channel and Watch stream; tells the listener when it comes and when it is lost."""

    def __init__(
        self,
        pod: NodePod,
        *,
        token: str,
        controller_id: GatewayId,
        listener: NodeListener,
        own: OwnTime,
        rng: random.Random,
        judge: Judge,
        channel: grpc.aio.Channel,
    ) -> None:
        self.pod = pod
        self._controller_id = controller_id
        self._listener = listener
        self._own, self._clock = own, own.now
        self._judge = judge
        self._backoff = Backoff(rng)
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._channel = channel
        self._stub = node_pb2_grpc.NodeStub(self._channel)
        self.batches, self.turns = Batches(self.apply, self._apply_batch), Turns()
        self._probes_failed: int | None = None  # None: not under suspicion
        self._promises = Promises()
        self._view: tuple[float, NodeView] | None = None  # as of when
        self._heard_at = own.now()
        self.facts: NodeFacts | None = None
        self.report: node_pb2.NodeReport | None = None
        self.rooms: dict[str, node_pb2.RoomReport] = {}  # of the last report
        self._log = log.bind(node=pod.node_id, address=pod.address)

    @property
    def is_up(self) -> bool:
        return self.facts is not None

    @property
    def is_suspect(self) -> bool:
        """Up until now, and silent or broken since."""
        return self.facts is not None and self._probes_failed is not None

    def pod_seen(self, pod: NodePod) -> None:
        """The same Pod; whoever joins from now on is told the external addresses that it has now."""
        self.pod = pod
        if self.facts is not None:
            self.facts = replace(self.facts, external_addresses=pod.external)

    def promise(self) -> None:
        """Count a participant that was placed here until the node reports it."""
        self._promises.add(self._clock())
        self._view = None

    def heard(self) -> tuple[node_pb2.NodeReport, float] | None:
        """Its last report and the report's age in seconds; None unless it speaks."""
        if self.report is None or self._probes_failed is not None:
            return None
        return self.report, self._clock() - self._heard_at

    def view(self) -> NodeView | None:
        """The planner's view; None while the node is not up. A suspect node looks stale.

        What it says of time is up to VIEW_KEPT_S old: every room asks for every node's.
        """
        if self.facts is None:
            return None
        now = self._clock()
        if self.is_suspect:
            return self._made_view(self.facts, float("inf"), now)
        if self._view is None or now - self._view[0] > VIEW_KEPT_S:
            self._view = now, self._made_view(self.facts, now - self._heard_at, now)
        return self._view[1]

    def _made_view(self, facts: NodeFacts, age_s: float, now: float) -> NodeView:
        promised = self._promises.count(now)
        return node_view(facts, self.report, age_s, promised, cluster=self.pod.cluster)

    async def apply(
        self, request: node_pb2.ApplyRequest, deadline_s: float, more: Metadata = ()
    ) -> node_pb2.ApplyResponse:
        """Commands in a call of their own, with more metadata than all have. Raises grpc.aio.AioRpcError."""
        return await self._stub.Apply(request, timeout=deadline_s, metadata=(*self._metadata, *more))

    async def _apply_batch(
        self, request: node_pb2.ApplyBatchRequest, deadline_s: float
    ) -> node_pb2.ApplyBatchResponse:
        return await self._stub.ApplyBatch(request, timeout=deadline_s, metadata=self._metadata)

    async def rooms_held(self, request: node_pb2.RoomsRequest, deadline_s: float) -> node_pb2.RoomsResponse:
        """What the node holds of rooms. Raises grpc.aio.AioRpcError."""
        return await self._stub.Rooms(request, timeout=deadline_s, metadata=self._metadata)

    async def run(self) -> None:
        """Greet, follow, judge; for ever, until cancelled."""
        try:
            while True:
                if await self._greet():
                    await self._follow()
                    self._probes_failed = 0
                    continue
                await asyncio.sleep(PROBE_PAUSE_S if self.is_suspect else self._backoff.next())
        finally:
            await self._channel.close(None)

    async def _greet(self) -> bool:
        try:
            deadline = PROBE_DEADLINE_S if self.is_suspect else INFO_DEADLINE_S
            info = await self._stub.Info(node_pb2.InfoRequest(), timeout=deadline, metadata=self._metadata)
            facts = NodeFacts.of(info)
        except grpc.aio.AioRpcError as error:
            if self._probes_failed is not None:
                self._probes_failed += 1
                silent_s = self._clock() - self._heard_at
                if self._judge(silent_s, self._probes_failed, _is_refusal(error)):
                    self.lose(f"silent for {silent_s:.1f} s, {error.code().name}: {error.details()}")
            return False
        except ValueError as error:
            self._log.warning("node.unusable", reason=str(error))
            return False
        self._accept(facts)
        return True

    def _accept(self, facts: NodeFacts) -> None:
        known = self.facts
        if known is not None and known.incarnation != facts.incarnation:
            self.lose("it was started anew")
        self._probes_failed = None
        self._backoff.reset()
        self._heard_at = self._clock()
        if self.facts is None:
            self.facts, self._view = replace(facts, external_addresses=self.pod.external), None
            self.batches.node_is_up()
            self._log.info("node.up", region=facts.region, incarnation=facts.incarnation)
            self._listener.on_node_up(self.facts)

    def lose(self, why: str) -> None:
        """Declare the node gone. Nothing happens if it was not up."""
        if self.facts is None:
            return
        self.facts, self.report, self._probes_failed = None, None, None
        self._promises.clear()
        self.rooms = {}
        self._log.warning("node.lost", reason=why)
        self._listener.on_node_lost(self.pod.node_id, why)

    async def _follow(self) -> None:
        """Read the Watch stream until it breaks, ends or falls silent."""
        call = self._stub.Watch(
            node_pb2.WatchRequest(controller_id=self._controller_id), metadata=self._metadata
        )
        try:
            while True:
                response = await self._read(call)
                if not isinstance(response, node_pb2.WatchResponse):
                    return  # end of stream
                self._take(response)
        except TimeoutError:
            self._log.info("node.silent", seconds=round(self._clock() - self._heard_at, 2))
        except grpc.aio.AioRpcError as error:
            self._log.info("node.stream_broken", code=error.code().name)
        finally:
            call.cancel()

    async def _read(
        self, call: "grpc.aio.UnaryStreamCall[node_pb2.WatchRequest, node_pb2.WatchResponse]"
    ) -> object:
        """The next response. TimeoutError: none came in time, and this process's own loop did not stand."""
        read = asyncio.ensure_future(call.read())
        try:
            while True:
                stood = self._own.stood()
                done, _ = await asyncio.wait({read}, timeout=QUIET_S)
                if done:
                    return read.result()
                if self._own.stood() == stood:
                    raise TimeoutError
        finally:
            read.cancel()

    def _take(self, response: node_pb2.WatchResponse) -> None:
        if response.HasField("report"):
            self._heard_at = self._clock()
            self.report, self._view = response.report, None
            self.rooms = {row.room_id: row for row in response.report.rooms}
        for event in response.events:
            self._listener.on_node_event(self.pod.node_id, event)
