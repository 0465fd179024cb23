"""Load makes nodes, and takes them away again through a drain: told in one sentence everywhere."""

import pytest
from headwater_operator.kube.resources import EVENTS
from support.deadline import until
from support.fake_kubelet import FakeKubelet
from support.operator_fixtures import Fleet
from support.operator_process import OperatorProcess

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
AT_ONCE = {"stabilizationWindow": "0s"}
AUTOMATIC = {
    "autoscaling": {
        "mode": "Automatic",
        "targets": {"connectionsPerNode": 100, "bufferPercent": 0},
        "behavior": {"scaleUp": AT_ONCE, "scaleDown": AT_ONCE},
    }
}


async def test_connections_raise_and_lower_the_number_of_nodes(
    operator: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet
) -> None:
    await fleet.declare({"eu": (1, 4), "us": (1, 4)}, **AUTOMATIC)
    await fleet.says("Ready", "True")
    await fleet.says("ScalingActive", "True")
    busy = next(node for node in kubelet.nodes.values() if node.region == "eu")
    busy.set_rooms({"all-hands": 110})  # 220 connections of 100 that a node is meant for

    async def grown() -> bool:
        regions = {region["name"]: region for region in (await fleet.status())["regions"]}
        return bool(regions["eu"]["ready"] == 3 and regions["us"]["desired"] == 1)

    await until(grown, 25, "three nodes in eu, where the load is, and one in us")
    last = (await fleet.status())["lastScale"]
    assert (last["region"], last["fromNodes"], last["toNodes"]) == ("eu", 1, 3)
    assert operator.logged(last["message"]), "the log has the same sentence"

    async def told() -> bool:
        events = await fleet.client.list(EVENTS, fleet.namespace)
        return last["message"] in {event.get("note") for event in events}

    await until(told, 10, "and so has an Event")

    busy.set_rooms({"all-hands": 10})
    idle = {node.node_id for node in kubelet.nodes.values() if node.region == "eu"} - {busy.node_id}

    async def shrunk() -> bool:
        names = await fleet.names()
        return busy.node_id in names and not idle & names

    await until(shrunk, 40, "the idle ones are drained and gone, one after the other")
    assert not busy.drained, "the one that serves was never touched"
