"""SFUCluster.status: conditions in words, figures, printer columns."""

import math
from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest
from headwater_api.conditions import Condition, Status, find_condition
from headwater_api.reasons import Reason
from headwater_api.sfucluster import SFUClusterStatus
from headwater_planner.status import invalid_status
from headwater_planner.supply import Held
from headwater_planner.world import ClusterWorld, Phase
from support.fleet import NOW, a_cluster, a_load, a_pending_pod, a_pod, a_world, plan_fleet, status_of_fleet


def status(world: ClusterWorld) -> SFUClusterStatus:
    return status_of_fleet(world, plan_fleet(world, NOW, Random(1)), NOW)


def condition(of: SFUClusterStatus, type_: str) -> Condition:
    found = find_condition(of.conditions, type_)
    assert found is not None, f"no condition {type_}"
    return found


def verdicts(of: SFUClusterStatus) -> dict[str, str]:
    return {found.type: f"{found.status} {found.reason}" for found in of.conditions}


HEALTHY = a_world(
    a_cluster({"eu": (2, 10), "us": (1, 10)}),
    [a_pod("a"), a_pod("b"), a_pod("c", "us")],
    [
        a_load("a", participants=2, cpu_percent=11.2, p95_ms=0.6),
        a_load("b", participants=1, cpu_percent=22.0, p95_ms=1.4),
        a_load("c", "us", participants=4),
    ],
)


def test_a_healthy_fleet() -> None:
    seen = status(HEALTHY)
    assert verdicts(seen) == {
        "Ready": "True AllNodesReady",
        "Progressing": "False UpToDate",
        "Degraded": "False AsExpected",
        "CapacityAvailable": "True CapacityFree",
        "ScalingActive": "False FixedSize",
        "ScalingLimited": "False WithinBounds",
        "AddressReachable": "True ClientsConnect",
    }
    assert all(found.observed_generation == 3 for found in seen.conditions)
    assert (seen.nodes, seen.region_summary, seen.replicas) == ("3/3", "eu 2/2, us 1/1", 3)
    assert (seen.participants, seen.rooms, seen.observed_generation) == (7, 1, 3)
    assert seen.selector == "app.kubernetes.io/component=sfu-node,headwater.dev/cluster=demo"
    eu = seen.regions[0]
    assert (eu.desired, eu.ready, eu.participants, eu.rooms) == (2, 2, 3, 1)
    assert (eu.cpu_percent, eu.p95_latency_ms) == (15, 1.5), "rounded: no write for each tenth of a percent"


def test_the_status_of_an_unchanged_world_does_not_change() -> None:
    first = status(HEALTHY)
    later = replace(HEALTHY, cluster=HEALTHY.cluster.model_copy(update={"status": first}))
    plan = plan_fleet(later, NOW, Random(9))
    assert status_of_fleet(later, plan, NOW + timedelta(hours=1)) == first


def test_no_kubernetes_node_in_the_region() -> None:
    seen = status(replace(HEALTHY, kube_nodes=a_world(kube_regions=["eu"]).kube_nodes, pods=HEALTHY.pods[:2]))
    capacity = condition(seen, "CapacityAvailable")
    assert (capacity.status, capacity.reason) == (Status.FALSE, Reason.NO_NODE_MATCHES_REGION.value)
    assert capacity.message == (
        "region us: no Kubernetes node carries the labels topology.kubernetes.io/region=us"
    )
    assert condition(seen, "Ready").reason == Reason.NO_NODE_MATCHES_REGION.value
    assert "region us: 0 of 1 nodes ready" in condition(seen, "Ready").message
    assert condition(seen, "Degraded").is_true


def test_a_region_with_its_own_selector_names_it() -> None:
    cluster = a_cluster()
    regions = [{"name": "eu", "nodeSelector": {"pool": "media", "dc": "fra"}, "minNodes": 1, "maxNodes": 2}]
    cluster = cluster.model_validate(
        {"metadata": cluster.metadata.to_kubernetes(), "spec": {"regions": regions}}
    )
    assert (
        "carries the labels dc=fra, pool=media"
        in condition(status(a_world(cluster)), "CapacityAvailable").message
    )


def test_pods_that_the_scheduler_cannot_place() -> None:
    stuck = a_pending_pod("a", unschedulable="0/6 nodes are available: 6 Insufficient cpu.")
    seen = status(a_world(pods=[stuck, a_pod("b")], loads=[a_load("b")]))
    capacity = condition(seen, "CapacityAvailable")
    assert (capacity.status, capacity.reason) == (Status.FALSE, "PodsUnschedulable")
    assert capacity.message.startswith(
        "region eu: 1 Pods cannot be scheduled on nodes with topology.kubernetes.io/"
    )
    assert capacity.message.endswith("6 Insufficient cpu.")


