"""Real clients: the demo's bots, as tests use them."""

import contextlib
import time
from collections.abc import AsyncIterator, Sequence

from headwater_sandbox.demo.fleet import Fleet
from headwater_sandbox.demo.judge import Pair, lacking_pairs
from headwater_sandbox.demo.recorder import PairReport
from headwater_sandbox.demo.spec import BotSpec
from headwater_sandbox.demo.tokens import make_token, signal_url
from support.cluster import Cluster
from support.deadline import until


def bot_spec(cluster: Cluster, room: str, identity: str, source: int, region: str, **options: int) -> BotSpec:
    """A bot in a region; `options` as of BotSpec (width, height, fps, simulcast …)."""
    sandbox = cluster.sandbox
    token = make_token(sandbox.api_key, sandbox.api_secret, room, identity, time.time())
    return BotSpec(identity, source, signal_url(cluster.gateway, region), token, **options)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def bots(*groups: Sequence[BotSpec]) -> AsyncIterator[Fleet]:
    """A process for each group; all end with the block."""
    fleet = Fleet()
    try:
        for number, specs in enumerate(groups):
            await fleet.start(specs, seed=number)
        yield fleet
    finally:
        await fleet.stop()


async def until_seen(fleet: Fleet, expected: Sequence[Pair], within_s: float) -> dict[Pair, PairReport]:
    """Waits until each pair decodes ten frames a second and hears the tone."""

    def complete() -> bool:
        assert not fleet.dead(), fleet.dead()
        return not lacking_pairs(expected, fleet.pairs())

    try:
        await until(complete, within_s, "every pair has picture and tone", every_s=0.2)
    except AssertionError as error:
        states = {name: (bot.state, bot.errors[-3:]) for name, bot in fleet.bots.items()}
        lacking = lacking_pairs(expected, fleet.pairs())
        raise AssertionError(f"{error}: {lacking}; bots: {states}") from None
    return fleet.pairs()


async def until_heard(fleet: Fleet, expected: Sequence[Pair], within_s: float) -> None:
    """Waits until each subscriber hears its publisher's tone: all there is of clients without a picture."""

    def lacking() -> list[str]:
        assert not fleet.dead(), fleet.dead()
        pairs = fleet.pairs()
        deaf = [pair for pair in expected if pair not in pairs or not pairs[pair].tone]
        return [f"{who} does not hear {publisher}" for who, publisher in deaf]

    try:
        await until(lambda: not lacking(), within_s, "every pair has a tone", every_s=0.2)
    except AssertionError as error:
        states = {name: (bot.state, bot.errors[-3:]) for name, bot in fleet.bots.items()}
        raise AssertionError(f"{error}: {lacking()}; bots: {states}") from None
