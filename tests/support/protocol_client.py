"""A LiveKit-protocol client made of aiohttp and aiortc: small, and free to misbehave."""

import asyncio
import fractions
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import av
import numpy as np
from aiortc import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
    VideoStreamTrack,
)
from headwater_sandbox.demo.spec import now_ms
from headwater_sandbox.demo.watermark import Mark, Painter, read_mark
from livekit.protocol import models, rtc
from numpy.typing import NDArray
from support.deadline import until

CLOCK_HZ = 90_000
SOUND = 9600  # samples


class MarkedTrack(VideoStreamTrack):
    """A watermarked picture at 15 frames a second."""

    def __init__(self, source: int, width: int = 320, height: int = 180) -> None:
        super().__init__()
        self._source = source
        self._painter = Painter(width, height)
        self._counter = 0
        self._start = time.monotonic()

    async def recv(self) -> av.VideoFrame:
        due = self._start + self._counter / 15
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        painter = self._painter
        data = painter.paint(Mark(self._source, self._counter, now_ms()), 60)
        planes = np.frombuffer(data, dtype=np.uint8).reshape(painter.height * 3 // 2, painter.width)
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts, frame.time_base = self._counter * CLOCK_HZ // 15, fractions.Fraction(1, CLOCK_HZ)
        self._counter += 1
        return frame


@dataclass
class Seen:
    """What was decoded of one remote track."""

    kind: str
    frames: int = 0
    marks: list[Mark] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    sound: NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, np.int16))  # the last 0.2 s, 48 kHz


def socket_url(gateway: str, **query: str) -> str:
    """The signalling URL of the dual-peer-connection protocol."""
    parts = urlsplit(gateway)
    defaults = {"protocol": "15", "sdk": "python", "version": "1.0.0", "auto_subscribe": "1"}
    pairs = "&".join(f"{k}={v}" for k, v in (defaults | query).items())
    return urlunsplit((parts.scheme, parts.netloc, "/rtc", pairs, ""))


def _only_candidates(sdp: str, address: str) -> str:
    lines = sdp.splitlines(keepends=True)
    return "".join(x for x in lines if not x.startswith("a=candidate:") or x.split(" ")[4] == address)


