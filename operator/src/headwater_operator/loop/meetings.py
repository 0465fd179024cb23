"""One Meeting: its status from the fleet and the reports, its deletion when its time is over."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Final

import structlog
from headwater_api.meeting import Meeting
from headwater_api.model import InvalidResource
from headwater_api.reasons import Reason
from headwater_planner.meeting import MeetingPlan, MeetingWorld, plan_meeting
from headwater_planner.world import ClusterWorld, PodView

from headwater_operator.kube.client import KubeClient
from headwater_operator.kube.errors import Conflict, NotFound
from headwater_operator.kube.events import EventRecorder, Regarding
from headwater_operator.kube.resources import MEETINGS
from headwater_operator.kube.status import StatusWriter
from headwater_operator.loop.observe import Key, Observer
from headwater_operator.loop.store import Store
from headwater_operator.loop.transitions import transitions
from headwater_operator.loop.views import planned_meeting

log = structlog.get_logger(__name__)
# Those with people in them are looked at now and then even if no report changes.
ACTIVE_TICK_S: Final = 30.0
# Shorter than what a change of presence waits before its Meetings are looked at.
HEARD_TTL_S: Final = 0.15
SOON_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class _Alive:
    """A fleet's living Pods by name, as of the monotonic time `at`."""

    at: float
    fleet: ClusterWorld  # as it was then: another one may have lost a node
    pods: Mapping[str, PodView]
    complete: bool  # the report of every node that may serve is fresh


class MeetingLoop:
    """Works from memory: no read of the API server for each Meeting, one write for each change."""

    def __init__(
        self,
        *,
        client: KubeClient,
        observer: Observer,
        statuses: StatusWriter,
        events: EventRecorder,
        store: Store,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        rng: Random,
        public_url: str,
    ) -> None:
        self._client = client
        self._observer = observer
        self._statuses = statuses
        self._events = events
        self._store = store
        self._now = now
        self._monotonic = monotonic
        self._alive: dict[Key, _Alive] = {}
        self._rng = rng
        self._public_url = public_url

    async def reconcile(self, key: Key) -> float | None:
        """One pass; seconds until the clock alone changes something. Raises KubeError."""
        meeting = self._store.meetings.get(key)
        if meeting is None or meeting.metadata.deletion_timestamp is not None or not self._store.listed:
            return None
        fleet_key = (key[0], meeting.spec.cluster_ref.name)
        if fleet_key in self._store.fleet_keys and fleet_key not in self._store.fleets:
            return SOON_S  # the fleet is there, but not observed yet
        plan = plan_meeting(self._world(key, meeting), self._now())
        regarding = Regarding(MEETINGS, *key, meeting.metadata.uid)
        if plan.delete:
            return await self._delete(key, meeting, plan, regarding)
        if plan.status != meeting.status:
            written = await self._statuses.write(MEETINGS, *key, plan.status)
            if written is None:
                self._store.meetings.pop(key, None)
                return None
            self._remember(key, written)
            for change in transitions(meeting.status.conditions, plan.status.conditions):
                self._events.emit(regarding, change.reason, change.note, warning=change.warning)
        return self._next_s(plan)

    def _world(self, key: Key, meeting: Meeting) -> MeetingWorld:
        fleet_key = (key[0], meeting.spec.cluster_ref.name)
        join_url = join_url_of(self._public_url, meeting.metadata.name)
        fleet = self._store.fleets.get(fleet_key)
        if fleet is None:
            return MeetingWorld(meeting, None, join_url=join_url)
        alive = self._alive_of(fleet_key, fleet)
        return MeetingWorld(
            meeting,
            fleet.cluster,
            loads=self._observer.loads_of_room(*key, alive.pods),
            complete=alive.complete,
            join_url=join_url,
        )

    def _alive_of(self, key: Key, fleet: ClusterWorld) -> _Alive:
        """Made anew when it is HEARD_TTL_S old, for all the fleet's Meetings."""
        known = self._alive.get(key)
        now = self._monotonic()
        if known is not None and known.fleet is fleet and now - known.at < HEARD_TTL_S:
            return known
        pods = {pod.name: pod for pod in fleet.pods if not pod.dead}
        # Not only the ready ones: a draining node is unready by design, and people are on it.
        complete = all(self._observer.is_heard(key[0], pod) for pod in pods.values() if pod.started)
        self._alive = {fleet: old for fleet, old in self._alive.items() if fleet in self._store.fleets}
        self._alive[key] = _Alive(now, fleet, pods, complete)
        return self._alive[key]

    def _remember(self, key: Key, body: dict[str, object]) -> None:
        try:
            self._store.meetings[key] = planned_meeting(body)
        except InvalidResource as error:
            log.warning("Meeting cannot be read back", namespace=key[0], meeting=key[1], error=str(error))

    async def _delete(
        self, key: Key, meeting: Meeting, plan: MeetingPlan, regarding: Regarding
    ) -> float | None:
        """Only as it was seen: somebody may have prolonged it since. None once it is gone."""
        metadata = meeting.metadata
        try:
            await self._client.delete(
                MEETINGS, *key, uid=metadata.uid, resource_version=metadata.resource_version
            )
        except Conflict as error:
            log.info("Meeting has changed: not deleted", namespace=key[0], meeting=key[1], error=str(error))
            return SOON_S
        except NotFound as error:
            log.info("Meeting was gone already", namespace=key[0], meeting=key[1], error=str(error))
        else:
            self._events.emit(regarding, Reason.MEETING_EXPIRED, str(plan))
            log.info(str(plan), namespace=key[0], meeting=key[1], reason=Reason.MEETING_EXPIRED.value)
        self._store.meetings.pop(key, None)
        return None

    def _next_s(self, plan: MeetingPlan) -> float | None:
        waits = []
        if plan.again_at is not None:
            waits.append(max(0.1, (plan.again_at - self._now()).total_seconds()))
        if plan.status.participants or plan.status.nodes:
            waits.append(ACTIVE_TICK_S * self._rng.uniform(0.8, 1.2))
        return min(waits, default=None)


def join_url_of(public_url: str, room: str) -> str:
    """What people open to join. Of a ws(s) URL the token names the room; a page takes it as ?room=."""
    return f"{public_url}/?room={room}" if public_url.startswith("http") else public_url
