"""The operator killed between two writes: it ends where it would have ended, and nothing is done twice."""

import pytest
from support.fake_kubelet import FakeKubelet
from support.kube import ApiServer
from support.operator_fixtures import Fleet
from support.restarts import DRAIN, carry_out, restarting

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]


async def test_a_kill_in_the_middle_of_a_drain_changes_nothing(
    api_server: ApiServer, namespace: str, kubelet: FakeKubelet, fleet: Fleet
) -> None:
    async with restarting(api_server, namespace) as operator:
        undisturbed = await carry_out(DRAIN, 0, operator, kubelet, fleet)
        assert (undisturbed.created, undisturbed.deleted, operator.starts) == (0, 1, 1)
        killed = await carry_out(DRAIN, 1, operator, kubelet, fleet)
        assert operator.starts == 2, "it was killed"
        assert killed == undisturbed
