"""Dead, frozen, cut-off and grey nodes, and failures too many to be believed."""

from collections.abc import Iterable
from datetime import timedelta
from random import Random

import pytest
from headwater_api.reasons import Reason
from headwater_planner.heal import Evidence, assess
from headwater_planner.supply import CreateNode, DeleteNode, DrainNode, Plan
from headwater_planner.world import ClusterWorld, Guard, KubeNodeView, LinkLoad, NodeLoad, Phase, PodView
from support.fleet import NOW, a_cluster, a_load, a_pod, a_world, plan_fleet

FIVE = {"eu": (5, 10)}


def plan(world: ClusterWorld) -> Plan:
    return plan_fleet(world, NOW, Random(1))


def since(seconds: float) -> dict[str, object]:
    return {"ready": False, "ready_changed_at": NOW - timedelta(seconds=seconds)}


def links(**silent_s: float) -> tuple[LinkLoad, ...]:
    return tuple(LinkLoad(f"l-{peer}", "r", peer, s < 3, s) for peer, s in silent_s.items())


def five(changed: Iterable[PodView] = (), loads: Iterable[NodeLoad] = ()) -> ClusterWorld:
    """Five well nodes `a` to `e`, but for those given."""
    pods = {name: a_pod(name) for name in "abcde"} | {pod.name: pod for pod in changed}
    known = {name: a_load(name, participants=1) for name in "abcde"} | {load.node: load for load in loads}
    return a_world(a_cluster(FIVE), pods.values(), known.values())


class TestFrozen:
    def frozen(self, seconds: float) -> ClusterWorld:
        return five([a_pod("a", **since(seconds))], [a_load("a", age_s=seconds, participants=1)])

    def test_it_gets_a_substitute_first(self) -> None:
        (create,) = plan(self.frozen(20)).actions
        assert isinstance(create, CreateNode) and create.because == "replaces a, which is lost"

    def test_it_goes_when_it_has_been_replaced_and_two_observers_still_agree(self) -> None:
        world = self.frozen(90)
        assert not [action for action in plan(world).actions if isinstance(action, DeleteNode)]
        pods = [*world.pods, a_pod("f")]
        replaced = a_world(world.cluster, pods, [*world.loads.values(), a_load("f")])
        (delete,) = plan(replaced).actions
        assert isinstance(delete, DeleteNode) and delete.reason is Reason.NODE_UNHEALTHY
        assert delete.because == "for 90 s it sends no report and its Pod is not ready"

    @pytest.mark.parametrize("told", [True, False])
    @pytest.mark.parametrize(("machine_ready", "goes"), [(True, False), (False, True)])
    def test_one_that_drained_is_not_ready_anyhow(self, told: bool, machine_ready: bool, goes: bool) -> None:
        """It may well serve: only its machine's end, or its neighbours, add to its silence. It may have been
        silenced before it said that it drains (`told`)."""
        guard = Guard(True, "" if told else "Draining: 3 nodes exist, 2 are wanted")
        pod = a_pod("a", node_name="k-eu", guard=guard, **since(90))
        world = five([pod], [a_load("a", age_s=90, participants=1, draining=told)])
        machines = (KubeNodeView("k-eu", {}, ready=machine_ready),)
        loads = [*world.loads.values(), a_load("f")]
        replaced = a_world(world.cluster, [*world.pods, a_pod("f")], loads, kube_nodes=machines)
        assert any(isinstance(action, DeleteNode) for action in plan(replaced).actions) is goes

    def test_it_stays_while_a_neighbour_hears_it(self) -> None:
        world = self.frozen(90)
        hears = a_load("b", participants=1, links=links(a=0.1))
        loads = [load for load in world.loads.values() if load.node != "b"]
        again = a_world(world.cluster, [*world.pods, a_pod("f")], [*loads, hears, a_load("f")])
        assert plan(again).actions == ()


@pytest.mark.parametrize(("age_s", "lost"), [(5.0, False), (14.0, False), (16.0, True)])
@pytest.mark.parametrize("draining", [True, False])
def test_a_draining_node_is_lost_no_sooner_than_another(age_s: float, lost: bool, draining: bool) -> None:
    unready_s = 60.0 if draining else age_s  # a draining one is unready on purpose
    node = a_pod("a", **since(unready_s))
    world = five([node], [a_load("a", age_s=age_s, draining=draining)])
    assert assess(world, NOW).lost(node) is lost


