"""What a fleet's plan never does, whatever the world looks like."""

import os
from datetime import timedelta
from random import Random

from headwater_planner.cluster import (
    MAX_CREATES_PER_PASS,
    MAX_DELETES_PER_PASS,
    desired_nodes,
)
from headwater_planner.heal import assess
from headwater_planner.pods import sort_pods
from headwater_planner.supply import CreateNode, DeleteNode, DrainNode, UncordonNode
from headwater_planner.world import ClusterWorld, Death, NodeLoad, Phase, PodView, RoomLoad
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fleet import NOW, a_cluster, a_world, plan_fleet, status_of_fleet

SETTINGS = settings(max_examples=int(os.environ.get("HEADWATER_EXAMPLES", "60")), deadline=None)
REGIONS = ("eu", "us", "ap")


@st.composite
def pods(draw: st.DrawFn, number: int) -> PodView:
    phase = draw(st.sampled_from(Phase))
    age = timedelta(seconds=draw(st.integers(0, 3600)))
    return PodView(
        name=f"n{number}",
        uid=f"u{number}",
        region=draw(st.sampled_from((*REGIONS, "gone"))),
        phase=phase,
        created_at=NOW - age,
        ready=phase is Phase.RUNNING and draw(st.booleans()),
        ready_changed_at=NOW - timedelta(seconds=draw(st.integers(0, 3600))),
        terminating=draw(st.booleans()) and draw(st.booleans()),
        started=phase is not Phase.PENDING or draw(st.booleans()),
        ended="its process ended with exit code 137 (Error)" if phase is Phase.FAILED else "",
    )


@st.composite
def loads(draw: st.DrawFn, pod: PodView) -> NodeLoad:
    participants = draw(st.integers(0, 3))
    return NodeLoad(
        pod.name,
        pod.region,
        draw(st.sampled_from((0.1, 3.9, 4.1, 60.0))),
        draining=draw(st.booleans()),
        participants=participants,
        connections=2 * participants,
        max_connections=1000,
        rooms=(RoomLoad("r", participants),) if participants else (),
    )


@st.composite
def worlds(draw: st.DrawFn) -> ClusterWorld:
    bounds = {
        name: (low := draw(st.integers(0, 4)), draw(st.integers(max(1, low), 6)))
        for name in draw(st.sets(st.sampled_from(REGIONS), min_size=1))
    }
    cluster = a_cluster(bounds, replicas=draw(st.none() | st.integers(0, 30)))
    some = [draw(pods(number)) for number in range(draw(st.integers(0, 8)))]
    known = [draw(loads(pod)) for pod in some if draw(st.booleans())]
    deaths = tuple(
        Death(
            f"d{n}",
            draw(st.sampled_from(REGIONS)),
            NOW - timedelta(seconds=draw(st.integers(0, 900))),
            1.0,
            "x",
        )
        for n in range(draw(st.integers(0, 4)))
    )
    return a_world(cluster, some, known, deaths=deaths)


@SETTINGS
@given(worlds())
def test_no_node_that_may_serve_is_deleted(world: ClusterWorld) -> None:
    by_name = {pod.name: pod for pod in world.pods}
    for action in plan_fleet(world, NOW, Random(1)).actions:
        if isinstance(action, DeleteNode):
            pod, load = by_name[action.name], world.loads.get(action.name)
            never_ran = pod.phase is Phase.PENDING and not pod.started and load is None
            emptied = load is not None and load.fresh and load.draining and load.empty
            unready_s = (NOW - pod.ready_changed_at).total_seconds() if pod.ready_changed_at else 0.0
            frozen = load is not None and load.age_s >= 60 and unready_s >= 60
            assert pod.dead or never_ran or emptied or (not pod.ready and frozen), f"{action}"
            assert action.uid == pod.uid


@SETTINGS
@given(worlds())
def test_the_wanted_number_keeps_its_bounds(world: ClusterWorld) -> None:
    wanted = desired_nodes(world.cluster.spec)
    for region in world.cluster.spec.regions:
        assert region.min_nodes <= wanted[region.name] <= region.max_nodes


@SETTINGS
@given(worlds())
def test_no_region_grows_above_or_shrinks_below_what_is_wanted(world: ClusterWorld) -> None:
    plan = plan_fleet(world, NOW, Random(1))
    for region in {*plan.desired, *(pod.region for pod in world.pods)}:
        lists = sort_pods(world, region, assess(world, NOW))
        wanted = plan.desired.get(region, 0)
        made = sum(isinstance(action, CreateNode) and action.region == region for action in plan.actions)
        alive = {pod.name for pod in lists.alive}
        ready = {pod.name for pod in lists.ready}
        taken = {a.name for a in plan.actions if isinstance(a, DeleteNode | DrainNode) and a.region == region}
        if made:
            assert len(alive) + made <= wanted
            assert not taken & alive, "a pass does not make and take in one region"
        if taken & alive:
            assert len(alive - taken) >= wanted
        assert len(ready - taken) >= min(len(ready), wanted)


@SETTINGS
@given(worlds())
def test_a_pass_is_capped_and_names_are_new(world: ClusterWorld) -> None:
    actions = plan_fleet(world, NOW, Random(1)).actions
    names = [action.name for action in actions if isinstance(action, CreateNode)]
    assert len(names) <= MAX_CREATES_PER_PASS and len(set(names)) == len(names)
    assert not {pod.name for pod in world.pods} & set(names)
    assert sum(isinstance(action, DeleteNode) for action in actions) <= MAX_DELETES_PER_PASS


@SETTINGS
@given(worlds())
def test_a_node_is_not_cordoned_and_returned_in_one_pass(world: ClusterWorld) -> None:
    actions = plan_fleet(world, NOW, Random(1)).actions
    cordoned = {action.name for action in actions if isinstance(action, DrainNode | DeleteNode)}
    assert not cordoned & {action.name for action in actions if isinstance(action, UncordonNode)}


@SETTINGS
@given(worlds())
def test_the_same_world_gives_the_same_plan_and_a_status_that_is_stable(world: ClusterWorld) -> None:
    plan = plan_fleet(world, NOW, Random(1))
    assert plan == plan_fleet(world, NOW, Random(1))
    status = status_of_fleet(world, plan, NOW)
    again = a_world(
        world.cluster.model_copy(update={"status": status}),
        world.pods,
        world.loads.values(),
        deaths=world.deaths,
    )
    later = status_of_fleet(again, plan_fleet(again, NOW, Random(1)), NOW)
    assert later == status
    assert status.participants == sum(
        load.participants for load in world.loads.values()
        if not next(pod for pod in world.pods if pod.name == load.node).dead
    )  # fmt: skip
