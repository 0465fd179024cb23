"""The channel's bounds: a client that does not read, writes that hang, closing with messages queued."""

import asyncio
from dataclasses import dataclass, field

import pytest
from headwater_gateway.metrics import Metrics
from headwater_gateway.signal.channel import Channel, ChannelLimits, Pace
from livekit.protocol import rtc
from support.deadline import until


@dataclass
class FakeWire:
    """Frames in by `inbox`, frames out in `sent`; `stuck` blocks writes."""

    sent: list[bytes | str] = field(default_factory=list)
    inbox: asyncio.Queue[bytes | str | None] = field(default_factory=asyncio.Queue)
    free: asyncio.Event = field(default_factory=asyncio.Event)
    closed_with: tuple[int, str] | None = None
    aborted: bool = False
    is_broken: bool = False

    async def receive(self) -> bytes | str | None:
        return await self.inbox.get()

    async def send(self, frame: bytes | str) -> None:
        await self.free.wait()
        if self.is_broken:
            raise ConnectionResetError
        self.sent.append(frame)

    async def close(self, code: int, reason: str) -> None:
        self.closed_with = (code, reason)
        self.inbox.put_nowait(None)

    def abort(self) -> None:
        self.aborted = True
        self.inbox.put_nowait(None)


def _pong(n: int) -> rtc.SignalResponse:
    return rtc.SignalResponse(pong=n)


def _wire(stuck: bool = False) -> FakeWire:
    wire = FakeWire()
    if not stuck:
        wire.free.set()
    return wire


def test_pace_lets_a_burst_through_and_then_one_by_one() -> None:
    pace = Pace(per_second=10, burst=5)
    assert [pace.delay(100.0) for _ in range(5)] == [0.0] * 5
    assert pace.delay(100.0) == pytest.approx(0.1)
    assert pace.delay(100.1) == pytest.approx(0.1)
    assert pace.delay(110.0) == 0.0
    assert [pace.delay(110.0) for _ in range(4)] == [0.0] * 4
    assert pace.delay(110.0) == pytest.approx(0.1)


async def test_messages_leave_in_order() -> None:
    wire = _wire()
    async with Channel(wire, Metrics()) as channel:
        for n in range(100):
            await channel.send(_pong(n))
        await until(lambda: len(wire.sent) == 100, 15, "all sent")
    numbers = [rtc.SignalResponse.FromString(frame).pong for frame in wire.sent if isinstance(frame, bytes)]
    assert numbers == list(range(100))


async def test_slow_client_is_dropped_at_the_bound() -> None:
    wire, metrics = _wire(stuck=True), Metrics()
    async with Channel(wire, metrics, ChannelLimits(queued_messages=10)) as channel:
        for n in range(20):
            await channel.send(_pong(n))
            await asyncio.sleep(0)
        assert wire.aborted
        assert await asyncio.wait_for(channel.recv(), 5) is None
    assert metrics.registry.get_sample_value("headwater_gateway_slow_clients_total") == 1


async def test_queue_is_bounded_in_bytes_too() -> None:
    wire = _wire(stuck=True)
    limits = ChannelLimits(queued_bytes=10_000)
    big = rtc.SignalResponse(refresh_token="x" * 6000)
    async with Channel(wire, Metrics(), limits) as channel:
        for _ in range(3):
            await channel.send_encoded(big.SerializeToString(), big)
        assert wire.aborted


async def test_write_that_hangs_ends_the_connection() -> None:
    wire = _wire(stuck=True)
    async with Channel(wire, Metrics(), ChannelLimits(send_seconds=0.05)) as channel:
        await channel.send(_pong(1))
        assert await asyncio.wait_for(channel.recv(), 5) is None
        assert wire.aborted


async def test_close_flushes_what_is_queued() -> None:
    wire = _wire()
    async with Channel(wire, Metrics()) as channel:
        await channel.send(rtc.SignalResponse(leave=rtc.LeaveRequest()))
        await channel.close(1000, "bye")
        assert len(wire.sent) == 1
        assert wire.closed_with == (1000, "bye")
        await channel.send(_pong(1))
        await channel.close(1011, "again")
    assert (len(wire.sent), wire.closed_with) == (1, (1000, "bye"))


async def test_a_farewell_is_flushed_though_the_handler_ends_meanwhile() -> None:
    """The client says something at the moment in which it is sent away: its handler ends on that."""
    wire = _wire(stuck=True)
    async with Channel(wire, Metrics()) as channel:
        await channel.send(rtc.SignalResponse(leave=rtc.LeaveRequest()))
        away = asyncio.create_task(channel.close(1000, "sent away"))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.01, wire.free.set)
    assert len(wire.sent) == 1 and wire.closed_with == (1000, "sent away")
    await away


async def test_close_does_not_wait_for_a_stuck_client() -> None:
    wire = _wire(stuck=True)
    async with Channel(wire, Metrics(), ChannelLimits(flush_seconds=0.05)) as channel:
        await channel.send(_pong(1))
        await asyncio.wait_for(channel.close(1001), 5)
        assert wire.closed_with == (1001, "")


async def test_close_ends_a_waiting_recv() -> None:
    wire = _wire()
    async with Channel(wire, Metrics()) as channel:
        waiting = asyncio.create_task(channel.recv())
        await asyncio.sleep(0)
        await channel.close()
        assert await asyncio.wait_for(waiting, 5) is None


async def test_who_says_goodbye_and_hangs_up_is_heard_though_writing_to_it_fails() -> None:
    wire = _wire()
    wire.is_broken = True
    async with Channel(wire, Metrics()) as channel:
        wire.inbox.put_nowait(rtc.SignalRequest(leave=rtc.LeaveRequest()).SerializeToString())
        wire.inbox.put_nowait(None)
        await channel.send(_pong(1))
        await asyncio.sleep(0)  # the write fails before anything is read
        heard = await asyncio.wait_for(channel.recv(), 5)
        assert heard is not None and heard.HasField("leave")
        assert await asyncio.wait_for(channel.recv(), 5) is None
        await channel.send(_pong(2))
    assert wire.sent == []
