"""The scaler's memory: its pace, and the load history that outlives a restart."""

from datetime import timedelta
from typing import Any

from headwater_operator.kube.errors import NotFound, Refused
from headwater_operator.loop.history import HistoryStore
from headwater_operator.loop.scaler import Scaler
from headwater_operator.metrics_source.choose import MetricsSources
from headwater_planner.world import ClusterWorld
from support.fleet import NOW, a_cluster, a_load, a_pod, a_world

KEY = ("calls", "demo")
FORECAST = {"autoscaling": {"mode": "Automatic", "forecast": {"method": "HoltWinters"}}}


class ConfigMaps:
    """The part of KubeClient that the history needs."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self.refuse = False

    async def get(self, _resource: object, _namespace: str, name: str) -> Any:
        if name not in self.kept:
            raise NotFound(name)
        return self.kept[name]

    async def apply(self, _resource: object, _namespace: str, name: str, body: Any) -> Any:
        if self.refuse:
            raise Refused("forbidden")
        self.kept[name] = body
        return body


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def a_scaler(client: ConfigMaps, clock: Clock) -> Scaler:
    return Scaler(MetricsSources(), HistoryStore(client), monotonic=clock)  # type: ignore[arg-type]


def a_busy_world(**spec: Any) -> ClusterWorld:
    return a_world(a_cluster({"eu": (1, 9)}, **spec), [a_pod("a")], [a_load("a", participants=100)])


async def test_it_decides_every_few_seconds_however_often_it_is_asked() -> None:
    clock = Clock()
    scaler = a_scaler(ConfigMaps(), clock)
    decided = []
    for tenth in range(101):
        clock.now = tenth / 10
        _, is_new = await scaler.plan(KEY, a_busy_world(), (), NOW + timedelta(seconds=clock.now))
        decided.append(is_new)
    assert sum(decided) == 3


async def test_it_says_when_it_wants_to_decide_again() -> None:
    clock = Clock()
    scaler = a_scaler(ConfigMaps(), clock)
    assert scaler.due_s(KEY) == 0.0
    await scaler.plan(KEY, a_busy_world(), (), NOW)
    clock.now = 4.4  # somebody looks at the fleet for another reason
    _, is_new = await scaler.plan(KEY, a_busy_world(), (), NOW)
    assert not is_new
    clock.now += scaler.due_s(KEY)
    assert clock.now == 5.0, "not a whole period later"
    _, is_new = await scaler.plan(KEY, a_busy_world(), (), NOW)
    assert is_new


async def test_a_changed_spec_is_decided_on_at_once() -> None:
    scaler = a_scaler(ConfigMaps(), Clock())
    first, _ = await scaler.plan(KEY, a_busy_world(), (), NOW)
    other = a_cluster({"eu": (4, 9)})
    newer = other.model_copy(update={"metadata": other.metadata.model_copy(update={"generation": 4})})
    second, is_new = await scaler.plan(KEY, a_world(newer), (), NOW)
    assert (first.desired["eu"], second.desired["eu"], is_new) == (1, 4, True)


async def test_history_outlives_a_restart() -> None:
    clock, client = Clock(), ConfigMaps()
    scaler = a_scaler(client, clock)
    for step in range(4):
        clock.now = step * 300.0
        at = NOW + timedelta(seconds=clock.now)
        plan, _ = await scaler.plan(KEY, a_busy_world(**FORECAST), (), at)
    kept = client.kept["demo-load-history"]
    assert kept["metadata"]["ownerReferences"][0]["kind"] == "SFUCluster"
    again, _ = await a_scaler(client, clock).plan(KEY, a_busy_world(**FORECAST), (), at)
    assert again.state.history.regions["eu"].start == plan.state.history.regions["eu"].start
    assert len(again.state.history.regions["eu"].values) == 4


async def test_history_that_cannot_be_kept_or_read_holds_nothing_up() -> None:
    clock, client = Clock(), ConfigMaps()
    client.refuse = True
    client.kept["demo-load-history"] = {"data": {"history.json": "{not json"}}
    scaler = a_scaler(client, clock)
    for step in range(2):
        clock.now = step * 300.0
        at = NOW + timedelta(seconds=clock.now)
        plan, is_new = await scaler.plan(KEY, a_busy_world(**FORECAST), (), at)
        assert is_new and plan.desired["eu"] >= 1


async def test_a_fleet_without_a_forecast_keeps_nothing() -> None:
    clock, client = Clock(), ConfigMaps()
    scaler = a_scaler(client, clock)
    for step in range(3):
        clock.now = step * 300.0
        await scaler.plan(KEY, a_busy_world(), (), NOW + timedelta(seconds=clock.now))
    assert not client.kept
