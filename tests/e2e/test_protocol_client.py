"""A client that is no SDK: aiortc and aiohttp, in another region than its peer."""

import pytest
from support.clients import bot_spec, bots, until_seen
from support.cluster import Cluster
from support.deadline import until
from support.protocol_client import ProtocolClient

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


async def test_it_publishes_to_and_decodes_from_a_bot_in_another_region(cluster: Cluster) -> None:
    room = "aiortc"
    token = cluster.token(room, "aiortc-1")
    async with (
        bots([bot_spec(cluster, room, "bot-us", 1, "us")]) as fleet,
        ProtocolClient(cluster.gateway, token, region="eu") as client,
    ):
        await client.publish(source=9)
        await until(
            lambda: fleet.fps("bot-us", "aiortc-1") >= 10,
            30,
            "the bot decodes the client's marked video",
        )
        await until(
            lambda: any(len(seen.marks) >= 30 for seen in client.seen.values()),
            30,
            "the client decodes the bot's marked video",
        )
        marks = next(seen.marks for seen in client.seen.values() if seen.marks)
        assert {mark.source for mark in marks} == {1}
        assert fleet.pairs()["bot-us", "aiortc-1"].crossed == 0
        assert any(seen.kind == "audio" and seen.frames > 50 for seen in client.seen.values())
        bot = client.participants["bot-us"]
        assert bot.attributes["headwater.region"] == "us"
        assert client.participants["aiortc-1"].attributes["headwater.region"] == "eu"


async def test_a_newer_protocol_path_is_not_found_so_that_clients_fall_back(cluster: Cluster) -> None:
    import aiohttp

    async with aiohttp.ClientSession() as http:
        for path in ("/rtc/v1", "/rtc/v1/validate"):
            async with http.get(cluster.page + path) as response:
                assert response.status == 404


async def test_two_bots_of_one_region_meet_too(cluster: Cluster) -> None:
    specs = [bot_spec(cluster, "near", f"near-{n}", n, "ap") for n in (0, 1)]
    async with bots(specs) as fleet:
        await until_seen(fleet, [("near-0", "near-1"), ("near-1", "near-0")], 30)
