"""Drains, case by case: who asks for them, when they begin, what ends them, what holds them."""

from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest
from headwater_api.reasons import Reason
from headwater_planner.supply import Action, CreateNode, DeleteNode, DrainNode, GuardNode, Plan, UncordonNode
from headwater_planner.world import ClusterWorld, Guard, KubeNodeView, LinkLoad, PodView
from support.fleet import NOW, a_cluster, a_load, a_pending_pod, a_pod, a_world, plan_fleet

TWO = {"eu": (2, 10)}


def plan(world: ClusterWorld) -> Plan:
    return plan_fleet(world, NOW, Random(1))


def orders(world: ClusterWorld) -> list[Action]:
    return [action for action in plan(world).actions if not isinstance(action, CreateNode)]


def pods(*names: str, **changes: PodView) -> list[PodView]:
    return [changes.get(name, a_pod(name)) for name in names]


def on_machine(world: ClusterWorld, **changes: object) -> ClusterWorld:
    machine = KubeNodeView("k", {"topology.kubernetes.io/region": "eu"}, **changes)  # type: ignore[arg-type]
    return replace(world, kube_nodes=(machine,))


class TestTriggers:
    def test_an_annotation_asks_for_a_substitute_first(self) -> None:
        wanted = a_pod("a", drain_wanted=True)
        world = a_world(a_cluster(TWO), pods("a", "b", a=wanted), [a_load("a", participants=3), a_load("b")])
        (create,) = plan(world).actions
        assert isinstance(create, CreateNode) and create.because == "replaces a, which is going away"

    def test_the_drain_begins_when_the_substitute_is_ready(self) -> None:
        wanted = a_pod("a", drain_wanted=True)
        loads = [a_load("a", participants=3), a_load("b"), a_load("c")]
        (drain,) = plan(a_world(a_cluster(TWO), pods("a", "b", "c", a=wanted), loads)).actions
        assert isinstance(drain, DrainNode) and drain.reason is Reason.DRAIN_REQUESTED
        assert drain.deadline == NOW + timedelta(minutes=10) and drain.moves_per_s == 10
        assert str(drain) == ("Drain SFU node a in region eu until 09:10:00 UTC: its annotation asks for it")

    @pytest.mark.parametrize(("ready_s", "begins"), [(0, False), (2, False), (3, True), (-3600, True)])
    def test_the_drain_waits_until_gateways_can_know_the_substitute(self, ready_s: int, begins: bool) -> None:
        """Else they move people elsewhere. A machine whose clock is ahead holds up nobody."""
        fresh = a_pod("c", ready_changed_at=NOW - timedelta(seconds=ready_s))
        loads = [a_load("a", participants=3), a_load("b"), a_load("c")]
        made = plan(a_world(a_cluster(TWO), [a_pod("a", drain_wanted=True), a_pod("b"), fresh], loads))
        assert [type(action) for action in made.actions] == ([DrainNode] if begins else [])
        assert made.again_at == (None if begins else NOW + timedelta(seconds=3 - ready_s))

    @pytest.mark.parametrize(
        ("age_s", "unschedulable", "begins"), [(5, "", False), (5, "no room", True), (61, "", True)]
    )
    def test_a_substitute_that_does_not_come_is_not_waited_for_for_ever(
        self, age_s: int, unschedulable: str, begins: bool
    ) -> None:
        coming = a_pending_pod("c", age_s=age_s, unschedulable=unschedulable)
        world = a_world(
            a_cluster(TWO), [a_pod("a", drain_wanted=True), a_pod("b"), coming], [a_load("a"), a_load("b")]
        )
        assert any(isinstance(order, DrainNode) for order in orders(world)) is begins

    def test_a_cordoned_machine_is_emptied_one_node_at_a_time(self) -> None:
        both = [a_pod(name, node_name="k") for name in "ab"]
        others = [a_pod(name) for name in "cd"]
        loads = [a_load("a", participants=2), a_load("b", participants=1), a_load("c"), a_load("d")]
        world = on_machine(a_world(a_cluster(TWO), [*both, *others], loads), schedulable=False)
        (drain,) = plan(world).actions
        assert isinstance(drain, DrainNode) and drain.name == "b"
        assert drain.reason is Reason.KUBERNETES_NODE_CORDONED
        assert drain.because == "the Kubernetes node k is cordoned"

    def test_a_machine_about_to_go_is_emptied_at_once_and_wholly(self) -> None:
        both = [a_pod(name, node_name="k") for name in "ab"]
        loads = [a_load("a", participants=300), a_load("b", participants=1)]
        world = on_machine(a_world(a_cluster(TWO), both, loads), notice="taint spot-itn")
        drains = [order for order in orders(world) if isinstance(order, DrainNode)]
        assert {drain.name for drain in drains} == {"a", "b"}
        assert all(drain.deadline == NOW + timedelta(seconds=60) for drain in drains)
        fast = next(drain for drain in drains if drain.name == "a")
        assert fast.moves_per_s * 60 >= 300, "everybody can be moved before the deadline"

    def test_a_pod_that_was_told_to_end_is_replaced_and_left_to_drain_itself(self) -> None:
        stopping = a_load("a", participants=2, draining=True, stopping=True)
        world = a_world(a_cluster(TWO), [a_pod("a", ready=False), a_pod("b")], [stopping, a_load("b")])
        (create,) = plan(world).actions
        assert isinstance(create, CreateNode)