class ProtocolClient:
    """Joins, publishes marked video, decodes what it is offered. Use as `async with`."""

    def __init__(self, gateway: str, token: str, *, turn: str = "", reaches: str = "", **query: str) -> None:
        """`turn`: the beginning of the URL of the one TURN server to use, of those that the join names.
        `reaches`: the only address of a node that there is a way to; empty: whatever it is told."""
        self._turn, self._reaches = turn, reaches
        self._url = socket_url(gateway, **query)
        self._token = token
        self._http = aiohttp.ClientSession()
        self._tasks: list[asyncio.Task[None]] = []
        self._publisher: RTCPeerConnection | None = None
        self._subscriber = RTCPeerConnection()
        self.socket: aiohttp.ClientWebSocketResponse | None = None
        self.join: rtc.JoinResponse | None = None
        self.answer: rtc.SessionDescription | None = None
        self.messages: list[rtc.SignalResponse] = []
        self.participants: dict[str, models.ParticipantInfo] = {}
        self.seen: dict[str, Seen] = {}
        self._offers: asyncio.Queue[rtc.SessionDescription] = asyncio.Queue(100)
        self.closed = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Connects. Raises aiohttp.WSServerHandshakeError with the gateway's status."""
        headers = {"Authorization": f"Bearer {self._token}"}
        try:
            self.socket = await self._http.ws_connect(self._url, headers=headers, max_msg_size=2**22)
        except BaseException:
            await self._http.close()
            raise
        self._tasks += [asyncio.create_task(self._read()), asyncio.create_task(self._answer_forever())]
        await until(lambda: self.join, 10, "the join response arrives")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.socket is not None:
            await self.socket.close()
        if self._publisher is not None:
            await self._publisher.close()
        await self._subscriber.close()
        await self._http.close()

    async def leave(self) -> None:
        """Goes in good order, before the block ends."""
        await self.send(leave=rtc.LeaveRequest(reason=models.DisconnectReason.CLIENT_INITIATED))
        assert self.socket is not None
        await self.socket.close()

    async def send(self, **fields: Any) -> None:
        """One SignalRequest with the given field."""
        assert self.socket is not None
        await self.socket.send_bytes(rtc.SignalRequest(**fields).SerializeToString())

    async def wait_for(
        self, kind: str, within_s: float = 10, match: Callable[[Any], bool] = lambda _: True
    ) -> Any:
        """The first message of a kind, received so far or within the time."""

        def find() -> Any:
            for message in self.messages:
                if message.WhichOneof("message") == kind and match(getattr(message, kind)):
                    return getattr(message, kind)
            return None

        return await until(find, within_s, f"a {kind} message arrives")

    def sources(self) -> set[int]:
        """Whose marked pictures it has decoded."""
        return {mark.source for track in self.seen.values() for mark in track.marks}

    def lose(self, share: float, rng: random.Random) -> None:
        """Lets that share of the packets that come from now on never arrive; 0: all of them do."""
        for transport in {t.receiver.transport for t in self._subscriber.getTransceivers()}:
            vars(transport).pop("_handle_rtp_data", None)
            arrive = transport._handle_rtp_data

            async def maybe(data: bytes, arrival_time_ms: int, arrive: Any = arrive) -> None:
                if rng.random() >= share:
                    await arrive(data, arrival_time_ms=arrival_time_ms)

            if share > 0:
                transport._handle_rtp_data = maybe

    async def publish(self, source: int, width: int = 320, height: int = 180) -> str:
        """Publishes marked video; returns the track's sid."""
        track = MarkedTrack(source, width, height)
        assert self.join is not None
        self._publisher = RTCPeerConnection(self._configuration(self.join))
        self._publisher.addTrack(track)
        request = rtc.AddTrackRequest(
            cid=track.id,
            name=f"mark-{source}",
            type=models.TrackType.VIDEO,
            source=models.TrackSource.CAMERA,
            width=width,
            height=height,
            layers=[models.VideoLayer(quality=models.VideoQuality.HIGH, width=width, height=height)],
        )
        await self.send(add_track=request)
        published = await self.wait_for("track_published", match=lambda p: p.cid == track.id)
        await self._publisher.setLocalDescription(await self._publisher.createOffer())
        local = self._publisher.localDescription
        await self.send(offer=rtc.SessionDescription(type="offer", sdp=local.sdp))
        answer = await self.wait_for("answer")
        await self._publisher.setRemoteDescription(RTCSessionDescription(answer.sdp, "answer"))
        return str(published.track.sid)

    def _configuration(self, join: rtc.JoinResponse) -> RTCConfiguration:
        """aiortc uses one TURN server at most: name that one, or none."""
        for server in join.ice_servers:
            for url in server.urls:
                if self._turn and url.startswith(self._turn):
                    chosen = RTCIceServer(url, username=server.username, credential=server.credential)
                    return RTCConfiguration(iceServers=[chosen])
        return RTCConfiguration(iceServers=[])

    async def _read(self) -> None:
        assert self.socket is not None
        async for frame in self.socket:
            if frame.type is not aiohttp.WSMsgType.BINARY:
                continue
            message = rtc.SignalResponse.FromString(frame.data)
            self.messages.append(message)
            kind = message.WhichOneof("message")
            if self._reaches and kind in ("offer", "answer"):
                description = getattr(message, kind)
                description.sdp = _only_candidates(description.sdp, self._reaches)
            if kind == "join":
                configuration = self._configuration(message.join)
                # By aiortc's default, the second new m-line of a kind in one offer takes the first one's
                # transport before the bundle's takes that one's place: it would never receive.
                configuration.bundlePolicy = RTCBundlePolicy.MAX_BUNDLE
                self._subscriber = RTCPeerConnection(configuration)
                self.join = message.join
                self._note([message.join.participant, *message.join.other_participants])
            elif kind == "update":
                self._note(message.update.participants)
            elif kind == "offer":
                self._offers.put_nowait(message.offer)
        self.closed.set()

    def _note(self, participants: Any) -> None:
        for participant in participants:
            self.participants[participant.identity] = participant

    async def _answer_forever(self) -> None:
        """One offer after the other: aiortc starts no receiver for a track added while it still connects."""
        while True:
            await self._answer(await self._offers.get())
            await until(
                lambda: self._subscriber.connectionState == "connected", 20, "the subscriber connects"
            )

    async def _answer(self, offer: rtc.SessionDescription) -> None:
        pc = self._subscriber
        await pc.setRemoteDescription(RTCSessionDescription(offer.sdp, "offer"))
        for transceiver in pc.getTransceivers():
            track = transceiver.receiver.track
            if track is not None and track.id not in self.seen:
                self.seen[track.id] = Seen(track.kind)
                self._tasks.append(asyncio.create_task(self._decode(track)))
        await pc.setLocalDescription(await pc.createAnswer())
        local = pc.localDescription
        await self.send(answer=rtc.SessionDescription(type="answer", sdp=local.sdp, id=offer.id))

    async def _decode(self, track: Any) -> None:
        seen = self.seen[track.id]
        while True:
            frame = await track.recv()
            seen.frames += 1
            if track.kind == "audio":
                heard = frame.to_ndarray().reshape(-1, len(frame.layout.channels))[:, 0]
                seen.sound = np.concatenate([seen.sound, heard])[-SOUND:]
            if track.kind == "video":
                size = (frame.width, frame.height)
                if not seen.sizes or seen.sizes[-1] != size:
                    seen.sizes.append(size)
                luma = frame.to_ndarray(format="yuv420p")[: frame.height, : frame.width]
                mark = read_mark(np.ascontiguousarray(luma))
                if mark is not None:
                    seen.marks.append(mark)
