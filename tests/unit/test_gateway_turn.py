"""Which TURN servers a gateway names, and how it notices that one is gone."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from headwater_api import wellknown as wk
from headwater_api.fleet_policy import Turn
from headwater_api.ids import ClusterName, NodeId, ParticipantSid, RegionName
from headwater_api.turn_token import turn_token, watch_token
from headwater_gateway.turn.follow import TurnPod
from headwater_gateway.turn.servers import InvalidStatic, TurnServers, static_turn
from headwater_planner.geo_distance import Coordinates
from headwater_planner.turn_servers import rest_credentials
from headwater_turn.admin import serve_admin
from headwater_turn.config import TurnConfig
from headwater_turn.desired import Desired
from support.deadline import until
from support.fake_turn import FakeTurn
from support.processes import loopback_address

TOKEN, DEMO = "n" * 32, ClusterName("demo")
EU, US = RegionName("eu"), RegionName("us")
ANN, NODE = ParticipantSid("PA_ann"), NodeId("sfu-1")
REFERENCES = [{"name": "turn", "key": "new"}, {"name": "turn", "key": "old"}]


class World:
    """TURN agents on loopback addresses and a gateway's view of them."""

    def __init__(self, tmp: Path) -> None:
        (tmp / "turn").mkdir()
        (tmp / "turn" / "new").write_text("w" * 32)
        (tmp / "turn" / "old").write_text("o" * 32)
        self.left: list[str] = []
        places = {EU: Coordinates(50, 8), US: Coordinates(39, -77)}
        self.servers = TurnServers(TOKEN, tmp, lambda: places, lambda node: DEMO, self.left.append)
        self.servers.policy_seen(DEMO, Turn.model_validate({"sharedSecretRefs": REFERENCES}))
        self.stacks: dict[str, AsyncExitStack] = {}

    async def start(self, name: str, region: RegionName, *accepted: str) -> tuple[FakeTurn, str]:
        turn, ip = FakeTurn(name, region), loopback_address()
        turn.wish = Desired(secrets=accepted or ("turn/new", "turn/old"))
        place = Path("/nonexistent")
        stack = self.stacks[name] = AsyncExitStack()
        config = TurnConfig(name, region, ip_address(ip), TOKEN, place, place)
        await stack.enter_async_context(serve_admin(turn, config))
        self.servers.pod_seen(TurnPod(name, region, ip, DEMO))
        await until(lambda: any(ip in url for url in self.urls()), 15, f"{name} is named")
        return turn, ip

    def told(self, near: RegionName = EU) -> list[Any]:
        return list(self.servers.for_client(near, ANN, NODE))

    def urls(self) -> list[str]:
        return [url for server in self.told() for url in server.urls]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.servers.aclose()
    for stack in made.stacks.values():
        await stack.aclose()


async def test_the_nearest_regions_node_comes_first_with_credentials_of_the_first_reference(
    world: World,
) -> None:
    _, eu = await world.start("t-eu", EU)
    _, us = await world.start("t-us", US)
    first, second = world.told(EU)
    assert eu in first.urls[0] and us in second.urls[0]
    assert us in world.told(US)[0].urls[0]
    expiry, _, sid = first.username.partition(":")
    assert sid == ANN and int(expiry) > time.time() + 3600
    assert first.credential == rest_credentials("w" * 32, ANN, int(expiry))[1]
    assert world.servers.ready() == {EU: 1, US: 1}


async def test_clients_are_told_the_external_address_and_it_stays_the_same_node(world: World) -> None:
    _, ip = await world.start("t-eu", EU)
    world.servers.pod_seen(TurnPod("t-eu", EU, ip, DEMO, external="203.0.113.7"))
    assert world.urls()[0] == "turn:203.0.113.7:3478?transport=udp"
    assert not any(ip in url for url in world.urls()) and not world.left
    world.servers.pod_gone("t-eu")
    assert world.left == [ip], "the relayed are known by its own address"


