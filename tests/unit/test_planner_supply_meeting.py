"""A Meeting's life in its status, case by case."""

from datetime import timedelta
from typing import Any

import pytest
from headwater_api.conditions import Condition, find_condition
from headwater_api.meeting import Meeting, MeetingStatus
from headwater_api.sfucluster import RegionStatus, SFUCluster
from headwater_api.units import format_time
from headwater_planner.meeting import MeetingPlan, MeetingWorld, plan_meeting
from headwater_planner.world import LinkLoad, NodeLoad, RoomLoad
from support.fleet import NOW, a_cluster, a_meeting

EU_US = {"eu": (1, 2), "us": (1, 2)}


def ready_cluster(*ready: str, **spec: Any) -> SFUCluster:
    cluster = a_cluster(EU_US, **spec)
    regions = tuple(RegionStatus(name=name, desired=1, ready=int(name in ready)) for name in ("eu", "us"))
    return cluster.model_copy(update={"status": cluster.status.model_copy(update={"regions": regions})})


READY = ready_cluster("eu", "us")


def load(node: str, region: str, participants: int, links: tuple[LinkLoad, ...] = ()) -> NodeLoad:
    rooms = (RoomLoad("standup", participants), RoomLoad("other", 9))
    return NodeLoad(node, region, 0.1, rooms=rooms, links=links)


def condition(plan: MeetingPlan, type_: str) -> Condition:
    found = find_condition(plan.status.conditions, type_)
    assert found is not None
    return found


def verdicts(plan: MeetingPlan) -> dict[str, str]:
    return {found.type: f"{found.status} {found.reason}" for found in plan.status.conditions}


def with_status(meeting: Meeting, status: MeetingStatus) -> Meeting:
    return meeting.model_copy(update={"status": status})


def test_an_open_meeting_of_a_ready_fleet() -> None:
    plan = plan_meeting(MeetingWorld(a_meeting(), READY, join_url="ws://x"), NOW)
    assert verdicts(plan) == {
        "Scheduled": "False NotScheduled",
        "Provisioned": "True CapacityReady",
        "Active": "False RoomEmpty",
        "Ended": "False NotEnded",
    }
    assert plan.status.join_url == "ws://x" and plan.status.observed_generation == 2
    assert plan.again_at is None and plan.status.started_at is None


@pytest.mark.parametrize(
    ("meeting", "cluster", "reason", "message"),
    [
        (
            a_meeting(),
            None,
            "ClusterNotFound",
            'spec.clusterRef.name: there is no SFUCluster "demo" in namespace "calls"',
        ),
        (
            a_meeting(placement={"pin": ["eu", "mars"]}),
            READY,
            "RegionUnknown",
            'spec.placement.pin[1]: SFUCluster "demo" has no region "mars" (it has eu, us)',
        ),
        (
            a_meeting(placement={"allow": ["mars"]}),
            READY,
            "RegionUnknown",
            'spec.placement.allow[0]: SFUCluster "demo" has no region "mars" (it has eu, us)',
        ),
        (
            a_meeting(placement={"deny": ["eu", "us"]}),
            READY,
            "NoRegionAllowed",
            "spec.placement: allow, deny and pin leave none of the regions that "
            'SFUCluster "demo" offers (eu, us)',
        ),
        (
            a_meeting(placement={"allow": ["us"]}),
            ready_cluster("eu", "us", placement={"allowedRegions": ["eu"]}),
            "NoRegionAllowed",
            "spec.placement: allow, deny and pin leave none of the regions that "
            'SFUCluster "demo" offers (eu)',
        ),
        (a_meeting(), ready_cluster(), "WaitingForCapacity", "no SFU node is ready in eu, us"),
        (
            a_meeting(placement={"pin": ["eu", "us"]}),
            ready_cluster("eu"),
            "WaitingForCapacity",
            "no SFU node is ready in us",
        ),
    ],
)
def test_a_meeting_that_is_not_provisioned_says_why(
    meeting: Meeting, cluster: SFUCluster | None, reason: str, message: str
) -> None:
    provisioned = condition(plan_meeting(MeetingWorld(meeting, cluster), NOW), "Provisioned")
    assert (provisioned.is_true, provisioned.reason, provisioned.message) == (False, reason, message)


