"""Gateways killed again and again under live clients, and all at once for a minute.

HEADWATER_CHAOS_KILLS (default 20), HEADWATER_CHAOS_AWAY_S (60).
Figures add up over runs in the folder HEADWATER_CHAOS_FIGURES.
"""

import asyncio
import os
import random
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from support.bystanders import bystanders
from support.clients import bots, until_seen
from support.deadline import until
from support.figures import Figures
from support.gateway_fleet import GatewayFleet, gateway_fleet
from support.protocol_client import ProtocolClient
from support.sdk_client import counting, sdk_client

KILLS = int(os.environ.get("HEADWATER_CHAOS_KILLS", "20"))
AWAY_S = float(os.environ.get("HEADWATER_CHAOS_AWAY_S", "60"))
GAP_MS = 1000  # no fault shows as less on a machine that does other work too

pytestmark = pytest.mark.timeout(int(120 + 40 * KILLS + 6 * AWAY_S))


async def owner_of(fleet: GatewayFleet, room: str) -> int:
    """The gateway that nodes obey."""
    node = next(iter(fleet.nodes))

    async def known() -> str:
        held = await fleet.kept(node, room)
        return held.controller_id if held is not None else ""

    name = await until(known, 10, "a node has the room")
    return int(str(name).removeprefix("gw-"))


async def test_a_room_survives_every_gateway_that_it_ever_had(tmp_path: Path) -> None:
    room, rng = "long-lived", random.Random(1)
    figures = Figures("gateway-kills")
    async with gateway_fleet(tmp_path, gateways=3) as fleet:
        specs = [fleet.bot("cam-eu", 1, "eu", room), fleet.bot("cam-us", 2, "us", room)]
        expected = [("cam-eu", "cam-us"), ("cam-us", "cam-eu")]
        async with (
            bots(specs) as cameras,
            sdk_client(fleet.url("eu"), fleet.token(room, "ann")) as ann,
            sdk_client(fleet.url("us"), fleet.token(room, "bob")) as bob,
            counting(ann) as sent,
            AsyncExitStack() as stack,
        ):
            others = stack.enter_context(bystanders())
            await until_seen(cameras, expected, 40)
            await until(lambda: fleet.has_kept(room, participants=4, tracks=4), 20, "nodes keep the room")
            sids = await fleet.sids(room)
            for _ in range(KILLS):
                await until(lambda: fleet.has_kept(room, participants=4, tracks=4), 20, "nodes keep the room")
                cameras.mark()
                number = await owner_of(fleet, room)
                at = await fleet.kill(number)
                resumes = await asyncio.gather(*(c.resumed(at, 15) for c in (ann, bob)))
                await until_seen(cameras, expected, 30)
                gaps = [max(cameras.gap_ms(*pair), cameras.tone_gap_ms(*pair)) for pair in expected]
                figures.add(resume=[1000 * resume for resume in resumes], gap=gaps)
                await fleet.start(number)
                await asyncio.sleep(rng.uniform(0.5, 2.0))  # faults come at odd times
            reached = len(sent)
            await until(lambda: len(bob.numbers()) >= reached, 20, "bob gets all")
            assert bob.numbers()[:reached] == sent[:reached], "each once, in order"
            assert await fleet.sids(room) == sids, "nobody had to join again"
            assert not ann.of("disconnected") and not bob.of("disconnected")
    print(f"{figures.told()}\nmessages {reached}: each once and in order; {others}")
    assert figures.longest("gap") <= GAP_MS and figures.at("resume", 0.99) <= 3000


async def test_media_flows_while_every_gateway_is_away(tmp_path: Path) -> None:
    """LiveKit's clients give up after some 45 s, so one of ours listens: it holds on to its connections.

    Two of LiveKit's are there too: they find their way back, by a resume or a new join.
    """
    room = "orphans"
    expected = [("cam-eu", "cam-us"), ("cam-us", "cam-eu")]
    async with (
        gateway_fleet(tmp_path) as fleet,
        bots([fleet.bot("cam-eu", 1, "eu", room), fleet.bot("cam-us", 2, "us", room)]) as cameras,
        ProtocolClient(fleet.balancer.url, fleet.token(room, "ann"), region="eu") as ann,
        ProtocolClient(fleet.balancer.url, fleet.token(room, "bob"), region="us") as bob,
    ):
        await ann.publish(7)
        await until_seen(cameras, expected, 40)
        await until(lambda: bob.sources() >= {1, 2, 7}, 20, "bob sees all")
        await until(lambda: fleet.has_kept(room, participants=4, tracks=5), 10, "nodes keep the room")
        seen = next(s for s in bob.seen.values() if any(mark.source == 7 for mark in s.marks))
        for number in range(2):
            await fleet.kill(number)
        began, longest, frames = time.monotonic(), 0.0, seen.frames
        last = began
        while time.monotonic() - began < AWAY_S:
            await asyncio.sleep(0.02)
            if seen.frames > frames:
                frames, last = seen.frames, time.monotonic()
            longest = max(longest, time.monotonic() - last)
        figures = f"away {AWAY_S:.0f} s: longest gap {longest * 1000:.0f} ms, frames {frames}"
        print(figures, flush=True)
        assert longest * 1000 <= GAP_MS
        await asyncio.gather(*(fleet.start(number) for number in range(2)))
        epochs = {node: (await fleet.kept(node, room)) for node in fleet.nodes}
        assert all(held is not None for held in epochs.values()), "the lease has not run out"
        before = max(held.epoch for held in epochs.values() if held is not None)

        async def adopted() -> bool:
            now = [await fleet.kept(node, room) for node in fleet.nodes]
            return all(held is not None and held.epoch > before for held in now)

        await until(adopted, 15, "a gateway has adopted the room of its own accord")
        assert seen.frames > frames or await until(lambda: seen.frames > frames, 5, "media still flows")
        back = time.monotonic()
        await until_seen(cameras, expected, 60)
        joins = [bot.joins for bot in cameras.bots.values()]
        print(f"{figures}; LiveKit's clients see each other {time.monotonic() - back:.1f} s after the room "
              f"was adopted, {joins} connections; load {os.getloadavg()[0]:.1f}", flush=True)  # fmt: skip
