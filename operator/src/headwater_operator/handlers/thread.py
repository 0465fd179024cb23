"""kopf in a thread of its own, with its own event loop.

On its way out kopf waits five seconds for, and then cancels, every task of its loop that it did not start;
it takes over the signal handlers of the main thread too. In a thread it can do neither, and a stall of its
watches cannot stall ours.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from headwater_operator.loop.intake import Intake

log = structlog.get_logger(__name__)
STOP_S: Final = 15.0


class KopfFailed(Exception):
    """kopf ended though nobody asked it to."""


class KopfThread:
    """`run` until cancelled; raises KopfFailed when kopf ends by itself."""

    def __init__(
        self,
        intake: Intake,
        *,
        namespaces: tuple[str, ...],
        environ: Mapping[str, str],
    ) -> None:
        self._intake = intake
        self._namespaces = namespaces
        self._environ = environ
        self._stop = threading.Event()

    async def run(self) -> None:
        """Starts the thread, waits for its end, and stops it within STOP_S when cancelled."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[BaseException | None] = loop.create_future()
        thread = threading.Thread(target=self._main, args=(loop, ended), name="kopf", daemon=True)
        thread.start()
        try:
            error = await asyncio.shield(ended)
        except asyncio.CancelledError:
            self._stop.set()
            done, _ = await asyncio.wait({ended}, timeout=STOP_S)
            if not done:
                log.warning("kopf did not stop in time", seconds=STOP_S)
            raise
        raise KopfFailed(repr(error)) from error

    def _main(self, loop: asyncio.AbstractEventLoop, ended: "asyncio.Future[BaseException | None]") -> None:
        error: BaseException | None = None
        try:
            asyncio.run(self._operator(loop))
        except Exception as raised:
            error = raised
        loop.call_soon_threadsafe(_settle, ended, error)

    async def _operator(self, loop: asyncio.AbstractEventLoop) -> None:
        # Imported here: it takes a second, in which the first relist and its Pods need not wait.
        import kopf

        from headwater_operator.handlers import config, login, watch

        def post(call: Callable[..., None], *args: Any) -> None:
            loop.call_soon_threadsafe(call, *args)

        registry = kopf.OperatorRegistry()
        login.register(registry, self._environ)
        watch.register(registry, self._intake, post)
        await kopf.operator(
            registry=registry,
            settings=config.kopf_settings(namespaced=bool(self._namespaces)),
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            stop_flag=self._stop,
        )


def _settle(ended: "asyncio.Future[BaseException | None]", error: BaseException | None) -> None:
    if not ended.done():
        ended.set_result(error)
