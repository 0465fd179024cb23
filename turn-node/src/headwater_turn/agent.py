"""The agent: one coturn, its files, its peers, its drain and its admin port."""

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Final

from headwater_api import wellknown

from headwater_turn import version as versions
from headwater_turn.admin import serve_admin
from headwater_turn.config import REALM, TurnConfig
from headwater_turn.coturn import Coturn, find_version
from headwater_turn.desired import Desired, Status
from headwater_turn.files import Certificate, read_certificate, read_secrets, shown_to_operator
from headwater_turn.packet_filter import apply_filter
from headwater_turn.render import Address, ServerOptions, render_config, render_filter
from headwater_turn.store import Store
from headwater_turn.usage import Usage

log = logging.getLogger(__name__)
FILES_EVERY_S: Final = 1.0
# After the deadline of a drain, clients are told to go; the Pod stays so long for them.
CLOSING_S: Final = 10.0


class CoturnEnded(RuntimeError):
    """coturn ended by itself: the node is of no use any more."""


class Agent:
    """`run` returns once the node was asked to stop and has; raises CoturnEnded where coturn ended first."""

    def __init__(self, config: TurnConfig) -> None:
        self._config = config
        self.options = ServerOptions(
            address=config.address,
            realm=REALM,
            database=config.run_dir / "turn.db",
            pid_file=config.run_dir / "turnserver.pid",
            tls=config.tls,
            tls_port=config.tls_port,
        )
        self._store = Store(self.options.database, REALM, shared=config.run_as is not None)
        self._conf = config.run_dir / "turnserver.conf"
        self._coturn = Coturn(self._conf, lambda line: self.usage.line(line, time.monotonic()), config.run_as)
        self.usage = Usage()
        self.counts = {"secrets": 0, "certificate": 0, "peers": 0}
        self._version = versions.FLOOR
        self._desired: Desired | None = None
        self._secrets: dict[str, str] = {}
        self._peers: frozenset[Address] = frozenset()
        self._certificate: Certificate | None = None
        self._filtered = False
        self._draining_since: float | None = None
        self._busy = asyncio.Lock()
        self.changed = asyncio.Event()
        self._stop = asyncio.Event()
        self._told = asyncio.Event()

    # -- what the admin port asks ----------------------------------------------------------------

    def status(self) -> Status:
        """As of now."""
        why = self._unready()
        draining, closing = self._draining_since is not None, self._past(0.0)
        return Status(
            node=self._config.node_id,
            region=self._config.region,
            version=str(self._version),
            ready=not why,
            why=why,
            draining=draining,
            closing=closing,
            drained=draining and (self.usage.allocations == 0 or self._past(CLOSING_S)),
            allocations=self.usage.allocations,
            allocations_total=self.usage.allocations_total,
            mbps=self.usage.mbps(time.monotonic()),
            peers=len(self._peers),
            accepted=tuple(self._secrets),
            packet_filter=self._filtered,
            tls_port=self.options.tls_port if self._certificate is not None else 0,
            certificate_expires=self._certificate.expires if self._certificate else None,
        )

    async def desire(self, desired: Desired) -> Status:
        """Takes the operator's wish over. Raises FilterFailed."""
        async with self._busy:
            self._desired = desired
            await self._take_peers(desired.peers)
            await self._take_secrets()
            if desired.draining:
                self._drain()
        self._told.set()
        return self.status()

    def _unready(self) -> str:
        if self._draining_since is not None:
            return "draining"
        if self._desired is None:
            return "the operator has not said yet who may be reached"
        if not self._coturn.alive:
            return "coturn does not run"
        if not self._secrets:
            return (
                f"no shared secret: none of {', '.join(self._desired.secrets) or 'no reference'} is mounted"
            )
        if self._config.tls is not None and self._certificate is None:
            return "the certificate and its key cannot be read or do not fit"
        return ""

    def _past(self, extra_s: float) -> bool:
        """Whether the drain's deadline lies more than `extra_s` behind."""
        if self._draining_since is None:
            return False
        deadline = self._desired.deadline_s if self._desired is not None else 0.0
        if self._stop.is_set():
            deadline = 0.0
        return time.monotonic() - self._draining_since > deadline + extra_s

    # -- taking things over ----------------------------------------------------------------------

    async def _take_peers(self, peers: frozenset[Address]) -> None:
        if peers == self._peers and (self._filtered or not self._config.packet_filter):
            return
        if self._config.packet_filter:
            # First the filter: what coturn stops allowing, old permissions of clients may still reach.
            await apply_filter(render_filter(self.options, peers, wellknown.PORT_MEDIA))
            self._filtered = True
        await asyncio.to_thread(self._store.set_peers, sorted(peers, key=str))
        self._peers = peers
        self.counts["peers"] += 1

    async def _take_secrets(self) -> None:
        if self._desired is None:
            return
        wanted = self._desired.secrets
        found = await asyncio.to_thread(read_secrets, self._config.secrets_dir, wanted)
        if not found and self._secrets and wanted:
            return  # a Secret that vanished for a moment must not lock everybody out
        if found != self._secrets:
            await asyncio.to_thread(self._store.set_secrets, sorted(set(found.values())))
            log.info("shared secrets in use: %s", ", ".join(found) or "none")
            self._secrets = found
            self.counts["secrets"] += 1
            self._tell()

    async def _take_certificate(self) -> None:
        if self._config.tls is None:
            return
        found = await asyncio.to_thread(read_certificate, self._config.tls)
        if found is None or found == self._certificate:
            return  # half renewed: the old one is still in coturn's memory
        if self._certificate is not None:
            self._coturn.signal(signal.SIGUSR2)
            self.counts["certificate"] += 1
            log.info("certificate renewed")
        self._certificate = found
        self._tell()

    def _drain(self) -> None:
        if self._draining_since is not None:
            return
        self._draining_since = time.monotonic()
        log.info("draining: %d allocations", self.usage.allocations)
        if self._version >= versions.DRAINS_BY_SIGNAL:
            self._coturn.signal(signal.SIGUSR1)
        self._tell()

    def _tell(self) -> None:
        """Wakes those who follow the status."""
        self.changed.set()
        self.changed = asyncio.Event()

    # -- life ------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Drains within the grace and ends."""
        self._drain()
        self._stop.set()
        self._tell()

    async def run(self) -> None:
        """Raises OSError, UnusableVersion, CoturnEnded, FilterFailed."""
        self._version = await find_version()
        if remark := versions.check_version(self._version):
            log.warning(remark)
        self._conf.write_text(render_config(self.options))
        await asyncio.to_thread(self._store.create)
        await asyncio.to_thread(self._store.set_secrets, ())
        await asyncio.to_thread(self._store.set_peers, ())
        await self._take_peers(frozenset())
        await self._take_certificate()
        admin_tls = self._config.admin_tls_dir
        shown = shown_to_operator(admin_tls) if admin_tls is not None else None
        async with serve_admin(self, self._config, shown):
            # coturn reads who may be reached when it starts, and then each five seconds only: clients that
            # are sent here at once would be refused.
            if not await self._is_told():
                return
            await self._coturn.start()
            try:
                await self._serve()
            finally:
                await self._coturn.stop()

    async def _is_told(self) -> bool:
        """Whether the operator spoke before somebody asked to stop."""
        waits = [asyncio.create_task(event.wait()) for event in (self._told, self._stop)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return self._told.is_set()

    async def _serve(self) -> None:
        ended = asyncio.create_task(self._coturn.run(), name="coturn")
        parts: list[asyncio.Task[object]] = [
            ended,
            asyncio.create_task(self._every(FILES_EVERY_S, self._look_at_files), name="files"),
            asyncio.create_task(self._until_stopped(), name="stop"),
        ]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            if ended in done and not self._is_drained_by_signal():
                raise CoturnEnded(f"coturn ended with {ended.result()}")
            for task in done:
                task.result()
        finally:
            for task in parts:
                task.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    def _is_drained_by_signal(self) -> bool:
        """A coturn that knows SIGUSR1 ends by itself with its last allocation."""
        return self._draining_since is not None and self._version >= versions.DRAINS_BY_SIGNAL

    async def _look_at_files(self) -> None:
        async with self._busy:
            await self._take_secrets()
            await self._take_certificate()

    async def _until_stopped(self) -> None:
        await self._stop.wait()
        deadline = time.monotonic() + self._config.grace_s
        while self.usage.allocations and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.1)

    async def _every(self, period_s: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except OSError as error:
                log.warning("files could not be read: %s", error)
            await asyncio.sleep(period_s)
