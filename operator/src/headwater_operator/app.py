"""The composition root: the only place that constructs and wires, and that makes clocks and randomness.

Standby until the Lease is ours; then kopf, the loops and the report streams run until one of them ends or a
signal comes. A replica that loses the Lease ends: its successor starts from a clean memory.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from enum import Enum
from random import Random
from typing import Any, Final

import structlog

from headwater_operator.admin import serve_admin
from headwater_operator.handlers.thread import KopfThread
from headwater_operator.kube.client import KubeClient, open_client
from headwater_operator.kube.events import EventRecorder
from headwater_operator.kube.lease import Lease
from headwater_operator.kube.status import StatusWriter
from headwater_operator.loop.act import Actor
from headwater_operator.loop.fleets import FleetLoop
from headwater_operator.loop.history import HistoryStore
from headwater_operator.loop.intake import Intake
from headwater_operator.loop.meetings import MeetingLoop
from headwater_operator.loop.observe import Key, Observer
from headwater_operator.loop.reconcile import Workers
from headwater_operator.loop.scaler import Scaler
from headwater_operator.loop.store import Store
from headwater_operator.loop.turn import TurnLoop
from headwater_operator.loop.wake import WakeQueue
from headwater_operator.metrics import Metrics
from headwater_operator.metrics_source.choose import MetricsSources
from headwater_operator.nodes.inbox import Inbox
from headwater_operator.nodes.turn import TurnClient
from headwater_operator.nodes.watch import NodeStreams
from headwater_operator.render.sfu_node import SfuDefaults
from headwater_operator.render.turn_node import TurnDefaults
from headwater_operator.settings import Settings

log = structlog.get_logger(__name__)
FLEET_WORKERS: Final = 4
MEETING_WORKERS: Final = 8
FLEET_INTERVAL_S: Final = 0.5
MEETING_INTERVAL_S: Final = 1.0
STOP_S: Final = 20.0


class Exit(Enum):
    """How a run ended: the process's exit code."""

    STOPPED = 0
    FAILED = 1
    LEASE_LOST = 3


def utc_now() -> datetime:
    return datetime.now(UTC)


