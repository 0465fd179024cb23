"""The node's own side of a drain: orders, terms, and the end of its Pod."""

import pytest
from headwater_api.nodev1 import node_pb2
from headwater_sfu.drain import Drain, Stopping, is_empty

ORDER = node_pb2.SetDrainingRequest(draining=True, reason="scale-down", move_rate=5, deadline_ms=60_000)


def test_an_order_sets_the_terms_and_a_repeated_one_keeps_its_start() -> None:
    drain = Drain()
    drain.order(ORDER, 1_000)
    later = node_pb2.SetDrainingRequest(draining=True, reason="upgrade", move_rate=9, deadline_ms=50_000)
    drain.order(later, 2_000)
    assert drain.state is not None
    assert (drain.state.reason, drain.state.move_rate, drain.state.since_ms) == ("upgrade", 9.0, 1_000)


def test_a_cancelled_drain_is_over_and_the_next_one_starts_anew() -> None:
    drain = Drain()
    drain.order(ORDER, 1_000)
    drain.order(node_pb2.SetDrainingRequest(draining=False), 2_000)
    assert not drain.active
    drain.order(ORDER, 3_000)
    assert drain.state is not None and drain.state.since_ms == 3_000


def test_the_end_of_the_pod_cannot_be_cancelled_and_leaves_time_for_the_rest() -> None:
    drain = Drain()
    drain.stop(10_000, 50.0, participants=1_000)
    state = drain.state
    assert state is not None and 10_000 < state.deadline_ms < 60_000
    assert state.move_rate * (state.deadline_ms - 10_000) / 1000 >= 1_000, (
        "everybody fits before the deadline"
    )
    with pytest.raises(Stopping):
        drain.order(node_pb2.SetDrainingRequest(draining=False), 11_000)
    assert drain.active


def test_a_stopping_node_keeps_the_sooner_deadline() -> None:
    drain = Drain()
    drain.order(ORDER, 1_000)
    drain.stop(59_000, 50.0, participants=3)
    assert drain.state is not None and (drain.state.deadline_ms, drain.state.since_ms) == (60_000, 1_000)
    drain.order(node_pb2.SetDrainingRequest(draining=True, deadline_ms=10**9), 59_500)
    assert drain.state.deadline_ms == 60_000


@pytest.mark.parametrize(
    ("report", "empty"),
    [
        (node_pb2.NodeReport(), True),
        (node_pb2.NodeReport(rooms=[node_pb2.RoomReport(room_id="r")]), True),
        (node_pb2.NodeReport(rooms=[node_pb2.RoomReport(room_id="r", participants=1)]), False),
        (node_pb2.NodeReport(participants=1), False),
        (node_pb2.NodeReport(connections=1), False),
        (node_pb2.NodeReport(links=[node_pb2.LinkReport(up=True)]), False),
        (node_pb2.NodeReport(links=[node_pb2.LinkReport(up=False)]), True),
    ],
)
def test_empty_is_nobody_and_nothing_passing_through(report: node_pb2.NodeReport, empty: bool) -> None:
    assert is_empty(report) is empty