class TestGrey:
    def test_standing_media_is_drained_at_once_and_replaced(self) -> None:
        done = plan(five(loads=[a_load("a", participants=1, stalled_s=8.0)]))
        create, drain = done.actions
        assert isinstance(create, CreateNode)
        assert isinstance(drain, DrainNode) and drain.reason is Reason.NODE_UNHEALTHY
        assert drain.because == "it answers, but its media loop stands still"

    def test_it_goes_unemptied_only_after_a_minute_and_with_the_kubelet_s_word(self) -> None:
        load = a_load("a", participants=1, stalled_s=95.0, draining=True)
        pods = [*five([a_pod("a", **since(90))]).pods, a_pod("f")]
        others = [a_load(name, participants=1) for name in "bcdef"]
        (delete,) = plan(a_world(a_cluster(FIVE), pods, [load, *others])).actions
        assert isinstance(delete, DeleteNode), "its participants cannot have media there"
        young = a_load("a", participants=1, stalled_s=30.0, draining=True)
        assert plan(a_world(a_cluster(FIVE), pods, [young, *others])).actions == ()

    def test_neighbours_that_hear_others_but_not_it_are_believed(self) -> None:
        loads = [
            a_load("b", participants=1, links=links(a=8, c=0.1)),
            a_load("c", participants=1, links=links(a=8, b=0.1)),
            a_load("a", participants=1, links=links(b=8, c=8)),
        ]
        health = assess(five(loads=loads), NOW)
        assert health.evidence["a"] == {Evidence.NEIGHBOURS}
        assert not health.evidence["b"] and not health.evidence["c"], "a hears nobody: it is no witness"

    def test_two_nodes_that_do_not_hear_each_other_prove_nothing(self) -> None:
        loads = [
            a_load("a", participants=1, links=links(b=60)),
            a_load("b", participants=1, links=links(a=60)),
        ]
        assert plan(five(loads=loads)).actions == ()


class TestTogether:
    def test_reports_that_all_stop_move_and_delete_nothing(self) -> None:
        loads = [a_load(name, participants=1, age_s=40) for name in "abcde"]
        done = plan(five(loads=loads))
        assert done.actions == ()
        assert done.held[0].reason is Reason.MASS_FAILURE_SUSPECTED
        assert done.held[0].text.startswith("5 of 5 nodes seem to have failed together; a, b, c and 2 more")

    def test_readiness_that_all_fails_moves_and_deletes_nothing(self) -> None:
        assert plan(five([a_pod(name, **since(60)) for name in "abcde"])).actions == ()

    def test_a_surplus_waits_while_there_is_an_alarm(self) -> None:
        loads = [a_load(name, participants=1, age_s=40) for name in "ab"]
        loads += [a_load(name) for name in "cdefg"]
        world = a_world(a_cluster(FIVE), [a_pod(name) for name in "abcdefg"], loads)
        assert plan(world).actions == ()
        well = [a_load(name) for name in "abcdefg"]
        assert len(plan(a_world(a_cluster(FIVE), world.pods, well)).actions) == 1, "else it goes"

    def test_a_second_kind_of_evidence_ends_the_doubt(self) -> None:
        pods = [a_pod(name, **since(30)) for name in "abc"]
        loads = [a_load(name, participants=1, age_s=30) for name in "abc"]
        done = plan(five(pods, loads))
        assert not done.held
        assert [type(action) for action in done.actions] == [CreateNode] * 3

    @pytest.mark.parametrize(("age_s", "buried"), [(1.0, False), (5.0, True)])
    def test_processes_that_all_ended_are_buried_when_their_streams_are_silent_too(
        self, age_s: float, buried: bool
    ) -> None:
        dead = [a_pod(name, ready=False, phase=Phase.FAILED) for name in "abc"]
        done = plan(five(dead, [a_load(name, age_s=age_s) for name in "abc"]))
        assert any(isinstance(action, DeleteNode) for action in done.actions) is buried
        made = sum(isinstance(action, CreateNode) for action in done.actions)
        assert made == (3 if buried else 1), "until it is sure, a share of the fleet and no more"

    def test_one_node_in_doubt_is_no_mass(self) -> None:
        assert not plan(five(loads=[a_load("a", age_s=40)])).held
