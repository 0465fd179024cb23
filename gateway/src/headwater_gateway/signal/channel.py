"""A signalling connection: frames to messages, a bounded queue out, and what happens to bad frames."""

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass
from typing import Protocol

import structlog
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from headwater_api.reasons import Reason
from livekit.protocol import models, rtc

from headwater_gateway.metrics import Metrics
from headwater_gateway.signal.types import CLOSE_NORMAL, CLOSE_POLICY, CLOSE_TRY_AGAIN
from headwater_gateway.tasks import wake

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ChannelLimits:
    """Bounds of one connection."""

    queued_messages: int = 1024
    queued_bytes: int = 4 * 1024 * 1024
    send_seconds: float = 10.0  # one write may take this long before the client counts as gone
    flush_seconds: float = 1.0  # at close
    malformed_frames: int = 10  # the one after this ends the session
    # A client that says more is read more slowly: what it says may go to everybody in its room.
    frames_per_second: float = 100.0
    burst_frames: int = 400


class Wire(Protocol):
    """The WebSocket under a channel."""

    async def receive(self) -> bytes | str | None:
        """One whole frame; None once the peer is gone. `close` and `abort` end a waiting receive."""

    async def send(self, frame: bytes | str) -> None:
        """Write one frame. ConnectionError when the peer is gone."""

    async def close(self, code: int, reason: str) -> None:
        """Close with a handshake, bounded by the implementation."""

    def abort(self) -> None:
        """Drop the connection now."""


