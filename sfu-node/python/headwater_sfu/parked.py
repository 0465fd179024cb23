"""Data messages that no gateway has heard, kept for the one that has the room next.

A message that a client has sent reliably must not be lost because the room's gateway died: SCTP has
acknowledged it, so the client need not repeat it. What the gateway may or may not have heard in its last
moments is kept too, marked as replayed: whoever gets it tells repeats by their sequence.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Final

from headwater_api.nodev1 import node_pb2

# A gateway that freezes is succeeded sooner than that.
RECENT_S: Final = 5.0
RECENT_BYTES: Final = 1 << 20
KEPT_S: Final = 60.0
UNRELIABLE: Final = "_lossy"  # what comes late on that channel is of no use
KEPT_EVENTS: Final = 4096
KEPT_BYTES: Final = 4 << 20


class Parked:
    """Of all controllers. Bounded: the oldest go first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._recent: dict[str, deque[tuple[float, bytes]]] = {}
        self._recent_bytes: dict[str, int] = {}
        self._kept: deque[tuple[float, str, node_pb2.Event]] = deque()
        self._kept_bytes = 0
        self.dropped_total = 0

    def __len__(self) -> int:
        return len(self._kept)

    def delivered(self, controller_id: str, payload: bytes) -> None:
        """Events were put on the way to their controller, which may die before it reads them."""
        recent, now = self._recent.setdefault(controller_id, deque()), self._clock()
        recent.append((now, payload))
        size = self._recent_bytes.get(controller_id, 0) + len(payload)
        while recent and (now - recent[0][0] > RECENT_S or size > RECENT_BYTES):
            size -= len(recent.popleft()[1])
        self._recent_bytes[controller_id] = size

    def left(self, controller_id: str) -> None:
        """The controller's last stream has ended: what was on its way may be lost."""
        recent = self._recent.pop(controller_id, deque())
        self._recent_bytes.pop(controller_id, None)
        for event in self._data_of(recent):
            self._park(controller_id, event, replayed=True)

    def taken(self, room_id: str, controller_id: str) -> None:
        """The room was taken from that controller, whose streams may not have ended yet."""
        for event in self._data_of(self._recent.get(controller_id, deque())):
            if event.room_id == room_id:
                self._park(controller_id, event, replayed=True)

    def _data_of(self, recent: deque[tuple[float, bytes]]) -> list[node_pb2.Event]:
        now = self._clock()
        return [event for at, payload in recent if now - at <= RECENT_S for event in _data_events(payload)]

    def missed(self, controller_id: str, payload: bytes) -> None:
        """Events for a controller that has no stream."""
        for event in _data_events(payload):
            self._park(controller_id, event, replayed=False)

    def _park(self, controller_id: str, event: node_pb2.Event, *, replayed: bool) -> None:
        now = self._clock()
        event.data.replayed = replayed
        self._kept.append((now, controller_id, event))
        self._kept_bytes += len(event.data.payload)
        while self._kept and (
            now - self._kept[0][0] > KEPT_S or len(self._kept) > KEPT_EVENTS or self._kept_bytes > KEPT_BYTES
        ):
            self._kept_bytes -= len(self._kept.popleft()[2].data.payload)
            self.dropped_total += 1

    def take(self, controller_id: str, room_id: str = "") -> bytes:
        """A serialised `WatchResponse` with what waits for a room, whoever had it, in order; empty: nothing.

        No room: what waits for this controller itself, whose stream is back.
        """
        response, rest, now = (
            node_pb2.WatchResponse(),
            deque[tuple[float, str, node_pb2.Event]](),
            self._clock(),
        )
        for at, controller, event in self._kept:
            if now - at > KEPT_S:
                self._kept_bytes -= len(event.data.payload)
            elif event.room_id == room_id if room_id else controller == controller_id:
                response.events.append(event)
                self._kept_bytes -= len(event.data.payload)
            else:
                rest.append((at, controller, event))
        self._kept = rest
        return response.SerializeToString()


def _data_events(payload: bytes) -> list[node_pb2.Event]:
    events = node_pb2.WatchResponse.FromString(payload).events
    return [event for event in events if event.HasField("data") and event.data.label != UNRELIABLE]
