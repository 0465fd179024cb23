"""The probe's two clients: one publishes, the other watches it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Final
from urllib.parse import urljoin

import aiohttp
from aiortc import MediaStreamTrack, RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from headwater_cli.probe.judge import Measured
from headwater_cli.probe.media import Picture, Tone, audible

HTTP_DEADLINE_S: Final = 10.0
CONNECT_DEADLINE_S: Final = 15.0
SDP: Final = "application/sdp"


class ProbeError(Exception):
    """A stage failed; the text says how."""


async def probe(url: str, room: str, token: Callable[[str], str], seconds: float) -> Measured:
    """One run against the gateway at `url` (http or https). `token(identity)` signs a token for `room`."""
    measured = Measured()
    timeout = aiohttp.ClientTimeout(total=HTTP_DEADLINE_S)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        try:
            async with _publishing(http, f"{url}/whip/{room}", token("probe-source")) as (peer, took):
                measured = replace(measured, published_s=took, publish_address=_remote_address(peer))
                return await _watch(http, f"{url}/whep/{room}", token("probe-viewer"), seconds, measured)
        except (ProbeError, aiohttp.ClientError, OSError, TimeoutError) as error:
            return replace(measured, error=str(error) or "no answer in time")


@contextlib.asynccontextmanager
async def _publishing(
    http: aiohttp.ClientSession, url: str, token: str
) -> AsyncIterator[tuple[RTCPeerConnection, float]]:
    peer = _peer()
    peer.addTrack(Tone())
    peer.addTrack(Picture())
    started = time.monotonic()
    async with _resource(http, url, token, peer):
        await _connected(peer)
        yield peer, time.monotonic() - started


async def _watch(
    http: aiohttp.ClientSession, url: str, token: str, seconds: float, measured: Measured
) -> Measured:
    peer = _peer()
    started = time.monotonic()
    watch = _Watch(started)
    for kind in ("audio", "video"):
        peer.addTransceiver(kind, direction="recvonly")
    peer.on("track", watch.take)
    async with _resource(http, url, token, peer):
        await _connected(peer)
        measured = replace(
            measured, watching_s=time.monotonic() - started, watch_address=_remote_address(peer)
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await watch.run()
        loss, rtt = await _statistics(peer)
    return replace(
        measured,
        first_frame_s=watch.first_frame_s,
        audio_s=watch.audio_s,
        frames_per_second=watch.rate(),
        loss_percent=loss,
        rtt_ms=rtt,
    )


class _Watch:
    """Counts decoded pictures and listens for the tone."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._readers: list[Awaitable[None]] = []
        self._frames = 0
        self._last_frame_s = 0.0
        self.first_frame_s: float | None = None
        self.audio_s: float | None = None

    def take(self, track: MediaStreamTrack) -> None:
        self._readers.append(self._pictures(track) if track.kind == "video" else self._sound(track))

    async def run(self) -> None:
        """Until cancelled, or both tracks have ended."""
        await asyncio.gather(*self._readers)

    def rate(self) -> float:
        """Pictures a second from the first to the last."""
        span = self._last_frame_s - (self.first_frame_s or 0.0)
        return (self._frames - 1) / span if self._frames > 1 and span > 0 else 0.0

    async def _pictures(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                await track.recv()
                now = time.monotonic() - self._started
                self.first_frame_s = now if self.first_frame_s is None else self.first_frame_s
                self._last_frame_s = now
                self._frames += 1

    async def _sound(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                if self.audio_s is None and audible(frame):  # type: ignore[arg-type]
                    self.audio_s = time.monotonic() - self._started


def _peer() -> RTCPeerConnection:
    # ICE servers come with the answer, too late for aiortc: a client behind a UDP filter needs TURN
    # servers in `RTCConfiguration`, which no WHIP client gets before its first offer.
    return RTCPeerConnection(RTCConfiguration(iceServers=list[RTCIceServer]()))


@contextlib.asynccontextmanager
async def _resource(
    http: aiohttp.ClientSession, url: str, token: str, peer: RTCPeerConnection
) -> AsyncIterator[None]:
    """The WHIP or WHEP resource of an offer; ended with the block, whatever happens in it."""
    headers = {"Authorization": f"Bearer {token}"}
    location = ""
    try:
        await peer.setLocalDescription(await peer.createOffer())
        async with http.post(
            url, data=peer.localDescription.sdp, headers={**headers, "Content-Type": SDP}
        ) as response:
            text = await response.text()
            if response.status != 201:
                raise ProbeError(f"{url} answers {response.status}: {text[:300]}")
            location = urljoin(str(response.url), response.headers["Location"])
        await peer.setRemoteDescription(RTCSessionDescription(text, "answer"))
        yield
    finally:
        await peer.close()
        if location:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with http.delete(location, headers=headers):
                    pass


async def _connected(peer: RTCPeerConnection) -> None:
    done = asyncio.Event()
    peer.on("connectionstatechange", done.set)
    try:
        async with asyncio.timeout(CONNECT_DEADLINE_S):
            while peer.connectionState != "connected":
                if peer.connectionState in ("failed", "closed"):
                    raise ProbeError(f"ICE or DTLS {peer.connectionState}: is UDP to the media address open?")
                done.clear()
                await done.wait()
    except TimeoutError:
        raise ProbeError(
            f"no media connection within {CONNECT_DEADLINE_S:g} s: is UDP to the media address open?"
        ) from None


def _remote_address(peer: RTCPeerConnection) -> str:
    """The node's address of the pair that ICE chose."""
    transport = peer.getTransceivers()[0].receiver.transport.transport
    pair = transport._connection._nominated.get(1)  # aiortc shows no selected pair
    return f"{pair.remote_addr[0]}:{pair.remote_addr[1]}" if pair else ""


async def _statistics(peer: RTCPeerConnection) -> tuple[float, float | None]:
    """Loss in percent of what was sent to us; round-trip time in ms where a report told it."""
    lost = received = 0
    rtt: float | None = None
    for stat in (await peer.getStats()).values():
        if stat.type == "inbound-rtp":
            lost += max(0, stat.packetsLost)
            received += stat.packetsReceived
        if stat.type == "remote-inbound-rtp" and stat.roundTripTime:
            rtt = stat.roundTripTime * 1000
    return (100 * lost / (lost + received) if lost + received else 0.0), rtt
