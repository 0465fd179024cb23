"""metricsSource Prometheus: a real server scrapes the agent's own exposition; its figures size the fleet."""

import asyncio
import math
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web
from headwater_api.nodev1 import node_pb2
from headwater_api.reasons import Reason
from headwater_operator.metrics_source.choose import MetricsSources
from headwater_operator.metrics_source.prometheus import MetricsUnavailable, PrometheusSource
from headwater_planner.scale.signals import NodeSignals, fault_of
from headwater_planner.world import ClusterWorld
from headwater_sfu.metrics import render_metrics
from support.deadline import until
from support.fleet import a_load, a_pod, a_world
from support.processes import loopback_address
from support.scaling import an_autoscaled

PROMETHEUS = shutil.which("prometheus")
NODES = ("eu-a", "eu-b")


@dataclass
class Exporter:
    """Two nodes' /metrics; a node that is `down` refuses."""

    reports: dict[str, node_pb2.NodeReport] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)

    async def answer(self, request: web.Request) -> web.Response:
        node = request.match_info["node"]
        if node in self.down:
            raise web.HTTPServiceUnavailable
        return web.Response(
            body=render_metrics(self.reports[node], 0, 0, 0.0),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )


@asynccontextmanager
async def exporting() -> AsyncIterator[tuple[Exporter, int]]:
    exporter = Exporter()
    for name in NODES:
        exporter.reports[name] = node_pb2.NodeReport(
            node_id=name, region="eu", cpu_percent=80.0, connections=400, participants=200,
            tx_mbps=12.5, tx_pps=3000, forward_p95_us=2500, transports_created=77, buffer_percent=3.0,
        )  # fmt: skip
    app = web.Application()
    app.router.add_get("/{node}/metrics", exporter.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield exporter, runner.addresses[0][1]
    finally:
        await runner.cleanup()


def free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def scraping(folder: Path, target: int) -> AsyncIterator[str]:
    """A Prometheus server that scrapes once a second; its URL."""
    assert PROMETHEUS, "prometheus is not installed: apt-get install prometheus"
    jobs = "".join(
        f"  - job_name: {name}\n    metrics_path: /{name}/metrics\n    static_configs:\n"
        f"      - targets: ['127.0.0.1:{target}']\n        labels: {{namespace: calls, pod: {name}}}\n"
        for name in NODES
    )
    config = folder / "prometheus.yml"
    config.write_text(f"global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n{jobs}")
    address = loopback_address()
    port = free_port(address)
    with (folder / "prometheus.log").open("wb") as log:
        server = await asyncio.create_subprocess_exec(
            PROMETHEUS,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}:{port}",
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://{address}:{port}"
    finally:
        server.terminate()
        await asyncio.wait_for(server.wait(), 20)


def a_prometheus_world(url: str) -> ClusterWorld:
    autoscaling = {"metricsSource": "Prometheus", "prometheus": {"url": url}}
    cluster = an_autoscaled({"eu": (1, 10)}, autoscaling=autoscaling)
    return a_world(cluster, [a_pod(name) for name in NODES], [a_load(name) for name in NODES])


async def test_a_real_server_s_figures(tmp_path: Path) -> None:
    async with exporting() as (exporter, target), scraping(tmp_path, target) as url:
        sources, world = MetricsSources(), a_prometheus_world(url)

        async def both() -> dict[str, NodeSignals] | None:
            signals, problem = await sources.read(world, datetime.now(UTC))
            ready = problem is None and all(not fault_of(signals.get(name)) for name in NODES)
            return dict(signals) if ready else None

        signals = await until(both, 20, "both nodes' figures are there")
        node = signals["eu-a"]
        assert (node.cpu_percent, node.connections, node.egress_mbps) == (80.0, 400.0, 12.5)
        assert (node.packets_per_second, node.queue_percent, node.transports_created) == (3000.0, 3.0, 77.0)
        assert node.p95_ms == pytest.approx(2.5) and 0 <= node.age_s < 5

        # A target that fails has no figures a scrape later; the other one keeps its own.
        exporter.down.add("eu-b")

        async def one() -> bool:
            now, _ = await sources.read(world, datetime.now(UTC))
            return bool(fault_of(now.get("eu-b"))) and not fault_of(now.get("eu-a"))

        await until(one, 20, "the silent node has no figures")
        exporter.reports["eu-a"].cpu_percent = math.nan

        async def nan() -> bool:
            now, _ = await sources.read(world, datetime.now(UTC))
            return "CPU percent nan" in fault_of(now.get("eu-a"))

        await until(nan, 20, "NaN comes through as a fault")
        await sources.close()


async def test_a_server_that_is_away_is_a_problem_and_no_figures() -> None:
    url = f"http://127.0.0.1:{free_port('127.0.0.1')}"
    sources = MetricsSources()
    signals, problem = await sources.read(a_prometheus_world(url), datetime.now(UTC))
    assert signals == {} and problem is not None and problem.reason is Reason.METRICS_MISSING
    assert url in problem.text
    await sources.close()


async def test_an_answer_that_is_no_prometheus_s() -> None:
    async def nonsense(_: web.Request) -> web.Response:
        return web.json_response({"data": {"result": "surprise"}})

    app = web.Application()
    app.router.add_get("/api/v1/query", nonsense)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        with pytest.raises(MetricsUnavailable, match="cannot be asked"):
            await PrometheusSource().read(f"http://127.0.0.1:{runner.addresses[0][1]}", "calls", 0.0)
    finally:
        await runner.cleanup()