class TestOneAtATime:
    def test_scale_down_waits_for_a_drain_that_somebody_asked_for(self) -> None:
        wanted = a_pod("a", drain_wanted=True, ready=False)
        loads = [a_load("a", participants=1, draining=True), a_load("b"), a_load("c"), a_load("d")]
        world = a_world(a_cluster(TWO), [wanted, *pods("b", "c", "d")], loads)
        assert plan(world).actions == ()

    def test_a_terminating_node_that_serves_holds_the_place(self) -> None:
        loads = [a_load("a", participants=1, draining=True), a_load("b"), a_load("c"), a_load("d")]
        world = a_world(a_cluster(TWO), [a_pod("a", terminating=True), *pods("b", "c", "d")], loads)
        assert plan(world).actions == ()

    @pytest.mark.parametrize("terminating", [False, True])
    @pytest.mark.parametrize("age_s", [5.0, None])
    def test_a_drain_that_is_not_heard_of_holds_the_place(
        self, age_s: float | None, terminating: bool
    ) -> None:
        """For a moment, or since a restart."""
        since = NOW - timedelta(seconds=10)
        leaving = a_pod("a", ready=False, terminating=terminating, ready_changed_at=since)
        loads = [a_load("b"), a_load("c"), a_load("d"), a_load("e")]
        if age_s is not None:
            loads.append(a_load("a", participants=1, draining=True, age_s=age_s))
        world = a_world(a_cluster(TWO), [leaving, *pods("b", "c", "d", "e")], loads)
        assert plan(world).actions == ()

    def test_a_node_that_starts_holds_no_place(self) -> None:
        starting = a_pod("a", ready=False, age_s=10)
        world = a_world(a_cluster(TWO), [starting, *pods("b", "c", "d")], [a_load(x) for x in "bcd"])
        assert [type(action) for action in plan(world).actions] == [DrainNode]

    def test_regions_have_a_place_each(self) -> None:
        cluster = a_cluster({"eu": (1, 5), "us": (1, 5)})
        members = [a_pod("a"), a_pod("b"), a_pod("x", "us"), a_pod("y", "us")]
        loads = [
            a_load("a"),
            a_load("b", draining=True, participants=1),
            a_load("x", "us"),
            a_load("y", "us"),
        ]
        done = orders(a_world(cluster, members, loads))
        assert [(type(order), order.region) for order in done] == [(DrainNode, "us")]


