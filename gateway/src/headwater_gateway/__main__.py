"""`headwater-gateway`: settings from the environment, logs as JSON lines on stdout."""

import asyncio
import gc
import os
import signal
import sys
from typing import TYPE_CHECKING

import uvloop
from headwater_dial.collector import spare_collector
from kubernetes.aio.config.config_exception import ConfigException

from headwater_gateway.app import run
from headwater_gateway.geo.locate import DatabaseError
from headwater_gateway.http.serve import ListenError
from headwater_gateway.logs import configure_logs
from headwater_gateway.plane import open_plane
from headwater_gateway.settings import Settings, SettingsError, from_environment
from headwater_gateway.tracing import opened

if TYPE_CHECKING:
    from headwater_gateway.join_traces import JoinTraces


def main() -> None:
    """Run until SIGTERM or SIGINT. Exit status 2 and one line on settings that cannot work."""
    try:
        settings = from_environment(os.environ)
        configure_logs(settings.log_level, settings.log_format)
        with opened(os.environ, settings.gateway) as traces:
            gc.freeze()  # what is loaded now stays
            spare_collector()
            uvloop.run(_main(settings, traces))
    except ConfigException as error:
        sys.stderr.write(f"headwater-gateway: no Kubernetes API: run in a Pod or set KUBECONFIG ({error})\n")
        raise SystemExit(2) from None
    except (SettingsError, DatabaseError, ListenError) as error:
        sys.stderr.write(f"headwater-gateway: {error}\n")
        raise SystemExit(2) from None


async def _main(settings: Settings, traces: "JoinTraces | None") -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await run(settings, open_plane, stop, traces=traces)


if __name__ == "__main__":
    main()
