"""Simulated fleets under the operator's own plans, small: tests/chaos has the long runs."""

from datetime import timedelta

import pytest
from headwater_api.reasons import Reason
from headwater_cli.simulate.demand import synthetic
from headwater_cli.simulate.fleet import ServingNodeDeleted
from headwater_cli.simulate.run import Simulation
from headwater_planner.supply import DeleteNode
from support.scaling import an_autoscaled
from support.simulated import START, Trouble, a_simulation, balance, cycles


@pytest.mark.parametrize("seed", range(2))
def test_cycles_with_faults_delete_no_serving_node_and_lose_nobody(seed: int) -> None:
    trouble = Trouble()
    simulation = a_simulation(cycles(6, seed), seed=seed, faults=trouble)
    outcome = simulation.run()  # raises ServingNodeDeleted
    wanted, there = balance(simulation)
    assert wanted == there and not simulation.fleet.waiting
    assert outcome.deleted > 5 and outcome.peak_nodes > 5 and trouble.distorted > 5
    assert outcome.turns(60) == []


def test_without_faults_nobody_waits_longer_than_nodes_take_to_start() -> None:
    """A crowd of six times the free capacity is met by doubling: three starts of a minute, and the passes."""
    simulation = a_simulation(cycles(6, 6), seed=6)
    outcome = simulation.run()
    assert 60 < outcome.longest_wait_s <= 3 * (60 + 10), outcome.longest_wait_at
    assert outcome.moved > 0


def test_everybody_finds_a_place_at_announced_meetings() -> None:
    cluster = an_autoscaled({"eu": (2, 40), "us": (2, 40)}, node={"capacity": {"connections": 100}})
    start = START + timedelta(hours=8)
    demand = synthetic(
        ["eu", "us"], cluster="demo", start=start, days=0.25, meetings=80, seed=4, announced=1.0
    )
    outcome = Simulation(cluster, demand, step_s=30).run()
    assert outcome.peak_participants > 400
    # Those of the first minutes come to a fleet that has only just been made.
    assert outcome.longest_wait_at is None or outcome.longest_wait_at <= start + timedelta(minutes=2)


def test_the_same_seed_gives_the_same_run() -> None:
    runs = [a_simulation(cycles(2, 3), seed=3, faults=Trouble()).run() for _ in range(2)]
    assert runs[0].samples == runs[1].samples and runs[0].node_seconds == runs[1].node_seconds
    texts = [[change.decision.sentence for change in run.changes] for run in runs]
    assert texts[0] == texts[1]


def test_the_fleet_notices_a_wrong_deletion() -> None:
    simulation = a_simulation(cycles(1, 5), seed=5)
    while not any(node.participants for node in simulation.fleet.nodes.values()):
        simulation.step()
        simulation.now += simulation.interval
    node = next(node for node in simulation.fleet.nodes.values() if node.participants)
    with pytest.raises(ServingNodeDeleted, match="participants were on it"):
        simulation.fleet.act([DeleteNode(node.name, node.name, node.region, Reason.SCALED_DOWN, "test")])