def an_announced(**schedule: str) -> Meeting:
    times = {"start": format_time(NOW + timedelta(minutes=30)), "duration": "1h", "leadTime": "10m"}
    return a_meeting(schedule=times | schedule, expectedParticipants={"byRegion": {"eu": 1500}})


@pytest.mark.parametrize(
    ("start_in", "ready", "reason", "message"),
    [
        (
            30,
            1,
            "WaitingForLeadTime",
            "the 4 nodes that 1,500 participants need are ordered by 2030-01-31T09:19:00Z",
        ),
        (8, 3, "WaitingForCapacity", "3 of the 4 nodes that 1,500 participants need are ready"),
        (8, 4, "CapacityReady", "SFU nodes are ready in eu"),
        (-5, 1, "CapacityReady", "SFU nodes are ready in eu"),
    ],
)
def test_an_announced_meeting_is_provisioned_when_its_nodes_are_ready(
    start_in: int, ready: int, reason: str, message: str
) -> None:
    status = {"regions": [{"name": "eu", "ready": ready}]}
    cluster = a_cluster({"eu": (1, 9)}, autoscaling={"mode": "Automatic"})
    cluster = SFUCluster.from_kubernetes({**cluster.to_kubernetes(), "status": status})
    meeting = an_announced(start=format_time(NOW + timedelta(minutes=start_in)))
    plan = plan_meeting(MeetingWorld(meeting, cluster), NOW)
    found = condition(plan, "Provisioned")
    assert (found.reason, found.message) == (reason, message)
    if start_in == 30:
        assert plan.again_at == NOW + timedelta(minutes=19)


def test_one_ready_region_is_enough_unless_regions_are_pinned() -> None:
    plan = plan_meeting(
        MeetingWorld(a_meeting(placement={"allow": ["eu", "mars"]}), ready_cluster("eu")), NOW
    )
    assert condition(plan, "Provisioned").message == "SFU nodes are ready in eu"


def test_participants_nodes_and_links() -> None:
    link = LinkLoad("l1", "standup", "b", up=True)
    local = LinkLoad("l2", "standup", "c", up=True)
    foreign = LinkLoad("l9", "other", "b", up=True)
    loads = (
        load("a", "eu", 2, (link, local, foreign)),
        load("b", "us", 1, (LinkLoad("l1", "standup", "a", up=False),)),
        load("c", "eu", 0, (LinkLoad("l2", "standup", "a", up=True),)),
        NodeLoad("idle", "eu", 0.1),
    )
    status = plan_meeting(MeetingWorld(a_meeting(), READY, loads=loads), NOW).status
    assert [(node.name, node.role, node.participants) for node in status.nodes] == [
        ("a", "Hub", 2),
        ("c", "Leaf", 0),
        ("b", "Hub", 1),
    ]
    assert [(found.source, found.target, found.state) for found in status.links] == [
        ("a", "b", "Down"),  # one end says so
        ("a", "c", "Up"),
    ]
    assert (status.participants, status.node_count, status.link_count) == (3, 3, 2)
    assert status.started_at == NOW and status.empty_since is None


def lived(*, now_empty_for: timedelta, **spec: Any) -> MeetingPlan:
    """A meeting that was active, then empty for that long."""
    first = plan_meeting(MeetingWorld(a_meeting(**spec), READY, loads=(load("a", "eu", 2),)), NOW)
    empty = plan_meeting(MeetingWorld(with_status(a_meeting(**spec), first.status), READY), NOW)
    assert empty.status.empty_since == NOW
    return plan_meeting(
        MeetingWorld(with_status(a_meeting(**spec), empty.status), READY), NOW + now_empty_for
    )