def test_without_the_right_to_list_nodes_only_the_scheduler_is_believed() -> None:
    assert condition(status(replace(HEALTHY, kube_nodes=None)), "CapacityAvailable").is_true


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("ImagePullBackOff", "ImageUnavailable"),
        ("CreateContainerConfigError", "NodeTokenMissing"),
        ("RunContainerError", "NodesUnready"),
    ],
)
def test_a_container_that_cannot_start_says_why(trouble: str, reason: str) -> None:
    pod = a_pending_pod("a", trouble=trouble, trouble_message="the kubelet's words")
    degraded = condition(status(a_world(pods=[pod, a_pod("b")], loads=[a_load("b")])), "Degraded")
    assert (degraded.is_true, degraded.reason) == (True, reason)
    assert degraded.message == "region eu: a: the kubelet's words"


def test_a_dead_node_degrades_until_it_is_replaced() -> None:
    dead = a_pod("a", ready=False, phase=Phase.FAILED, ended="its process ended with exit code 137 (Error)")
    seen = status(a_world(pods=[dead, a_pod("b")], loads=[a_load("b")]))
    assert verdicts(seen)["Degraded"] == "True NodeFailed"
    assert verdicts(seen)["Progressing"] == "True NodesReplacing"
    assert verdicts(seen)["Ready"] == "False NodesMissing"
    assert seen.replicas == 1


def test_a_silent_node_keeps_its_last_figures_and_is_reported() -> None:
    world = a_world(pods=[a_pod("a"), a_pod("b")], loads=[a_load("a", participants=3, age_s=60), a_load("b")])
    seen = status(world)
    assert seen.participants == 3
    degraded = condition(seen, "Degraded")
    assert (degraded.is_true, degraded.reason) == (True, "NodeReportsMissing")
    assert degraded.message == "region eu: a is ready but sends no report: its load is unknown"


def test_every_node_full_is_a_lack_of_capacity() -> None:
    loads = [a_load(name, connections=1000) for name in "ab"]
    seen = status(a_world(pods=[a_pod("a"), a_pod("b")], loads=loads))
    assert verdicts(seen)["CapacityAvailable"] == "False CapacityExhausted"


def test_what_was_refused_is_told() -> None:
    plan = replace(
        plan_fleet(HEALTHY, NOW, Random(1)), held=(Held(Reason.POD_CREATE_REFUSED, "exceeded quota: pods"),)
    )
    degraded = condition(status_of_fleet(HEALTHY, plan, NOW), "Degraded")
    assert (degraded.reason, degraded.message) == ("PodCreateRefused", "exceeded quota: pods")


def test_replicas_above_the_regions_limits_are_told() -> None:
    seen = status(a_world(a_cluster({"eu": (1, 2)}, replicas=9)))
    limited = condition(seen, "ScalingLimited")
    assert limited.is_true and limited.message == "spec.replicas is 9, the regions' maxNodes allow 2"


def test_a_change_of_the_wanted_number_is_remembered() -> None:
    before = status(HEALTHY)
    cluster = a_cluster({"eu": (3, 10), "us": (1, 10)}).model_copy(update={"status": before})
    scale = status(replace(HEALTHY, cluster=cluster)).last_scale
    assert scale is not None
    assert (scale.region, scale.from_nodes, scale.to_nodes, scale.reason) == ("eu", 2, 3, "ScaledUp")


def test_a_spec_that_cannot_be_read_is_told_without_losing_the_figures() -> None:
    old = status(HEALTHY)
    seen = invalid_status(
        old, reason=Reason.INVALID_SPEC, message="spec.regions: missing", generation=4, now=NOW
    )
    assert seen.participants == old.participants
    assert verdicts(seen)["Ready"] == "False InvalidSpec"


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -5.0])
def test_one_node_s_nonsense_is_left_out_of_the_figures(nonsense: float) -> None:
    loads = [a_load("a", cpu_percent=nonsense, p95_ms=nonsense), a_load("b", cpu_percent=40.0, p95_ms=2.0)]
    world = a_world(pods=[a_pod("a"), a_pod("b")], loads=loads)
    region = status(world).regions[0]
    assert (region.cpu_percent, region.p95_latency_ms) == (40, 2.0)
