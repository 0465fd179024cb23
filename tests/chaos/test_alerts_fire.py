"""Each critical alert is fired by its fault in a running cluster, and resolves after it.

A real Prometheus with the chart's rules, thresholds and `for`. Two things differ from an installation.
It scrapes each 10 s (the chart: 15 s; the difference is taken off the limit). And the windows of the burn
rates are a tenth (5 minutes are 30 s): a burn alert resolves no sooner than its short window, and Prometheus
has no history here.
"""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest
import yaml
from headwater_api import wellknown as wk
from headwater_sandbox.config import NAMESPACE
from support.alerting import (
    CONNECTIONS,
    OPERATOR,
    RULES,
    Alert,
    connections,
    declare,
    followed,
    join_status,
    pods,
    put_certificate,
    ready,
    repeated,
    taint,
    until_fires,
    until_quiet,
    with_short_windows,
)
from support.clients import bot_spec, bots, until_seen
from support.cluster import Cluster, running_cluster
from support.deadline import until
from support.prometheus import Prometheus, prometheus
from support.protocol_client import ProtocolClient

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

LIMIT_S: Final = 90 - 5
RESOLVED_S: Final = 120
SHORT_WINDOW_S: Final = 30 * 60 / 10  # of the six-fold burns
JOBS: Final = (wk.COMPONENT_OPERATOR, wk.COMPONENT_GATEWAY, wk.COMPONENT_SFU, wk.COMPONENT_TURN)
NO_NODES: Final = ("HeadwaterNoReadyNodes", "ap")
NO_TURN: Final = ("HeadwaterTurnDown", "ap")
FULL: Final = ("HeadwaterCapacityExhausted", "eu")
EXPIRED: Final = ("HeadwaterCertificateExpired", "eu")
MISSING: Final = ("HeadwaterMetricsMissing", "")
JOIN_BURNS: Final = (("HeadwaterJoinFastBurn", ""), ("HeadwaterJoinBurn", ""))
QUALITY_BURNS: Final = (("HeadwaterQualityFastBurn", ""), ("HeadwaterQualityBurn", ""))


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with running_cluster(("--regions", "eu,ap", "--nodes-per-region", "1")) as running:
        yield running


def critical() -> set[str]:
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    return {rule["alert"] for rule in rules if rule.get("labels", {}).get("severity") == "critical"}


class Clock:
    """When each fault began and ended, and what was measured from then on."""

    def __init__(self, prom: Prometheus) -> None:
        self._prom = prom
        self.fired: dict[Alert, float] = {}
        self.resolved: dict[Alert, float] = {}

    async def fires(self, since: float, *alerts: Alert) -> None:
        times = await asyncio.gather(*(until_fires(self._prom, a, since, LIMIT_S) for a in alerts))
        self.fired |= dict(zip(alerts, times, strict=True))

    async def resolves(self, since: float, within_s: float, *alerts: Alert) -> None:
        times = await asyncio.gather(*(until_quiet(self._prom, a, since, within_s) for a in alerts))
        self.resolved |= dict(zip(alerts, times, strict=True))


