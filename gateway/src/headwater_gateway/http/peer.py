"""GET /peer: beats for another gateway, as long as this one's loop turns."""

import asyncio
import contextlib

from aiohttp import web

from headwater_gateway.directory.liveness import BEAT_S
from headwater_gateway.directory.peers import CLOSE_LEAVING, STATUS_LEAVING
from headwater_gateway.http.admission import HEADER_CLIENT, HEADER_VOUCHER, is_vouched, voucher
from headwater_gateway.signal.types import CLOSE_NORMAL

_PURPOSE = "peer"
_CLOSE_SECONDS = 0.2


def peer_headers(secret: str, gateway: str) -> dict[str, str]:
    """What a gateway shows to be let in."""
    return {HEADER_CLIENT: gateway, HEADER_VOUCHER: voucher(secret, gateway, _PURPOSE)}


class PeerDoor:
    """The handler. Only gateways, which share the nodes' secret, are let in."""

    def __init__(self, secret: str, gateway: str) -> None:
        self._secret, self._gateway = secret, gateway
        self._leaving = asyncio.Event()

    def leave(self) -> None:
        """Tell the other gateways at once that this one goes: its rooms are theirs now."""
        self._leaving.set()

    async def beats(self, request: web.Request) -> web.StreamResponse:
        """A text frame with this gateway's name, each BEAT_S seconds."""
        if not is_vouched(request, self._secret, request.headers.get(HEADER_CLIENT, ""), _PURPOSE):
            return web.Response(status=404, text="no such page")
        socket = web.WebSocketResponse(timeout=_CLOSE_SECONDS, max_msg_size=4096)
        if not socket.can_prepare(request).ok:
            return web.Response(status=426, text="connect here with a WebSocket")
        if self._leaving.is_set():
            return web.Response(status=STATUS_LEAVING, text="this gateway is shutting down")
        await socket.prepare(request)
        try:
            while not socket.closed and not self._leaving.is_set():
                await socket.send_str(self._gateway)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(BEAT_S):
                        await self._leaving.wait()
        except ConnectionError:
            pass
        finally:
            await socket.close(code=CLOSE_LEAVING if self._leaving.is_set() else CLOSE_NORMAL)
        return socket
