"""Two regions lose each other while one locks the room and bans somebody; then they meet again.

HEADWATER_CUTS: how often (1).
"""

import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from headwater_gateway.room import moderation, snapshot
from livekit.protocol import rtc
from support.deadline import until
from support.fake_node import FakeNode
from support.gateways import SignalClient
from support.two_regions import REGIONS, TwoRegions, two_regions

CUTS = int(os.environ.get("HEADWATER_CUTS", "1"))
HOST = {"claims": {"video": {"roomAdmin": True}}}

pytestmark = pytest.mark.timeout(60 + 60 * CUTS)


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TwoRegions]:
    async with two_regions(tmp_path, monkeypatch) as made:
        yield made


async def _refused(url: str, who: str, room: str) -> str:
    """Why somebody may not come in; empty: it may."""
    try:
        async with SignalClient(url, who, room):
            return ""
    except aiohttp.WSServerHandshakeError as error:
        return (error.headers or {}).get("X-Headwater-Reason", str(error.status))


def _kept(node: FakeNode, room: str) -> int:
    """How many participants the node's snapshot of the room has."""
    held = node.held.get(room)
    return len(snapshot.decode(held.snapshot).packed["participants"]) if held and held.snapshot else 0


async def _one_owner(world: TwoRegions, room: str) -> bool:
    """One gateway has the room, and every node that has it obeys that one's claim."""
    owners = world.owners(room)
    held = {
        (node.held[room].epoch, node.held[room].controller_id) for node in world.nodes if room in node.held
    }
    claims = {(a.keeper.claim.epoch, a.keeper.claim.gateway) for a in owners.values()}
    return len(owners) == 1 and held == claims


@pytest.mark.parametrize("number", range(CUTS))
async def test_a_lock_and_a_ban_of_one_side_hold_on_both_afterwards(world: TwoRegions, number: int) -> None:
    room = f"room-{number}"
    near, far = number % 2, 1 - number % 2  # the host's side
    async with AsyncExitStack() as stack:

        async def come(who: str, side: int, **more: object) -> SignalClient:
            client = SignalClient(world.urls[side], who, room, region=REGIONS[side], **more)  # type: ignore[arg-type]
            return await stack.enter_async_context(client)

        ann = await come("ann", near, **HOST)
        bob, eve = await come("bob", far), await come("eve", far)
        await until(lambda: all(_kept(n, room) == 3 for n in world.nodes), 10, "nodes hold the whole room")
        await world.cut()
        back = {}
        for who, was in (("bob", bob), ("eve", eve)):
            if was.closed:
                back[who] = await come(who, far, reconnect="1", sid=was.me.sid, first="reconnect")
                await back[who].say(sync_state=rtc.SyncState())
        await until(lambda: len(world.owners(room)) == 2, 15, "each side has the room")
        actor = world.owners(room)[near]
        await actor.ask(lambda state, _: moderation.set_lock(state, True))
        await actor.ask(lambda state, now: moderation.remove(state, "eve", now, ban=True))
        assert await _refused(world.urls[near], "mallory", room) == "RoomLocked"

        began = time.monotonic()
        await world.mend()
        await until(lambda: _one_owner(world, room), 20, "one owner, whom all nodes obey", 0.05)
        (actor,) = world.owners(room).values()
        await until(lambda: actor.state.of_identity("eve") is None, 15, "eve is out", 0.05)
        print(f"one owner and the ban everywhere {time.monotonic() - began:.1f} s after the regions met")
        for url in world.urls:
            assert await _refused(url, "mallory", room) == "RoomLocked"
            assert await _refused(url, "eve", room) == "Banned"
        present = {p.identity for p in actor.state.participants.values() if p.moving_at is None}
        assert "eve" not in present and present <= {"ann", "bob"}
        if ann.closed:
            await come("ann", near, **HOST)
        if bob.closed and (back["bob"].closed if "bob" in back else True):
            await come("bob", far)  # who was in is let back in, lock or no lock
