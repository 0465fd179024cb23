"""plan_scale: one signal at a time, hold on bad figures, spill-over, limits, and the sentence of each."""

import math
from dataclasses import replace

import pytest
from headwater_api.reasons import Reason
from headwater_planner.scale.result import ScaleState
from headwater_planner.scale.signals import NodeSignals, joins_since
from support.fleet import a_load
from support.scaling import IDLE, Passes, an_autoscaled, busy


def passes(bounds: tuple[int, int] = (1, 10), **autoscaling: object) -> Passes:
    return Passes(an_autoscaled({"eu": bounds}, autoscaling=autoscaling))


class TestSignals:
    @pytest.mark.parametrize(
        ("figures", "wanted", "reason", "because"),
        [
            (
                {"cpu_percent": 95.0},
                3,
                Reason.CPU_ABOVE_TARGET,
                "CPU is 95 % on average over 2 nodes, its target is 70 %",
            ),
            (
                {"connections": 900.0},
                3,
                Reason.CONNECTIONS_ABOVE_TARGET,
                "1,800 connections need 3 nodes at 1,000 a node with 20 % to spare",
            ),
            (
                {"p95_ms": 140.0},
                3,
                Reason.LATENCY_ABOVE_TARGET,
                "P95 latency is 140.0 ms on average over 2 nodes, its target is 100 ms",
            ),
            (
                {"connections": 960.0},
                4,
                Reason.CAPACITY_EXHAUSTED,
                "all of 2 nodes carry their limit of 1,000 connections",
            ),
            (
                {"queue_percent": 80.0},
                4,
                Reason.QUEUES_ABOVE_TARGET,
                "queues are 80 % full on average over 2 nodes, their target is 50 %",
            ),
        ],
    )
    def test_each_raises_alone(
        self, figures: dict[str, float], wanted: int, reason: Reason, because: str
    ) -> None:
        fleet = passes()
        fleet.step({"eu": [IDLE, IDLE]})
        plan = fleet.step({"eu": [busy(**figures)] * 2})
        assert plan.desired == {"eu": wanted}
        assert fleet.decision().reason is reason
        assert fleet.decision().sentence == f"Scale region eu from 2 to {wanted} nodes: {because}"

    @pytest.mark.parametrize(
        ("capacity", "figures", "reason"),
        [
            ({"egressMbps": 500}, {"egress_mbps": 700.0}, Reason.EGRESS_ABOVE_CAPACITY),
            ({"packetsPerSecond": 50_000}, {"packets_per_second": 70_000.0}, Reason.PACKETS_ABOVE_CAPACITY),
        ],
    )
    def test_what_a_node_may_send_counts_where_it_is_given(
        self, capacity: dict[str, int], figures: dict[str, float], reason: Reason
    ) -> None:
        fleet = Passes(an_autoscaled(node={"capacity": capacity}))
        fleet.step({"eu": [IDLE] * 2})
        assert fleet.step({"eu": [busy(**figures)] * 2}).desired == {"eu": 4}
        assert fleet.decision().reason is reason

    def test_joins_since_the_last_sample_count_before_they_are_connected(self) -> None:
        fleet = passes()
        fleet.step({"eu": [busy(connections=700.0, transports_created=5000.0)]})
        plan = fleet.step({"eu": [busy(connections=700.0, transports_created=5200.0)]})
        assert plan.desired == {"eu": 2}
        assert (
            "700 connections and 200 opened since the last sample need 2 nodes" in fleet.decision().sentence
        )

    def test_a_restarted_process_counts_from_zero(self) -> None:
        now = {"n": busy(transports_created=30.0), "new": busy(transports_created=9.0)}
        joins, counters = joins_since(now, {"n": 5000.0, "gone": 1.0})
        assert joins == {"n": 30.0} and counters == {"n": 30.0, "new": 9.0}

    def test_one_slow_node_does_not_multiply_the_fleet(self) -> None:
        fleet = passes()
        plan = fleet.hold({"eu": [busy(p95_ms=9000.0), IDLE, IDLE, IDLE]}, for_s=60)
        assert plan.desired["eu"] <= 4

    def test_a_little_above_the_target_is_tolerated(self) -> None:
        fleet = passes()
        assert fleet.hold({"eu": [busy(cpu_percent=76.0)] * 2}, for_s=20).desired == {"eu": 2}
        assert fleet.hold({"eu": [busy(cpu_percent=78.0)] * 2}, for_s=20).desired == {"eu": 3}

    def test_load_of_draining_nodes_counts(self) -> None:
        """Their participants are about to be on the others."""
        fleet = passes()
        loads = {"eu-0": a_load("eu-0", draining=True), "eu-1": a_load("eu-1")}
        assert fleet.step({"eu": [busy(connections=900.0)] * 2}, loads=loads).desired == {"eu": 3}


