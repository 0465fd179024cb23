"""Webhooks: what happens in rooms, told to the application by signed HTTP requests.

As LiveKit's server does it: the body is a WebhookEvent in JSON; the `Authorization` header is a JWT of an
API key with the body's SHA-256 (base64) as its claim `sha256`. Events of one room reach each URL in their
order; a URL that does not answer holds up nobody else, and once its queue is full it loses the oldest events.
"""

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import structlog
from google.protobuf import json_format
from headwater_api.reasons import Reason
from livekit.protocol import models, webhook

from headwater_gateway.backoff import Backoff
from headwater_gateway.room.effects import Happened, Row

ATTEMPT_S: Final = 10.0
GIVE_UP_S: Final = 120.0
QUEUE: Final = 10_000  # events of one URL
AT_ONCE: Final = 32  # requests to one URL

log = structlog.get_logger(__name__)

Sign = Callable[[bytes], str | None]


def to_event(row: models.Room, happened: Happened, event_id: str, unix_s: int) -> webhook.WebhookEvent:
    """The webhook's message."""
    return webhook.WebhookEvent(
        event=happened.event,
        room=row,
        participant=happened.participant,
        track=happened.track,
        id=event_id,
        created_at=unix_s,
    )


def body_of(event: webhook.WebhookEvent) -> bytes:
    """As it is sent and signed."""
    return json_format.MessageToJson(event, indent=None).encode()


@dataclass(slots=True)
class _Queue:
    """One URL's events, room by room."""

    url: str
    rooms: dict[str, deque[webhook.WebhookEvent]] = field(default_factory=dict)
    waiting: int = 0
    dropped: int = 0


class Webhooks:
    """Sends events. `put` never blocks; a task for each room with events works them off."""

    def __init__(
        self,
        urls: tuple[str, ...],
        sign: Sign,
        session: aiohttp.ClientSession,
        rng: random.Random,
        new_id: Callable[[], str],
    ) -> None:
        self._queues = [_Queue(url) for url in urls]
        self._sign, self._session, self._rng, self._new_id = sign, session, rng, new_id
        self._slots = {url: asyncio.Semaphore(AT_ONCE) for url in urls}
        self._tasks: set[asyncio.Task[None]] = set()
        self.delivered = self.failed = 0

    def put(self, row: Row, happened: Happened) -> None:
        """An event for every URL."""
        if not self._queues:
            return
        event = to_event(row(), happened, self._new_id(), int(time.time()))
        for queue in self._queues:
            self._enqueue(queue, event)

    def _enqueue(self, queue: _Queue, event: webhook.WebhookEvent) -> None:
        if queue.waiting >= QUEUE:
            next(events for events in queue.rooms.values() if events).popleft()
            queue.waiting -= 1
            queue.dropped += 1
            log.warning("webhook.dropped", url=queue.url, reason=Reason.QUEUE_FULL, dropped=queue.dropped)
        name = event.room.name
        queue.waiting += 1
        if name in queue.rooms:
            queue.rooms[name].append(event)
            return
        queue.rooms[name] = deque([event])
        task = asyncio.create_task(self._work_off(queue, name), name=f"webhooks {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work_off(self, queue: _Queue, name: str) -> None:
        events = queue.rooms[name]
        try:
            while events:
                async with self._slots[queue.url]:
                    if not events:  # dropped meanwhile
                        break
                    event = events.popleft()
                    queue.waiting -= 1
                    event_to_send = webhook.WebhookEvent()
                    event_to_send.CopyFrom(event)
                    event_to_send.num_dropped, queue.dropped = queue.dropped, 0
                    await self._deliver(queue, event_to_send)
        finally:
            queue.rooms.pop(name, None)

    async def _deliver(self, queue: _Queue, event: webhook.WebhookEvent) -> None:
        body = body_of(event)
        backoff = Backoff(self._rng, first=0.3, cap=15.0)
        deadline = asyncio.get_running_loop().time() + GIVE_UP_S
        while True:
            why = await self._attempt(queue.url, body)
            if not why:
                self.delivered += 1
                return
            if asyncio.get_running_loop().time() > deadline:
                self.failed += 1
                log.error("webhook.given_up", url=queue.url, webhook=event.event, why=why)
                return
            await asyncio.sleep(backoff.next())

    async def _attempt(self, url: str, body: bytes) -> str:
        """One request. Why it failed, or an empty string."""
        token = self._sign(body)
        if token is None:
            return "the API key that signs webhooks is gone"
        headers = {"Authorization": token, "Content-Type": "application/webhook+json"}
        try:
            async with (
                asyncio.timeout(ATTEMPT_S),
                self._session.post(url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                return "" if response.status < 300 else f"HTTP {response.status}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return type(error).__name__

    async def aclose(self, deadline_s: float = 2.0) -> None:
        """Send what can be sent within the deadline (seconds), then end."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=deadline_s)
        for task in list(self._tasks):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)
