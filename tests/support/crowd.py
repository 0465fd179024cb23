"""Participants by signalling alone: no media, so that a machine can hold many of them."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp
from livekit.protocol import rtc
from support.cluster import Cluster
from support.protocol_client import socket_url

PING_S = 5.0
JOIN_S = 10.0
_numbers = itertools.count()


@dataclass
class Crowd:
    """Sockets that are open. `failures`: joins that did not succeed, each with its time and why; `waits_s`:
    how long the others took to their join response."""

    cluster: Cluster
    http: aiohttp.ClientSession
    waits_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _sitters: dict[str, list[asyncio.Task[None]]] = field(default_factory=dict)

    async def come(self, room: str, region: str, count: int) -> None:
        """So many join, and stay until `go(room)`."""
        joined = [asyncio.get_running_loop().create_future() for _ in range(count)]
        tasks = [asyncio.create_task(self._sit(room, region, done)) for done in joined]
        self._sitters.setdefault(room, []).extend(tasks)
        await asyncio.gather(*joined)

    async def go(self, room: str) -> None:
        """They leave."""
        tasks = self._sitters.pop(room, [])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def knock(self, regions: tuple[str, ...], every_s: float) -> None:
        """Joins and leaves in each region in turn, until cancelled."""
        for number in itertools.count():
            region = regions[number % len(regions)]
            await self.come(f"knock-{region}", region, 1)
            await self.go(f"knock-{region}")
            await asyncio.sleep(every_s)

    async def close(self) -> None:
        for room in list(self._sitters):
            await self.go(room)

    async def _sit(self, room: str, region: str, joined: "asyncio.Future[None]") -> None:
        identity = f"sitter-{next(_numbers)}"
        url = socket_url(self.cluster.gateway, region=region)
        headers = {"Authorization": f"Bearer {self.cluster.token(room, identity)}"}
        began = time.monotonic()
        try:
            async with asyncio.timeout(JOIN_S) as limit, self.http.ws_connect(url, headers=headers) as socket:
                await _join_response(socket)
                limit.reschedule(None)
                self.waits_s.append(time.monotonic() - began)
                joined.set_result(None)
                try:
                    await _ping(socket)
                finally:
                    leave = rtc.SignalRequest(leave=rtc.LeaveRequest())
                    with contextlib.suppress(ConnectionError):
                        await socket.send_bytes(leave.SerializeToString())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if not joined.done():
                waited = f"after {time.monotonic() - began:.1f} s"
                why = f"{type(error).__name__} {error}"
                self.failures.append(f"{time.strftime('%H:%M:%S')} {identity} in {region}, {waited}: {why}")
        finally:
            if not joined.done():
                joined.set_result(None)


async def _join_response(socket: aiohttp.ClientWebSocketResponse) -> None:
    while True:
        frame = await socket.receive()
        if frame.type is not aiohttp.WSMsgType.BINARY:
            raise aiohttp.ClientConnectionError(f"no join response but {frame.type.name} {frame.data}")
        if rtc.SignalResponse.FromString(frame.data).HasField("join"):
            return


async def _ping(socket: aiohttp.ClientWebSocketResponse) -> None:
    """Until the socket is closed."""
    while not socket.closed:
        ping = rtc.SignalRequest(ping_req=rtc.Ping(timestamp=int(time.time() * 1000)))
        await socket.send_bytes(ping.SerializeToString())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PING_S):
                while (await socket.receive()).type is aiohttp.WSMsgType.BINARY:
                    pass
                return


@contextlib.asynccontextmanager
async def a_crowd(cluster: Cluster) -> AsyncIterator[Crowd]:
    """Nobody of it is left after the block."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        crowd = Crowd(cluster, http)
        try:
            yield crowd
        finally:
            await crowd.close()
