"""kill -9 of the gateway that has a room: media goes on, clients resume elsewhere, nothing is lost."""

import asyncio
import signal
from pathlib import Path

import pytest
from support.clients import bots, until_seen
from support.deadline import until
from support.gateway_fleet import gateway_fleet
from support.sdk_client import counting, sdk_client

pytestmark = pytest.mark.timeout(150)

# The gateways' part is a tenth of a second; the SDK itself was seen to take 3.1 s for any resume.
RESUME_S = 4.0
# Frames come each 40 to 70 ms; a machine full of other work shows longer ones without any fault.
GAP_MS = 800
GRANTS = {"canUpdateOwnMetadata": True, "canPublishData": True}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "asked to end"])
async def test_a_gateways_end_costs_no_media_and_no_command(tmp_path: Path, how: signal.Signals) -> None:
    room = "survivor"
    async with gateway_fleet(tmp_path) as fleet:
        specs = [fleet.bot("cam-eu", 1, "eu", room), fleet.bot("cam-us", 2, "us", room)]
        expected = [("cam-eu", "cam-us"), ("cam-us", "cam-eu")]
        async with (
            bots(specs) as cameras,
            sdk_client(fleet.url("eu"), fleet.token(room, "ann", grants=GRANTS)) as ann,
            sdk_client(fleet.url("us"), fleet.token(room, "bob", grants=GRANTS)) as bob,
            counting(ann) as sent,
        ):
            await until_seen(cameras, expected, 40)
            await until(lambda: len(bob.numbers()) > 10, 10, "bob hears ann")
            sids = {client.sid for client in (ann, bob)}
            await until(
                lambda: fleet.has_kept(room, participants=4, tracks=4), 10, "nodes keep the whole room"
            )
            people = await fleet.sids(room)
            cameras.mark()
            at = await fleet.kill(fleet.owner(room), how)
            try:
                taken = await asyncio.gather(*(c.resumed(at, RESUME_S + 5) for c in (ann, bob)))
            except AssertionError as error:
                raise AssertionError(f"{error}\n{fleet.printed()}") from None
            print("resumed after", [round(t, 2) for t in taken])
            await ann.room.local_participant.set_attributes({"after": "takeover"})
            await until(
                lambda: bob.room.remote_participants["ann"].attributes.get("after") == "takeover",
                10,
                "bob is told",
            )
            await until_seen(cameras, expected, 20)
            gaps = {pair: (cameras.gap_ms(*pair), cameras.tone_gap_ms(*pair)) for pair in expected}
            print("gaps", gaps)
            reached = len(sent)
            await until(lambda: len(bob.numbers()) >= reached, 15, "bob gets all")
            assert bob.numbers()[:reached] == sent[:reached], "each once, in order"
            assert max(taken) <= RESUME_S
            assert {client.sid for client in (ann, bob)} == sids
            assert not ann.of("disconnected") and not bob.of("participant_disconnected", at)
            assert await fleet.sids(room) == people, "nobody had to join again"
            assert all(max(gap) <= GAP_MS for gap in gaps.values()), gaps
