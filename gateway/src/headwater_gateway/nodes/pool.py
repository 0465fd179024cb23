"""All nodes: follows their Pods, keeps their connections, opens command queues for rooms."""

import asyncio
import random
import time
from collections.abc import Callable
from contextvars import Context

import structlog
from headwater_api.ids import GatewayId, NodeId, RoomId
from headwater_api.nodev1 import node_pb2
from headwater_planner.place import NodeView

from headwater_gateway.nodes.commands import CommandQueue
from headwater_gateway.nodes.connection import NodeConnection, NodeListener
from headwater_gateway.nodes.facts import NodeFacts, NodePod, believes_silence

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
    ) -> None:
        self._token, self._controller_id, self._listener = token, controller_id, listener
        self._clock = clock
        self._rng = rng or random.Random()
        self._nodes: dict[NodeId, NodeConnection] = {}
        self._runs: dict[NodeId, asyncio.Task[None]] = {}
        self._queues: set[asyncio.Task[None]] = set()

    def pod_seen(self, pod: NodePod) -> None:
        """A Pod that is there with an address. Seen again with another address, it is another node."""
        known = self._nodes.get(pod.node_id)
        if known is not None and known.pod == pod:
            return
        if known is not None:
            self.pod_gone(pod.node_id, "its Pod has a new address")
        connection = NodeConnection(
            pod,
            token=self._token,
            controller_id=self._controller_id,
            listener=self._listener,
            clock=self._clock,
            rng=self._rng,
            believes_silence=lambda: self._believes_silence(pod.node_id),
        )
        self._nodes[pod.node_id] = connection
        self._runs[pod.node_id] = asyncio.create_task(
            connection.run(), name=f"node {pod.node_id}", context=Context()
        )

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

    def reports(self) -> tuple[node_pb2.NodeReport, ...]:
        """The latest report of each node that is up."""
        return tuple(c.report for c in self._nodes.values() if c.report is not None)

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
        on_failed: Callable[[str], None],
        on_refused: Callable[[node_pb2.Command, str], None],
        on_stale: Callable[[str], None],
    ) -> CommandQueue:
        """A room's commands to a node. KeyError if the node is not known."""
        queue = CommandQueue(
            node_id,
            room_id=room_id,
            epoch=epoch,
            controller_id=self._controller_id,
            applier=self._nodes[node_id],
            on_failed=on_failed,
            on_refused=on_refused,
            on_stale=on_stale,
            rng=self._rng,
        )
        task = asyncio.create_task(queue.run(), name=f"commands {room_id} {node_id}", context=Context())
        self._keep(task)
        return queue

    def _believes_silence(self, node_id: NodeId) -> bool:
        up = [c for c in self._nodes.values() if c.is_up]
        suspects = sum(1 for c in up if c.is_suspect)
        links = (link for c in up if c.report and not c.is_suspect for link in c.report.links)
        peer_says_down = any(link.peer_node_id == node_id and not link.up for link in links)
        return believes_silence(suspects, len(up), peer_says_down=peer_says_down)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._queues.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._queues.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("node.task_failed", task=task.get_name(), exc_info=task.exception())

    async def aclose(self, drain_s: float = 1.0) -> None:
        """End every task and wait for it; closed queues get `drain_s` seconds to say farewell."""
        if self._queues:
            await asyncio.wait(self._queues, timeout=drain_s)
        tasks = [*self._runs.values(), *self._queues]
        self._nodes.clear()
        self._runs.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
