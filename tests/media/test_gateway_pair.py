"""Two gateways and two SFU nodes: clients at different gateways are in one room and see each other."""

import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from headwater_api import wellknown
from headwater_sandbox.demo.spec import BotSpec
from headwater_sandbox.demo.tokens import make_token, signal_url
from support.clients import bots, until_seen
from support.processes import Program, loopback_address, running

NODE_TOKEN, API_KEY, API_SECRET = "n" * 32, "devkey", "s" * 40
REGIONS = ("eu", "us")

pytestmark = pytest.mark.timeout(180)


@dataclass
class Pair:
    """The gateways gw-0 and gw-1 over one node in each region."""

    gateways: list[Program]
    nodes: list[Program]

    def bot(self, gateway: int, identity: str, room: str) -> BotSpec:
        """A bot that connects to that gateway, in the region of that number."""
        url = f"ws://{self.gateways[gateway].address}:{wellknown.PORT_SIGNAL}"
        token = make_token(API_KEY, API_SECRET, room, identity, time.time())
        return BotSpec(identity, gateway, signal_url(url, REGIONS[gateway]), token)

    async def forwarded(self) -> list[float]:
        """Sessions that each gateway has passed on to the other."""
        pattern = r'headwater_gateway_forwarded_sessions_total{outcome="connected"} (\S+)'
        found = [re.search(pattern, await gateway.get("/metrics")) for gateway in self.gateways]
        return [float(match.group(1)) if match else 0.0 for match in found]


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / API_KEY).write_text(API_SECRET)
    addresses = [loopback_address() for _ in range(4)]
    node_list = ",".join(
        f"{region}-1={region}@{ip}:{wellknown.PORT_NODE_GRPC}"
        for region, ip in zip(REGIONS, addresses[2:], strict=True)
    )
    gateway_list = ",".join(f"gw-{n}=http://{addresses[n]}:{wellknown.PORT_SIGNAL}" for n in range(2))
    pair = Pair([], [])
    async with AsyncExitStack() as stack:
        for region, ip in zip(REGIONS, addresses[2:], strict=True):
            env = {
                wellknown.ENV_POD_NAME: f"{region}-1",
                wellknown.ENV_REGION: region,
                wellknown.ENV_CLUSTER: "demo",
                wellknown.ENV_NODE_TOKEN: NODE_TOKEN,
            }
            node = running("headwater_sfu", env, ip, tmp_path / f"{region}.log")
            pair.nodes.append(await stack.enter_async_context(node))
        for number in range(2):
            env = {
                wellknown.ENV_POD_NAME: f"gw-{number}",
                wellknown.ENV_NODE_TOKEN: NODE_TOKEN,
                wellknown.ENV_API_KEYS_DIR: str(keys),
                "HEADWATER_REGION_OVERRIDE": "true",
                "HEADWATER_STATIC_NODES": node_list,
                "HEADWATER_STATIC_GATEWAYS": gateway_list,
            }
            gateway = running("headwater_gateway", env, addresses[number], tmp_path / f"gw-{number}.log")
            pair.gateways.append(await stack.enter_async_context(gateway))
        yield pair


async def test_clients_of_two_gateways_see_each_other(pair: Pair) -> None:
    specs = [pair.bot(0, "ann", "shared"), pair.bot(1, "bob", "shared")]
    async with bots(specs) as fleet:
        await until_seen(fleet, [("ann", "bob"), ("bob", "ann")], 40)
        nodes = {name: bot.attributes["headwater.node"] for name, bot in fleet.bots.items()}
        assert nodes == {"ann": "eu-1", "bob": "us-1"}
        forwarded = await pair.forwarded()
    assert sorted(forwarded) == [0.0, 1.0], "one gateway owns the room, the other passes its client on"
    for gateway in pair.gateways:
        printed = gateway.printed()
        assert API_SECRET not in printed and NODE_TOKEN not in printed
        assert not [spec.identity for spec in specs if spec.token in printed]
