"""`headwater-turn`: the TURN node's program, configured by its Pod's environment alone."""

import asyncio
import logging
import os
import signal
import sys

import uvloop

from headwater_turn.agent import Agent, CoturnEnded
from headwater_turn.config import ConfigError, TurnConfig, read_config
from headwater_turn.logs import configure_logging
from headwater_turn.packet_filter import FilterFailed
from headwater_turn.version import UnusableVersion


def main() -> None:
    """Runs the node; exit status 2 for a bad environment, 1 where it cannot go on."""
    configure_logging()
    log = logging.getLogger("headwater_turn")
    try:
        config = read_config(os.environ)
    except ConfigError as error:
        for line in str(error).splitlines():
            log.error(line)
        sys.exit(2)
    try:
        uvloop.run(_run(config))
    except (OSError, UnusableVersion, CoturnEnded, FilterFailed, TimeoutError) as error:
        log.error("the TURN node ends: %s", error)
        sys.exit(1)


async def _run(config: TurnConfig) -> None:
    agent = Agent(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.stop)
    await agent.run()


if __name__ == "__main__":
    main()
