"""A large meeting over ten nodes: what its clients are told grows with the room, not with its square.

HEADWATER_ROOM_SIZE: participants (250); the promise is for 1,000.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
from headwater_api.ids import GatewayId, NodeId, ParticipantIdentity, RegionName, RoomId, TrackSid
from headwater_gateway.nodes.facts import NodeFacts, NodePod
from headwater_gateway.room.directory import DirectoryOptions, RoomDirectory
from headwater_gateway.room.model import JoinRequest, RoomConfig, WantedTrack
from headwater_gateway.room.updates import COALESCE_S
from livekit.protocol import models, rtc
from support.deadline import until
from support.fake_node import FakeNode, serving

ROOM = RoomId("town-hall")
NODES = 10
REGIONS = [f"r{number}" for number in range(NODES)]
SIZE = int(os.environ.get("HEADWATER_ROOM_SIZE", "250"))
RATE = 200  # changes a second

pytestmark = pytest.mark.timeout(60 + SIZE // 5)


@dataclass
class Ear:
    """A client's session: counts what it is told of the roster."""

    updates: int = 0
    rows: int = 0

    def deliver(self, message: rtc.SignalResponse, encoded: bytes) -> None:
        if message.HasField("update"):
            self.updates += 1
            self.rows += len(message.update.participants)

    def change_wanted(self, changed: tuple[WantedTrack, ...], dropped: tuple[TrackSid, ...]) -> None:
        pass

    def move(
        self, facts: NodeFacts, why: str, *, was_connected: bool, delay_s: float, head_start_s: float
    ) -> None:
        raise AssertionError("nobody moves here")

    def end(self, leave: rtc.LeaveRequest | None, why: str) -> None:
        pass

    def drop(self, why: str) -> None:
        pass


@asynccontextmanager
async def gateway() -> AsyncIterator[RoomDirectory]:
    """Over a node in each of ten regions."""
    options = DirectoryOptions(defaults=RoomConfig(departure_timeout_s=0))
    directory = RoomDirectory(GatewayId("gw-0"), "token", options)
    async with AsyncExitStack() as stack:
        for region in REGIONS:
            node = FakeNode(f"{region}-1", region, max_connections=4 * SIZE)
            await stack.enter_async_context(serving(node))
            directory.pool.pod_seen(NodePod(NodeId(node.node_id), RegionName(region), node.address))
        try:
            await until(lambda: len(directory.pool.reports()) == NODES, 10, "the nodes are up", 0.01)
            yield directory
        finally:
            await directory.aclose(2.0)


async def test_roster_updates_grow_with_the_room() -> None:
    async with gateway() as directory:
        ears = [Ear() for _ in range(SIZE)]
        permission = models.ParticipantPermission(can_subscribe=True, can_update_metadata=True)
        sids = []
        began = time.monotonic()
        for number, ear in enumerate(ears):
            who = ParticipantIdentity(f"p{number}")
            request = JoinRequest(
                who, region=RegionName(REGIONS[number % len(REGIONS)]), permission=permission
            )
            actor, joined = await directory.join(ROOM, request, ear)
            sids.append(joined.sid)
        joining_s = time.monotonic() - began
        told = sum(ear.updates for ear in ears)
        windows = joining_s / COALESCE_S + 2
        assert told <= windows * SIZE, "each client hears of many joins in one message"
        state = actor.state
        await until(lambda: all(ear.updates for ear in ears), 15, "the last have heard of themselves", 0.02)
        await until(lambda: state.updates.due is None, 15, "the roster is still", 0.02)
        for ear in ears:
            ear.updates = ear.rows = 0
        began, cpu = time.monotonic(), time.process_time()
        changes = 2 * RATE
        for number in range(changes):  # one participant after the other changes its name
            await asyncio.sleep(max(0.0, began + number / RATE - time.monotonic()))
            request = rtc.UpdateParticipantMetadata(name=f"n{number}")
            actor.request(sids[number % SIZE], rtc.SignalRequest(update_metadata=request))
        await until(lambda: all(ear.rows >= changes for ear in ears), 20, "all have heard of all", 0.02)
        took, cpu = time.monotonic() - began, time.process_time() - cpu
        told = sum(ear.updates for ear in ears)
        each = f"{told / took:.0f} messages/s, {told / took / SIZE:.1f} to each"
        print(f"{SIZE} on {len(state.nodes)} nodes, joined in {joining_s:.1f} s (one after the other)")
        print(f"{changes / took:.0f} changes/s are told by {each}; CPU {cpu / took:.0%}")
        assert len(state.nodes) == NODES
        assert told <= 1.5 * SIZE * (took / COALESCE_S + 2), "so many a second to each, however many change"
