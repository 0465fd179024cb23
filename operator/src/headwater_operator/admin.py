"""The admin port: /healthz (this process's loop turns, nothing else), /readyz, /metrics."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import generate_latest

from headwater_operator.metrics import Metrics

# kubelet and Prometheus ask; a request that takes longer than this is not answered.
_SHUTDOWN_S = 1.0


@asynccontextmanager
async def serve_admin(
    host: str, port: int, *, metrics: Metrics, readiness: Callable[[], tuple[bool, str]]
) -> AsyncIterator[int]:
    """Serves within the block; yields the port (useful with port 0). Raises OSError where it is taken."""

    async def on_healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def on_readyz(_: web.Request) -> web.Response:
        ready, why = readiness()
        return web.Response(status=200 if ready else 503, text=f"{why}\n")

    async def on_metrics(_: web.Request) -> web.Response:
        body = generate_latest(metrics.registry)
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    app = web.Application()
    app.router.add_get("/healthz", on_healthz)
    app.router.add_get("/readyz", on_readyz)
    app.router.add_get("/metrics", on_metrics)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
