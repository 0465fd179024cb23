"""The agent: one engine, its gRPC service, its reports and its admin port."""

import asyncio
import importlib
import json
import logging
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import grpc.aio
from headwater_api import wellknown
from headwater_api.nodev1 import node_pb2

from headwater_sfu import usage
from headwater_sfu.admin import AdminServer, Reply
from headwater_sfu.auth import BearerInterceptor
from headwater_sfu.config import NodeConfig
from headwater_sfu.drain import STOP_REASON, Drain, is_empty
from headwater_sfu.engine import Engine, EngineModule
from headwater_sfu.fanout import Fanout
from headwater_sfu.loopwatch import LoopWatch
from headwater_sfu.service import MAX_MESSAGE_BYTES, NodeService, make_handler
from headwater_sfu.tls import Certificates

if TYPE_CHECKING:
    from headwater_sfu.traces import NodeTraces

REPORT_PERIOD_S: Final = 1.0
# A report older than this means that the engine's thread is gone.
REPORT_STALE_S: Final = 5.0
DRAIN_BATCH: Final = 256
GRPC_STOP_S: Final = 0.3
_JSON: Final = "application/json"

log = logging.getLogger(__name__)


class Agent:
    """Owns the engine and everything that talks to it. `run` returns once the node has stopped.

    Raises BadCertificate.
    """

    def __init__(self, config: NodeConfig, module: EngineModule, traces: "NodeTraces | None" = None) -> None:
        self._config = config
        self._traces = traces
        self._module = module
        self._fanout = Fanout()
        self._loopwatch = LoopWatch()
        self._drain = Drain()
        self._stop = asyncio.Event()
        self._report = node_pb2.NodeReport(node_id=config.node_id, region=config.region)
        self._report_at_s = 0.0
        self._cpu = usage.take_sample(time.monotonic())
        self._cores = len(os.sched_getaffinity(0))
        self._certificates = Certificates(config.tls_dir) if config.tls_dir is not None else None
        self._engine: Engine = module.factory(
            bind=[config.address(wellknown.PORT_MEDIA)],
            advertise=None,
            node_id=config.node_id,
            region=config.region,
            max_connections=config.max_connections,
        )

    # What the gRPC service asks of us.

    def set_draining(self, request: node_pb2.SetDrainingRequest) -> None:
        """Raises Stopping where the node is about to end and is told to return to service."""
        was_active = self._drain.active
        self._drain.order(request, _unix_ms())
        if request.draining != was_active:
            log.info("draining" if request.draining else "back in service", extra={"reason": request.reason})
        self._engine.set_draining(request.draining)
        self._take_report()

    def latest_report(self) -> bytes:
        return node_pb2.WatchResponse(report=self._report).SerializeToString()

    # Life.

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT, then drains within the grace and closes the engine.

        Raises OSError where a port is taken.
        """
        loop = asyncio.get_running_loop()
        for sig in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sig, self._stop.set)
        server = self._make_grpc()
        admin = AdminServer(
            {
                "/healthz": self._healthz,
                "/readyz": self._readyz,
                "/metrics": self._metrics,
                "/status.json": self._status,
            }
        )
        fd = self._engine.fileno()
        try:
            self._take_report()
            loop.add_reader(fd, self._on_events, fd)
            async with asyncio.TaskGroup() as tasks:
                loopwatch = tasks.create_task(self._loopwatch.run())
                reports = tasks.create_task(self._report_forever())
                await server.start()
                await admin.start(str(self._config.pod_ip), wellknown.PORT_ADMIN)
                log.info("node is up", extra={"node": self._config.node_id, "region": self._config.region})
                await self._stop.wait()
                await self._empty()
                loopwatch.cancel()
                reports.cancel()
        finally:
            loop.remove_reader(fd)
            admin.close()
            self._fanout.close()
            await server.stop(GRPC_STOP_S)
            self._engine.close()
            log.info("node has stopped", extra={"node": self._config.node_id})

    async def _empty(self) -> None:
        """Drains until nobody is here and nothing passes through, at most for the grace."""
        grace_s = self._config.drain_grace_s
        deadline = time.monotonic() + grace_s
        self._drain.stop(_unix_ms(), grace_s, self._report.participants)
        self._engine.set_draining(True)
        self._take_report()
        log.info("draining", extra={"reason": STOP_REASON, "participants": self._report.participants})
        while not is_empty(self._report) and time.monotonic() < deadline:
            await asyncio.sleep(min(0.2, grace_s))
            self._take_report()
        if self._report.connections:
            log.warning("stopped with connections", extra={"connections": self._report.connections})

    def _make_grpc(self) -> grpc.aio.Server:
        server = grpc.aio.server(
            interceptors=[BearerInterceptor(self._config.token), *filter(None, [self._traces])],
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                ("grpc.so_reuseport", 0),
                # Gateways ping fast to notice a dead node; do not punish them for it.
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", 200),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 200),
                ("grpc.http2.max_ping_strikes", 0),
            ],
        )
        service = NodeService(self._engine, self._module.stale_epoch, self._fanout, self)
        server.add_generic_rpc_handlers((make_handler(service),))
        address = self._config.address(wellknown.PORT_NODE_GRPC)
        if self._certificates is None:
            server.add_insecure_port(address)
        else:
            server.add_secure_port(address, self._certificates.credentials())
        return server

    # Events and reports.

    def _on_events(self, fd: int) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(fd)
        self._publish_events()

    def _publish_events(self) -> None:
        batch = self._engine.drain(DRAIN_BATCH)
        for controller_id, payload in batch:
            self._fanout.publish(controller_id, payload)
        if self._traces is not None:
            self._traces.heard(batch)
        if len(batch) == DRAIN_BATCH:  # more may wait: let the loop breathe in between
            asyncio.get_running_loop().call_soon(self._publish_events)

    async def _report_forever(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + REPORT_PERIOD_S, loop.time())
            await asyncio.sleep(due - loop.time())
            self._take_report()
            if self._traces is not None:
                self._traces.tidy()

    def _take_report(self) -> None:
        try:
            report = node_pb2.NodeReport.FromString(self._engine.report())
        except Exception:
            # The last good report ages, and readiness fails with it; the loop itself goes on.
            log.exception("the engine gave no report")
            return
        now_s = time.monotonic()
        sample = usage.take_sample(now_s)
        if now_s - self._cpu.at_s >= REPORT_PERIOD_S / 2:
            report.cpu_percent = usage.cpu_percent(self._cpu, sample, self._cores)
            self._cpu = sample
        else:
            report.cpu_percent = self._report.cpu_percent
        report.rss_bytes = usage.rss_bytes()
        report.draining = self._drain.active
        if self._drain.state is not None:
            report.drain.CopyFrom(self._drain.state)
        report.at_ms = _unix_ms()
        self._report = report
        self._report_at_s = now_s
        self._fanout.broadcast_report(self.latest_report())

    # Admin.

    async def _healthz(self) -> Reply:
        body = {"loop_lag_ms": round(self._loopwatch.lag_s * 1000, 3)}
        ok = self._loopwatch.healthy
        return _json(HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE, body)

    async def _readyz(self) -> Reply:
        if self._drain.active:
            return _json(HTTPStatus.SERVICE_UNAVAILABLE, {"ready": False, "reason": "draining"})
        if time.monotonic() - self._report_at_s > REPORT_STALE_S:
            return _json(HTTPStatus.SERVICE_UNAVAILABLE, {"ready": False, "reason": "the engine is silent"})
        if self._report.media_stalled_ms > REPORT_STALE_S * 1000:
            return _json(HTTPStatus.SERVICE_UNAVAILABLE, {"ready": False, "reason": "media stands still"})
        return _json(HTTPStatus.OK, {"ready": True})

    async def _metrics(self) -> Reply:
        metrics = await asyncio.to_thread(importlib.import_module, "headwater_sfu.metrics")
        body = metrics.render_metrics(
            self._report,
            len(self._fanout),
            self._fanout.lagged_total,
            self._loopwatch.lag_s,
            self._certificates.expires if self._certificates is not None else None,
        )
        return Reply(HTTPStatus.OK, metrics.CONTENT_TYPE, body)

    async def _status(self) -> Reply:
        from google.protobuf.json_format import MessageToDict

        body = MessageToDict(
            self._report, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        addresses = node_pb2.NodeInfo.FromString(self._engine.info()).media_addresses
        more = {
            "pid": os.getpid(),
            "media_addresses": list(addresses),
            "receive_buffer_bytes": usage.receive_buffer_bytes(wellknown.PORT_MEDIA),
        }
        return _json(HTTPStatus.OK, body | more)


def _unix_ms() -> int:
    return time.time_ns() // 1_000_000


def _json(status: HTTPStatus, body: Mapping[str, object]) -> Reply:
    return Reply(status, _JSON, json.dumps(body).encode())
