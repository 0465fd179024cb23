"""`headwater-sfu`: the SFU node's program, configured by its Pod's environment alone."""

import gc
import logging
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwater_sfu.traces import NodeTraces


def main() -> None:
    """Runs the node; exit status 2 for a bad environment, 1 where it could not start."""
    from headwater_sfu.config import ConfigError, read_config
    from headwater_sfu.logs import configure_logging

    configure_logging()
    log = logging.getLogger("headwater_sfu")
    try:
        config = read_config(os.environ)
    except ConfigError as error:
        for line in str(error).splitlines():
            log.error(line)
        sys.exit(2)

    import uvloop

    from headwater_sfu.agent import Agent
    from headwater_sfu.engine import load_native
    from headwater_sfu.tls import BadCertificate
    from headwater_sfu.tracing import opened

    async def run(traces: "NodeTraces | None") -> None:
        agent = Agent(config, load_native(), traces)
        gc.freeze()  # what is loaded now lives as long as the process: keep it out of collections
        await agent.run()

    with opened(os.environ, config) as traces:
        try:
            uvloop.run(run(traces))
        except (OSError, ImportError, RuntimeError, BadCertificate) as error:
            log.error("cannot start: %s", error)
            sys.exit(1)


if __name__ == "__main__":
    main()
