"""The pace at which rooms leave a node that drains."""

import random

from headwater_api.ids import NodeId
from headwater_planner.moves import MAX_ELAPSED_S, STEP_S, Leaving, plan_step

NODE = NodeId("eu-1")


def drain(rooms: list[int], rate: float, seed: int) -> list[float]:
    """When each participant of these rooms is moved, seconds."""
    rng, left, moved, now = random.Random(seed), list(rooms), [], 0.0
    while any(left):
        on_node = sum(left)
        now += STEP_S
        for at, here in enumerate(left):
            moves = plan_step(Leaving(NODE, rate, on_node, here), STEP_S, rng.random())
            left[at] -= moves
            moved += [now] * moves
    return moved


def test_rooms_keep_to_the_rate_of_the_node_together() -> None:
    for seed, rooms in enumerate(([2] * 150, [1] * 300, [300], [250, *[1] * 50])):
        moved = drain(rooms, 10.0, seed)
        assert len(moved) == 300
        assert 22 <= moved[-1] <= 40, "300 at 10/s"
        busiest = max(sum(1 for t in moved if start <= t < start + 1) for start in range(40))
        assert busiest <= 25


def test_past_the_deadline_the_rest_goes_at_once() -> None:
    assert plan_step(Leaving(NODE, 1.0, 500, 40, overdue=True), 0.0, 0.99) == 40


def test_a_late_room_does_not_make_up_for_lost_time() -> None:
    assert plan_step(Leaving(NODE, 10.0, 50, 50), 60.0, 0.5) == 10 * MAX_ELAPSED_S


def test_a_drain_without_a_rate_has_the_default_and_the_first_step_none() -> None:
    assert plan_step(Leaving(NODE, 0.0, 30, 30), 1.0, 0.5) == 10
    assert plan_step(Leaving(NODE, 0.0, 30, 30), 0.0, 0.0) == 0
