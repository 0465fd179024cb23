"""Where watch events come in: they update the store and wake keys, and return at once.

A relist every `resync_s` does the same for whatever the watches missed, and drops what is gone.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import structlog
from headwater_api.meeting import Meeting
from headwater_api.model import InvalidResource
from headwater_api.wellknown import LABEL_CLUSTER

from headwater_operator.kube.client import KubeClient, Object
from headwater_operator.kube.errors import KubeError, NotLeader
from headwater_operator.kube.resources import MEETINGS, SFUCLUSTERS
from headwater_operator.loop.observe import Key
from headwater_operator.loop.store import Store
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
        fleets = await self._list(SFUCLUSTERS)
        before = dict(self._store.meetings)
        meetings = await self._list(MEETINGS)
        listed = {_key(body) for body in fleets}
        for key in listed | set(self._store.fleets) | self._store.fleet_keys:
            self._fleets.wake(key)
        self._store.fleet_keys = listed | set(self._store.fleets)
        self._generations = {key: seen for key, seen in self._generations.items() if key in listed}
        kept, changed = await self._take_meetings(meetings, before)
        self._store.drop_meetings(before.keys() - {_key(body) for body in meetings})
        first, self._store.listed = not self._store.listed, True
        for key in kept:
            if first or key in changed:
                self._meetings.wake(key)
            elif self._rng.random() < BACKSTOP_SHARE:
                self._meetings.wake(key, self._rng.uniform(0.0, self._resync_s))
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

    async def _list(self, resource: Any) -> list[Object]:
        return [
            body for namespace in self._namespaces for body in await self._client.list(resource, namespace)
        ]

    async def _take_meetings(
        self, bodies: Sequence[Body], before: Mapping[Key, Meeting]
    ) -> tuple[list[Key], set[Key]]:
        """Those that can be read, and of them those that are new to us. `before`: as it was before the list
        was asked for; what a watch has told since then is newer than the list."""
        kept: list[Key] = []
        changed: set[Key] = set()
        for number, body in enumerate(bodies):
            if number % SLICE == 0:
                await asyncio.sleep(0)  # thousands take seconds: the Lease must be renewed meanwhile
            key = _key(body)
            known = before.get(key)
            overtaken = self._store.meetings.get(key) is not known
            version = body["metadata"]["resourceVersion"]
            if not overtaken and (known is None or known.metadata.resource_version != version):
                if not self._put_meeting(key, body):
                    continue
                changed.add(key)
            kept.append(key)
        return kept, changed

    def _put_meeting(self, key: Key, body: Body) -> bool:
        try:
            self._store.meetings[key] = Meeting.from_kubernetes(body)
        except InvalidResource as error:
            log.warning("Meeting cannot be read", namespace=key[0], meeting=key[1], error=str(error))
            return False
        return True


def _key(body: Body) -> Key:
    return body["metadata"]["namespace"], body["metadata"]["name"]
