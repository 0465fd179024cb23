"""Where watch events come in: they update the store and wake keys, and return at once.

A relist every `resync_s` does the same for whatever the watches missed, and drops what is gone.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from random import Random
from typing import Any

import structlog
from headwater_api.meeting import Meeting
from headwater_api.model import InvalidResource
from headwater_api.wellknown import LABEL_CLUSTER

from headwater_operator.kube.client import KubeClient
from headwater_operator.kube.errors import KubeError, NotLeader
from headwater_operator.kube.resources import MEETINGS, SFUCLUSTERS, Resource
from headwater_operator.loop.observe import Key
from headwater_operator.loop.store import Store
from headwater_operator.loop.views import planned_meeting
from headwater_operator.loop.wake import WakeQueue
from headwater_operator.nodes.inbox import Change

log = structlog.get_logger(__name__)
Body = Mapping[str, Any]
# Pod events come in bursts: one look at the fleet for a burst.
POD_DELAY_S = 0.05
PRESENCE_DELAY_S = 0.2
# Of the Meetings that a relist finds unchanged, so many are looked at all the same: should a wake be lost.
BACKSTOP_SHARE = 0.1
SLICE = 50
# What concerns all Meetings of a fleet is spread over time, not to hold up what concerns one.
MEETINGS_PER_S = 2000.0
MAX_SPREAD_S = 4.0


class Intake:
    """The handlers' and the report streams' way into the loops."""

    def __init__(
        self,
        store: Store,
        fleets: WakeQueue[Key],
        meetings: WakeQueue[Key],
        *,
        client: KubeClient,
        namespaces: tuple[str, ...],
        resync_s: float,
        monotonic: Callable[[], float],
        rng: Random,
    ) -> None:
        self._store = store
        self._fleets = fleets
        self._meetings = meetings
        self._client = client
        self._namespaces = namespaces or ("",)
        self._resync_s = resync_s
        self._monotonic = monotonic
        self._rng = rng
        self._generations: dict[Key, tuple[str, int, str]] = {}
        self.relisted_at = float("-inf")

    def fleet_seen(self, body: Body, deleted: bool) -> None:
        """An SFUCluster came, changed or went. Changes of its status alone, which are ours, wake nobody."""
        key = _key(body)
        metadata = body["metadata"]
        version = (metadata["uid"], metadata.get("generation", 0), metadata.get("deletionTimestamp") or "")
        if deleted:
            self._generations.pop(key, None)
        elif self._generations.get(key) == version:
            return
        else:
            self._generations[key] = version
            self._store.fleet_keys.add(key)
        self._fleets.wake(key)

    def pod_seen(self, body: Body) -> None:
        """An SFU Pod came, changed or went."""
        cluster = (body["metadata"].get("labels") or {}).get(LABEL_CLUSTER)
        if cluster:
            self._fleets.wake((body["metadata"]["namespace"], cluster), POD_DELAY_S)

    def meeting_seen(self, body: Body, deleted: bool) -> None:
        """A Meeting came, changed or went."""
        key = _key(body)
        if deleted:
            self._store.meetings.pop(key, None)
            self._meetings.forget(key)
            return
        if _is_version(self._store.meetings.get(key), body):
            return  # what we have written ourselves, or a relist has told
        if self._put_meeting(key, body):
            self._meetings.wake(key)

    def presence_changed(self, change: Change) -> None:
        """A node's report says something new about rooms."""
        namespace, node = change.node
        for key, world in self._store.fleets.items():
            if key[0] == namespace and any(pod.name == node for pod in world.pods):
                self._fleets.wake(key, PRESENCE_DELAY_S)
        for room in change.rooms:
            if (namespace, room) in self._store.meetings:
                self._meetings.wake((namespace, room), PRESENCE_DELAY_S)

    def fleet_changed(self, key: Key) -> None:
        """A fleet's figures changed: its Meetings may be provisioned now, or no longer."""
        meetings = list(self._store.meetings_of(key))
        spread_s = min(MAX_SPREAD_S, len(meetings) / MEETINGS_PER_S)
        for meeting in meetings:
            self._meetings.wake(meeting, self._rng.uniform(0.0, spread_s))

    async def relist(self) -> None:
        """Reads every SFUCluster and Meeting. Raises KubeError."""
        fleets = [body async for page in self._pages(SFUCLUSTERS) for body in page]
        before = dict(self._store.meetings)
        listed = {_key(body) for body in fleets}
        for key in listed | set(self._store.fleets) | self._store.fleet_keys:
            self._fleets.wake(key)
        self._store.fleet_keys = listed | set(self._store.fleets)
        self._generations = {key: seen for key, seen in self._generations.items() if key in listed}
        meetings: set[Key] = set()
        async for page in self._pages(MEETINGS):
            meetings.update([_key(body) for body in page])
            await self._take_meetings(page, before)
        self._store.drop_meetings(before.keys() - meetings)
        if not self._store.listed:
            self._store.listed = True
            for key in meetings:
                self._meetings.wake(key)
        self.relisted_at = self._monotonic()

    async def run(self) -> None:
        """Relists for ever; failures are logged, the next round comes with jitter. Raises NotLeader."""
        while True:
            pause = self._resync_s * self._rng.uniform(0.8, 1.2)
            try:
                await self.relist()
            except NotLeader:
                raise
            except KubeError as error:
                log.warning("relist failed", error=str(error))
                pause = min(pause, 2.0 * self._rng.uniform(0.5, 1.0))
            await asyncio.sleep(pause)

    async def _pages(self, resource: Resource) -> AsyncIterator[Sequence[Body]]:
        for namespace in self._namespaces:
            async for page in self._client.pages(resource, namespace):
                yield page

    async def _take_meetings(self, bodies: Sequence[Body], before: Mapping[Key, Meeting]) -> None:
        """Wakes those that are new to us, and a few of the others. `before`: as it was before the list was
        asked for; what a watch has told since then is newer than the list."""
        for number, body in enumerate(bodies):
            if number % SLICE == 0:
                await asyncio.sleep(0)  # thousands take seconds: the Lease must be renewed meanwhile
            key = _key(body)
            known = before.get(key)
            overtaken = self._store.meetings.get(key) is not known
            if not overtaken and not _is_version(known, body):
                if self._put_meeting(key, body):
                    self._meetings.wake(key)
            elif self._rng.random() < BACKSTOP_SHARE:
                self._meetings.wake(key, self._rng.uniform(0.0, self._resync_s))

    def _put_meeting(self, key: Key, body: Body) -> bool:
        try:
            self._store.meetings[key] = planned_meeting(body)
        except InvalidResource as error:
            log.warning("Meeting cannot be read", namespace=key[0], meeting=key[1], error=str(error))
            return False
        return True


def _is_version(known: Meeting | None, body: Body) -> bool:
    """Whether `body` is what is known already."""
    return known is not None and known.metadata.resource_version == body["metadata"]["resourceVersion"]


def _key(body: Body) -> Key:
    return body["metadata"]["namespace"], body["metadata"]["name"]