async def test_each_critical_alert_fires_by_its_fault_and_resolves(cluster: Cluster, tmp_path: Path) -> None:
    await declare(cluster, tmp_path)
    rules = tmp_path / "rules.yaml"
    rules.write_text(with_short_windows(RULES.read_text(), 10))
    specs = [bot_spec(cluster, "crowd", who, n, "eu") for n, who in enumerate(("ann", "bob"))]
    async with AsyncExitStack() as stack:
        callers = await stack.enter_async_context(bots(specs))
        await until_seen(callers, [("ann", "bob"), ("bob", "ann")], 60)
        lossy = [await stack.enter_async_context(listener(cluster, f"lossy-{n}")) for n in range(2)]
        guest = await stack.enter_async_context(listener(cluster, "guest"))
        await stack.enter_async_context(followed(cluster, tmp_path))
        prom = stack.enter_context(prometheus(cluster, tmp_path, rules=rules, every_s=10, jobs=JOBS))
        await until(lambda: has_history(prom), 90, "the rules have something to say", every_s=1.0)
        names = {name for name, _ in await prom.firing()}
        assert not names & critical(), "nothing is wrong yet"
        clock = Clock(prom)
        await break_all_but_the_metrics(cluster, tmp_path, clock, lossy, guest)
        mended = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            quick = (EXPIRED, FULL, JOIN_BURNS[0], QUALITY_BURNS[0])
            tasks.create_task(clock.resolves(mended, RESOLVED_S, *quick))
            slow = (JOIN_BURNS[1], QUALITY_BURNS[1])
            tasks.create_task(clock.resolves(mended, SHORT_WINDOW_S + 60, *slow))
            await clock.resolves(mended, RESOLVED_S, NO_NODES, NO_TURN)
            await break_the_metrics(cluster, clock)
    for alert in sorted(clock.fired):
        print(
            f"{alert[0]}: fired after {clock.fired[alert]:.0f} s, quiet after {clock.resolved[alert]:.0f} s"
        )
    assert {name for name, _ in clock.fired} == {name for name, _ in clock.resolved} == critical()


def listener(cluster: Cluster, identity: str) -> ProtocolClient:
    return ProtocolClient(cluster.gateway, cluster.token("crowd", identity), region="eu")


async def has_history(prom: Prometheus) -> bool:
    try:
        return await prom.count("headwater:bad_minutes:ratio_rate5m < 0.06") > 0
    except OSError:
        return False  # it still starts


async def break_all_but_the_metrics(
    cluster: Cluster, tmp: Path, clock: Clock, lossy: list[ProtocolClient], guest: ProtocolClient
) -> None:
    """Side by side; all is mended when it returns, and each alert has fired."""
    rng = random.Random(1)
    async with asyncio.TaskGroup() as tasks:
        began = time.monotonic()
        await asyncio.to_thread(taint, cluster, "ap")
        await asyncio.to_thread(put_certificate, cluster, tmp, 1)
        for client in (*lossy, guest):
            client.lose(0.3, rng)
        tasks.create_task(clock.fires(began, NO_NODES, NO_TURN, EXPIRED, *QUALITY_BURNS))

        async def gone() -> bool:
            return not ready(await asyncio.to_thread(pods, cluster, wk.COMPONENT_SFU, "ap"))

        await until(gone, 30, "ap has no ready node", every_s=0.5)
        await fill(cluster, (guest, *lossy))
        filled = time.monotonic()

        async def knock() -> None:
            await join_status(cluster, f"late-{time.monotonic_ns()}", "eu")

        async with repeated(knock, 1.0):
            await clock.fires(filled, FULL, *JOIN_BURNS)
    await guest.leave()
    await asyncio.to_thread(taint, cluster, "ap", on=False)
    await asyncio.to_thread(put_certificate, cluster, tmp, 30)
    for client in lossy:
        client.lose(0, rng)


async def fill(cluster: Cluster, clients: Sequence[ProtocolClient]) -> None:
    """Each listener's second connection: with the callers' they are all that the node of eu takes."""
    (node,) = await asyncio.to_thread(pods, cluster, wk.COMPONENT_SFU, "eu")
    for number, client in enumerate(clients):
        await client.publish(number + 5)

    async def full() -> bool:
        return await connections(node["status"]["podIP"]) >= CONNECTIONS

    await until(full, 30, "eu is full", every_s=0.2)


async def break_the_metrics(cluster: Cluster, clock: Clock) -> None:
    """No operator, and so no series of one."""

    def scale(replicas: int) -> None:
        cluster.kubectl("scale", "deployment", OPERATOR, "-n", NAMESPACE, f"--replicas={replicas}")

    began = time.monotonic()
    await asyncio.to_thread(scale, 0)
    await clock.fires(began, MISSING)
    mended = time.monotonic()
    await asyncio.to_thread(scale, 1)
    await clock.resolves(mended, RESOLVED_S, MISSING)
