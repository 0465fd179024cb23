"""Why somebody is where they are: kept for a while, for whoever asks."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from headwater_api.ids import RegionName
from headwater_gateway.http.query import parse_query
from headwater_gateway.nodes.decisions import Decision, Decisions
from headwater_gateway.signal.types import JoinRefused, RegionSource
from support.deadline import until
from support.fake_channel import hello
from support.gateway_world import World, gateway_world


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with gateway_world() as world:
        yield world


def row(number: int, room: str = "demo", identity: str = "ann", node: str = "eu-1") -> Decision:
    return Decision(number, room, f"PA_{number}", identity, node, "eu", "PlacedNearest", "because")


def test_the_ring_is_bounded_and_asked_by_name() -> None:
    decisions = Decisions(3)
    for number in range(5):
        decisions.note(row(number, identity="ann" if number % 2 else "bob"))
    assert [d["at_ms"] for d in decisions.about()] == [4, 3, 2]
    assert [d["at_ms"] for d in decisions.about(identity="ann")] == [3]
    assert list(decisions.about(room="other")) == list(decisions.about(node="eu-2")) == []


async def test_joins_and_moves_are_kept_with_their_reasons(world: World) -> None:
    ann = await world.join(hello("ann", region="us"))
    old = ann.all("join")[0].participant.attributes["headwater.node"]
    world.nodes[old].report.draining = True
    world.nodes[old].push()
    about = world.directory.pool.decisions.about
    await until(lambda: len(list(about(identity="ann"))) == 2, 5, "the move is kept too")
    moved, joined = about(room="demo", identity="ann")
    assert (joined["node"], joined["source"]) == (old, "")
    assert (moved["source"], moved["region"]) == (old, "us")
    assert "us was asked for" in moved["sentence"] and moved["node"] in moved["sentence"]


def test_measured_times_are_read_and_bounded() -> None:
    assert parse_query({"rtt": "eu:12,us:80.5"}).rtts_ms == {"eu": 12.0, "us": 80.5}
    assert parse_query({}).rtts_ms == {}
    for bad in ("eu", "eu:-1", "eu:nan", "eu:1e9", ":5", "eu:1,", ",".join(f"r{i}:1" for i in range(33))):
        with pytest.raises(JoinRefused) as refused:
            parse_query({"rtt": bad})
        assert refused.value.status == 400 and "rtt=" in refused.value.message


async def test_measured_times_beat_the_address_and_not_the_clients_wish(world: World) -> None:
    near_us = {RegionName("us"): 10.0, RegionName("eu"): 95.0}
    guessed = replace(hello("ann", region="eu", rtts_ms=near_us), region_source=RegionSource.GEOIP)
    ann = await world.join(guessed)
    assert ann.all("join")[0].participant.attributes["headwater.region"] == "us"
    bob = await world.join(hello("bob", region="eu", rtts_ms=near_us))
    assert bob.all("join")[0].participant.attributes["headwater.region"] == "eu"
