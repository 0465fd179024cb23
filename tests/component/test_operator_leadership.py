"""Two replicas against a real API server: one acts, and the other takes over when it stops."""

import signal
from typing import Any

import aiohttp
import pytest
from headwater_operator.kube.resources import LEASES
from support.deadline import until
from support.fake_kubelet import FakeKubelet
from support.operator_fixtures import Fleet
from support.operator_process import OperatorProcess

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


async def lease_of(fleet: Fleet) -> dict[str, Any]:
    spec: dict[str, Any] = (await fleet.client.get(LEASES, fleet.namespace, "headwater-operator"))["spec"]
    return spec


def acted(operator: OperatorProcess) -> bool:
    return operator.logged("Create SFU node")


async def test_only_the_holder_acts_and_the_standby_is_ready(
    leader: OperatorProcess, standby: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet
) -> None:
    await fleet.declare({"eu": (2, 4)})
    await fleet.says("Ready", "True")
    assert len(await fleet.names()) == 2, "two replicas do not make twice the Pods"
    assert acted(leader) and not acted(standby)
    async with aiohttp.ClientSession() as session, session.get(f"{standby.admin}/readyz") as response:
        assert (response.status, (await response.text()).strip()) == (200, "standby")


async def test_a_stopped_holder_gives_the_lease_up_at_once(
    leader: OperatorProcess, standby: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet
) -> None:
    leader.signal(signal.SIGTERM)
    assert await leader.ended() == 0
    await until(lambda: standby.logged("lease acquired"), 5, "the standby leads")
    assert (await lease_of(fleet))["leaseTransitions"] == 1
    await fleet.declare({"eu": (1, 4)})
    await fleet.says("Ready", "True")
    assert acted(standby)


async def test_a_killed_holder_is_succeeded(
    leader: OperatorProcess, standby: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet
) -> None:
    leader.signal(signal.SIGKILL)
    await leader.ended()
    await until(lambda: standby.logged("lease acquired"), 15, "the standby leads")
    await fleet.declare({"eu": (1, 4)})
    await fleet.says("Ready", "True")


async def test_a_holder_that_was_paused_does_not_act_again(
    leader: OperatorProcess, standby: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet
) -> None:
    await fleet.declare({"eu": (1, 4)})
    await fleet.says("Ready", "True")
    before = len(leader.events())
    leader.signal(signal.SIGSTOP)
    await until(lambda: standby.logged("lease acquired"), 15, "the standby leads")
    await fleet.declare({"eu": (3, 4)})
    await fleet.has(3)
    leader.signal(signal.SIGCONT)
    assert await leader.ended() == 3, "it ends when it sees that the Lease is lost"
    later = leader.events()[before:]
    assert not [event for event in later if event["event"].startswith("Create SFU node")]
    assert len(await fleet.names()) == 3
    assert (await lease_of(fleet))["holderIdentity"] == "op-2"