class TestEnd:
    def late(self, minutes: float, participants: int) -> ClusterWorld:
        deadline = NOW - timedelta(minutes=minutes)
        late = a_load("a", participants=participants, draining=True, drain_deadline=deadline)
        return a_world(
            a_cluster(TWO), [a_pod("a", ready=False), *pods("b", "c")], [late, a_load("b"), a_load("c")]
        )

    def test_a_node_that_serves_past_its_deadline_is_kept_and_said_so(self) -> None:
        done = plan(self.late(3.5, participants=2))
        assert done.actions == ()
        (held,) = done.held
        assert held.reason is Reason.DRAIN_TIMEOUT
        assert held.text == (
            "a in region eu still serves 2 participants 3 min past its deadline: "
            "it is kept until they have been moved"
        )

    def test_emptied_it_goes_under_the_version_that_was_seen(self) -> None:
        world = self.late(3.5, participants=0)
        seen = tuple(replace(pod, resource_version="77") for pod in world.pods)
        (delete,) = plan(replace(world, pods=seen)).actions
        assert isinstance(delete, DeleteNode) and (delete.name, delete.resource_version) == ("a", "77")
        assert delete.drained, "the act looks at the newest report once more"

    def test_a_withdrawn_annotation_returns_the_node_to_service(self) -> None:
        loads = [a_load("a", participants=1, draining=True), a_load("b")]
        (order,) = plan(a_world(a_cluster(TWO), [a_pod("a", ready=False), a_pod("b")], loads)).actions
        assert isinstance(order, UncordonNode) and order.reason is Reason.DRAIN_CANCELLED

    def test_it_serves_on_and_its_idle_substitute_goes(self) -> None:
        asked = a_load("a", participants=3, draining=True, drain_reason="its annotation asks for it")
        loads = [asked, a_load("b", participants=1), a_load("c")]
        world = a_world(a_cluster(TWO), [a_pod("a", ready=False), *pods("b", "c")], loads)
        assert {(type(order), order.name) for order in orders(world)} == {(UncordonNode, "a")}, "ready first"
        back = a_load("a", participants=3)
        (drain,) = orders(a_world(a_cluster(TWO), pods("a", "b", "c"), [back, *loads[1:]]))
        assert isinstance(drain, DrainNode) and drain.name == "c"

    def test_a_stopping_node_is_not_called_back(self) -> None:
        loads = [a_load("a", participants=1, draining=True, stopping=True), a_load("b"), a_load("c")]
        world = a_world(a_cluster(TWO), [a_pod("a", ready=False), *pods("b", "c")], loads)
        assert plan(world).actions == ()


def test_victims_are_the_cheapest_to_move_among_the_equally_empty() -> None:
    hub = a_load("a", links=(LinkLoad("l", "r", "x", up=True),))
    world = a_world(a_cluster({"eu": (1, 5)}), pods("a", "b"), [hub, a_load("b")])
    assert [order.name for order in orders(world)] == ["b"]


class TestGuard:
    def guards(self, pod: PodView, **load: object) -> list[Guard]:
        world = a_world(a_cluster({"eu": (1, 5)}), [pod], [a_load("a", **load)])  # type: ignore[arg-type]
        return [action.guard for action in plan(world).actions if isinstance(action, GuardNode)]

    def test_an_idle_node_may_be_evicted_after_a_while(self) -> None:
        pod = a_pod("a", guard=Guard(True))
        assert self.guards(pod, empty_s=5.0) == []
        assert self.guards(pod, empty_s=61.0) == [Guard(False)]

    def test_a_serving_node_may_not(self) -> None:
        assert self.guards(a_pod("a", guard=Guard(False)), participants=1) == [Guard(True)]

    def test_silence_changes_nothing(self) -> None:
        assert self.guards(a_pod("a", guard=Guard(True)), age_s=60.0, empty_s=600.0) == []

    def test_a_draining_node_says_why_and_one_returned_says_nothing(self) -> None:
        world = a_world(
            a_cluster({"eu": (1, 5)}),
            [a_pod("a", guard=Guard(True)), a_pod("b", guard=Guard(True))],
            [a_load("a", participants=1), a_load("b", participants=2)],
        )
        (guard,) = [action for action in plan(world).actions if isinstance(action, GuardNode)]
        assert guard.guard == Guard(True, "Draining: 2 nodes exist, 1 are wanted")
        back = self.guards(a_pod("a", guard=guard.guard, ready=False), participants=1, draining=True)
        assert back == [Guard(True)]
