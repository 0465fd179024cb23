"""A participant without a person: the `livekit` SDK, a marked picture, a tone, and eyes and ears."""

import asyncio
import contextlib
import logging
import random
import re
import time
from collections.abc import Coroutine
from typing import Any, Final

import numpy as np
from livekit import rtc

from headwater_sandbox.demo.recorder import PairRecorder, PairReport
from headwater_sandbox.demo.spec import BotSpec, now_ms
from headwater_sandbox.demo.tone import frequency, tone_block, tone_heard
from headwater_sandbox.demo.watermark import Mark, Painter, read_mark

SEND_RATE: Final = 48_000
HEAR_RATE: Final = 8_000
BLOCK_MS: Final = 100
CONNECT_DEADLINE_S: Final = 20.0
# Retries of a whole join, with full jitter between zero and these.
BACKOFF_FIRST_S: Final = 0.5
BACKOFF_MAX_S: Final = 5.0
CLOSE_DEADLINE_S: Final = 3.0
_VIDEO_NAME: Final = re.compile(r"mark-(\d+)")
_AUDIO_NAME: Final = re.compile(r"tone-(\d+)")

log = logging.getLogger(__name__)


class Bot:
    """Joins, publishes, watches everybody; joins again when it was thrown out."""

    def __init__(self, spec: BotSpec, rng: random.Random) -> None:
        self.spec = spec
        self.state = "new"
        self.joins = 0
        self.errors: list[str] = []
        self._rng = rng
        self._room: rtc.Room | None = None
        self._pairs: dict[str, PairRecorder] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._gone = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`."""
        attempt = 0
        while not stop.is_set():
            started = time.monotonic()
            try:
                await self._session(stop)
            except (rtc.ConnectError, rtc.RpcError, TimeoutError, RuntimeError) as error:
                self.errors.append(f"{type(error).__name__}: {error}"[:300])
            except Exception as error:  # the SDK raises bare Exceptions for failed publications
                self.errors.append(f"{type(error).__name__}: {error}"[:300])
            attempt = 0 if time.monotonic() - started > 10 else attempt + 1
            if not stop.is_set():
                self.state = "waiting"
                ceiling = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2**attempt)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), self._rng.uniform(0, ceiling))
        self.state = "stopped"

    def take(self) -> dict[str, Any]:
        """What happened since the last call, ready for JSON."""
        room = self._room
        attributes = dict(room.local_participant.attributes) if room and room.isconnected() else {}
        pairs: list[PairReport] = [pair.take(now_ms()) for pair in self._pairs.values()]
        errors, self.errors = self.errors, []
        return {
            "identity": self.spec.identity,
            "state": self.state,
            "joins": self.joins,
            "attributes": attributes,
            "pairs": [pair.to_json() for pair in pairs],
            "errors": errors,
        }

    async def _session(self, stop: asyncio.Event) -> None:
        self.state = "joining"
        self._gone.clear()
        room = rtc.Room()
        self._room = room
        self._listen(room)
        try:
            options = rtc.RoomOptions(auto_subscribe=True, single_peer_connection=False)
            await asyncio.wait_for(room.connect(self.spec.url, self.spec.token, options), CONNECT_DEADLINE_S)
            self.joins += 1
            self.state = "connected"
            if self.spec.publish:
                await asyncio.wait_for(self._publish(room), CONNECT_DEADLINE_S)
            await _first(stop.wait(), self._gone.wait())
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._room = None
            with contextlib.suppress(Exception):  # already closed, or the engine is past answering
                await asyncio.wait_for(room.disconnect(), CLOSE_DEADLINE_S)

    def _listen(self, room: rtc.Room) -> None:
        watching: dict[str, asyncio.Task[None]] = {}

        @room.on("disconnected")
        def _(*_: Any) -> None:
            self._gone.set()

        @room.on("reconnecting")
        def _() -> None:
            self.state = "reconnecting"

        @room.on("reconnected")
        def _() -> None:
            self.joins += 1
            self.state = "connected"

        @room.on("track_subscribed")
        def _(track: Any, publication: Any, participant: Any) -> None:
            pair = self._pairs.setdefault(participant.identity, PairRecorder(participant.identity))
            is_picture = isinstance(track, rtc.RemoteVideoTrack)
            if not (self.spec.watch if is_picture else self.spec.hear_ms):
                return
            if is_picture:
                work = _watch(track, publication.name, pair)
            else:
                work = _listen_to(track, publication.name, pair, self.spec.hear_ms)
            watching[track.sid] = self._spawn(work)

        @room.on("track_unsubscribed")
        def _(track: Any, *_: Any) -> None:
            # The SDK's video stream does not end with its track: end its reader ourselves.
            if task := watching.pop(track.sid, None):
                task.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.errors.append(f"{type(error).__name__}: {error}"[:300])

    async def _publish(self, room: rtc.Room) -> None:
        spec = self.spec
        if spec.picture:
            camera = rtc.VideoSource(spec.width, spec.height)
            video = rtc.LocalVideoTrack.create_video_track(f"mark-{spec.source}", camera)
            self._spawn(_show(camera, spec))
            await room.local_participant.publish_track(
                video,
                rtc.TrackPublishOptions(
                    source=rtc.TrackSource.SOURCE_CAMERA,
                    video_codec=rtc.VideoCodec.VP8,
                    simulcast=spec.simulcast,
                    video_encoding=rtc.VideoEncoding(max_bitrate=spec.bitrate, max_framerate=spec.fps),
                ),
            )
        microphone = rtc.AudioSource(SEND_RATE, 1, queue_size_ms=2 * BLOCK_MS)
        audio = rtc.LocalAudioTrack.create_audio_track(f"tone-{spec.source}", microphone)
        self._spawn(_sound(microphone, spec))
        await room.local_participant.publish_track(
            audio, rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE, dtx=False)
        )


async def _first(*waits: Coroutine[Any, Any, Any]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _show(camera: rtc.VideoSource, spec: BotSpec) -> None:
    painter = Painter(spec.width, spec.height)
    loop = asyncio.get_running_loop()
    hue = 32 + spec.source * 67 % 192
    due = loop.time()
    counter = 0
    while True:
        data = painter.paint(Mark(spec.source, counter, now_ms()), hue)
        camera.capture_frame(rtc.VideoFrame(spec.width, spec.height, rtc.VideoBufferType.I420, data))
        counter += 1
        due = max(due + 1 / spec.fps, loop.time())
        await asyncio.sleep(due - loop.time())


async def _sound(microphone: rtc.AudioSource, spec: BotSpec) -> None:
    count = SEND_RATE * BLOCK_MS // 1000
    start = 0
    while True:
        samples = tone_block(frequency(spec.source), SEND_RATE, start, count)
        await microphone.capture_frame(rtc.AudioFrame(samples.tobytes(), SEND_RATE, 1, count))
        start += count


async def _watch(track: rtc.RemoteVideoTrack, name: str, pair: PairRecorder) -> None:
    source = _VIDEO_NAME.fullmatch(name)
    stream = rtc.VideoStream(track, format=rtc.VideoBufferType.I420, capacity=8)
    try:
        async for event in stream:
            frame = event.frame
            size = (frame.width, frame.height)
            if source is None:
                pair.on_frame(now_ms(), size)
                continue
            count = frame.width * frame.height
            luma = np.frombuffer(frame.data, dtype=np.uint8, count=count).reshape(frame.height, frame.width)
            pair.on_marked_frame(now_ms(), read_mark(luma), int(source[1]), size)
    finally:
        await stream.aclose()


async def _listen_to(track: rtc.RemoteAudioTrack, name: str, pair: PairRecorder, block_ms: int) -> None:
    source = _AUDIO_NAME.fullmatch(name)
    hz = frequency(int(source[1])) if source else 0.0
    stream = rtc.AudioStream(
        track, sample_rate=HEAR_RATE, num_channels=1, frame_size_ms=block_ms, capacity=4000 // block_ms
    )
    try:
        async for event in stream:
            samples = np.frombuffer(event.frame.data, dtype=np.int16)
            if source is None:
                pair.on_tone(now_ms(), bool(np.abs(samples).max(initial=0) > 300))
            else:
                pair.on_tone(now_ms(), tone_heard(samples, hz, HEAR_RATE))
    finally:
        await stream.aclose()