class Pace:
    """How long to wait before the next frame is read (generic cell rate algorithm, ITU-T I.371)."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._interval, self._burst = 1.0 / per_second, burst
        self._due = float("-inf")

    def delay(self, now: float) -> float:
        """Count one frame at `now`. The pause after it, both in seconds."""
        self._due = max(self._due, now) + self._interval
        return max(0.0, self._due - self._burst * self._interval - now)


class FrameError(ValueError):
    """A frame that holds no message."""


def decode(frame: bytes | str) -> rtc.SignalRequest:
    """A protobuf or JSON frame. FrameError says what is wrong with it."""
    request = rtc.SignalRequest()
    try:
        if isinstance(frame, bytes):
            request.ParseFromString(frame)
        else:
            json_format.Parse(frame, request, ignore_unknown_fields=True, max_recursion_depth=20)
    except (DecodeError, json_format.ParseError, RecursionError, ValueError, TypeError) as error:
        kind = "protobuf" if isinstance(frame, bytes) else "JSON"
        raise FrameError(f"not a SignalRequest in {kind}: {type(error).__name__}") from None
    return request


def encode_json(message: rtc.SignalResponse) -> str:
    return json_format.MessageToJson(message, indent=None)


class Channel:
    """A SignalChannel over a Wire. Run inside `async with`: the exit stops the writer."""

    def __init__(self, wire: Wire, metrics: Metrics, limits: ChannelLimits | None = None) -> None:
        self._wire = wire
        self._metrics = metrics
        self._limits = limits or ChannelLimits()
        self._queue: deque[bytes | str] = deque()
        self._queued_bytes = 0
        self._idle: asyncio.Future[None] | None = None  # the writer has nothing to write
        self._drained = asyncio.Event()
        self._drained.set()
        self._is_gone = False
        self._deaf = False  # the peer reads no more; what it said before that may still be read
        self._text = False  # answer in the kind received (binary until then)
        self._malformed = 0
        self._unknown = 0
        self._pace = Pace(self._limits.frames_per_second, self._limits.burst_frames)
        self._closing = False
        self._closed = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._write_began: float | None = None  # of the frame that is being written, by the loop's clock
        self._overdue: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> "Channel":
        self._writer = asyncio.create_task(self._write_loop(), name="signal-writer")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close(CLOSE_NORMAL)
        if self._overdue is not None:
            self._overdue.cancel()
        if self._writer is not None:
            self._writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._writer

    async def send(self, response: rtc.SignalResponse) -> None:
        """Queue one message. Never waits for the network; a full queue ends the connection."""
        self._put(encode_json(response) if self._text else response.SerializeToString())

    async def send_encoded(self, binary: bytes, message: rtc.SignalResponse) -> None:
        """As `send`, with the binary form made once for many receivers."""
        self._put(encode_json(message) if self._text else binary)

    def send_at_once(self, binary: bytes) -> bool:
        """Queue a message that is encoded already, from anywhere; False: the client reads JSON."""
        if self._text:
            return False
        self._put(binary)
        return True

    async def recv(self) -> rtc.SignalRequest | None:
        """The next message; None once the client is gone or was sent away for its frames."""
        loop = asyncio.get_running_loop()
        while not self._is_gone:
            pause = self._pace.delay(loop.time())
            if pause > 0:
                await asyncio.sleep(pause)
            frame = await self._wire.receive()
            if frame is None or self._is_gone:
                self._lose()
                return None
            self._text = isinstance(frame, str)
            try:
                request = decode(frame)
            except FrameError as error:
                await self._on_malformed(str(error))
                continue
            if request.WhichOneof("message") is None:
                self._on_unknown()
                continue
            return request
        return None

    async def close(self, code: int = CLOSE_NORMAL, reason: str = "") -> None:
        """Flush what is queued (bounded by a short deadline) and close. A second call waits for the first.

        Else the end of the client's own handler, which comes when it has just said something, would cut off
        the farewell that another task is flushing.
        """
        if self._closing:
            await self._closed.wait()
            return
        self._closing = True
        try:
            if not self._is_gone and not self._drained.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._limits.flush_seconds):
                        await self._drained.wait()
            self._lose()
            await self._wire.close(code, reason[:120])
        finally:
            self._closed.set()

    def _put(self, frame: bytes | str) -> None:
        if self._is_gone or self._closing or self._deaf:
            return
        queue, queued, limits = self._queue, self._queued_bytes + len(frame), self._limits
        if len(queue) >= limits.queued_messages or queued > limits.queued_bytes:
            self._drop_slow_client("its queue is full")
            return
        if not queue:
            self._drained.clear()
            wake(self._idle)
        queue.append(frame)
        self._queued_bytes = queued

    def _drop_slow_client(self, why: str) -> None:
        _log.warning("client too slow", reason=Reason.CLIENT_TOO_SLOW, why=why, code=CLOSE_TRY_AGAIN)
        self._metrics.slow_clients.inc()
        self._lose()
        self._wire.abort()

    def _lose(self) -> None:
        self._is_gone = True
        self._drop_queue()
        wake(self._idle)

    def _drop_queue(self) -> None:
        self._queue.clear()
        self._queued_bytes = 0
        self._drained.set()

    async def _write_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._is_gone:
            if not self._queue:
                self._idle = loop.create_future()
                await self._idle
            while self._queue:
                frame = self._queue.popleft()
                self._queued_bytes -= len(frame)
                self._write_began = loop.time()
                if self._overdue is None:
                    self._overdue = loop.call_later(self._limits.send_seconds, self._check_write)
                try:
                    await self._wire.send(frame)
                except (ConnectionError, RuntimeError):
                    # A client that leaves says so and closes: its `leave` may not have been read yet.
                    self._deaf, self._write_began = True, None
                    self._drop_queue()
                    return
                self._write_began = None
            self._drained.set()

    def _check_write(self) -> None:
        """One timer looks after all writes of so many seconds: a frame is far cheaper than a timer."""
        self._overdue = None
        if self._write_began is None or self._is_gone:
            return
        loop = asyncio.get_running_loop()
        left = self._write_began + self._limits.send_seconds - loop.time()
        if left > 0:
            self._overdue = loop.call_later(left, self._check_write)
            return
        self._drop_slow_client("a write took too long")
        if self._writer is not None:
            self._writer.cancel()

    def _on_unknown(self) -> None:
        """A newer client's message: the protocol asks to ignore it. One line for each connection."""
        self._metrics.bad_frames.labels(Reason.MESSAGE_UNKNOWN).inc()
        self._unknown += 1
        if self._unknown == 1:
            _log.info("unknown message ignored", reason=Reason.MESSAGE_UNKNOWN)

    async def _on_malformed(self, why: str) -> None:
        self._malformed += 1
        self._metrics.bad_frames.labels(Reason.FRAME_MALFORMED).inc()
        if self._malformed > self._limits.malformed_frames:
            _log.warning("client sent away", reason=Reason.FRAME_MALFORMED, frames=self._malformed)
            leave = rtc.LeaveRequest(
                reason=models.DisconnectReason.PARTICIPANT_REMOVED, action=rtc.LeaveRequest.Action.DISCONNECT
            )
            await self.send(rtc.SignalResponse(leave=leave))
            await self.close(CLOSE_POLICY, f"{Reason.FRAME_MALFORMED}: {why}")
            return
        _log.info("malformed frame", reason=Reason.FRAME_MALFORMED, why=why)
        answer = rtc.RequestResponse(
            reason=rtc.RequestResponse.Reason.INVALID_REQUEST, message=f"{Reason.FRAME_MALFORMED}: {why}"
        )
        await self.send(rtc.SignalResponse(request_response=answer))
