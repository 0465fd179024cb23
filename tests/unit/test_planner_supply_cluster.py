"""The fleet's plan: what is made, replaced, cordoned and deleted, case by case."""

from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest
from headwater_api.model import ObjectMeta
from headwater_api.reasons import Reason
from headwater_planner.cluster import MAX_CREATES_PER_PASS, desired_nodes, node_name
from headwater_planner.supply import CreateNode, DeleteNode, DrainNode, Plan, UncordonNode
from headwater_planner.world import ClusterWorld, Death, LinkLoad, Phase
from support.fleet import NOW, a_cluster, a_load, a_pending_pod, a_pod, a_world, plan_fleet


def plan(world: ClusterWorld) -> Plan:
    return plan_fleet(world, NOW, Random(1))


def kinds(done: Plan) -> list[tuple[str, str]]:
    """Actions as (kind, node), creations by their region."""
    return [
        (type(action).__name__, action.region if isinstance(action, CreateNode) else action.name)
        for action in done.actions
    ]


@pytest.mark.parametrize(
    ("regions", "replicas", "wanted"),
    [
        ({"eu": (2, 10)}, None, {"eu": 2}),
        ({"eu": (0, 10), "us": (1, 1)}, None, {"eu": 0, "us": 1}),
        ({"eu": (1, 10), "us": (1, 10)}, 5, {"eu": 3, "us": 2}),
        ({"eu": (1, 2), "us": (1, 10)}, 6, {"eu": 2, "us": 4}),
        ({"eu": (1, 2), "us": (1, 2)}, 100, {"eu": 2, "us": 2}),
        ({"eu": (3, 10)}, 1, {"eu": 3}),
    ],
)
def test_replicas_raise_the_floor_within_the_regions_bounds(
    regions: dict[str, tuple[int, int]], replicas: int | None, wanted: dict[str, int]
) -> None:
    assert desired_nodes(a_cluster(regions, replicas=replicas).spec) == wanted


def test_an_empty_fleet_gets_its_minimum_in_every_region() -> None:
    done = plan(a_world(a_cluster({"eu": (2, 10), "us": (1, 10)})))
    assert kinds(done) == [("CreateNode", "eu"), ("CreateNode", "eu"), ("CreateNode", "us")]
    assert len({action.name for action in done.actions}) == 3
    assert str(done.actions[0]).startswith("Create SFU node demo-eu-")
    assert str(done.actions[0]).endswith("in region eu: 0 of 2 wanted nodes exist")


def test_pods_that_are_still_starting_are_not_made_twice() -> None:
    pods = [a_pending_pod("a"), a_pod("b", ready=False, age_s=3)]
    assert plan(a_world(pods=pods)).actions == ()


def test_a_killed_process_is_buried_and_replaced_at_once() -> None:
    dead = a_pod("a", ready=False, phase=Phase.FAILED, ended="its process ended with exit code 137 (Error)")
    done = plan(a_world(pods=[dead, a_pod("b")], loads=[a_load("a", participants=2), a_load("b")]))
    create, delete = done.actions
    assert isinstance(create, CreateNode) and create.reason is Reason.NODE_REPLACED
    assert create.because == "replaces a, its process ended with exit code 137 (Error)"
    assert delete == DeleteNode(
        "a", "u-a", "eu", Reason.NODE_FAILED, "its process ended with exit code 137 (Error)"
    )


def test_a_terminating_pod_is_replaced_before_it_is_gone_and_not_touched() -> None:
    done = plan(a_world(pods=[a_pod("a", terminating=True), a_pod("b")]))
    assert kinds(done) == [("CreateNode", "eu")]
    assert "replaces a, which is going away" in str(done)


def test_a_node_that_vanished_from_view_gets_a_substitute_but_is_not_deleted() -> None:
    lost = a_pod("a", ready=False, ready_changed_at=NOW - timedelta(seconds=30))
    done = plan(a_world(pods=[lost, a_pod("b")], loads=[a_load("a", age_s=30), a_load("b")]))
    assert kinds(done) == [("CreateNode", "eu")]


def test_a_node_that_is_unready_but_reports_is_left_alone() -> None:
    unready = a_pod("a", ready=False, ready_changed_at=NOW - timedelta(seconds=30))
    assert plan(a_world(pods=[unready, a_pod("b")], loads=[a_load("a"), a_load("b")])).actions == ()


