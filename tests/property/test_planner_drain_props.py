"""What drains, upgrades and repairs never do together, whatever the world looks like."""

import os
from dataclasses import replace
from datetime import timedelta
from random import Random

from headwater_planner.supply import DeleteNode, DrainNode, UncordonNode
from headwater_planner.world import ClusterWorld, KubeNodeView, NodeLoad, Phase, PodView
from hypothesis import event, given, settings
from hypothesis import strategies as st
from support.fleet import NOW, a_cluster, a_load, a_pod, a_world, plan_fleet

SETTINGS = settings(max_examples=int(os.environ.get("HEADWATER_EXAMPLES", "100")), deadline=None)
REGIONS = ("eu", "us")
MACHINES = (
    KubeNodeView("well", {"topology.kubernetes.io/region": "eu"}),
    KubeNodeView("cordoned", {"topology.kubernetes.io/region": "eu"}, schedulable=False),
    KubeNodeView("doomed", {"topology.kubernetes.io/region": "eu"}, notice="spot"),
)


@st.composite
def a_member(draw: st.DrawFn, number: int) -> tuple[PodView, NodeLoad | None]:
    region = draw(st.sampled_from(REGIONS))
    load = None
    draining = draw(st.booleans())
    if draw(st.integers(0, 9)):
        load = a_load(
            f"n{number}",
            region,
            participants=draw(st.integers(0, 3)),
            age_s=draw(st.sampled_from((0.5, 0.5, 0.5, 30.0))),
            draining=draining,
            drain_deadline=NOW + timedelta(seconds=draw(st.sampled_from((-600, 600)))) if draining else None,
            stopping=draining and not draw(st.integers(0, 5)),
            stalled_s=draw(st.sampled_from((0.0, 0.0, 0.0, 90.0))),
        )
    pod = a_pod(
        f"n{number}",
        region,
        ready=not draining,
        age_s=draw(st.sampled_from((5, 600))),
        template=draw(st.sampled_from(("new", "old"))),
        drain_wanted=not draw(st.integers(0, 4)),
        node_name=draw(st.sampled_from(("well", "well", "well", "cordoned", "doomed"))),
        phase=draw(st.sampled_from((Phase.RUNNING, Phase.RUNNING, Phase.RUNNING, Phase.FAILED))),
    )
    return pod, load


@st.composite
def worlds(draw: st.DrawFn) -> ClusterWorld:
    cluster = a_cluster(
        {name: (draw(st.integers(0, 3)), 5) for name in REGIONS},
        drain={"maxConcurrentPerRegion": draw(st.integers(1, 2))},
        upgrade={"maxUnavailable": draw(st.integers(1, 3)), "canary": {"nodes": draw(st.integers(0, 1))}},
    )
    members = [draw(a_member(number)) for number in range(draw(st.integers(0, 8)))]
    world = a_world(cluster, [pod for pod, _ in members], [load for _, load in members if load])
    templates = dict.fromkeys(REGIONS, "new") if draw(st.booleans()) else {}
    return replace(world, kube_nodes=MACHINES, templates=templates)


def leaves_by_itself(world: ClusterWorld, name: str) -> bool:
    pod = next(pod for pod in world.pods if pod.name == name)
    load = world.loads.get(name)
    stalled = load is not None and load.stalled_s >= 5.0
    return pod.node_name == "doomed" or stalled


@SETTINGS
@given(worlds())
def test_one_region_gives_up_no_more_nodes_at_once_than_it_may(world: ClusterWorld) -> None:
    plan = plan_fleet(world, NOW, Random(1))
    for region in REGIONS:
        begun = [
            a.name
            for a in plan.actions
            if isinstance(a, DrainNode) and a.region == region and not leaves_by_itself(world, a.name)
        ]
        going_on = [
            pod.name
            for pod in world.pods
            if pod.region == region
            and not pod.dead
            and (load := world.fresh_load(pod)) is not None
            and load.draining
        ]
        event(f"begun {len(begun)}")
        if begun:
            assert len(begun) + len(going_on) <= world.cluster.spec.drain.max_concurrent_per_region


@SETTINGS
@given(worlds())
def test_no_node_that_serves_is_deleted_however_late_its_drain_is(world: ClusterWorld) -> None:
    by_name = {pod.name: pod for pod in world.pods}
    for action in plan_fleet(world, NOW, Random(1)).actions:
        if isinstance(action, DeleteNode) and not by_name[action.name].dead:
            load = world.loads[action.name]
            event("deletes a running one")
            if load.stalled_s < 60:
                assert load.fresh and load.draining and load.empty, str(action)
                assert action.drained


@SETTINGS
@given(worlds())
def test_a_node_gets_one_order_and_a_stopping_one_none(world: ClusterWorld) -> None:
    orders = [a for a in plan_fleet(world, NOW, Random(1)).actions if isinstance(a, DrainNode | UncordonNode)]
    assert len({order.name for order in orders}) == len(orders)
    for order in orders:
        load = world.loads[order.name]
        assert not (load.fresh and load.stopping)
        assert load.draining == isinstance(order, UncordonNode)


@SETTINGS
@given(worlds())
def test_capacity_is_kept_for_good_order_s_sake(world: ClusterWorld) -> None:
    """Scale-down and upgrade never take a ready node below the wanted number."""
    plan = plan_fleet(world, NOW, Random(1))
    for region in REGIONS:
        ready = {pod.name for pod in world.pods if pod.region == region and pod.ready and not pod.dead}
        drained = {a.name: a for a in plan.actions if isinstance(a, DrainNode) and a.region == region}
        voluntary = [a for a in drained.values() if a.reason in ("AboveDesiredNodes", "Upgrading")]
        if voluntary:
            assert len(ready - set(drained)) >= plan.desired[region]
