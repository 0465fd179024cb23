"""TURN nodes as the operator keeps them: who may be reached, more under load, fewer by way of a drain."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from headwater_api import wellknown as wk
from headwater_api.reasons import Reason
from headwater_operator.kube.client import KubeClient
from headwater_operator.kube.resources import EVENTS
from support.deadline import until
from support.fake_kubelet import FakeKubelet
from support.fake_turn import FakeTurn, fake_turns
from support.operator_fixtures import Fleet
from support.operator_process import TOKEN

TURN = {
    "minPerRegion": 1,
    "maxPerRegion": 3,
    "sharedSecretRefs": [{"name": "turn", "key": "new"}, {"name": "turn", "key": "old"}],
    "targets": {"allocationsPerNode": 100},
}

pytestmark = pytest.mark.usefixtures("operator")


@pytest.fixture
async def turns(kubelet: FakeKubelet) -> AsyncIterator[dict[str, FakeTurn]]:
    async with fake_turns(kubelet, TOKEN) as made:
        yield made


async def pods_of(kubelet: FakeKubelet, component: str) -> dict[str, dict[str, Any]]:
    found = await kubelet.pods()
    return {
        p["metadata"]["name"]: p for p in found if p["metadata"]["labels"][wk.LABEL_COMPONENT] == component
    }


async def addresses(kubelet: FakeKubelet) -> set[str]:
    """Where SFU nodes of the namespace can be reached."""
    pods = (await pods_of(kubelet, wk.COMPONENT_SFU)).values()
    return {p["status"]["podIP"] for p in pods if p["status"].get("phase") == "Running"}


async def test_turn_nodes_follow_the_fleet_and_their_load(
    fleet: Fleet,
    kubelet: FakeKubelet,
    turns: dict[str, FakeTurn],
    client: KubeClient,
    namespace: str,
) -> None:
    await fleet.declare({"eu": (2, 4)}, turn=TURN)

    async def told_all() -> bool:
        known = await addresses(kubelet)
        wishes = [{str(peer) for peer in turn.wish.peers} for turn in turns.values()]
        return len(known) == 2 and wishes == [known]

    await until(told_all, 30, "the TURN node is told of both SFU nodes")
    (first,) = turns.values()
    assert first.wish.secrets == ("turn/new", "turn/old")

    victim = next(iter(await pods_of(kubelet, wk.COMPONENT_SFU)))
    before = {str(peer) for peer in first.wish.peers}
    await kubelet.kill(victim)

    async def told_anew() -> bool:
        known = await addresses(kubelet)
        return len(known) == 2 and known != before and {str(p) for p in first.wish.peers} == known

    await until(told_anew, 30, "the dead SFU node's address is taken away, its successor's is allowed")

    first.allocations = 150
    await until(lambda: len(turns) == 2, 30, "load asks for a second TURN node")
    first.allocations = 10
    second = next(turn for turn in turns.values() if turn is not first)
    await until(lambda: second.wish.draining, 30, "the emptiest is drained")
    assert not first.wish.draining

    async def gone() -> bool:
        return set(await pods_of(kubelet, wk.COMPONENT_TURN)) == {first.name}

    await until(gone, 30, "the drained one is deleted")

    async def told() -> bool:
        events = await client.list(EVENTS, namespace)
        found = {(event["reason"], event["note"].partition(" ")[0]) for event in events}
        return {(Reason.ABOVE_DESIRED_NODES.value, "Drain"), (Reason.DRAIN_FINISHED.value, "Delete")} <= found

    await until(told, 10, "Events tell of the drain and of its end")


async def test_a_turn_node_that_dies_is_replaced(
    fleet: Fleet, kubelet: FakeKubelet, turns: dict[str, FakeTurn]
) -> None:
    await fleet.declare({"eu": (1, 2)}, turn=TURN)
    await until(lambda: len(turns) == 1, 30, "a TURN node")
    (name,) = turns
    await until(lambda: turns[name].wish.peers, 30, "it is told")
    await kubelet.kill(name)

    async def replaced() -> bool:
        alive = await pods_of(kubelet, wk.COMPONENT_TURN)
        return len(alive) == 1 and name not in alive

    await until(replaced, 45, "another one takes its place")
