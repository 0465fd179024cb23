"""The planner against simulated fleets for long: a week of 10,000 Meetings, a thousand cycles of faults.

HEADWATER_CYCLES and HEADWATER_DAYS (of a week's traffic) make it shorter.
"""

import os
from datetime import timedelta

import pytest
from headwater_cli.simulate.demand import synthetic
from headwater_cli.simulate.run import Simulation
from support.scaling import REGIONS, an_autoscaled
from support.simulated import START, HardTrouble, Trouble, a_simulation, balance, cycles

pytestmark = pytest.mark.timeout(3600)
CYCLES = int(os.environ.get("HEADWATER_CYCLES", "1000"))
DAYS = float(os.environ.get("HEADWATER_DAYS", "7"))
BLOCK = 50


def test_a_thousand_cycles_delete_no_serving_node() -> None:
    """Crowds come and go; nodes crash, fall silent and tell nonsense. The fleet raises if one is deleted
    that serves; nobody is lost, and no number that went up goes down within the window."""
    trouble, deleted, moved, changes = Trouble(), 0, 0, 0
    for block in range(max(1, CYCLES // BLOCK)):
        simulation = a_simulation(cycles(min(BLOCK, CYCLES), block), seed=block, faults=trouble)
        outcome = simulation.run(sample_every_s=600)
        wanted, there = balance(simulation)
        assert wanted == there, f"block {block}"
        assert outcome.turns(60) == [], f"block {block}"
        deleted += outcome.deleted
        moved += outcome.moved
        changes += len(outcome.changes)
    assert trouble.crashes and trouble.silences and deleted > CYCLES
    print(f"{CYCLES} cycles: {deleted} nodes deleted, none while it served; {moved} participants moved; "
          f"{changes} decisions; {trouble}")  # fmt: skip


def test_a_thousand_cycles_of_hard_drains() -> None:
    """The same with drains that hang, are asked for and taken back, operators that forget, clocks that jump:
    numbers may go up and down then, but nobody's node is deleted and nobody is lost."""
    trouble, deleted, moved = HardTrouble(), 0, 0
    for block in range(max(1, CYCLES // BLOCK)):
        simulation = a_simulation(cycles(min(BLOCK, CYCLES), block), seed=1000 + block, faults=trouble)
        outcome = simulation.run(sample_every_s=600)
        wanted, there = balance(simulation)
        assert wanted == there, f"block {block}"
        deleted += outcome.deleted
        moved += outcome.moved
    assert trouble.late and trouble.restarts and trouble.jumps and trouble.withdrawn and deleted > CYCLES
    print(f"{CYCLES} hard cycles: {deleted} nodes deleted, none while it served; {moved} participants moved; "
          f"{trouble}")  # fmt: skip


def test_a_week_of_ten_thousand_meetings_on_240_nodes() -> None:
    window_s, step_s, start_s = 300.0, 30.0, 60.0
    cluster = an_autoscaled(
        {name: (2, 120) for name in REGIONS},
        node={"capacity": {"connections": 100}},
        drain={"deadline": "5m", "movesPerSecond": 1},
    )
    demand = synthetic(
        sorted(REGIONS),
        cluster="demo",
        start=START,
        days=DAYS,
        meetings=round(10_000 * DAYS / 7),
        seed=11,
        size=60,
    )
    outcome = Simulation(cluster, demand, step_s=step_s).run(sample_every_s=600)
    assert outcome.turns(window_s) == []
    assert DAYS < 7 or outcome.peak_nodes >= 200
    settled = outcome.longest_wait_at is not None and outcome.longest_wait_at > START + timedelta(minutes=5)
    # A crowd that nobody announced is met by doubling: at most a few starts, each with the passes around it.
    assert not settled or outcome.longest_wait_s <= 3 * (start_s + 2 * step_s), outcome.longest_wait_at
    static = outcome.peak_nodes * DAYS * 24
    print(
        f"{len(demand.meetings)} of {round(10_000 * DAYS / 7)} Meetings announced, peak "
        f"{outcome.peak_participants} participants on {outcome.peak_nodes} nodes, {len(outcome.changes)} "
        f"decisions, {outcome.moved} moved, {outcome.deleted} nodes deleted, longest wait "
        f"{outcome.longest_wait_s:.0f} s at {outcome.longest_wait_at}, {outcome.node_seconds / 3600:.0f} of "
        f"{static:.0f} node hours"
    )
