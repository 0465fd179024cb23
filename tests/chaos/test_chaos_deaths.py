"""SFU nodes killed and frozen under twenty real clients in three regions: how long pictures are away.

HEADWATER_CHAOS_DEATHS: deaths of each kind (60); HEADWATER_CHAOS_CLIENTS: clients (20). All decode three
pictures and listen to three tones; every frame is looked at in eight of them, which is what two cores can do.
The others go last for the processors: clients have their own where they do not share two with their servers.
Figures add up over runs in the folder HEADWATER_CHAOS_FIGURES.
"""

import asyncio
import os
import random
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from headwater_sandbox.demo.fleet import Fleet
from headwater_sandbox.demo.judge import Pair
from headwater_sandbox.demo.spec import BotSpec
from support.bystanders import bystanders
from support.clients import bots, until_heard, until_seen
from support.deadline import until
from support.figures import Figures
from support.shares import bot_processes, set_share
from support.static_fleet import StaticFleet, node_running, static_fleet

DEATHS = int(os.environ.get("HEADWATER_CHAOS_DEATHS", "60"))
CLIENTS = int(os.environ.get("HEADWATER_CHAOS_CLIENTS", "20"))
REGIONS = ("eu", "us", "ap")
NODES = ("eu-1", "eu-2", "us-1", "us-2", "ap-1", "ap-2")
QUIET_S = 3.0  # before each fault: what the machine itself costs
NAMES = [f"c{number}" for number in range(CLIENTS)]
PUBLISHERS = NAMES[: len(REGIONS)]  # one in each region, and small pictures: two cores encode and decode all
EYES = NAMES[:8]
LAST = 10  # niceness of the processes whose frames nobody looks at
HEARD: list[Pair] = [(who, publisher) for publisher in PUBLISHERS for who in NAMES if who != publisher]
PAIRS = [(who, publisher) for who, publisher in HEARD if who in EYES]

pytestmark = pytest.mark.timeout(120 + 40 * DEATHS)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[StaticFleet]:
    async with static_fleet(tmp_path, NODES) as fleet:
        yield fleet


def specs(fleet: StaticFleet) -> list[BotSpec]:
    size = {"width": 176, "height": 100, "bitrate": 80_000, "hear_ms": 400}

    def spec(n: int, name: str) -> BotSpec:
        options = {"publish": name in PUBLISHERS, "watch": name in EYES, **size}
        return fleet.bot(name, n, REGIONS[n % len(REGIONS)], "crowd", **options)

    return [spec(n, name) for n, name in enumerate(NAMES)]


def node_of(clients: Fleet, name: str) -> str:
    return clients.bots[name].attributes["headwater.node"]


async def all_up(fleet: StaticFleet) -> bool:
    """The gateway has greeted every node again."""
    rows = re.findall(r"^headwater_gateway_nodes_up\{.*\} (\S+)$", await fleet.gateway.get("/metrics"), re.M)
    return sum(map(float, rows)) == len(NODES)


def load() -> str:
    """What else the machine does counts in every gap."""
    return "load " + " ".join(f"{value:.1f}" for value in os.getloadavg()[:2])


@pytest.mark.parametrize("how", ["SIGKILL", "SIGSTOP"])
async def test_deaths(fleet: StaticFleet, tmp_path: Path, how: str) -> None:
    figures, rng = Figures(f"deaths-{how}"), random.Random(len(how))
    everybody = specs(fleet)
    async with AsyncExitStack() as stack, bots(everybody[: len(EYES)], everybody[len(EYES) :]) as clients:
        others = stack.enter_context(bystanders())
        set_share(bot_processes()[-1], LAST)
        for round_ in range(DEATHS):
            await until_seen(clients, PAIRS, 90)
            await until_heard(clients, HEARD, 30)
            # The SDK says seconds after the tone is back that it has resumed.
            await until(
                lambda: all(bot.state == "connected" for bot in clients.bots.values()), 20, "all rest"
            )
            node = node_of(clients, rng.choice(NAMES))
            here = {name for name in NAMES if node_of(clients, name) == node}
            joined = {name: clients.bots[name].joins for name in NAMES}
            clients.mark()
            await asyncio.sleep(QUIET_S)
            figures.add(quiet=[clients.gap_ms(*pair) for pair in PAIRS])
            clients.mark()
            fleet.signal(node, getattr(signal, how))

            def elsewhere(node: str = node, here: frozenset[str] = frozenset(here)) -> bool:
                return all(node_of(clients, name) != node for name in here)

            await until(elsewhere, 20, f"round {round_}: {here} have left {node}")
            await until_seen(clients, PAIRS, 30)
            await until_heard(clients, HEARD, 30)
            figures.add(
                picture=[clients.gap_ms(*pair) for pair in PAIRS if here & set(pair)],
                others=[clients.gap_ms(*pair) for pair in PAIRS if not here & set(pair)],
            )
            reloaded = [n for n in NAMES if n not in here and clients.bots[n].joins != joined[n]]
            assert not reloaded, f"round {round_}: {reloaded} were not on {node} and had to come back"
            if how == "SIGSTOP":
                fleet.signal(node, signal.SIGCONT)
                await until_seen(clients, PAIRS, 10)
                assert elsewhere(), "the thawed node can do nothing"
            else:
                folder = tmp_path / f"again-{round_}"
                folder.mkdir()
                program = node_running(node, fleet.nodes[node].address, folder)
                fleet.nodes[node] = await stack.enter_async_context(program)
            await until(lambda: all_up(fleet), 30, "the gateway has all its nodes", every_s=0.2)
            print(
                f"{how} {round_}: {node} with {len(here)} of them; {load()}; {others}\n{figures.told()}",
                flush=True,
            )
    p50, p95 = figures.at("picture", 0.5), figures.at("picture", 0.95)
    assert (p50 <= 1500 and p95 <= 3000) if how == "SIGKILL" else p95 <= 4000
    assert figures.at("others", 0.95) <= 200
