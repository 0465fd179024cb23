"""What is known of a node from its reports, and for how long."""

from headwater_operator.nodes.inbox import Change, Inbox
from headwater_planner.world import RoomLoad
from support.fleet import a_load

KEY = ("calls", "a")


def test_a_node_counts_as_empty_only_for_as_long_as_it_was_heard() -> None:
    now, changes = [100.0], list[Change]()
    inbox = Inbox(monotonic=lambda: now[0], on_change=changes.append)

    def empty_s(at: float) -> float:
        now[0] = at
        load = inbox.get(KEY, "u-a")
        assert load is not None
        return load.empty_s

    inbox.put(KEY, "u-a", a_load("a"))
    assert empty_s(103.0) == 3.0
    inbox.put(KEY, "u-a", a_load("a"))
    assert empty_s(104.0) == 4.0, "each report said so"
    now[0] = 163.0
    inbox.put(KEY, "u-a", a_load("a"))
    assert empty_s(164.0) == 1.0, "who came and went during its silence is not known"
    assert len(changes) == 2, "its return is worth a look"


def test_a_latency_lasts_only_if_every_report_of_ten_seconds_had_it() -> None:
    now = [100.0]
    inbox = Inbox(monotonic=lambda: now[0], on_change=lambda _: None)

    def after(at: float, p95_ms: float) -> float:
        now[0] = at
        inbox.put(KEY, "u-a", a_load("a", p95_ms=p95_ms))
        load = inbox.get(KEY, "u-a")
        assert load is not None
        return load.sustained_p95_ms

    assert [after(100.0 + second, 80.0) for second in range(10)] == [0.0] * 10, "not known for so long yet"
    assert after(110.0, 90.0) == 80.0
    assert after(111.0, 2.0) == 2.0, "one good second"
    assert [after(112.0 + second, 80.0) for second in range(9)] == [2.0] * 9
    assert after(122.0, 80.0) == 80.0
    assert after(140.0, 80.0) == 0.0, "a silence is no evidence"


def test_clients_that_are_sent_to_a_node_in_vain_are_counted_until_one_connects() -> None:
    now = [100.0]
    inbox = Inbox(monotonic=lambda: now[0], on_change=lambda _: None)

    def in_vain(at: float, created: int, connections: int = 0) -> tuple[int, float]:
        now[0] = at
        inbox.put(KEY, "u-a", a_load("a", transports_created=created, connections=connections))
        load = inbox.get(KEY, "u-a")
        assert load is not None
        return load.in_vain, load.in_vain_s

    assert in_vain(100, 50) == (0, 0), "what was before it was first heard is not known"
    assert in_vain(110, 52) == (2, 0)
    assert in_vain(130, 80) == (30, 20)
    assert in_vain(131, 80, connections=1) == (0, 0), "somebody got through"
    assert in_vain(140, 80) == (0, 0), "and has left"
    assert in_vain(150, 82) == (2, 0)
    assert in_vain(151, 2) == (0, 0), "its process was started anew"


def test_who_serves_a_room_is_known_through_every_change() -> None:
    now = [100.0]
    inbox = Inbox(monotonic=lambda: now[0], on_change=lambda _: None)

    def serving(**rooms: list[str]) -> bool:
        return all(inbox.serving("calls", room) == nodes for room, nodes in rooms.items())

    inbox.put(("calls", "b"), "u-b", a_load("b", rooms=(RoomLoad("x", 1), RoomLoad("y", 1))))
    inbox.put(KEY, "u-a", a_load("a", rooms=(RoomLoad("x", 2),)))
    inbox.put(("other", "c"), "u-c", a_load("c", rooms=(RoomLoad("x", 2),)))
    assert serving(x=["a", "b"], y=["b"])
    inbox.put(("calls", "b"), "u-b", a_load("b", rooms=(RoomLoad("y", 1),)))
    assert serving(x=["a"], y=["b"])
    inbox.put(("calls", "b"), "u-b2", a_load("b", rooms=(RoomLoad("z", 1),)))
    assert serving(x=["a"], y=[], z=["b"]), "what another Pod of that name told is gone with it"
    inbox.forget(KEY)
    inbox.forget(("calls", "b"))
    assert serving(x=[], y=[], z=[]) and inbox.serving("other", "x") == ["c"]
