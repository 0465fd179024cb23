"""All nodes: follows their Pods, keeps their connections, opens command queues for rooms."""

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import TYPE_CHECKING

import grpc
import structlog
from headwater_api.ids import GatewayId, NodeId, RoomId
from headwater_api.nodev1 import node_pb2
from headwater_dial.nodes import CannotVerify, Dialer
from headwater_planner.place import NodeView

from headwater_gateway.nodes.commands import LEASE_MS, CommandQueue
from headwater_gateway.nodes.connection import CHANNEL_OPTIONS, NodeConnection, NodeListener
from headwater_gateway.nodes.decisions import Decisions
from headwater_gateway.nodes.facts import NodeFacts, NodePod
from headwater_gateway.nodes.liveness import Evidence, is_dead, neighbours
from headwater_gateway.own_time import OwnTime
from headwater_gateway.tasks import report

if TYPE_CHECKING:
    from headwater_gateway.join_traces import JoinTraces

log = structlog.get_logger(__name__)


class NodePool:
    """Owner of every node connection and command queue; `aclose` ends them all."""

    def __init__(
        self,
        token: str,
        controller_id: GatewayId,
        listener: NodeListener,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        dialer: Dialer | None = None,
    ) -> None:
        self._dialer = dialer or Dialer()
        self._token, self._controller_id, self._listener = token, controller_id, listener
        self._own = OwnTime(clock)
        self._rng = rng or random.Random()
        self._nodes: dict[NodeId, NodeConnection] = {}
        self.decisions = Decisions()
        self.traces: JoinTraces | None = None
        self._runs: dict[NodeId, asyncio.Task[None]] = {}
        self._queues: set[asyncio.Task[None]] = set()

    def pod_seen(self, pod: NodePod) -> None:
        """A Pod that is there with an address. Seen again with another address, it is another node."""
        known = self._nodes.get(pod.node_id)
        if known is not None and known.pod == pod:
            known.pod_seen(pod)
            return
        if known is not None:
            self.pod_gone(pod.node_id, "its Pod has a new address")
        try:
            channel = self._dialer.open(pod.address, CHANNEL_OPTIONS, tls=pod.tls)
        except CannotVerify as error:
            log.error("node.not_verifiable", node=pod.node_id, reason=str(error))
            return
        self._own.start()
        connection = NodeConnection(
            pod,
            channel=channel,
            token=self._token,
            controller_id=self._controller_id,
            listener=self._listener,
            own=self._own,
            rng=self._rng,
            judge=lambda silent_s, probes, refused: self._is_dead(pod.node_id, silent_s, probes, refused),
        )
        self._nodes[pod.node_id] = connection
        run = asyncio.create_task(connection.run(), name=f"node {pod.node_id}", context=Context())
        report(run, "node.task_failed")
        self._runs[pod.node_id] = run

    def pod_gone(self, node_id: NodeId, why: str = "its Pod is gone") -> None:
        """The Pod was deleted or has ended."""
        connection = self._nodes.pop(node_id, None)
        if connection is None:
            return
        connection.lose(why)
        run = self._runs.pop(node_id)
        run.cancel()
        self._keep(run)

    def pods(self) -> frozenset[NodeId]:
        return frozenset(self._nodes)

    def views(self) -> tuple[NodeView, ...]:
        """The planner's view of every node that is up."""
        found = (connection.view() for connection in self._nodes.values())
        return tuple(view for view in found if view is not None)

    def facts(self, node_id: NodeId) -> NodeFacts | None:
        """None if the node is not up."""
        connection = self._nodes.get(node_id)
        return connection.facts if connection is not None else None

    def all_can(self, feature: node_pb2.Feature.ValueType) -> bool:
        """Whether every node can do that: rooms may spread to any. One not met yet may be an older one."""
        return all(c.facts is not None and feature in c.facts.features for c in self._nodes.values())

    def reports(self) -> tuple[node_pb2.NodeReport, ...]:
        """The latest report of each node that is up."""
        return tuple(c.report for c in self._nodes.values() if c.report is not None)

    def room_reports(self, room_id: RoomId) -> dict[NodeId, node_pb2.RoomReport]:
        """Who commands the room, as each node that has it last said."""
        rows = ((node_id, c.rooms.get(room_id)) for node_id, c in self._nodes.items())
        return {node_id: row for node_id, row in rows if row is not None}

    def all_room_reports(self) -> dict[RoomId, dict[NodeId, node_pb2.RoomReport]]:
        """The same for every room that any node has."""
        found: dict[RoomId, dict[NodeId, node_pb2.RoomReport]] = {}
        for node_id, connection in self._nodes.items():
            for room_id, row in connection.rooms.items():
                found.setdefault(RoomId(room_id), {})[node_id] = row
        return found

    async def rooms_held(
        self, room_id: RoomId, nodes: Iterable[NodeId], deadline_s: float, *, with_blobs: bool = True
    ) -> dict[NodeId, node_pb2.RoomHeld | None]:
        """What these nodes hold of a room, with its snapshot; None: nothing. Silent nodes are left out."""
        request = node_pb2.RoomsRequest(room_ids=[room_id], with_blobs=with_blobs)

        async def ask(node_id: NodeId) -> tuple[NodeId, node_pb2.RoomsResponse] | None:
            try:
                return node_id, await self._nodes[node_id].rooms_held(request, deadline_s)
            except (KeyError, grpc.aio.AioRpcError) as error:
                log.warning("node.rooms_unknown", node=node_id, room=room_id, reason=type(error).__name__)
                return None

        answers = await asyncio.gather(*(ask(node_id) for node_id in nodes))
        return {a[0]: a[1].rooms[0] if a[1].rooms else None for a in answers if a is not None}

    async def claim_room(
        self,
        room_id: RoomId,
        epoch: int,
        nodes: Iterable[NodeId],
        deadline_s: float,
        *,
        audio_top_n: int = 0,
        commands: tuple[node_pb2.Command, ...] = (),
    ) -> None:
        """From now on these nodes obey this gateway's claim, and no lesser one. Silent nodes are left out."""
        request = node_pb2.ApplyRequest(
            room_id=room_id,
            epoch=epoch,
            controller_id=self._controller_id,
            lease_ms=LEASE_MS,
            commands=commands,
            audio_top_n=audio_top_n,
        )

        async def tell(node_id: NodeId) -> None:
            try:
                await self._nodes[node_id].apply(request, deadline_s)
            except (KeyError, grpc.aio.AioRpcError) as error:
                log.warning("node.not_claimed", node=node_id, room=room_id, reason=type(error).__name__)

        await asyncio.gather(*(tell(node_id) for node_id in nodes))

    def promise(self, node_id: NodeId) -> None:
        connection = self._nodes.get(node_id)
        if connection is not None:
            connection.promise()

    def open_queue(
        self,
        node_id: NodeId,
        room_id: RoomId,
        epoch: int,
        *,
        audio_top_n: Callable[[], int],
        on_failed: Callable[[str], None],
        on_refused: Callable[[node_pb2.Command, str], None],
        on_stale: Callable[[str], None],
        on_stored: Callable[[int], None],
    ) -> CommandQueue:
        """A room's commands to a node. KeyError if the node is not known."""
        node = self._nodes[node_id]
        batches, traces = node.batches, self.traces
        queue = CommandQueue(
            node_id,
            room_id=room_id,
            epoch=epoch,
            controller_id=self._controller_id,
            applier=batches if traces is None else traces.commands(node_id, batches.apply),
            turns=node.turns,
            audio_top_n=audio_top_n,
            on_failed=on_failed,
            on_refused=on_refused,
            on_stale=on_stale,
            on_stored=on_stored,
            rng=self._rng,
        )
        task = asyncio.create_task(queue.run(), name=f"commands {room_id} {node_id}", context=Context())
        report(task, "node.task_failed")
        self._keep(task)
        return queue

    def _is_dead(self, node_id: NodeId, silent_s: float, probes_failed: int, refused: bool) -> bool:
        up = [c for c in self._nodes.values() if c.is_up]
        reports = [heard for c in up if (heard := c.heard()) is not None]
        heard_by, missed_by = neighbours(node_id, silent_s, reports)
        return is_dead(
            Evidence(
                silent_s,
                probes_failed,
                refused,
                heard_by,
                missed_by,
                suspects=sum(1 for c in up if c.is_suspect),
                known=len(up),
            )
        )

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._queues.add(task)
        task.add_done_callback(self._queues.discard)

    async def aclose(self, drain_s: float = 1.0) -> None:
        """End every task and wait for it; closed queues get `drain_s` seconds to say farewell."""
        if self._queues:
            await asyncio.wait(self._queues, timeout=drain_s)
        tasks = [*self._runs.values(), *self._queues]
        self._nodes.clear()
        self._runs.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, self._own.aclose(), return_exceptions=True)
