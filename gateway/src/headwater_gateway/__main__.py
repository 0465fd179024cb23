"""`headwater-gateway`: settings from the environment, logs as JSON lines on stdout."""

import asyncio
import gc
import os
import signal
import sys
from typing import TYPE_CHECKING, Final

import uvloop
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

GC_YOUNG: Final = 20_000  # new containers before the youngest are looked through; Python's own: 700


def main() -> None:
    """Run until SIGTERM or SIGINT. Exit status 2 and one line on settings that cannot work."""
    try:
        settings = from_environment(os.environ)
        configure_logs(settings.log_level, settings.log_format)
        with opened(os.environ, settings.gateway) as traces:
            spare_collector()
            uvloop.run(_main(settings, traces))
    except ConfigException as error:
        sys.stderr.write(f"headwater-gateway: no Kubernetes API: run in a Pod or set KUBECONFIG ({error})\n")
        raise SystemExit(2) from None
    except (SettingsError, DatabaseError, ListenError) as error:
        sys.stderr.write(f"headwater-gateway: {error}\n")
        raise SystemExit(2) from None


def spare_collector() -> None:
    """Modules stay, and what a session leaves goes with its last reference: cycles are looked for seldom."""
    gc.freeze()
    gc.set_threshold(GC_YOUNG, 20, 20)


async def _main(settings: Settings, traces: "JoinTraces | None") -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await run(settings, open_plane, stop, traces=traces)


if __name__ == "__main__":
    main()
