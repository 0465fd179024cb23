"""Floors: schedules by cron and time zone, announced meetings, ramps, jitter, the forecast."""

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from headwater_api.meeting import Meeting
from headwater_api.reasons import Reason
from headwater_planner.scale.cron import InvalidSchedule, starts_around
from headwater_planner.scale.floors import expected_of_meetings, schedule_floors
from headwater_planner.scale.forecast import forecast_region, holt_winters
from headwater_planner.scale.history import BUCKETS_PER_SEASON, History, from_json, record, to_json
from support.fleet import NOW, a_load, a_meeting
from support.scaling import IDLE, Passes, an_autoscaled

DAY = timedelta(hours=24)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


class TestCron:
    @pytest.mark.parametrize(
        ("cron", "zone", "now", "last", "following"),
        [
            ("0 8 * * 1-5", "Etc/UTC", "2030-01-28T09:00", "2030-01-28T08:00", "2030-01-29T08:00"),
            ("0 8 * * 1-5", "Europe/Berlin", "2030-01-28T07:00", "2030-01-28T07:00", "2030-01-29T07:00"),
            ("0 8 * * 1-5", "Etc/UTC", "2030-02-02T00:00", "2030-02-01T08:00", "2030-02-04T08:00"),
            # Clocks go forward at 01:00 UTC on 31 March 2030: 8:00 is an hour earlier from then on.
            ("0 8 * * *", "Europe/Berlin", "2030-03-31T00:00", "2030-03-30T07:00", "2030-03-31T06:00"),
            ("30 2 * * *", "Europe/Berlin", "2030-03-31T00:00", "2030-03-30T01:30", "2030-03-31T01:00"),
        ],
    )
    def test_starts(self, cron: str, zone: str, now: str, last: str, following: str) -> None:
        starts = starts_around(cron, zone, at(f"{now}Z"))
        assert (starts.last, starts.next) == (at(f"{last}Z"), at(f"{following}Z"))

    @pytest.mark.parametrize(
        ("cron", "zone", "says"),
        [
            ("0 8 * *", "Etc/UTC", "five fields"),
            ("0 0 8 * * *", "Etc/UTC", "five fields"),
            ("99 8 * * *", "Etc/UTC", "'99 8 * * *' is not a cron expression"),
            ("0 8 * * *", "Mars/Olympus", "'Mars/Olympus' is not an IANA time zone"),
            ("0 8 * * *", "../etc/passwd", "is not an IANA time zone"),
        ],
    )
    def test_what_cannot_be_read_is_named(self, cron: str, zone: str, says: str) -> None:
        with pytest.raises(InvalidSchedule, match=says.replace("*", r"\*")):
            starts_around(cron, zone, NOW)


class TestSchedules:
    def floor(self, now: datetime, seed: int = 1, **schedule: Any) -> int:
        values = {"name": "work", "cron": "0 8 * * *", "duration": "2h", "minNodes": 5, **schedule}
        cluster = an_autoscaled({"eu": (1, 10), "us": (1, 10)}, autoscaling={"schedules": [values]})
        floors, problems = schedule_floors(cluster.spec, now, seed)
        assert not problems
        return floors["eu"].nodes if "eu" in floors else 0

    def test_it_starts_early_enough_for_a_node_to_start_and_goes_down_slowly(self) -> None:
        eight = at("2030-01-31T08:00:00Z")
        assert self.floor(eight - timedelta(minutes=3)) == 0
        assert self.floor(eight - timedelta(minutes=1)) == 5
        assert self.floor(eight + timedelta(hours=2)) == 5
        ramp = [self.floor(eight + timedelta(hours=2, minutes=minute)) for minute in range(13)]
        assert ramp[0] == 5 and ramp[-1] == 0 and sorted(ramp, reverse=True) == ramp
        assert max(a - b for a, b in pairwise(ramp)) <= 1

    def test_regions_may_be_named(self) -> None:
        eight = at("2030-01-31T08:00:00Z")
        assert self.floor(eight, regions=["us"]) == 0

    def test_schedules_of_one_hour_do_not_start_together(self) -> None:
        eight = at("2030-01-31T08:00:00Z")
        starts = {
            next(s for s in range(130, 50, -1) if self.floor(eight - timedelta(seconds=s), name=f"s{n}"))
            for n in range(12)
        }
        assert len(starts) > 6 and max(starts) <= 120 and min(starts) >= 60
        again = [self.floor(eight - timedelta(seconds=90), seed=7) for _ in range(3)]
        assert len(set(again)) == 1

    def test_an_unreadable_one_is_a_problem_and_the_others_count(self) -> None:
        schedules = [
            {"name": "bad", "cron": "99 8 * * *", "duration": "1h", "minNodes": 9},
            {"name": "good", "cron": "0 8 * * *", "duration": "2h", "minNodes": 4},
        ]
        cluster = an_autoscaled({"eu": (1, 10)}, autoscaling={"schedules": schedules})
        floors, (problem,) = schedule_floors(cluster.spec, at("2030-01-31T08:30:00Z"), 1)
        assert floors["eu"].nodes == 4
        assert problem.reason is Reason.SCHEDULE_INVALID
        assert problem.text.startswith("spec.autoscaling.schedules[bad]: '99 8 * * *' is not a cron")


