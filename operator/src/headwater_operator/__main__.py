"""`headwater-operator`: settings from the environment, logs to stderr, one replica."""

import asyncio
import logging
import os
import sys

import structlog
import uvloop
from headwater_dial.collector import spare_collector
from kubernetes.aio.config import ConfigException

from headwater_operator.app import run
from headwater_operator.settings import InvalidSettings, Settings


def main() -> int:
    """The exit code: 0 stopped, 1 failed, 2 wrong settings, 3 Lease lost."""
    try:
        settings = Settings.from_env(os.environ)
    except InvalidSettings as error:
        sys.stderr.write(f"headwater-operator: {error}\n")
        return 2
    spare_collector()
    configure_logs(json=settings.json_logs, level=settings.log_level)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run(settings, os.environ)).value
    except ConfigException as error:
        sys.stderr.write(f"headwater-operator: no API server: {error}: set KUBECONFIG or run it in a Pod\n")
        return 2
    except OSError as error:
        sys.stderr.write(
            f"headwater-operator: {settings.admin_host}:{settings.admin_port}: {error.strerror or error}: "
            "set HEADWATER_ADMIN_PORT to a free port\n"
        )
        return 2


def configure_logs(*, json: bool, level: str) -> None:
    """One line an event, to stderr; kopf and the libraries only from WARNING on."""
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
    )
    # It says that it takes no signals, which is meant so.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
    renderer = structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer(colors=False)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


if __name__ == "__main__":
    sys.exit(main())
