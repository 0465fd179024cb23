"""AddressReachable: whether clients get through to the nodes, by the clients' own word."""

from dataclasses import replace

import pytest
from headwater_api.conditions import Condition, Status
from headwater_api.reasons import Reason
from headwater_api.sfucluster import ADDRESS_REACHABLE
from headwater_planner.reached import IN_VAIN, IN_VAIN_S, judge_reach
from headwater_planner.world import ClusterWorld, Guard, NodeLoad
from support.fleet import NOW, a_cluster, a_load, a_pod, a_world, plan_fleet, status_of_fleet

BAD = {"in_vain": IN_VAIN, "in_vain_s": IN_VAIN_S}


def world(*loads: NodeLoad, before: Status | None = None) -> ClusterWorld:
    made = a_world(a_cluster({"eu": (2, 10)}), [a_pod(load.node) for load in loads], list(loads))
    if before is None:
        return made
    was = Condition(type=ADDRESS_REACHABLE, status=before, reason="ClientsConnect", message="as it was")
    status = made.cluster.status.model_copy(update={"conditions": (was,)})
    return replace(made, cluster=made.cluster.model_copy(update={"status": status}))


def told(of: ClusterWorld) -> tuple[str, str]:
    from random import Random

    conditions = status_of_fleet(of, plan_fleet(of, NOW, Random(1)), NOW).conditions
    (found,) = [condition for condition in conditions if condition.type == ADDRESS_REACHABLE]
    return str(found.status), found.reason


@pytest.mark.parametrize(
    ("load", "status"),
    [
        ({}, None),
        ({"in_vain": IN_VAIN - 1, "in_vain_s": 9999.0}, None),  # a few may have been called away
        ({"in_vain": 500, "in_vain_s": IN_VAIN_S - 1}, None),  # a crowd is still connecting
        ({"connections": 1}, True),
        (BAD, False),
    ],
)
def test_a_verdict_needs_many_and_time(load: dict[str, float], status: bool | None) -> None:
    of = world(a_load("a", **load))
    assert judge_reach(of, of.pods).status is status


def test_one_node_that_nobody_reaches_is_named_with_the_address_that_clients_are_told() -> None:
    of = world(a_load("a", connections=40), a_load("b", **BAD), a_load("c", **BAD))
    shown = replace(of.pods[1], guard=Guard(serves=True, external=("203.0.113.4:30123",)))
    of = replace(of, pods=(of.pods[0], shown, of.pods[2]))
    verdict = judge_reach(of, of.pods)
    assert (verdict.status, verdict.reason) == (False, Reason.CLIENTS_DO_NOT_CONNECT)
    assert "b and 1 more" in verdict.text and "open UDP to 203.0.113.4:30123" in verdict.text
    more = replace(of, loads={name: replace(load, in_vain=900) for name, load in of.loads.items()})
    assert judge_reach(more, more.pods).text == verdict.text, "a status is not written for each client"


def test_a_silent_node_tells_nothing() -> None:
    of = world(a_load("a", age_s=60.0, **BAD))
    assert judge_reach(of, of.pods).status is None


def test_what_was_good_stays_so_while_nobody_is_there_and_what_was_bad_does_not() -> None:
    idle = a_load("a")
    assert told(world(idle)) == ("Unknown", "NoClientYet")
    assert told(world(idle, before=Status.TRUE)) == ("True", "ClientsConnect")
    assert told(world(idle, before=Status.FALSE)) == ("Unknown", "NoClientYet")
    assert told(world(a_load("a", **BAD), before=Status.TRUE)) == ("False", "ClientsDoNotConnect")
    assert told(world(a_load("a", connections=2), before=Status.FALSE)) == ("True", "ClientsConnect")