def a_call(name: str = "all-hands", *, in_s: float = 600, **changes: Any) -> Meeting:
    schedule = {"start": (NOW + timedelta(seconds=in_s)).isoformat(), "duration": "1h", "leadTime": "5m"}
    values = {"schedule": schedule, "expectedParticipants": {"byRegion": {"eu": 3000}}}
    return a_meeting(name, **(values | changes))


class TestMeetings:
    def test_nodes_are_ordered_before_the_lead_time_whatever_the_policies(self) -> None:
        slow = {"policies": [{"type": "Nodes", "value": 1, "period": "1m"}]}
        fleet = Passes(an_autoscaled({"eu": (1, 20)}, autoscaling={"behavior": {"scaleUp": slow}}))
        assert fleet.step({"eu": [IDLE]}, meetings=[a_call()]).desired == {"eu": 1}
        plan = fleet.step({"eu": [IDLE]}, meetings=[a_call()], after_s=245)  # 55 s before the lead time
        assert plan.desired == {"eu": 8}  # 3,000 people, 6,000 connections, 20 % to spare
        assert fleet.decision().sentence == (
            "Scale region eu from 1 to 8 nodes: 3,000 participants are expected at Meeting all-hands, "
            "which starts at 2030-01-31T09:10:00Z"
        )

    def test_those_who_are_there_are_not_expected_twice(self) -> None:
        fleet = Passes(an_autoscaled({"eu": (1, 20)}))
        call = a_call("r1", in_s=-60)
        here = {f"eu-{n}": a_load(f"eu-{n}", participants=375) for n in range(8)}
        busy = [IDLE.__class__(0.5, cpu_percent=20, connections=750.0, p95_ms=1.0)] * 8
        assert fleet.step({"eu": busy}, meetings=[call], loads=here).desired == {"eu": 8}

    def test_they_come_on_top_of_those_who_are_not_announced(self) -> None:
        fleet = Passes(an_autoscaled({"eu": (1, 20)}))
        busy = [IDLE.__class__(0.5, cpu_percent=20, connections=800.0, p95_ms=1.0)] * 2
        plan = fleet.hold({"eu": busy}, for_s=5)
        plan = fleet.step({"eu": busy}, meetings=[a_call(in_s=60)])
        assert plan.state.regions["eu"].highs[-1].nodes == 10  # 7,600 connections

    def expect(self, *calls: Meeting, now: datetime = NOW, **regions: tuple[int, int]) -> dict[str, int]:
        cluster = an_autoscaled(regions or {"eu": (1, 10), "us": (1, 10), "ap": (1, 5)})
        found = expected_of_meetings(cluster.spec, calls, lambda room, region: 0, now, 1)
        return {name: floor.nodes for name, floor in found.floors.items()}

    def test_the_rest_of_the_total_goes_to_the_other_allowed_regions(self) -> None:
        call = a_call(in_s=0, expectedParticipants={"total": 4000, "byRegion": {"eu": 1000}})
        assert self.expect(call) == {"eu": 3, "us": 5, "ap": 3}

    def test_deny_and_pin_hold(self) -> None:
        call = a_call(in_s=0, expectedParticipants={"total": 1000}, placement={"pin": ["ap"]})
        assert self.expect(call) == {"ap": 3}

    def test_what_does_not_fit_goes_to_the_nearest_permitted_region_or_is_reported(self) -> None:
        assert self.expect(a_call(in_s=0), eu=(1, 3), us=(1, 10)) == {"eu": 3, "us": 5}
        cluster = an_autoscaled({"eu": (1, 3), "us": (1, 10)})
        call = a_call(in_s=0, placement={"pin": ["eu"]})
        found = expected_of_meetings(cluster.spec, [call], lambda room, region: 0, NOW, 1)
        (problem,) = found.unplaced
        assert problem.text == (
            "Meeting all-hands: 1750 of its expected participants do not fit within maxNodes of eu"
        )

    def test_after_the_end_it_ramps_down(self) -> None:
        minutes = [self.expect(a_call(in_s=-3600 - 60 * m)).get("eu", 0) for m in range(13)]
        assert minutes[0] == 8 and minutes[-1] == 0 and sorted(minutes, reverse=True) == minutes

    def test_an_ended_meeting_needs_nothing(self) -> None:
        status = {
            "endedAt": (NOW - timedelta(minutes=20)).isoformat(),
            "conditions": [{"type": "Ended", "status": "True", "reason": "EmptyTimeoutElapsed"}],
        }
        assert self.expect(a_call(in_s=-1800, status=status)) == {}

    def test_without_a_schedule_nothing_is_ordered(self) -> None:
        assert self.expect(a_meeting("open", expectedParticipants={"total": 5000})) == {}


