"""What stands between a new connection and aiohttp: PROXY protocol v1 and v2, and a deadline.

A connection must have got its first response within a deadline, so that strangers cannot hold sockets open by
sending half a request; aiohttp itself only times the pauses after the first one. PROXY headers are read from
trusted proxies only.

Specification: "The PROXY protocol, versions 1 and 2" (HAProxy). The header comes before the first byte
of HTTP, so a small protocol reads it and then passes everything on to aiohttp's own.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import Any, cast

from aiohttp import web

from headwater_gateway.geo.client_address import is_trusted
from headwater_gateway.settings import Network

SIGNATURE_V2 = b"\r\n\r\n\x00\r\nQUIT\n"
_MAX_V1 = 107
_MAX_V2 = 16 + 2048
_HEADER_SECONDS = 5.0
_FIRST_RESPONSE_SECONDS = 15.0

# Transport → the source address that a PROXY header gave, and transports that got a response.
# Entries go with their connection.
_sources: dict[int, str] = {}
_served: set[int] = set()
_open: set[int] = set()


def note_response(request: web.Request) -> None:
    """The request's connection has shown itself to be a client's: its deadline is lifted."""
    if id(request.transport) in _open:
        _served.add(id(request.transport))


class HeaderError(ValueError):
    """Bytes that are no PROXY header; the connection is dropped."""


def parse_header(data: bytes) -> tuple[str, int] | None:
    """(source address or "" for local and unknown, header length); None: more bytes are needed."""
    if data.startswith(SIGNATURE_V2):
        return _parse_v2(data)
    if SIGNATURE_V2.startswith(data[:12]) and len(data) < 12:
        return None
    if data.startswith(b"PROXY ") or b"PROXY ".startswith(data):
        return _parse_v1(data)
    raise HeaderError("no PROXY header")


def _parse_v1(data: bytes) -> tuple[str, int] | None:
    end = data.find(b"\r\n")
    if end < 0:
        if len(data) > _MAX_V1:
            raise HeaderError("PROXY v1 line too long")
        return None
    if end > _MAX_V1:
        raise HeaderError("PROXY v1 line too long")
    try:
        words = data[:end].decode("ascii").split(" ")
        if words[1:2] == ["UNKNOWN"]:
            return "", end + 2
        if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
            raise HeaderError("PROXY v1 line malformed")
        return str(ipaddress.ip_address(words[2])), end + 2
    except ValueError:
        raise HeaderError("PROXY v1 line malformed") from None


def _parse_v2(data: bytes) -> tuple[str, int] | None:
    if len(data) < 16:
        return None
    version, command = data[12] >> 4, data[12] & 0x0F
    length = 16 + int.from_bytes(data[14:16], "big")
    if version != 2 or command > 1 or length > _MAX_V2:
        raise HeaderError("PROXY v2 header malformed")
    if len(data) < length:
        return None
    family = data[13] >> 4
    if command == 0 or family not in (1, 2):  # LOCAL (health checks), or no IP address
        return "", length
    size, inet = (4, socket.AF_INET) if family == 1 else (16, socket.AF_INET6)
    if length < 16 + 2 * size + 4:
        raise HeaderError("PROXY v2 addresses too short")
    return socket.inet_ntop(inet, data[16 : 16 + size]), length


def peer_address(request: web.Request) -> str:
    """The TCP source, or what the trusted proxy's PROXY header says."""
    transport = request.transport
    return _sources.get(id(transport)) or request.remote or ""


class Doorkeeper(asyncio.Protocol):
    """Reads the PROXY header if the peer is a trusted proxy, then is only a relay to `inner`.

    `trusted` None: no PROXY headers are expected.
    """

    def __init__(self, inner: asyncio.Protocol, trusted: Sequence[Network] | None) -> None:
        self._inner = inner
        self._trusted = trusted
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._started = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        _open.add(id(transport))
        peer = transport.get_extra_info("peername")
        if self._trusted is not None and peer and is_trusted(peer[0], self._trusted):
            self._abort_after(_HEADER_SECONDS)
        else:
            self._start()

    def data_received(self, data: bytes) -> None:
        if self._started:
            self._inner.data_received(data)
            return
        self._buffer += data
        try:
            parsed = parse_header(self._buffer)
        except HeaderError:
            self._abort()
            return
        if parsed is None:
            return
        source, length = parsed
        if source:
            _sources[id(self._transport)] = source
        rest, self._buffer = self._buffer[length:], b""
        self._start()
        if rest:
            self._inner.data_received(rest)

    def _start(self) -> None:
        self._started = True
        self._abort_after(_FIRST_RESPONSE_SECONDS)
        assert self._transport is not None
        self._inner.connection_made(self._transport)

    def _abort_after(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._abort_unless_served)

    def _abort_unless_served(self) -> None:
        if id(self._transport) not in _served:
            self._abort()

    def _abort(self) -> None:
        assert self._transport is not None
        self._transport.abort()

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._started else False

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        key = id(self._transport)
        _sources.pop(key, None)
        _served.discard(key)
        _open.discard(key)
        if self._started:
            self._inner.connection_lost(exc)


def wrap(factory: Callable[[], Any], trusted: Sequence[Network] | None) -> Callable[[], Doorkeeper]:
    """A protocol factory for `loop.create_server` around aiohttp's."""
    return lambda: Doorkeeper(factory(), trusted)