class TestEnd:
    def test_an_empty_room_waits_for_its_timeout(self) -> None:
        plan = lived(now_empty_for=timedelta(seconds=299))
        assert not condition(plan, "Ended").is_true
        assert plan.again_at == NOW + timedelta(minutes=5)

    def test_an_empty_room_ends_at_its_timeout(self) -> None:
        plan = lived(now_empty_for=timedelta(minutes=5), ttlAfterEnded="1h")
        assert verdicts(plan)["Ended"] == "True EmptyTimeoutElapsed"
        assert plan.status.ended_at == NOW + timedelta(minutes=5)
        assert plan.again_at == NOW + timedelta(hours=1, minutes=5)
        assert not plan.delete

    def test_somebody_who_comes_back_in_time_resets_the_clock(self) -> None:
        before = lived(now_empty_for=timedelta(seconds=200)).status
        world = MeetingWorld(with_status(a_meeting(), before), READY, loads=(load("a", "eu", 1),))
        plan = plan_meeting(world, NOW + timedelta(seconds=250))
        assert plan.status.empty_since is None and condition(plan, "Active").is_true

    def test_a_meeting_that_nobody_joined_does_not_end(self) -> None:
        first = plan_meeting(MeetingWorld(a_meeting(), READY), NOW)
        later = plan_meeting(
            MeetingWorld(with_status(a_meeting(), first.status), READY), NOW + timedelta(days=9)
        )
        assert verdicts(later)["Ended"] == "False NotEnded"

    def test_an_ended_meeting_is_deleted_after_its_time_to_live(self) -> None:
        ended = lived(now_empty_for=timedelta(minutes=5), ttlAfterEnded="1h").status
        meeting = with_status(a_meeting(ttlAfterEnded="1h"), ended)
        assert not plan_meeting(MeetingWorld(meeting, READY), NOW + timedelta(minutes=64)).delete
        plan = plan_meeting(MeetingWorld(meeting, READY), NOW + timedelta(minutes=65))
        assert plan.delete
        assert str(plan) == "Delete the Meeting: it ended at 2030-01-31T09:05:00Z and ttlAfterEnded is 1h"

    def test_an_ended_meeting_without_a_time_to_live_stays(self) -> None:
        meeting = with_status(a_meeting(), lived(now_empty_for=timedelta(minutes=5)).status)
        plan = plan_meeting(MeetingWorld(meeting, READY), NOW + timedelta(days=999))
        assert not plan.delete and plan.again_at is None

    def test_an_ended_meeting_stays_ended(self) -> None:
        meeting = with_status(a_meeting(), lived(now_empty_for=timedelta(minutes=5)).status)
        plan = plan_meeting(
            MeetingWorld(meeting, READY, loads=(load("a", "eu", 1),)), NOW + timedelta(hours=1)
        )
        assert condition(plan, "Ended").is_true


class TestSchedule:
    START = NOW + timedelta(hours=1)

    def plan_at(self, now_offset: timedelta, participants: int = 0) -> MeetingPlan:
        schedule = {"start": format_time(self.START), "duration": "30m"}
        loads = (load("a", "eu", participants),) if participants else ()
        return plan_meeting(MeetingWorld(a_meeting(schedule=schedule), READY, loads=loads), NOW + now_offset)

    def test_before_the_start(self) -> None:
        plan = self.plan_at(timedelta(0))
        assert verdicts(plan)["Scheduled"] == "True BeforeStart"
        assert plan.again_at == self.START

    def test_after_the_start(self) -> None:
        plan = self.plan_at(timedelta(hours=1))
        assert verdicts(plan)["Scheduled"] == "False Started"
        assert plan.again_at == self.START + timedelta(minutes=30)

    def test_over_and_empty(self) -> None:
        assert verdicts(self.plan_at(timedelta(minutes=90)))["Ended"] == "True DurationElapsed"

    def test_over_but_people_are_still_talking(self) -> None:
        plan = self.plan_at(timedelta(hours=9), participants=2)
        assert verdicts(plan)["Ended"] == "False NotEnded" and condition(plan, "Active").is_true


class TestMissingReports:
    def active(self) -> Meeting:
        loads = (load("a", "eu", 2), load("b", "us", 1))
        return with_status(
            a_meeting(), plan_meeting(MeetingWorld(a_meeting(), READY, loads=loads), NOW).status
        )

    def test_a_report_that_is_missing_holds_what_was_known(self) -> None:
        world = MeetingWorld(self.active(), READY, loads=(load("a", "eu", 2),), complete=False)
        plan = plan_meeting(world, NOW + timedelta(hours=3))
        assert plan.status == self.active().status

    def test_a_node_that_is_gone_for_certain_is_taken_out(self) -> None:
        world = MeetingWorld(self.active(), READY, loads=(load("a", "eu", 2),), complete=True)
        assert plan_meeting(world, NOW).status.participants == 2

    def test_news_are_believed_even_if_some_report_is_missing(self) -> None:
        world = MeetingWorld(self.active(), READY, loads=(load("a", "eu", 7),), complete=False)
        assert plan_meeting(world, NOW).status.participants == 7
