"""Events to watchers: each has its own bounded queue, none can hold up another."""

import asyncio
from collections import deque
from typing import Final

from headwater_sfu.parked import Parked

# Events of a room of a thousand arrive in batches of hundreds; a healthy watcher is never near this.
QUEUE_LIMIT: Final = 4096


class Lagged(Exception):
    """The watcher's queue overflowed: it has missed events and must connect again to resync."""


class Watcher:
    """One `Watch` stream. Reports are conflated (only the newest counts), events never are."""

    def __init__(self, controller_id: str, limit: int) -> None:
        self.controller_id = controller_id
        self._limit = limit
        self._events: deque[bytes] = deque()
        self._report: bytes | None = None
        self._lagged = False
        self._closed = False
        self._wake = asyncio.Event()

    def offer_events(self, payload: bytes) -> None:
        if self._lagged:
            return
        if len(self._events) >= self._limit:
            self._lagged = True
            self._events.clear()
        else:
            self._events.append(payload)
        self._wake.set()

    def offer_report(self, payload: bytes) -> None:
        self._report = payload
        self._wake.set()

    def close(self) -> None:
        self._closed = True
        self._wake.set()

    async def next(self) -> bytes | None:
        """The next serialised `WatchResponse`; None once closed. Raises Lagged after an overflow."""
        while True:
            if self._lagged:
                raise Lagged
            if self._events:
                return self._events.popleft()
            if self._report is not None:
                report, self._report = self._report, None
                return report
            if self._closed:
                return None
            self._wake.clear()
            await self._wake.wait()


class Fanout:
    """All watchers of this node."""

    def __init__(self, limit: int = QUEUE_LIMIT) -> None:
        self._limit = limit
        self._watchers: set[Watcher] = set()
        self.parked = Parked()
        self.lagged_total = 0

    def __len__(self) -> int:
        return len(self._watchers)

    def add(self, controller_id: str) -> Watcher:
        watcher = Watcher(controller_id, self._limit)
        self._watchers.add(watcher)
        if waiting := self.parked.take(controller_id):
            watcher.offer_events(waiting)
        return watcher

    def remove(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)
        if not self.hears(watcher.controller_id):
            self.parked.left(watcher.controller_id)

    def hears(self, controller_id: str) -> bool:
        """The controller has a stream."""
        return any(watcher.controller_id == controller_id for watcher in self._watchers)

    def publish(self, controller_id: str, payload: bytes) -> None:
        """Events of rooms that this controller commands."""
        heard = False
        for watcher in self._watchers:
            if watcher.controller_id == controller_id:
                watcher.offer_events(payload)
                heard = True
        if heard:
            self.parked.delivered(controller_id, payload)
        else:
            self.parked.missed(controller_id, payload)

    def hand_over(
        self, room_id: str, controller_id: str, before: str, drained: list[tuple[str, bytes]]
    ) -> None:
        """The controller has the room of the one before: it hears first what waited, then what came since.

        `drained`: events that the engine had ready, the room's last ones for its old controller among them.
        """
        if before:
            self.parked.taken(room_id, before)
        ours = [payload for controller, payload in drained if controller == controller_id]
        for controller, payload in drained:
            if controller != controller_id:
                self.publish(controller, payload)
        if self.hears(controller_id) and (waiting := self.parked.take(controller_id, room_id)):
            self.publish(controller_id, waiting)
        for payload in ours:
            self.publish(controller_id, payload)

    def broadcast_report(self, payload: bytes) -> None:
        for watcher in self._watchers:
            watcher.offer_report(payload)

    def close(self) -> None:
        for watcher in self._watchers:
            watcher.close()