class TestLowering:
    def test_it_waits_for_the_window_and_says_so(self) -> None:
        fleet = passes()
        fleet.step({"eu": [IDLE] * 4})
        assert fleet.hold({"eu": [IDLE] * 4}, for_s=295).desired == {"eu": 4}
        assert fleet.decision().reason is Reason.STABILIZING
        assert fleet.step({"eu": [IDLE] * 4}).desired == {"eu": 1}
        assert fleet.decision().reason is Reason.LOAD_BELOW_TARGET
        assert fleet.decision().sentence.startswith(
            "Scale region eu from 4 to 1 node: no more than 1 wanted for 5m; "
        )

    def test_load_must_fit_the_smaller_number_with_room_to_spare(self) -> None:
        """3 x 62 % is 2.66 nodes of work at 70 %: three fit, with tolerance."""
        fleet = passes(behavior={"scaleDown": {"stabilizationWindow": "0s"}})
        assert fleet.hold({"eu": [busy(cpu_percent=62.0)] * 3}, for_s=30).desired == {"eu": 3}
        assert fleet.hold({"eu": [busy(cpu_percent=41.0)] * 3}, for_s=30).desired == {"eu": 2}

    @pytest.mark.parametrize(
        ("bad", "why"),
        [
            (None, "eu-1: sends no figures"),
            (replace(IDLE, age_s=31.0), "eu-1: has figures 31 s old"),
            (busy(cpu_percent=math.nan), "eu-1: says CPU percent nan"),
            (busy(connections=-1.0), "eu-1: says connections -1"),
            (busy(p95_ms=1e9), "eu-1: says P95 latency 1e+09"),
            (busy(cpu_percent=None), "eu-1: has no CPU percent"),
        ],
    )
    def test_one_bad_figure_holds_the_region_and_names_the_node(
        self, bad: NodeSignals | None, why: str
    ) -> None:
        fleet = passes()
        plan = fleet.hold({"eu": [IDLE, bad, IDLE]}, for_s=900)
        assert plan.desired == {"eu": 3}
        assert fleet.decision().reason is Reason.METRICS_MISSING
        assert fleet.decision().sentence == (
            f"Region eu stays at 3 nodes: load is not known ({why}), so nothing is lowered"
        )
        assert not plan.active.status and plan.active.reason is Reason.METRICS_MISSING
        assert "eu-1" in plan.active.text

    def test_the_nodes_that_speak_may_still_raise(self) -> None:
        fleet = passes()
        plan = fleet.step({"eu": [busy(connections=2500.0), None]})
        assert plan.desired == {"eu": 3}

    def test_a_restart_of_the_operator_lowers_nothing_for_a_window(self) -> None:
        fleet = passes()
        fleet.hold({"eu": [IDLE] * 3}, for_s=290)
        fleet.state = ScaleState()
        assert fleet.hold({"eu": [IDLE] * 3}, for_s=295).desired == {"eu": 3}

    def test_disabled_means_never(self) -> None:
        fleet = passes(behavior={"scaleDown": {"selectPolicy": "Disabled"}})
        assert fleet.hold({"eu": [IDLE] * 3}, for_s=900).desired == {"eu": 3}
        assert fleet.decision().reason is Reason.SCALING_DISABLED


class TestPolicies:
    def test_by_default_four_nodes_or_twice_as_many_in_15_s(self) -> None:
        fleet = passes((1, 100))
        sizes = [fleet.step({"eu": [busy(connections=50_000.0)]}).desired["eu"] for _ in range(10)]
        assert sizes == [5, 5, 5, 10, 10, 10, 20, 20, 20, 40]
        assert "60 are wanted, scaleUp's policies allow no more for now" in fleet.decision().sentence

    def test_min_takes_the_slower_policy(self) -> None:
        policies = [
            {"type": "Nodes", "value": 1, "period": "10s"},
            {"type": "Percent", "value": 100, "period": "10s"},
        ]
        fleet = passes((1, 100), behavior={"scaleUp": {"policies": policies, "selectPolicy": "Min"}})
        sizes = [fleet.step({"eu": [busy(connections=50_000.0)]}).desired["eu"] for _ in range(5)]
        assert sizes == [2, 2, 3, 3, 4]

    def test_a_window_for_raising_waits_for_the_lowest(self) -> None:
        fleet = passes(behavior={"scaleUp": {"stabilizationWindow": "30s"}})
        fleet.step({"eu": [IDLE]})
        sizes = [fleet.step({"eu": [busy(connections=4000.0)]}).desired["eu"] for _ in range(6)]
        assert sizes == [1, 1, 1, 1, 1, 5]

    def test_scale_down_by_one_node_a_minute(self) -> None:
        behavior = {
            "scaleDown": {
                "stabilizationWindow": "0s",
                "policies": [{"type": "Nodes", "value": 1, "period": "1m"}],
            }
        }
        fleet = passes(behavior=behavior)
        sizes = [fleet.step({"eu": [IDLE] * 5}, after_s=20).desired["eu"] for _ in range(7)]
        assert sizes == [4, 4, 4, 3, 3, 3, 2]


