"""The API server away for minutes (half-open: every connection stands, no byte passes)."""

import os

import pytest
from support.bad_api import survive_absence
from support.fake_kubelet import FakeKubelet
from support.kube import ApiServer
from support.operator_fixtures import Fleet, client, fleet, kubelet
from support.restarts import restarting

__all__ = ["client", "fleet", "kubelet"]
AWAY_S = float(os.environ.get("HEADWATER_CHAOS_AWAY", "300"))
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(AWAY_S + 300)]


async def test_five_minutes_without_the_api_server(
    api_server: ApiServer, namespace: str, kubelet: FakeKubelet, fleet: Fleet
) -> None:
    async with restarting(api_server, namespace) as operator:
        back = await survive_absence(AWAY_S, operator, kubelet, fleet)
        print(f"away {AWAY_S:.0f} s: converged {back.converged_s:.1f} s after its return, {back.lists} lists")
