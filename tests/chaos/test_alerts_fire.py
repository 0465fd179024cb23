"""Each critical alert is fired by its fault in a running cluster, and resolves after it.

A real Prometheus with the chart's rules, thresholds and `for`. Two things differ from an installation.
It scrapes each 5 s (the chart: 15 s; the difference is taken off the limit). And the windows of the burn
rates are a twentieth (5 minutes are 15 s): a burn alert resolves no sooner than its short window, and this
Prometheus remembers no better times.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest
from support.alert_faults import FAULTS, calls
from support.alerting import SCRAPE_S, Watched, until_calm, until_fires, until_quiet, watched_fleet

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

LIMIT_S: Final = 90 - (15 - SCRAPE_S)
RESOLVED_S: Final = 180


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    directory: Path = tmp_path_factory.mktemp("alerts")
    with watched_fleet(directory) as running:
        yield running


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_fires_its_critical_alerts_which_then_resolve(watched: Watched, name: str) -> None:
    fault, prom = FAULTS[name], watched.prom
    await until_calm(prom, 120)
    async with AsyncExitStack() as stack:
        listeners = await stack.enter_async_context(calls(watched.cluster)) if fault.calls else []
        assert not await prom.firing() & set(fault.alerts), "nothing is wrong yet"
        began = time.monotonic()
        async with fault.inject(watched, listeners):
            proven = time.monotonic() - began
            fired = await asyncio.gather(*(until_fires(prom, a, began, LIMIT_S) for a in fault.alerts))
        mended = time.monotonic()
        quiet = await asyncio.gather(*(until_quiet(prom, a, mended, RESOLVED_S) for a in fault.alerts))
    for (alert, _), fired_s, quiet_s in zip(fault.alerts, fired, quiet, strict=True):
        print(
            f"{alert}: fault seen after {proven:.0f} s, fired after {fired_s:.0f} s, quiet {quiet_s:.0f} s on"
        )
