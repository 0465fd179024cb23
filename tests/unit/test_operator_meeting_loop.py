"""What the loop over Meetings takes for the whole truth, and how it deletes."""

from collections.abc import Mapping
from datetime import timedelta
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest
from headwater_api.meeting import Meeting
from headwater_operator.kube.errors import Conflict
from headwater_operator.loop.meetings import SOON_S, MeetingLoop
from headwater_operator.loop.store import Store
from headwater_planner.world import ClusterWorld, NodeLoad, PodView
from support.fleet import NOW, a_load, a_meeting, a_pending_pod, a_pod, a_world

KEY = ("calls", "standup")


class Cluster:
    """The API server, the reports and the Events, as far as the loop needs them."""

    def __init__(self, meeting: Meeting, world: ClusterWorld) -> None:
        self.store = Store(
            fleets={("calls", "demo"): world},
            fleet_keys={("calls", "demo")},
            meetings={KEY: meeting},
            listed=True,
        )
        self.world = world
        self.written: list[Any] = []
        self.version = ""  # of the Meeting as the API server has it now
        self.loop = MeetingLoop(
            client=cast(Any, self),
            observer=cast(Any, self),
            statuses=cast(Any, self),
            events=cast(Any, SimpleNamespace(emit=lambda *_, **__: None)),
            store=self.store,
            now=lambda: NOW,
            monotonic=lambda: 100.0,
            rng=Random(1),
            public_url="",
        )

    def loads_of_room(self, namespace: str, room: str, pods: Mapping[str, PodView]) -> tuple[NodeLoad, ...]:
        loads = self.world.loads.values()
        return tuple(load for load in loads if any(row.room == room for row in load.rooms))

    def is_heard(self, namespace: str, pod: PodView) -> bool:
        return pod.name in self.world.loads

    async def write(self, resource: object, namespace: str, name: str, status: Any) -> dict[str, Any]:
        self.written.append(status)
        return {
            "metadata": {"name": name, "namespace": namespace, "uid": "u"},
            "spec": {"clusterRef": {"name": "demo"}},
        }

    async def delete(self, *key: object, uid: str, resource_version: str = "") -> None:
        if resource_version != self.version:
            raise Conflict("the precondition failed")
        self.version = "gone"


def over(**status: Any) -> Meeting:
    """A Meeting past its scheduled end."""
    start = (NOW - timedelta(hours=2)).isoformat()
    return a_meeting(schedule={"start": start, "duration": "1h"}, emptyTimeout="1s", status=status)


def condition(type_: str) -> dict[str, str]:
    times = {"lastTransitionTime": "2030-01-31T08:00:00Z"}
    return {"type": type_, "status": "True", "reason": "R", "message": "m", **times}


SOMEBODY = {"participants": 2, "conditions": [condition("Active")]}
ENDED = {"endedAt": "2030-01-31T08:00:00Z", "conditions": [condition("Ended")]}


@pytest.mark.parametrize("ready", [True, False])
async def test_a_meeting_is_held_while_a_node_that_runs_is_not_heard(ready: bool) -> None:
    world = a_world(pods=[a_pod("a"), a_pod("b", ready=ready)], loads=[a_load("a")])
    cluster = Cluster(over(**SOMEBODY), world)
    await cluster.loop.reconcile(KEY)
    assert all(status.participants == 2 for status in cluster.written)


async def test_a_node_that_has_not_started_is_not_waited_for() -> None:
    world = a_world(pods=[a_pod("a"), a_pending_pod("b")], loads=[a_load("a")])
    cluster = Cluster(over(**SOMEBODY), world)
    await cluster.loop.reconcile(KEY)
    assert cluster.written[-1].participants == 0


async def test_what_was_known_of_an_older_fleet_is_not_taken_for_the_new_one() -> None:
    """Nothing else may wake the Meeting for half a minute."""
    silent = a_world(pods=[a_pod("a"), a_pod("b")], loads=[a_load("a")])
    cluster = Cluster(over(**SOMEBODY), silent)
    await cluster.loop.reconcile(KEY)
    assert all(status.participants == 2 for status in cluster.written)
    cluster.world = cluster.store.fleets[("calls", "demo")] = a_world(pods=[a_pod("a")], loads=[a_load("a")])
    cluster.store.meetings[KEY] = over(**SOMEBODY)
    await cluster.loop.reconcile(KEY)  # at the same moment, by the clock
    assert cluster.written[-1].participants == 0


async def test_a_meeting_that_was_changed_meanwhile_is_not_deleted() -> None:
    ended = a_meeting(ttlAfterEnded="1s", status=ENDED)
    seen = ended.model_copy(update={"metadata": ended.metadata.model_copy(update={"resource_version": "7"})})
    cluster = Cluster(seen, a_world())
    cluster.version = "8"
    assert await cluster.loop.reconcile(KEY) == SOON_S
    assert KEY in cluster.store.meetings and cluster.version == "8"
    cluster.version = "7"
    assert await cluster.loop.reconcile(KEY) is None
    assert KEY not in cluster.store.meetings and cluster.version == "gone"
