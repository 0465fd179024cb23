"""The operator killed after every single write of a scale-up, a drain and an upgrade.

And of two replicas the one that leads paused there until the other leads, `HEADWATER_CHAOS_PAUSES` times.
"""

import os

import pytest
from support.fake_kubelet import FakeKubelet
from support.kube import ApiServer
from support.operator_fixtures import Fleet, client, fleet, kubelet
from support.restarts import SCENARIOS, Scenario, carry_out, restarting, two_replicas

__all__ = ["client", "fleet", "kubelet"]
PAUSES = int(os.environ.get("HEADWATER_CHAOS_PAUSES", "7"))
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
async def test_the_end_state_is_that_of_the_undisturbed_run(
    scenario: Scenario, api_server: ApiServer, namespace: str, kubelet: FakeKubelet, fleet: Fleet
) -> None:
    async with restarting(api_server, namespace) as operator:
        undisturbed = await carry_out(scenario, 0, operator, kubelet, fleet)
        writes, kills = operator.writes, 0
        for kill_at in range(1, writes + 1):
            starts = operator.starts
            end = await carry_out(scenario, kill_at, operator, kubelet, fleet)
            kills += operator.starts > starts
            print(f"{scenario.name}: killed after write {kill_at} of {writes}", flush=True)
            assert end == undisturbed, f"killed after write {kill_at}"
        print(f"{scenario.name}: {kills} kills, end state always {undisturbed}", flush=True)
        assert kills >= writes - 2, "a run may take a status write or two less than another"


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
async def test_two_replicas_do_nothing_twice(
    scenario: Scenario, api_server: ApiServer, namespace: str, kubelet: FakeKubelet, fleet: Fleet
) -> None:
    async with two_replicas(api_server, namespace) as pair:
        undisturbed = await carry_out(scenario, 0, pair, kubelet, fleet)
        writes, taken_over = pair.writes, 0
        for pause in range(PAUSES):
            starts = pair.starts
            end = await carry_out(scenario, 1 + pause % writes, pair, kubelet, fleet)
            taken_over += pair.starts > starts
            print(f"{scenario.name}: paused after write {1 + pause % writes} of {writes}", flush=True)
            assert end == undisturbed, f"paused after write {1 + pause % writes}"
        print(f"{scenario.name}: {taken_over} takeovers, end state always {undisturbed}", flush=True)
        assert taken_over >= PAUSES - 1