async def test_during_a_rotation_each_node_is_signed_for_with_what_it_takes(world: World) -> None:
    await world.start("t-late", EU, "turn/old")
    (server,) = world.told()
    assert server.credential == rest_credentials("o" * 32, ANN, int(server.username.split(":")[0]))[1]


async def test_a_node_that_drains_is_named_no_more_and_its_users_stay(world: World) -> None:
    turn, _ = await world.start("t-eu", EU)
    turn.wish = Desired(secrets=turn.wish.secrets, draining=True)
    changed, turn.changed = turn.changed, asyncio.Event()
    changed.set()
    await until(lambda: not world.told(), 15, "it leaves the list")
    assert world.left == []


async def test_the_end_of_a_node_is_noticed_at_once_and_told_once(world: World) -> None:
    _, ip = await world.start("t-eu", EU)
    started = time.monotonic()
    await world.stacks.pop("t-eu").aclose()
    await until(lambda: world.left == [ip], 15, "its users are sent another way")
    assert time.monotonic() - started < 3
    assert world.told() == []
    world.servers.pod_gone("t-eu")
    assert world.left == [ip]


async def test_a_pod_that_vanishes_counts_as_its_end(world: World) -> None:
    _, ip = await world.start("t-eu", EU)
    world.servers.pod_gone("t-eu")
    assert world.left == [ip]


async def test_a_wrong_token_names_no_server(world: World, tmp_path: Path) -> None:
    _, ip = await world.start("t-eu", EU)
    stranger = TurnServers("x" * 32, tmp_path, dict, lambda node: DEMO, world.left.append)
    stranger.policy_seen(DEMO, Turn.model_validate({"sharedSecretRefs": REFERENCES}))
    stranger.pod_seen(TurnPod("t-eu", EU, ip, DEMO))
    try:
        await asyncio.wait_for(_answered(stranger), 5)
        assert stranger.for_client(EU, ANN, NODE) == []
        assert world.left == []
    finally:
        await stranger.aclose()


async def test_what_is_sent_to_a_turn_node_does_not_open_an_sfu_node(world: World) -> None:
    _, ip = await world.start("t-eu", EU)
    url = f"http://{ip}:{wk.PORT_TURN_ADMIN}/watch"
    for made in (turn_token, watch_token):
        assert TOKEN not in made(TOKEN) and made(TOKEN) != made("x" * 32)
    async with aiohttp.ClientSession() as http:
        for token, status in ((watch_token(TOKEN), 200), (turn_token(TOKEN), 401), (TOKEN, 401), ("", 401)):
            async with http.get(url, headers={"Authorization": f"Bearer {token}"}) as response:
                assert response.status == status
        command = f"http://{ip}:{wk.PORT_TURN_ADMIN}/desired"  # which gateways give to nobody
        async with http.put(command, headers={"Authorization": f"Bearer {watch_token(TOKEN)}"}) as response:
            assert response.status == 401


async def _answered(servers: TurnServers) -> None:
    """Until the follower has been refused: it has had its answer once its task waits for the next try."""
    await until(lambda: servers.ready() == {EU: 0}, 15, "it is followed")


async def test_another_clusters_node_is_not_named(world: World) -> None:
    await world.start("t-eu", EU)
    world.servers.policy_gone(DEMO)
    assert world.told() == [], "without a policy there is no secret"


def test_nodes_by_hand_name_the_entry_that_is_wrong() -> None:
    env = {"HEADWATER_STATIC_TURN": "t=eu@127.0.0.9", "HEADWATER_STATIC_TURN_SECRETS": "turn/a,turn/b"}
    pods, policy = static_turn(env)
    assert pods == (TurnPod("t", EU, "127.0.0.9"),)
    assert [f"{ref.name}/{ref.key}" for ref in policy.shared_secret_refs] == ["turn/a", "turn/b"]
    with pytest.raises(InvalidStatic, match="'t=eu' is not name=region@ip"):
        static_turn({"HEADWATER_STATIC_TURN": "t=eu"})
