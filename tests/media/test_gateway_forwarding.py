"""ForwardParticipant with real clients: who watches another room sees and hears the forwarded participant."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from headwater_sandbox.demo.fleet import Fleet
from headwater_sandbox.demo.judge import Pair
from livekit import api
from support.clients import bots, until_seen
from support.deadline import until
from support.gateway_fleet import API_KEY, API_SECRET, GatewayFleet, gateway_fleet

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[GatewayFleet]:
    async with gateway_fleet(tmp_path) as running:
        await until(running.is_whole, 30, "the gateways know the nodes and each other")
        yield running


async def until_fresh(clients: Fleet, pairs: list[Pair]) -> None:
    """All of them decode again what was sent from now on."""
    since_ms = time.monotonic_ns() // 1_000_000

    def fresh() -> bool:
        seen = clients.pairs()
        return all(pair in seen and (seen[pair].last_frame_ms or 0) > since_ms + 500 for pair in pairs)

    await until(fresh, 30, f"{pairs} go on")
    await until_seen(clients, pairs, 30)


async def test_a_forwarded_participant_is_seen_in_the_other_room_whatever_moves(fleet: GatewayFleet) -> None:
    """On its own node and on another one; after it was led to another node; after a gateway's death."""
    rooms = [f"room-{n}" for n in range(40)]
    home = rooms[0]
    there = next(room for room in rooms if fleet.owner(room) != fleet.owner(home))
    specs = [
        fleet.bot("ann", 0, "eu", home),
        fleet.bot("dora", 1, "eu", there),
        fleet.bot("bob", 2, "us", there),
    ]
    watched = [("dora", "ann"), ("bob", "ann")]
    url = fleet.balancer.url.replace("ws", "http", 1)
    async with bots(specs) as clients, api.LiveKitAPI(url, API_KEY, API_SECRET) as livekit:
        await until_seen(clients, [("dora", "bob"), ("bob", "dora")], 60)
        assert not {("dora", "ann"), ("bob", "ann")} & clients.pairs().keys()
        await livekit.room.forward_participant(
            api.ForwardParticipantRequest(room=home, identity="ann", destination_room=there)
        )
        await until_seen(clients, watched, 40)
        nodes = {name: bot.attributes["headwater.node"] for name, bot in clients.bots.items()}
        assert nodes == {"ann": "eu-1", "dora": "eu-1", "bob": "us-1"}, "one node has both ends of the link"

        await livekit.room.move_participant(
            api.MoveParticipantRequest(room=home, identity="ann", destination_room=home)
        )
        await until(lambda: clients.bots["ann"].attributes["headwater.node"] == "us-1", 20, "ann is on us-1")
        await until_fresh(clients, watched)

        await until(lambda: fleet.has_kept(there, 3, 6), 20, "the nodes hold the room with all three")
        await fleet.kill(fleet.owner(there))
        await until_fresh(clients, [*watched, ("bob", "dora")])

        remove = api.RoomParticipantIdentity(room=there, identity="ann")
        await livekit.room.remove_participant(remove)

        async def is_gone() -> bool:
            listed = await livekit.room.list_participants(api.ListParticipantsRequest(room=there))
            return sorted(p.identity for p in listed.participants) == ["bob", "dora"]

        await until(is_gone, 20, "she is no longer shown")
        listed = await livekit.room.list_participants(api.ListParticipantsRequest(room=home))
        assert [p.identity for p in listed.participants] == ["ann"], "she is still in her own room"
