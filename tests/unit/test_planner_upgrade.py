"""Upgrades, case by case: canary, batches, halts, rollback."""

from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

from headwater_api.reasons import Reason
from headwater_planner.supply import CreateNode, DeleteNode, DrainNode, Plan
from headwater_planner.world import ClusterWorld, Death, NodeLoad, PodView
from support.fleet import NOW, a_cluster, a_load, a_pending_pod, a_pod, a_world, plan_fleet, status_of_fleet


def plan(world: ClusterWorld) -> Plan:
    return plan_fleet(world, NOW, Random(1))


def old(name: str, region: str = "eu", **changes: Any) -> PodView:
    return a_pod(name, region, template="old", **changes)


def new(name: str, region: str = "eu", **changes: Any) -> PodView:
    return a_pod(name, region, template="new", **changes)


def fleet(
    pods: list[PodView], loads: list[NodeLoad] | None = None, *, wanted: int = 3, **upgrade: Any
) -> ClusterWorld:
    """`wanted` nodes in eu, the template is `new`; reports with a participant each unless given."""
    cluster = a_cluster({"eu": (wanted, 10)}, upgrade={"canary": {"nodes": 1, "duration": "10m"}, **upgrade})
    given = {load.node: load for load in loads or []}
    known = [given.get(pod.name) or a_load(pod.name, participants=1) for pod in pods if pod.started]
    return replace(a_world(cluster, pods, known), templates={"eu": "new"})


def kinds(done: Plan) -> list[tuple[str, str]]:
    return [
        (type(action).__name__, "" if isinstance(action, CreateNode) else action.name)
        for action in done.actions
    ]


def test_a_fleet_of_one_template_has_no_upgrade() -> None:
    assert plan(fleet([new("a"), new("b"), new("c")])).upgrade is None


def test_it_begins_with_one_substitute_and_drains_when_that_is_ready() -> None:
    done = plan(fleet([old("a"), old("b"), old("c")]))
    assert kinds(done) == [("CreateNode", "")]
    assert done.upgrade is not None and (done.upgrade.phase, done.upgrade.outdated) == ("Canary", 3)
    starting = new("d", ready=False, age_s=3)
    assert plan(fleet([old("a"), old("b"), old("c"), starting])).actions == ()
    drain = plan(fleet([old("a"), old("b"), old("c"), new("d", age_s=5)])).actions[0]
    assert isinstance(drain, DrainNode) and drain.reason is Reason.UPGRADING and drain.name != "d"


def test_the_canary_is_watched_before_the_next_one() -> None:
    young = new("d", age_s=9 * 60)
    done = plan(fleet([old("a"), old("b"), young]))
    assert done.actions == () and done.upgrade is not None
    assert done.upgrade.message == "1 nodes are upgraded first and watched for 10 min"
    done = plan(fleet([old("a"), old("b"), new("d", age_s=11 * 60)]))
    assert kinds(done) == [("CreateNode", "")]
    assert done.upgrade is not None and done.upgrade.phase == "Rolling"


def test_a_batch_is_no_larger_than_it_may_be() -> None:
    proven = new("n", age_s=3600)
    pods = [old("a"), old("b"), old("c"), proven]
    assert len(plan(fleet(pods, wanted=4)).actions) == 1
    cluster_wide = fleet(pods, wanted=4, maxUnavailable=2)
    assert len(plan(cluster_wide).actions) == 1, "one disruption in a region at once"
    spec = cluster_wide.cluster.spec
    wide = spec.model_copy(update={"drain": spec.drain.model_copy(update={"max_concurrent_per_region": 2})})
    cluster = cluster_wide.cluster.model_copy(update={"spec": wide})
    assert len(plan(replace(cluster_wide, cluster=cluster)).actions) == 2


def test_the_emptied_old_node_goes() -> None:
    emptied = a_load("a", draining=True)
    done = plan(fleet([old("a", ready=False), old("b"), old("c"), new("d", age_s=5)], [emptied]))
    (delete,) = done.actions
    assert isinstance(delete, DeleteNode) and delete.name == "a" and delete.drained