def a_history(seasons: float, *, hole: tuple[int, int] = (0, 0)) -> tuple[History, datetime]:
    """A day's wave between 2 and 10 nodes, the highest at 14:00."""
    history, now = History(), datetime(2030, 1, 1, tzinfo=UTC)
    for number in range(int(seasons * BUCKETS_PER_SEASON)):
        load = 6 + 4 * math.cos((number / BUCKETS_PER_SEASON - 14 / 24) * 2 * math.pi)
        known = None if hole[0] <= number < hole[1] else load
        history = record(history, DAY, {"eu": known}, now)
        now += timedelta(minutes=5)
    return history, now


class TestForecast:
    def test_it_sees_the_morning_come(self) -> None:
        history, now = a_history(2.33)  # 08:00: the load is 6.0 and rises
        found = forecast_region(history, "eu", timedelta(hours=2), now)
        assert found.nodes == pytest.approx(8.0, abs=0.5)
        assert found.error < 0.3

    def test_it_needs_two_seasons(self) -> None:
        history, now = a_history(1.9)
        found = forecast_region(history, "eu", timedelta(hours=2), now)
        assert found.nodes is None and found.text == "1.9 of 2 seasons of history are known"

    def test_a_gap_is_carried_over_and_a_great_one_refused(self) -> None:
        history, now = a_history(2.33, hole=(400, 460))
        found = forecast_region(history, "eu", timedelta(hours=2), now)
        assert found.nodes == pytest.approx(8.0, abs=0.7)
        history, now = a_history(2.33, hole=(300, 600))
        assert forecast_region(history, "eu", timedelta(hours=2), now).nodes is None

    def test_it_is_never_far_above_what_was_seen(self) -> None:
        rising = np.concatenate([np.full(BUCKETS_PER_SEASON, 1.0), np.linspace(1, 100, BUCKETS_PER_SEASON)])
        history = History()
        now = datetime(2030, 1, 1, tzinfo=UTC)
        for load in rising:
            history = record(history, DAY, {"eu": float(load)}, now)
            now += timedelta(minutes=5)
        found = forecast_region(history, "eu", timedelta(hours=12), now)
        assert found.nodes is not None and found.nodes <= 150

    def test_a_plain_season_is_repeated(self) -> None:
        season = np.array([1.0, 5.0, 3.0, 1.0])
        ahead, error = holt_winters(np.tile(season, 5), 4, 4)
        assert ahead == pytest.approx(season) and error == pytest.approx(0)

    @pytest.mark.parametrize(("mode", "desired"), [("Shadow", 1), ("Enabled", 9)])
    def test_in_shadow_it_is_told_and_enabled_it_is_a_floor(self, mode: str, desired: int) -> None:
        history, now = a_history(2.33)
        forecast = {"method": "HoltWinters", "mode": mode, "horizon": "2h"}
        fleet = Passes(an_autoscaled({"eu": (1, 20)}, autoscaling={"forecast": forecast}), now=now)
        fleet.state = fleet.state.__class__(history=history)
        plan = fleet.step({"eu": [IDLE]})
        decision = fleet.decision()
        assert plan.desired["eu"] == pytest.approx(desired, abs=1 if desired > 1 else 0)
        assert decision.forecast is not None and decision.forecast.nodes is not None
        assert (decision.reason is Reason.FORECAST_HIGHER) == (mode == "Enabled")

    def test_history_survives_a_store(self) -> None:
        history, now = a_history(2.33, hole=(400, 420))
        kept = from_json(to_json(history))
        before = forecast_region(history, "eu", timedelta(hours=2), now).nodes
        after = forecast_region(kept, "eu", timedelta(hours=2), now).nodes
        assert before is not None and after == pytest.approx(before, abs=0.05)

    @pytest.mark.parametrize(
        "junk",
        [None, "x", {}, {"bucketSeconds": "NaN", "regions": {}}, {"bucketSeconds": 300, "regions": []},
         {"bucketSeconds": 300, "regions": {"eu": {"start": 1, "values": [-5]}}}],
    )  # fmt: skip
    def test_a_damaged_store_is_no_history(self, junk: object) -> None:
        assert from_json(junk) == History()

    def test_history_is_bounded_and_keeps_each_bucket_s_highest(self) -> None:
        history, now = a_history(3.5)
        assert len(history.regions["eu"].values) == 3 * BUCKETS_PER_SEASON
        for load in (3.0, 9.0, 4.0, None):
            history = record(history, DAY, {"eu": load}, now)
        assert history.regions["eu"].values[-1] == 9.0
