"""The Lease: who may write, decided on each holder's own clock."""

from copy import deepcopy
from datetime import UTC, datetime
from random import Random
from typing import Any, cast

import pytest
from headwater_operator.kube.client import KubeClient
from headwater_operator.kube.errors import Conflict, NotFound, NotLeader, Unavailable
from headwater_operator.kube.lease import Lease, LeaseSettings
from headwater_operator.kube.resources import Resource


class FakeApi:
    """One Lease object under optimistic locking. `down`: nothing answers."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.down = False

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        self._check()
        if self.lease is None:
            raise NotFound("no lease", status=404)
        return deepcopy(self.lease)

    async def create(self, resource: Resource, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        self._check()
        if self.lease is not None:
            raise Conflict("exists", status=409)
        return self._store(body)

    async def replace(
        self, resource: Resource, namespace: str, name: str, body: dict[str, Any]
    ) -> dict[str, Any]:
        self._check()
        assert self.lease is not None
        if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise Conflict("raced", status=409)
        return self._store(body)

    def _store(self, body: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        self.lease = deepcopy(body)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return deepcopy(self.lease)

    def _check(self) -> None:
        if self.down:
            raise Unavailable("down")


class Clock:
    """One replica's monotonic clock; its start differs from others'."""

    def __init__(self, start: float) -> None:
        self.now = start

    def __call__(self) -> float:
        return self.now


def a_replica(api: FakeApi, identity: str, clock: Clock) -> Lease:
    settings = LeaseSettings("ns", "lease", identity, duration_s=15, renew_deadline_s=10, retry_s=2)
    wall = datetime(2030, 1, 1, tzinfo=UTC)
    return Lease(cast(KubeClient, api), settings, monotonic=clock, now=lambda: wall, rng=Random(1))


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


async def test_the_first_one_gets_it_and_may_write(api: FakeApi) -> None:
    lease = a_replica(api, "a", Clock(0))
    with pytest.raises(NotLeader):
        lease.fence()
    assert await lease._try()
    lease.fence()
    assert api.lease is not None and api.lease["spec"]["holderIdentity"] == "a"
    assert api.lease["spec"]["leaseDurationSeconds"] == 15


async def test_the_second_one_waits_for_the_whole_duration_by_its_own_clock(api: FakeApi) -> None:
    mine, others = Clock(0), Clock(9e6)
    assert await a_replica(api, "a", mine)._try()
    second = a_replica(api, "b", others)
    assert not await second._try()
    others.now += 14.9
    assert not await second._try()
    others.now += 0.2
    assert await second._try()
    assert second.generation == 1


async def test_a_renewal_starts_the_wait_anew(api: FakeApi) -> None:
    mine, others = Clock(0), Clock(500)
    first, second = a_replica(api, "a", mine), a_replica(api, "b", others)
    assert await first._try()
    for _ in range(20):
        assert not await second._try()
        mine.now += 5
        others.now += 5
        assert await first._try()


async def test_who_cannot_renew_stops_before_another_may_start(api: FakeApi) -> None:
    clock = Clock(0)
    first = a_replica(api, "a", clock)
    assert await first._try()
    api.down = True
    clock.now += 9.9
    assert not await first._try()
    first.fence()
    clock.now += 0.2
    with pytest.raises(NotLeader):
        first.fence()


async def test_who_was_paused_and_superseded_does_not_get_it_back(api: FakeApi) -> None:
    mine, others = Clock(0), Clock(0)
    first, second = a_replica(api, "a", mine), a_replica(api, "b", others)
    assert await first._try()
    assert not await second._try()
    others.now += 16
    assert await second._try()
    assert not await first._try(), "its clock stood still, but the record says otherwise"
    assert not first.held


async def test_two_that_write_at_once_cannot_both_win(api: FakeApi) -> None:
    api._store({"metadata": {"name": "lease"}, "spec": {"holderIdentity": "", "leaseTransitions": 4}})
    first, second = a_replica(api, "a", Clock(0)), a_replica(api, "b", Clock(0))
    read = await api.get(cast(Resource, None), "ns", "lease")
    assert await first._try()
    api_get = api.get

    async def stale_get(resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        return read

    api.get = stale_get  # type: ignore[method-assign]
    assert not await second._try()
    api.get = api_get  # type: ignore[method-assign]
    assert first.generation == 5


async def test_giving_up_lets_the_next_one_in_at_once(api: FakeApi) -> None:
    first, second = a_replica(api, "a", Clock(0)), a_replica(api, "b", Clock(0))
    assert await first._try()
    assert not await second._try()
    await first.release()
    with pytest.raises(NotLeader):
        first.fence()
    assert await second._try()


async def test_giving_up_what_is_not_ones_own_does_nothing(api: FakeApi) -> None:
    first, second = a_replica(api, "a", Clock(0)), a_replica(api, "b", Clock(0))
    assert await first._try()
    await second.release()
    assert api.lease is not None and api.lease["spec"]["holderIdentity"] == "a"


async def test_keep_returns_when_it_is_lost(api: FakeApi) -> None:
    clock = Clock(0)
    lease = a_replica(api, "a", clock)
    assert await lease._try()
    clock.now += 11
    await lease.keep()
    assert not lease.held


@pytest.mark.parametrize("times", [{"retry_s": 11}, {"renew_deadline_s": 15}, {"retry_s": 0}])
def test_times_that_would_allow_two_holders_are_refused(times: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="lease times"):
        LeaseSettings("ns", "lease", "a", **times)