class TestSpill:
    def fleet(self, **autoscaling: object) -> Passes:
        bounds = {"eu": (1, 3), "us": (1, 4), "ap": (1, 4)}
        return Passes(an_autoscaled(bounds, autoscaling=autoscaling))

    def test_what_does_not_fit_goes_to_the_nearest_region(self) -> None:
        fleet = self.fleet()
        nodes = {"eu": [busy(connections=1400.0)] * 3, "us": [IDLE], "ap": [IDLE]}
        plan = fleet.step(nodes)
        assert plan.desired == {"eu": 3, "us": 4, "ap": 1}  # 5.04 nodes of load, so 6 are wanted
        assert fleet.decision("eu").sentence.endswith(
            "; its maxNodes is 3, 3 more go to region us, the nearest with room"
        )
        assert fleet.decision("us").reason is Reason.SPILLED_OVER
        assert plan.limited.reason is Reason.SPILLED_OVER and plan.limited.status

    def test_then_to_the_next_and_at_last_nowhere(self) -> None:
        fleet = self.fleet()
        nodes = {"eu": [busy(connections=20_000.0)] * 3, "us": [IDLE], "ap": [IDLE]}
        plan = fleet.hold(nodes, for_s=60)
        assert plan.desired == {"eu": 3, "us": 4, "ap": 4}
        assert "more fit nowhere" in fleet.decision("eu").sentence
        assert plan.limited.reason is Reason.AT_MAX_NODES

    def test_only_where_participants_may_be_placed(self) -> None:
        bounds = {"eu": (1, 1), "us": (1, 4), "ap": (1, 4)}
        fleet = Passes(an_autoscaled(bounds, placement={"allowedRegions": ["eu", "ap"]}))
        plan = fleet.step({"eu": [busy(connections=2000.0)], "us": [IDLE], "ap": [IDLE]})
        assert plan.desired["us"] == 1 and plan.desired["ap"] > 1

    def test_a_blind_region_takes_nothing_back_from_its_neighbour(self) -> None:
        fleet = self.fleet()
        nodes = {"eu": [busy(connections=1400.0)] * 3, "us": [IDLE], "ap": [IDLE]}
        before = fleet.step(nodes).desired["us"]
        blind = {"eu": [IDLE, IDLE, None], "us": [IDLE] * before, "ap": [IDLE]}
        assert fleet.hold(blind, for_s=900).desired["us"] == before

    def test_a_silent_neighbour_does_not_grow_with_every_pass(self) -> None:
        fleet = self.fleet()
        nodes = {"eu": [busy(connections=1050.0)] * 3, "us": [None], "ap": [IDLE]}
        assert fleet.hold(nodes, for_s=300).desired["us"] == 2

    def test_the_total_has_a_limit_of_its_own(self) -> None:
        fleet = self.fleet(maxNodes=5)
        nodes = {name: [busy(connections=5000.0)] for name in ("eu", "us", "ap")}
        plan = fleet.hold(nodes, for_s=60)
        assert sum(plan.desired.values()) == 5 and min(plan.desired.values()) == 1
        assert plan.limited.reason is Reason.AT_MAX_NODES
        assert any("autoscaling.maxNodes is 5" in decision.sentence for decision in plan.decisions)


class TestFixed:
    def test_load_changes_nothing(self) -> None:
        fleet = Passes(an_autoscaled({"eu": (2, 10)}, autoscaling={"mode": "Fixed"}, replicas=4))
        plan = fleet.hold({"eu": [busy(connections=9000.0)] * 4}, for_s=30)
        assert plan.desired == {"eu": 4} and not plan.changes
        assert plan.active.reason is Reason.FIXED_SIZE

    def test_a_change_of_the_spec_is_told(self) -> None:
        fleet = Passes(an_autoscaled({"eu": (2, 10)}, autoscaling={"mode": "Fixed"}))
        fleet.step({})
        fleet.cluster = an_autoscaled({"eu": (3, 10)}, autoscaling={"mode": "Fixed"})
        (change,) = fleet.step({}).changes
        assert change.sentence == (
            "Scale region eu from 2 to 3 nodes: minNodes, maxNodes or replicas were changed"
        )


def test_replicas_is_a_floor_beside_load() -> None:
    fleet = Passes(an_autoscaled({"eu": (1, 10), "us": (1, 10)}, replicas=6))
    plan = fleet.step({"eu": [busy(connections=4000.0)], "us": [IDLE]})
    assert plan.desired == {"eu": 5, "us": 3}
    assert fleet.decision("us").reason is Reason.REPLICAS_REQUESTED


def test_max_nodes_that_was_lowered_counts_at_once() -> None:
    fleet = passes((1, 10))
    fleet.step({"eu": [IDLE] * 8})
    fleet.cluster = an_autoscaled({"eu": (1, 5)})
    assert fleet.step({"eu": [IDLE] * 8}).desired == {"eu": 5}
    assert fleet.decision().reason is Reason.ABOVE_MAX_NODES
