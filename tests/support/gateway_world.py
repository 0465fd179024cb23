"""A gateway without its HTTP edge over nodes without media: sessions, rooms and node commands end to end."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from headwater_api.ids import GatewayId, NodeId, RegionName
from headwater_api.nodev1 import node_pb2
from headwater_gateway.nodes.facts import NodePod
from headwater_gateway.room.directory import DirectoryOptions, RoomDirectory
from headwater_gateway.room.model import RoomConfig
from headwater_gateway.signal.session_runner import SessionRunner
from headwater_gateway.signal.types import ClientHello
from support.deadline import until
from support.fake_channel import FakeClient
from support.fake_node import FakeNode, serving


class CountingIds:
    """Ids in order, secrets that differ."""

    def __init__(self) -> None:
        self._next = itertools.count(1)

    def sid(self, prefix: str) -> str:
        return f"{prefix}{next(self._next):04}"

    def secret(self, length: int) -> bytes:
        return next(self._next).to_bytes(length, "big")

    def number(self) -> int:
        return next(self._next)


@dataclass
class World:
    """A gateway without its HTTP edge, and its nodes."""

    directory: RoomDirectory
    runner: SessionRunner
    nodes: dict[str, FakeNode]
    stacks: dict[str, AsyncExitStack]
    clients: list[FakeClient] = field(default_factory=list)

    async def join(self, who: ClientHello, *, auto_answer: bool = True) -> FakeClient:
        client = self.connect(who, auto_answer=auto_answer)
        await client.wait("join")
        return client

    def connect(self, who: ClientHello, *, auto_answer: bool = True) -> FakeClient:
        client = FakeClient(auto_answer)
        client.task = asyncio.create_task(self.runner(who, client))
        self.clients.append(client)
        return client

    def commands(self, node: str, kind: str) -> list[Any]:
        found = []
        for request in self.nodes[node].applied:
            for command in request.commands:
                if command.WhichOneof("command") == kind:
                    found.append(getattr(command, kind))
        return found

    async def command(
        self, node: str, kind: str, count: int = 1, match: Callable[[Any], bool] = lambda _: True
    ) -> Any:
        """The count-th command of a kind at a node."""

        def find() -> Any:
            found = [c for c in self.commands(node, kind) if match(c)]
            return found[count - 1] if len(found) >= count else None

        return await until(find, 3, f"{count} {kind} at {node}", 0.005)

    async def kill(self, node: str) -> None:
        await self.stacks.pop(node).aclose()

    def emit(self, node: str, event: node_pb2.Event) -> None:
        event.room_id = event.room_id or "demo"
        self.nodes[node].emit(event)


@asynccontextmanager
async def gateway_world() -> AsyncIterator[World]:
    """Nodes eu-1, us-1 and us-2; a room ends with its last participant."""
    ids = CountingIds()
    directory = RoomDirectory(
        GatewayId("gateway-0"),
        "token",
        DirectoryOptions(defaults=RoomConfig(resume_grace_s=0.5, departure_timeout_s=0)),
        ids=ids,
    )
    runner = SessionRunner(directory, ids, lambda: 1_700_000_000_000)
    world = World(directory, runner, {}, {})
    for name, region in (("eu-1", "eu"), ("us-1", "us"), ("us-2", "us")):
        node = FakeNode(
            name, region, with_token="token", media_address=f"127.0.0.1:{7000 + len(world.nodes)}"
        )
        stack = AsyncExitStack()
        await stack.enter_async_context(serving(node))
        world.nodes[name], world.stacks[name] = node, stack
        directory.pool.pod_seen(NodePod(NodeId(name), RegionName(region), node.address))
    await until(lambda: len(directory.pool.reports()) == 3, 5, "all nodes are up", 0.01)
    try:
        yield world
    finally:
        await directory.aclose(1.0)
        await runner.aclose(1.0)
        for client in world.clients:
            await client.close()
        await asyncio.gather(*(c.task for c in world.clients if c.task), return_exceptions=True)
        for stack in world.stacks.values():
            await stack.aclose()