class TestSurplus:
    def test_the_emptiest_node_is_cordoned_first_and_not_deleted(self) -> None:
        loads = [a_load("a", participants=5), a_load("b", participants=1), a_load("c", participants=3)]
        done = plan(a_world(pods=[a_pod(name) for name in "abc"], loads=loads))
        assert kinds(done) == [("DrainNode", "b")]
        assert str(done) == "Drain SFU node b in region eu until 09:10:00 UTC: 3 nodes exist, 2 are wanted"

    def test_a_cordoned_node_with_people_on_it_is_waited_for(self) -> None:
        loads = [a_load("a"), a_load("b", participants=1, draining=True), a_load("c")]
        assert plan(a_world(pods=[a_pod(name) for name in "abc"], loads=loads)).actions == ()

    def test_a_cordoned_and_empty_node_goes(self) -> None:
        loads = [a_load("a"), a_load("b", draining=True), a_load("c")]
        done = plan(a_world(pods=[a_pod(name) for name in "abc"], loads=loads))
        assert kinds(done) == [("DeleteNode", "b")]
        assert done.actions[0].reason is Reason.ABOVE_DESIRED_NODES

    def test_a_cordoned_node_that_relays_for_others_stays(self) -> None:
        link = LinkLoad("l1", "r1", "x", up=True)
        loads = [a_load("a"), a_load("b", draining=True, links=(link,)), a_load("c")]
        assert plan(a_world(pods=[a_pod(name) for name in "abc"], loads=loads)).actions == ()

    @pytest.mark.parametrize("age_s", [None, 5.0, 600.0])
    def test_silence_is_not_emptiness(self, age_s: float | None) -> None:
        loads = [] if age_s is None else [a_load(name, age_s=age_s, draining=True) for name in "abc"]
        assert plan(a_world(pods=[a_pod(name) for name in "abc"], loads=loads)).actions == ()

    def test_a_pod_that_never_started_goes_first_and_at_once(self) -> None:
        world = a_world(pods=[a_pod("a"), a_pod("b"), a_pending_pod("c")], loads=[a_load("a"), a_load("b")])
        assert kinds(plan(world)) == [("DeleteNode", "c")]

    def test_ready_nodes_never_fall_below_the_wanted_number(self) -> None:
        starting = a_pod("c", ready=False, age_s=3)
        world = a_world(pods=[a_pod("a"), a_pod("b"), starting], loads=[a_load("a"), a_load("b")])
        assert plan(world).actions == ()

    def test_nodes_of_a_removed_region_are_emptied_one_at_a_time(self) -> None:
        pods = [a_pod("a"), a_pod("b"), a_pod("x", "us"), a_pod("y", "us")]
        loads = [a_load("a"), a_load("b"), a_load("x", "us", participants=4), a_load("y", "us")]
        done = plan(a_world(pods=pods, loads=loads))
        assert kinds(done) == [("DrainNode", "y")]
        assert done.actions[0].reason is Reason.NODE_ORPHANED

    def test_a_cordon_that_is_no_longer_wanted_is_lifted(self) -> None:
        done = plan(a_world(pods=[a_pod("a"), a_pod("b")], loads=[a_load("a", draining=True), a_load("b")]))
        assert done.actions == (UncordonNode("a", "eu", Reason.DRAIN_CANCELLED, "2 nodes are wanted"),)

    def test_drain_limit_of_the_spec_is_kept(self) -> None:
        cluster = a_cluster({"eu": (1, 10)}, drain={"maxConcurrentPerRegion": 2})
        pods = [a_pod(name) for name in "abcde"]
        done = plan(a_world(cluster, pods, [a_load(name) for name in "abcde"]))
        assert [type(action) for action in done.actions] == [DrainNode, DrainNode]


class TestCrashLoop:
    def death(self, number: int, *, ago_s: float, lifetime_s: float = 1.0) -> Death:
        at = NOW - timedelta(seconds=ago_s)
        return Death(f"d{number}", "eu", at, lifetime_s, "its process ended with exit code 1 (Error)")

    def test_the_first_early_death_is_replaced_at_once(self) -> None:
        assert len(plan(a_world(deaths=(self.death(1, ago_s=0),))).actions) == 2

    def test_a_run_of_early_deaths_makes_the_next_one_wait(self) -> None:
        deaths = tuple(self.death(number, ago_s=10 - number) for number in range(5))
        done = plan(a_world(deaths=deaths))
        assert done.actions == ()
        assert done.again_at == deaths[-1].at + timedelta(seconds=16)
        assert "end soon after they start (last: d4, its process ended with exit code 1" in done.held[0].text

    def test_the_wait_ends(self) -> None:
        deaths = tuple(self.death(number, ago_s=100) for number in range(9))
        assert len(plan(a_world(deaths=deaths)).actions) == 2

    def test_a_clock_that_was_set_back_holds_nothing_up(self) -> None:
        deaths = tuple(self.death(number, ago_s=-3600) for number in range(9))
        assert len(plan(a_world(deaths=deaths)).actions) == 2

    def test_deaths_after_a_long_life_do_not_count(self) -> None:
        deaths = tuple(self.death(number, ago_s=0, lifetime_s=3600) for number in range(9))
        assert len(plan(a_world(deaths=deaths)).actions) == 2

    def test_other_regions_do_not_wait(self) -> None:
        deaths = tuple(self.death(number, ago_s=0) for number in range(9))
        done = plan(a_world(a_cluster({"eu": (1, 1), "us": (1, 1)}), deaths=deaths))
        assert kinds(done) == [("CreateNode", "us")]


def test_a_pass_is_capped_and_says_so() -> None:
    done = plan(a_world(a_cluster({"eu": (100, 100)})))
    assert len(done.actions) == MAX_CREATES_PER_PASS and done.partial


def test_a_fleet_that_is_being_deleted_is_left_to_the_garbage_collector() -> None:
    cluster = a_cluster()
    metadata = ObjectMeta(**{**cluster.metadata.model_dump(), "deletion_timestamp": NOW})
    world = replace(a_world(), cluster=cluster.model_copy(update={"metadata": metadata}))
    assert plan(world) == Plan()


def test_node_names_are_host_names() -> None:
    name = node_name("a.cluster-" + "x" * 200, "r" * 32, Random(2))
    assert len(name) <= 63 and name.replace("-", "").isalnum() and not name.startswith("-")
    assert node_name("demo", "eu", Random(3)) != node_name("demo", "eu", Random(4))