class TestHalt:
    def halted(self, world: ClusterWorld) -> Plan:
        done = plan(world)
        assert done.upgrade is not None and done.upgrade.phase == "Halted"
        assert not [action for action in done.actions if isinstance(action, DrainNode | CreateNode)]
        return done

    def test_a_new_node_that_ends_early(self) -> None:
        death = Death("n", "eu", NOW, 2.0, "its process ended with exit code 1", "new")
        world = fleet([old("a"), old("b"), old("c")])
        done = self.halted(replace(world, deaths=(death,)))
        assert done.held[0].reason is Reason.UPGRADE_HALTED
        assert done.held[0].text.endswith(
            "is halted with 3 nodes left: the new node n ended early: its process ended with exit code 1"
        )
        other = replace(death, template="old")
        assert plan(replace(world, deaths=(other,))).upgrade.phase == "Canary"  # type: ignore[union-attr]

    def test_an_image_that_cannot_be_pulled_costs_one_pod_that_is_taken_back(self) -> None:
        why = {"trouble": "ErrImagePull", "trouble_message": "no such image"}
        stuck = a_pending_pod("n", template="new", age_s=30, **why)
        done = self.halted(fleet([old("a"), old("b"), old("c"), stuck]))
        assert kinds(done) == [("DeleteNode", "n")]
        assert "n does not start: no such image" in done.held[0].text

    def test_a_new_node_that_is_not_ready_for_long(self) -> None:
        def unready(seconds: float, age_s: float, *loads: NodeLoad) -> ClusterWorld:
            since = NOW - timedelta(seconds=seconds)
            stuck = new("n", ready=False, age_s=age_s, ready_changed_at=since)
            world = fleet([old("a"), old("b"), old("c"), stuck], list(loads))
            silent = {name: load for name, load in world.loads.items() if loads or name != "n"}
            return replace(world, loads=silent)

        reports, drains = a_load("n"), a_load("n", draining=True)
        for world in (unready(200, 7200, reports), unready(200, 201)):  # the second was never ready
            assert "n is not ready after 180 s" in plan(world).held[0].text
        for world in (
            unready(1, 7200, reports),  # counted from when it became unready
            unready(200, 7200, drains),
            unready(200, 7200),  # it may drain: after a restart nobody has told yet
        ):
            done = plan(world).upgrade
            assert done is not None and done.phase == "Canary"

    def test_a_slow_new_node_once_it_lasts(self) -> None:
        def slow(sustained_ms: float) -> ClusterWorld:
            loads = [
                a_load("n", participants=5, p95_ms=60.0, sustained_p95_ms=sustained_ms),
                *(a_load(x, participants=5, p95_ms=2.0) for x in "ab"),
            ]
            return fleet([old("a"), old("b"), new("n", age_s=60)], loads)

        done = self.halted(slow(40.0))
        says = "forwards in 40.0 ms at best (95th percentile) for 10 s, the old ones in 2.0 ms"
        assert says in done.held[0].text
        one_bad_second = plan(slow(1.0)).upgrade
        assert one_bad_second is not None and one_bad_second.phase != "Halted"

    def test_it_lasts_through_restarts_until_the_template_changes(self) -> None:
        death = Death("n", "eu", NOW, 2.0, "its process ended with exit code 1", "new")
        world = replace(fleet([old("a"), old("b"), old("c")]), deaths=(death,))
        status = status_of_fleet(world, plan(world), NOW)
        forgotten = replace(world, deaths=(), cluster=world.cluster.model_copy(update={"status": status}))
        assert self.halted(forgotten).held == plan(world).held
        newer = plan(replace(forgotten, templates={"eu": "newer"}))
        assert newer.upgrade is not None and newer.upgrade.phase == "Canary"
        back = plan(replace(forgotten, templates={"eu": "old"}))
        assert back.upgrade is None and not back.held, "rolled back"

    def test_it_lasts_while_the_old_nodes_are_lost(self) -> None:
        death = Death("n", "eu", NOW, 2.0, "its process ended with exit code 1", "new")
        world = replace(fleet([new("a"), new("b"), old("c")]), deaths=(death,))
        status = status_of_fleet(world, plan(world), NOW)
        since = NOW - timedelta(seconds=30)
        lost = fleet(
            [new("a"), new("b"), old("c", ready=False, ready_changed_at=since)], [a_load("c", age_s=30)]
        )
        again = plan(replace(lost, cluster=lost.cluster.model_copy(update={"status": status})))
        assert again.upgrade == status.upgrade
        gone = fleet([new("a"), new("b"), new("d")])
        assert plan(replace(gone, cluster=lost.cluster.model_copy(update={"status": status}))).upgrade is None

    def test_new_nodes_that_do_not_understand_old_ones_go_again(self) -> None:
        loads = [a_load("n", wire_version=3, min_wire_version=2), a_load("a", participants=1, wire_version=1)]
        world = fleet([old("a"), old("b"), old("c"), new("n", age_s=5)], loads)
        done = plan(world)
        (drain,) = done.actions
        assert isinstance(drain, DrainNode) and (drain.name, drain.reason) == (
            "n",
            Reason.UPGRADE_INCOMPATIBLE,
        )
        assert "needs version 2 of the relay envelope or newer, old nodes speak 1" in done.held[0].text

    def test_no_more_new_nodes_are_made_while_they_would_only_go_again(self) -> None:
        loads = [a_load("n", wire_version=3, min_wire_version=2), a_load("a", participants=1, wire_version=1)]
        status = status_of_fleet(
            world := fleet([old("a"), old("b"), old("c"), new("n", age_s=5)], loads), plan(world), NOW
        )

        def later(*pods: PodView) -> Plan:
            after = fleet(list(pods), loads[1:])
            return plan(replace(after, cluster=after.cluster.model_copy(update={"status": status})))

        done = later(old("a"), old("b"))
        assert done.actions == () and "is halted with 2 nodes left" in done.held[0].text
        assert kinds(later()) == [("CreateNode", "")] * 3, "nobody is left who would not be understood"

    def test_neighbouring_versions_share_a_meeting(self) -> None:
        loads = [a_load("n", wire_version=2, min_wire_version=1), a_load("a", participants=1, wire_version=1)]
        done = plan(fleet([old("a"), old("b"), old("c"), new("n", age_s=5)], loads))
        assert done.upgrade is not None and done.upgrade.phase == "Canary"


def test_a_halt_calls_back_the_old_node_that_was_leaving() -> None:
    death = Death("n", "eu", NOW, 2.0, "its process ended with exit code 1", "new")
    leaving = a_load("a", participants=3, draining=True)
    world = fleet([old("a", ready=False), old("b"), old("c")], [leaving])
    assert kinds(plan(replace(world, deaths=(death,)))) == [("UncordonNode", "a")]


def test_rollback_returns_to_the_old_nodes_without_a_new_canary() -> None:
    pods = [old("a", age_s=3600), old("b", age_s=3600), new("n", age_s=60)]
    done = plan(replace(fleet(pods), templates={"eu": "old"}))
    assert done.upgrade is not None and done.upgrade.phase == "Rolling"
    assert [type(action) for action in done.actions] == [CreateNode]


def test_age_of_the_canary_counts_from_when_it_became_ready() -> None:
    flapped = new("d", age_s=3600, ready_changed_at=NOW - timedelta(seconds=30))
    assert plan(fleet([old("a"), old("b"), flapped])).actions == ()
