"""Two gateways without HTTP over the same two fake nodes, which know nothing of each other but by them."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from headwater_api.ids import GatewayId, NodeId, RegionName, RoomId
from headwater_gateway.directory.archive import NoArchive
from headwater_gateway.nodes import commands, connection
from headwater_gateway.nodes.facts import NodePod
from headwater_gateway.room import actor, succession
from headwater_gateway.room.actor import RoomActor
from headwater_gateway.room.directory import DirectoryOptions, RoomDirectory
from headwater_gateway.room.ids import SystemIds
from headwater_gateway.room.succession import Succession
from headwater_gateway.signal.session_runner import SessionRunner
from livekit.protocol import rtc
from support.deadline import until
from support.fake_channel import FakeClient, hello
from support.fake_node import FakeNode, serving

ROOM = RoomId("demo")


@dataclass
class Gateway:
    """One gateway without its HTTP edge."""

    name: str
    directory: RoomDirectory
    succession: Succession
    runner: SessionRunner
    clients: list[FakeClient] = field(default_factory=list)

    def connect(self, identity: str, region: str = "", resume: str = "") -> FakeClient:
        client = FakeClient()
        more = {"reconnect": True, "reconnect_sid": resume} if resume else {}
        client.task = asyncio.create_task(self.runner(hello(identity, region=region, **more), client))
        self.clients.append(client)
        return client

    async def join(self, identity: str, region: str = "") -> FakeClient:
        client = self.connect(identity, region)
        await client.wait("join")
        return client

    async def take_over(self) -> RoomActor:
        room = await self.succession.take_over(ROOM)
        assert isinstance(room, RoomActor)
        return room

    def room(self) -> RoomActor:
        room = self.directory.room(ROOM)
        assert room is not None
        return room


@dataclass
class World:
    """The nodes by name, and both gateways."""

    nodes: dict[str, FakeNode]
    gateways: list[Gateway]

    def commands(self, node: str, kind: str, controller: str = "") -> list[Any]:
        return [
            getattr(command, kind)
            for request in self.nodes[node].applied
            for command in request.commands
            if command.WhichOneof("command") == kind and controller in ("", request.controller_id)
        ]

    async def kept(self) -> int:
        """The room's newest version, once every node of the room has it."""
        room = self.gateways[0].room()

        def is_kept() -> bool:
            held = [self.nodes[name].held.get(ROOM) for name in room.state.nodes]
            versions = [0 if row is None else row.snapshot_version for row in held]
            newest = room.keeper.version
            return room.keeper.due is None and min(versions, default=0) >= max(newest, 1)

        await until(is_kept, 15, "every node has the newest snapshot", 0.01)
        return room.keeper.version


# Deadlines that a machine without a processor to spare would miss. None of these tests is about them.
PATIENCE: Final = (
    (succession, "ASK_S", 10.0),
    (succession, "ASK_AGAIN_S", 10.0),
    (connection, "QUIET_S", 30.0),
    (connection, "INFO_DEADLINE_S", 10.0),
    (commands, "APPLY_DEADLINE_S", 15.0),
    (actor, "STORED_DEADLINE_S", 15.0),
    (actor, "ANSWER_DEADLINE_S", 20.0),
)


@asynccontextmanager
async def two_gateways() -> AsyncIterator[World]:
    """`gw-a` and `gw-b` over `eu-1` and `us-1`."""
    async with AsyncExitStack() as stack:
        patient = stack.enter_context(pytest.MonkeyPatch.context())
        for module, name, seconds in PATIENCE:
            patient.setattr(module, name, seconds)
        nodes: dict[str, FakeNode] = {}
        for number, (name, region) in enumerate((("eu-1", "eu"), ("us-1", "us"))):
            nodes[name] = FakeNode(name, region, media_address=f"127.0.0.1:{7000 + number}", interval_s=0.05)
            await stack.enter_async_context(serving(nodes[name]))
        made = World(nodes, [])
        for name in ("gw-a", "gw-b"):
            ids = SystemIds()
            directory = RoomDirectory(GatewayId(name), "token", DirectoryOptions(), ids=ids)
            succession = Succession(directory, ids, time.monotonic, NoArchive())
            runner = SessionRunner(directory, ids, lambda: 1)
            made.gateways.append(Gateway(name, directory, succession, runner))
            for node in nodes.values():
                directory.pool.pod_seen(NodePod(NodeId(node.node_id), RegionName(node.region), node.address))
        for gateway in made.gateways:
            await until(lambda g=gateway: len(g.directory.pool.reports()) == 2, 15, "nodes are up", 0.01)  # type: ignore[misc]
        try:
            yield made
        finally:
            for gateway in made.gateways:
                await gateway.succession.aclose()
                await gateway.directory.aclose(1.0)
                await gateway.runner.aclose(1.0)
                for client in gateway.clients:
                    await client.close()
                tasks = [c.task for c in gateway.clients if c.task]
                await asyncio.gather(*tasks, return_exceptions=True)


async def publish(client: FakeClient, kind: str, cid: str) -> str:
    client.add_track(kind, cid)
    client.offer((kind, cid))
    await client.wait("answer")
    return str((await client.wait("track_published")).track.sid)


def sync_state(client: FakeClient) -> rtc.SyncState:
    offer = client.all("offer")[-1]
    return rtc.SyncState(offer=rtc.SessionDescription(type="offer", sdp=offer.sdp))


async def resume(gateway: Gateway, was: FakeClient, identity: str) -> FakeClient:
    """As clients do: connect, hear `reconnect`, say what was agreed, answer the ICE restart."""
    back = gateway.connect(identity, resume=was.sid)
    await back.wait("reconnect")
    back.say(sync_state=sync_state(was))
    await back.wait("offer")
    return back
