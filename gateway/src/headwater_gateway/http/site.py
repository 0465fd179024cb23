"""The demo page: static files from one folder, under a strict content policy. No CDN."""

import re
from pathlib import Path

from aiohttp import web

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\.(html|js|css|svg|png|ico)\Z")
_HOST = re.compile(r"[A-Za-z0-9.\-]+(:\d+)?\Z|\[[0-9A-Fa-f:]+\](:\d+)?\Z")
_CLIENT = Path("node_modules/livekit-client/dist/livekit-client.umd.js")


def content_policy(host: str) -> str:
    """Everything from here only. WebSockets are named since not each browser counts them to 'self'."""
    sockets = f" ws://{host} wss://{host}" if _HOST.match(host) else ""
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data:",
            "media-src 'self' blob: mediastream:",
            "worker-src 'self' blob:",
            f"connect-src 'self'{sockets}",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


class Site:
    """GET /, /<file> and /vendor/livekit-client.js."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def index(self, request: web.Request) -> web.StreamResponse:
        return self._file(request, "index.html")

    async def file(self, request: web.Request) -> web.StreamResponse:
        return self._file(request, request.match_info["name"])

    async def client(self, request: web.Request) -> web.StreamResponse:
        """livekit-client, as the package manager installed it beside the page."""
        path = self._folder / _CLIENT
        if not path.is_file():
            return web.Response(
                status=404, text=f"livekit-client is not installed: run npm ci in {self._folder.name}/"
            )
        return self._send(request, path)

    def _file(self, request: web.Request, name: str) -> web.StreamResponse:
        path = self._folder / name
        if not _NAME.match(name) or not path.is_file():
            return web.Response(status=404, text="no such page")
        return self._send(request, path)

    def _send(self, request: web.Request, path: Path) -> web.StreamResponse:
        return web.FileResponse(
            path,
            headers={
                "Content-Security-Policy": content_policy(request.host),
                "X-Content-Type-Options": "nosniff",
                "Referrer-Policy": "no-referrer",
                "Cache-Control": "no-cache",
            },
        )
