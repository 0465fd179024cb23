"""What becomes of data messages while a room's gateway is gone."""

from headwater_api.nodev1 import node_pb2
from headwater_sfu import parked
from headwater_sfu.fanout import Fanout, Watcher
from headwater_sfu.parked import Parked


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def events(room: str, *texts: str, label: str = "_reliable") -> bytes:
    response = node_pb2.WatchResponse()
    for text in texts:
        response.events.add(room_id=room).data.CopyFrom(
            node_pb2.DataEvent(transport_id="t", label=label, payload=text.encode())
        )
    response.events.add(room_id=room).audio_levels.levels.add(track_id="x", level=3)
    return response.SerializeToString()


def texts(payload: bytes) -> list[tuple[str, bool]]:
    response = node_pb2.WatchResponse.FromString(payload)
    assert all(event.HasField("data") for event in response.events), "levels are not kept"
    return [(event.data.payload.decode(), event.data.replayed) for event in response.events]


def test_what_nobody_heard_waits_for_the_rooms_next_gateway() -> None:
    clock = Clock()
    kept = Parked(clock)
    kept.delivered("a", events("r", "old"))
    clock.now += parked.RECENT_S + 0.1
    kept.delivered("a", events("r", "perhaps heard"))
    kept.left("a")
    kept.missed("a", events("r", "one", "two"))
    kept.missed("a", events("s", "another room"))
    kept.missed("a", events("r", "late is useless", label="_lossy"))
    assert texts(kept.take("b", "r")) == [("perhaps heard", True), ("one", False), ("two", False)]
    assert kept.take("b", "r") == b""
    assert texts(kept.take("a")) == [("another room", False)], "it comes back itself"
    assert len(kept) == 0


def test_what_waits_is_bounded_in_time_and_size() -> None:
    clock = Clock()
    kept = Parked(clock)
    kept.missed("a", events("r", "too old"))
    clock.now += parked.KEPT_S + 1
    assert kept.take("b", "r") == b""
    for number in range(parked.KEPT_EVENTS + 5):
        kept.missed("a", events("r", str(number)))
    assert len(kept) == parked.KEPT_EVENTS and kept.dropped_total >= 5
    kept.missed("a", events("r", "x" * parked.KEPT_BYTES))
    assert len(kept) == 1
    for _ in range(100):
        kept.delivered("a", b"x" * (parked.RECENT_BYTES // 10))
    assert kept._recent_bytes["a"] <= parked.RECENT_BYTES


async def test_a_new_controller_hears_what_waited_before_what_is_new() -> None:
    fanout = Fanout()
    old = fanout.add("a")
    fanout.publish("a", events("r", "0"))
    fanout.remove(old)
    fanout.publish("a", events("r", "1"))
    new = fanout.add("b")
    # At the moment of the change the engine still had one event for each.
    fanout.hand_over("r", "b", "a", [("a", events("r", "2")), ("b", events("r", "3"))])

    async def heard(watcher: Watcher) -> list[str]:
        found = []
        while watcher._events:
            payload = await watcher.next()
            assert payload is not None
            for event in node_pb2.WatchResponse.FromString(payload).events:
                if event.HasField("data"):
                    found.append(event.data.payload.decode())
        return found

    assert await heard(new) == ["0", "1", "2", "3"]


def test_a_room_is_taken_from_a_controller_whose_stream_still_stands() -> None:
    kept = Parked(Clock())
    kept.delivered("frozen", events("r", "unread"))
    kept.delivered("frozen", events("s", "of a room that it keeps"))
    kept.taken("r", "frozen")
    assert texts(kept.take("b", "r")) == [("unread", True)]
    assert len(kept) == 0
