"""A plain-HTTP proxy before a test's API server: it counts writes, and makes the API server bad on demand.

Between the operator and the API server it can end the operator right after a given write has been carried
out, answer with an error, hold every byte back (a half-open connection), or answer a list from the past.
"""

import asyncio
import base64
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml
from aiohttp import web
from yarl import URL

WRITES: Final = ("POST", "PUT", "PATCH", "DELETE")
# Not decisions: the Lease is renewed all the time, Events are best effort.
UNCOUNTED: Final = ("/leases", "/events")
Fault = Callable[[web.BaseRequest], web.Response | None]


@dataclass
class ApiProxy:
    """`kill` is called once the write number `kill_at` (from 1) has been carried out."""

    upstream: str
    session: aiohttp.ClientSession
    port: int = 0
    writes: list[str] = field(default_factory=list)
    kill_at: int = 0
    kill: Callable[[], None] = lambda: None
    fault: Fault = lambda _: None
    requests: dict[str, int] = field(default_factory=dict)
    _open: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._open.set()

    def hold(self) -> None:
        """From now on no byte passes, in either direction; connections stay open."""
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        await self._open.wait()
        kind = f"{request.method} {_kind_of(request.path)}"
        self.requests[kind] = self.requests.get(kind, 0) + 1
        if (refusal := self.fault(request)) is not None:
            return refusal
        body = await request.read()
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() in ("accept", "content-type", "user-agent")
        }
        url = URL(f"{self.upstream}{request.rel_url.raw_path_qs}", encoded=True)
        async with self.session.request(request.method, url, data=body or None, headers=headers) as answer:
            if request.method in WRITES and not any(part in request.path for part in UNCOUNTED):
                carried_out = await answer.read()
                self._count(f"{request.method} {request.path} {answer.status}", answer.status)
                return web.Response(status=answer.status, body=carried_out, headers=_passed_on(answer))
            return await self._relay(request, answer)

    def _count(self, what: str, status: int) -> None:
        if status >= 300:
            return
        self.writes.append(what)
        if len(self.writes) == self.kill_at:
            self.kill()

    async def _relay(self, request: web.BaseRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers=_passed_on(answer))
        await response.prepare(request)
        with suppress(ConnectionError, aiohttp.ClientError):
            async for chunk in answer.content.iter_any():
                await self._open.wait()
                await response.write(chunk)
            await response.write_eof()
        return response


def _passed_on(answer: aiohttp.ClientResponse) -> dict[str, str]:
    names = ("Content-Type", "Retry-After")
    return {name: answer.headers[name] for name in names if name in answer.headers}


def _kind_of(path: str) -> str:
    """The resource of a REST path, for counting."""
    parts = [part for part in path.split("/") if part]
    parts = parts[3:] if parts[:1] == ["apis"] else parts[2:]
    if parts[:1] == ["namespaces"] and len(parts) > 2:
        parts = parts[2:]
    return parts[0] if parts else path


def status(code: int, reason: str, **headers: str) -> web.Response:
    """A refusal as the API server words it."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code}
    return web.json_response(body | {"message": f"injected: {reason}"}, status=code, headers=headers)


def _ssl_of(config: dict[str, Any]) -> tuple[str, ssl.SSLContext]:
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = ssl.create_default_context(
        cadata=base64.b64decode(cluster["certificate-authority-data"]).decode()
    )
    with tempfile.NamedTemporaryFile() as cert, tempfile.NamedTemporaryFile() as key:
        Path(cert.name).write_bytes(base64.b64decode(user["client-certificate-data"]))
        Path(key.name).write_bytes(base64.b64decode(user["client-key-data"]))
        context.load_cert_chain(cert.name, key.name)
    return cluster["server"], context


@asynccontextmanager
async def api_proxy(kubeconfig: Path) -> AsyncIterator[ApiProxy]:
    """Serves on a free port within the block; `write_kubeconfig` makes a kubeconfig that leads through it."""
    config = yaml.safe_load(kubeconfig.read_text())
    upstream, context = _ssl_of(config)
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        proxy = ApiProxy(upstream, session)
        runner = web.ServerRunner(web.Server(proxy.handle), shutdown_timeout=0.5)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        proxy.port = runner.addresses[0][1]
        try:
            yield proxy
        finally:
            proxy.release()
            await runner.cleanup()


def write_kubeconfig(path: Path, port: int) -> Path:
    """A kubeconfig for the proxy: no credentials, it has its own."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "proxy", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "nobody", "user": {}}],
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "nobody"}}],
        "current-context": "proxy",
    }
    path.write_text(yaml.safe_dump(config))
    return path
