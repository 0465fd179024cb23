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
from support.deadline import until
from support.gateway_fleet import Balancer
from support.processes import Program, loopback_address, running

NODE_TOKEN, API_KEY, API_SECRET = "n" * 32, "devkey", "s" * 40
REGIONS = ("eu", "us")

pytestmark = pytest.mark.timeout(180)


@dataclass
class Pair:
    """The gateways gw-0 and gw-1 over one node in each region."""

    gateways: list[Program]
    nodes: list[Program]
    doors: list[Balancer]  # of each to the other's side

    async def meet(self, stack: AsyncExitStack) -> None:
        """From now on the gateways can reach each other, until the stack's end."""
        for door in self.doors:
            await stack.enter_async_context(door)
        await until(self._know_both_nodes, 20, "each gateway knows both nodes")

    async def _know_both_nodes(self) -> bool:
        pattern = re.compile(r"^headwater_gateway_nodes_up\{.*\} (\S+)$", re.M)
        rows = [pattern.findall(await gateway.get("/metrics")) for gateway in self.gateways]
        return all(sum(map(float, row)) == 2 for row in rows)

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
    """Each gateway reaches the other, and the node of the other's region, through doors that are shut yet."""
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / API_KEY).write_text(API_SECRET)
    gateways, nodes = [loopback_address() for _ in range(2)], [loopback_address() for _ in range(2)]
    pair = Pair([], [], [])
    signal, grpc = wellknown.PORT_SIGNAL, wellknown.PORT_NODE_GRPC

    def door(address: str, port: int) -> str:
        made = Balancer([(address, port)], loopback_address(), port)
        pair.doors.append(made)
        return made.host

    async with AsyncExitStack() as stack:
        for region, ip in zip(REGIONS, nodes, strict=True):
            env = {
                wellknown.ENV_POD_NAME: f"{region}-1",
                wellknown.ENV_REGION: region,
                wellknown.ENV_CLUSTER: "demo",
                wellknown.ENV_NODE_TOKEN: NODE_TOKEN,
            }
            node = running("headwater_sfu", env, ip, tmp_path / f"{region}.log")
            pair.nodes.append(await stack.enter_async_context(node))
        for number in range(2):
            near = [n == number for n in range(2)]
            peers = [
                f"gw-{n}=http://{gateways[n] if near[n] else door(gateways[n], signal)}" for n in range(2)
            ]
            known = [
                f"{r}-1={r}@{nodes[n] if near[n] else door(nodes[n], grpc)}" for n, r in enumerate(REGIONS)
            ]
            env = {
                wellknown.ENV_POD_NAME: f"gw-{number}",
                wellknown.ENV_NODE_TOKEN: NODE_TOKEN,
                wellknown.ENV_API_KEYS_DIR: str(keys),
                "HEADWATER_REGION_OVERRIDE": "true",
                "HEADWATER_STATIC_NODES": ",".join(f"{node}:{grpc}" for node in known),
                "HEADWATER_STATIC_GATEWAYS": ",".join(f"{peer}:{signal}" for peer in peers),
            }
            gateway = running("headwater_gateway", env, gateways[number], tmp_path / f"gw-{number}.log")
            pair.gateways.append(await stack.enter_async_context(gateway))
        yield pair


async def test_clients_of_two_gateways_see_each_other(pair: Pair) -> None:
    specs = [pair.bot(0, "ann", "shared"), pair.bot(1, "bob", "shared")]
    async with AsyncExitStack() as stack:
        await pair.meet(stack)
        fleet = await stack.enter_async_context(bots(specs))
        await until_seen(fleet, [("ann", "bob"), ("bob", "ann")], 40)
        nodes = {name: bot.attributes["headwater.node"] for name, bot in fleet.bots.items()}
        assert nodes == {"ann": "eu-1", "bob": "us-1"}
        forwarded = await pair.forwarded()
    assert sum(forwarded) >= 1.0, "one gateway owns the room, the other passes its client on"
    for gateway in pair.gateways:
        printed = gateway.printed()
        assert API_SECRET not in printed and NODE_TOKEN not in printed
        assert not [spec.identity for spec in specs if spec.token in printed]


async def test_the_halves_of_a_split_room_become_one_for_all_their_clients(pair: Pair) -> None:
    """Each gateway takes the other for gone and the room for its own; then they hear of each other."""
    specs = [pair.bot(n % 2, name, "split") for n, name in enumerate(("ann", "bob", "carl", "dora"))]
    async with bots(specs) as fleet, AsyncExitStack() as stack:
        await until_seen(fleet, [("ann", "carl"), ("carl", "ann"), ("bob", "dora"), ("dora", "bob")], 40)
        assert not {("ann", "bob"), ("bob", "ann")} & fleet.pairs().keys(), "there are two rooms"
        await pair.meet(stack)
        names = [spec.identity for spec in specs]
        await until_seen(fleet, [(a, b) for a in names for b in names if a != b], 40)
    assert sum("room.healed" in gateway.log.read_text() for gateway in pair.gateways) == 1
