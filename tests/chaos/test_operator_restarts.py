"""The operator killed after every single write of a scale-up, a drain and an upgrade."""

import pytest
from support.fake_kubelet import FakeKubelet
from support.kube import ApiServer
from support.operator_fixtures import Fleet, client, fleet, kubelet
from support.restarts import SCENARIOS, Scenario, carry_out, restarting

__all__ = ["client", "fleet", "kubelet"]
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
async def test_the_end_state_is_that_of_the_undisturbed_run(
    scenario: Scenario, api_server: ApiServer, namespace: str, kubelet: FakeKubelet, fleet: Fleet
) -> None:
    async with restarting(api_server, namespace) as operator:
        before = len(operator.proxy.writes)
        undisturbed = await carry_out(scenario, 0, operator, kubelet, fleet)
        writes = len(operator.proxy.writes) - before
        kill_at, kills = 1, 0
        while kill_at <= writes:
            starts = operator.starts
            end = await carry_out(scenario, kill_at, operator, kubelet, fleet)
            assert operator.starts > starts
            assert end == undisturbed, f"killed after write {kill_at}"
            kill_at, kills = kill_at + 1, kills + 1
        print(f"{scenario.name}: {kills} kills, end state always {undisturbed}")
