"""The unmodified Python SDK: what it was told and when, and numbered messages that must arrive once each."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from livekit import rtc
from support.deadline import until

EVENTS = (
    "data_received",
    "participant_connected",
    "participant_disconnected",
    "participant_attributes_changed",
    "track_published",
    "track_unpublished",
    "disconnected",
    "reconnecting",
    "reconnected",
)


@dataclass
class SdkClient:
    """A room of the SDK. `told`: event, monotonic seconds, arguments."""

    room: rtc.Room
    told: list[tuple[str, float, tuple[Any, ...]]] = field(default_factory=list)

    def of(self, event: str, since: float = 0.0) -> list[tuple[Any, ...]]:
        return [arguments for name, at, arguments in self.told if name == event and at >= since]

    def at(self, event: str, since: float = 0.0) -> list[float]:
        return [at for name, at, _ in self.told if name == event and at >= since]

    def numbers(self) -> list[int]:
        """Of the messages that it got, in order."""
        return [int(arguments[0].data) for arguments in self.of("data_received")]

    @property
    def sid(self) -> str:
        return str(self.room.local_participant.sid)

    async def resumed(self, since: float, within_s: float) -> float:
        """Seconds from `since` until the SDK says that it is connected again."""
        identity = self.room.local_participant.identity
        await until(lambda: self.at("reconnected", since), within_s, f"{identity} has resumed", 0.01)
        return self.at("reconnected", since)[0] - since


@contextlib.asynccontextmanager
async def sdk_client(url: str, token: str) -> AsyncIterator[SdkClient]:
    """Joined for the block."""
    client = SdkClient(rtc.Room())
    for event in EVENTS:
        client.room.on(event, lambda *a, name=event: client.told.append((name, time.monotonic(), a)))
    await asyncio.wait_for(client.room.connect(url, token, rtc.RoomOptions(auto_subscribe=True)), 20)
    try:
        yield client
    finally:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(client.room.disconnect(), 10)


@contextlib.asynccontextmanager
async def counting(client: SdkClient, every_s: float = 0.05) -> AsyncIterator[list[int]]:
    """Publishes 0, 1, 2 … reliably for the block; the list of what was sent."""
    sent: list[int] = []

    async def send() -> None:
        while True:
            sent.append(len(sent))
            await client.room.local_participant.publish_data(str(sent[-1]), reliable=True)
            await asyncio.sleep(every_s)

    task = asyncio.create_task(send())
    try:
        yield sent
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