class App:
    """One replica."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._environ = environ
        self._rng = Random()
        self._metrics = Metrics()
        self._stop = asyncio.Event()
        self._lease: Lease | None = None
        self._intake: Intake | None = None
        self.admin_port = 0

    def stop(self) -> None:
        """Ends `run` soon."""
        self._stop.set()

    async def run(self) -> Exit:
        """Until stopped, or the Lease is lost, or something breaks."""
        settings = self._settings
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(open_client(self._environ))
            self.admin_port = await stack.enter_async_context(
                serve_admin(
                    settings.admin_host, settings.admin_port, metrics=self._metrics, readiness=self.readiness
                )
            )
            lease_client = await stack.enter_async_context(open_client(self._environ, timeout_s=5.0))
            lease = Lease(lease_client, settings.lease, monotonic=time.monotonic, now=utc_now, rng=self._rng)
            self._lease = lease
            log.info("standing by", identity=settings.lease.identity, admin_port=self.admin_port)
            if not await self._or_stop(lease.acquire()):
                return Exit.STOPPED
            self._metrics.leader.set(1)
            try:
                return await self._lead(
                    lease, client.fenced(lease.fence, write_timeout_s=settings.lease.write_timeout_s)
                )
            finally:
                self._metrics.leader.set(0)
                await lease.release()

    def readiness(self) -> tuple[bool, str]:
        """For /readyz: a standby is ready; a leader is when it has lately read what it must know."""
        if self._lease is None:
            return False, "starting"
        if not self._lease.held:
            return True, "standby"
        relisted = self._intake.relisted_at if self._intake is not None else float("-inf")
        if time.monotonic() - relisted > self._settings.resync_s * 3 + 10:
            return False, "leader, but the API server has not been read lately"
        return True, "leader"

    async def _or_stop(self, coroutine: Coroutine[Any, Any, None]) -> bool:
        """Whether the work ended before somebody asked to stop."""
        work = asyncio.create_task(coroutine)
        stop = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
                return True
            return False
        finally:
            for task in (work, stop):
                task.cancel()
            await asyncio.gather(work, stop, return_exceptions=True)

    async def _lead(self, lease: Lease, client: KubeClient) -> Exit:
        """Runs everything; the first part to end ends the rest."""
        async with self._parts(client) as (intake, parts):
            self._intake = intake
            tasks: dict[str, asyncio.Task[Any]] = {
                "lease": asyncio.create_task(lease.keep()),
                "stop": asyncio.create_task(self._stop.wait()),
                **{name: asyncio.create_task(part) for name, part in parts.items()},
            }
            try:
                done, _ = await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
            finally:
                await _end(tasks)
            return _verdict({name: task for name, task in tasks.items() if task in done})

    @asynccontextmanager
    async def _parts(
        self, client: KubeClient
    ) -> AsyncIterator[tuple[Intake, dict[str, Coroutine[Any, Any, None]]]]:
        """Everything that runs while this replica leads, by name."""
        settings, metrics, rng, monotonic = self._settings, self._metrics, self._rng, time.monotonic
        store = Store()
        fleet_queue: WakeQueue[Key] = WakeQueue(monotonic=monotonic, min_interval_s=FLEET_INTERVAL_S)
        meeting_queue: WakeQueue[Key] = WakeQueue(monotonic=monotonic, min_interval_s=MEETING_INTERVAL_S)
        intake = Intake(
            store, fleet_queue, meeting_queue, client=client, namespaces=settings.namespaces,
            resync_s=settings.resync_s, monotonic=monotonic, rng=rng,
        )  # fmt: skip
        inbox = Inbox(monotonic=monotonic, on_change=intake.presence_changed)
        streams = NodeStreams(
            inbox, token=settings.node_token, rng=rng, metrics=metrics, tls_dir=settings.node_tls_dir
        )
        events = EventRecorder(
            client, instance=settings.lease.identity, now=utc_now, monotonic=monotonic, rng=rng,
            metrics=metrics,
        )  # fmt: skip
        defaults = SfuDefaults(
            settings.sfu_image,
            settings.node_token_secret,
            settings.node_tls_secret,
            settings.node_traces,
        )
        observer = Observer(client, inbox, defaults, now=utc_now, monotonic=monotonic)
        actor = Actor(client, streams, events, defaults=defaults, metrics=metrics)
        turn = self._turn_loop(
            client, turn_client := TurnClient(settings.node_token, settings.turn_tls_dir), events
        )
        sources = MetricsSources()
        scaler = Scaler(sources, HistoryStore(client), monotonic=monotonic)
        fleets, meetings = self._loops(client, intake, store, streams, events, observer, actor, turn, scaler)
        fleet_workers = Workers("SFUCluster", fleet_queue, fleets.reconcile, rng=rng, metrics=metrics)
        meeting_workers = Workers("Meeting", meeting_queue, meetings.reconcile, rng=rng, metrics=metrics)
        parts = {
            "kopf": KopfThread(intake, namespaces=settings.namespaces, environ=self._environ).run(),
            "relist": intake.run(),
            "events": events.run(),
            "fleets": fleet_workers.run(FLEET_WORKERS),
            "meetings": meeting_workers.run(MEETING_WORKERS),
        }
        try:
            yield intake, parts
        finally:
            await streams.close()
            await turn_client.close()
            await sources.close()

    def _turn_loop(self, client: KubeClient, nodes: TurnClient, events: EventRecorder) -> TurnLoop:
        settings = self._settings
        defaults = TurnDefaults(settings.turn_image, settings.node_token_secret, settings.turn_tls_secret)
        return TurnLoop(
            client=client, nodes=nodes, events=events, defaults=defaults, metrics=self._metrics, now=utc_now,
            monotonic=time.monotonic, rng=self._rng,
        )  # fmt: skip

    def _loops(  # noqa: PLR0917
        self,
        client: KubeClient,
        intake: Intake,
        store: Store,
        streams: NodeStreams,
        events: EventRecorder,
        observer: Observer,
        actor: Actor,
        turn: TurnLoop,
        scaler: Scaler,
    ) -> tuple[FleetLoop, MeetingLoop]:
        """The two loops over what they share."""
        settings, metrics, rng, monotonic = self._settings, self._metrics, self._rng, time.monotonic
        statuses = StatusWriter(client, monotonic=monotonic, metrics=metrics)
        fleets = FleetLoop(
            observer=observer, actor=actor, scaler=scaler,
            statuses=statuses, events=events, streams=streams, turn=turn, store=store, metrics=metrics,
            now=utc_now, monotonic=monotonic, rng=rng, on_change=intake.fleet_changed,
        )  # fmt: skip
        meetings = MeetingLoop(
            client=client, observer=observer, statuses=statuses, events=events, store=store, now=utc_now,
            monotonic=monotonic, rng=rng, public_url=settings.public_url,
        )  # fmt: skip
        return fleets, meetings


async def _end(tasks: Mapping[str, "asyncio.Task[Any]"]) -> None:
    """Cancels every part and waits for all of them, STOP_S at most."""
    for task in tasks.values():
        task.cancel()
    _, stuck = await asyncio.wait(tasks.values(), timeout=STOP_S)
    if stuck:
        log.error(
            "parts of the operator did not end", parts=[n for n, task in tasks.items() if task in stuck]
        )


def _verdict(done: Mapping[str, "asyncio.Task[Any]"]) -> Exit:
    for name, task in done.items():
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("a part of the operator failed", part=name, error=repr(error))
    if "stop" in done:
        return Exit.STOPPED
    return Exit.LEASE_LOST if "lease" in done else Exit.FAILED


async def run(settings: Settings, environ: Mapping[str, str]) -> Exit:
    """Runs one replica until SIGTERM or SIGINT."""
    app = App(settings, environ)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.stop)
    return await app.run()
