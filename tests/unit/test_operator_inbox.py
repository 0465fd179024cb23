"""What is known of a node from its reports, and for how long."""

from headwater_operator.nodes.inbox import Change, Inbox
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
