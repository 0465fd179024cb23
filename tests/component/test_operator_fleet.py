"""The operator against a real API server: SFUClusters become Pods, and their status tells the truth."""

import asyncio
import json
from difflib import unified_diff
from functools import partial
from typing import Any

import aiohttp
import pytest
from headwater_api.wellknown import ENV_NODE_TOKEN
from headwater_operator.kube.client import KubeClient
from headwater_operator.kube.errors import NotFound
from headwater_operator.kube.resources import BUDGETS, EVENTS, PODS, SFUCLUSTERS
from support.deadline import until
from support.fake_kubelet import FakeKubelet
from support.operator_fixtures import Fleet
from support.operator_process import TOKEN, OperatorProcess

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


async def test_a_declared_fleet_comes_up_and_says_so(
    operator: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet
) -> None:
    await fleet.declare({"eu": (2, 4), "us": (1, 4)})
    ready = await fleet.says("Ready", "True")
    assert ready["message"] == "3 of 3 wanted nodes are ready in 2 regions"
    await until(
        lambda: len(kubelet.nodes) == 3 and all(n.watchers for n in kubelet.nodes.values()), 10, "reports"
    )
    await fleet.says("Degraded", "False")
    await fleet.says("Progressing", "False")
    status = await fleet.status()
    assert (status["nodes"], status["regionSummary"], status["replicas"]) == ("3/3", "eu 2/2, us 1/1", 3)
    assert status["observedGeneration"] == 1
    for pod in await fleet.pods():
        owner = pod["metadata"]["ownerReferences"][0]
        assert (owner["kind"], owner["name"], owner["controller"]) == ("SFUCluster", "demo", True)
        env = {entry["name"]: entry for entry in pod["spec"]["containers"][0]["env"]}
        assert "value" not in env[ENV_NODE_TOKEN], "the token is only referred to"
    assert not operator.logged(TOKEN)


async def test_load_is_reported_in_the_status(
    operator: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet
) -> None:
    await fleet.declare({"eu": (1, 4)})
    await fleet.says("Ready", "True")
    node = next(iter(kubelet.nodes.values()))
    node.report.cpu_percent = 31.0
    node.set_rooms({"standup": 3, "retro": 2})

    async def counted() -> bool:
        status = await fleet.status()
        return bool((status["participants"], status["rooms"]) == (5, 2))

    await until(counted, 10, "participants and rooms are in the status")
    assert (await fleet.status())["regions"][0]["cpuPercent"] == 30


async def test_a_killed_node_is_replaced_and_told_about(
    operator: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet, client: KubeClient, namespace: str
) -> None:
    await fleet.declare({"eu": (2, 4)})
    before = await fleet.has(2)
    await fleet.says("Ready", "True")
    victim = min(before)
    await kubelet.kill(victim)

    async def replaced() -> bool:
        names = await fleet.names()
        return len(names) == 2 and victim not in names

    await until(replaced, 15, "the dead Pod is gone and another is there")
    await fleet.says("Ready", "True")

    async def told() -> set[str]:
        reasons = {event["reason"] for event in await client.list(EVENTS, namespace)}
        return reasons if {"NodeFailed", "NodeReplaced"} <= reasons else set()

    await until(told, 10, "events tell of it")
    assert operator.logged(f"replaces {victim}, its process ended with exit code 137 (Error)")


async def test_a_deleted_pod_is_replaced(
    operator: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet
) -> None:
    await fleet.declare({"eu": (2, 4)})
    before = await fleet.has(2)
    victim = next(pod for pod in await fleet.pods() if pod["metadata"]["name"] == min(before))
    await fleet.client.delete(PODS, fleet.namespace, min(before), uid=victim["metadata"]["uid"])

    async def replaced() -> bool:
        names = await fleet.names()
        return len(names) == 2 and min(before) not in names

    await until(replaced, 15, "another Pod is there")


async def test_shrinking_cordons_and_waits_until_the_node_is_empty(
    operator: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet
) -> None:
    await fleet.declare({"eu": (2, 4)})
    await fleet.says("Ready", "True")
    await until(lambda: len(kubelet.nodes) == 2, 10, "two nodes serve")
    for count, node in enumerate(sorted(kubelet.nodes.values(), key=lambda node: node.node_id), start=1):
        node.set_rooms({"standup": count})
    busy, emptier = sorted(kubelet.nodes.values(), key=lambda node: -node.report.participants)
    await until(lambda: busy.watchers and emptier.watchers, 10, "reports flow")
    await fleet.declare({"eu": (1, 4)})
    await until(lambda: True in emptier.drained, 15, "the emptier node is cordoned")
    assert not busy.drained

    async def counted() -> bool:
        return bool((await fleet.status())["regions"][0]["draining"] == 1)

    await until(counted, 10, "the status shows a draining node")
    assert emptier.node_id in await fleet.names(), "it still has a participant"
    emptier.set_rooms({})
    await fleet.has(1)
    assert await fleet.names() == {busy.node_id}


async def test_growing_again_returns_a_cordoned_node_to_service(
    operator: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet
) -> None:
    await fleet.declare({"eu": (1, 4)})
    await fleet.says("Ready", "True")
    node = next(iter(kubelet.nodes.values()))
    node.set_rooms({"standup": 1})
    node.report.draining = True
    await until(lambda: False in node.drained, 15, "the cordon is lifted")


async def test_a_region_without_a_kubernetes_node_says_so(
    operator: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet
) -> None:
    kubelet.hold = True
    await fleet.declare({"eu": (0, 2), "mars": (1, 2)})
    capacity = await fleet.says("CapacityAvailable", "False")
    assert capacity["reason"] == "NoNodeMatchesRegion"
    assert capacity["message"] == (
        "region mars: no Kubernetes node carries the labels topology.kubernetes.io/region=mars"
    )


async def test_pods_that_are_refused_are_told_in_degraded(
    operator: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet
) -> None:
    await fleet.declare({"eu": (1, 2)}, node={"serviceAccountName": "does-not-exist"})
    degraded = await fleet.says("Degraded", "True")
    assert degraded["reason"] == "PodCreateRefused"
    assert "does-not-exist" in degraded["message"]


async def test_a_fleet_that_is_deleted_is_forgotten(
    operator: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet, client: KubeClient, namespace: str
) -> None:
    await fleet.declare({"eu": (1, 2)})
    await fleet.says("Ready", "True")
    node = next(iter(kubelet.nodes.values()))
    await until(lambda: node.watchers, 10, "the operator listens to the node")
    body = await client.get(SFUCLUSTERS, namespace, "demo")
    assert "finalizers" not in body["metadata"], "it can be deleted while no operator runs"
    assert not any("op.headwater.dev" in key for key in body["metadata"].get("annotations", {}))
    await client.delete(SFUCLUSTERS, namespace, "demo", uid=body["metadata"]["uid"])
    await until(lambda: not node.watchers, 10, "the report stream is closed")
    with pytest.raises(NotFound):
        await client.get(SFUCLUSTERS, namespace, "demo")


async def test_a_quiet_fleet_costs_no_writes(
    operator: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet, client: KubeClient, namespace: str
) -> None:
    await fleet.declare({"eu": (1, 2)})
    await fleet.settled()
    await until(partial(_load_is_told, fleet), 20, "the node's first report is in the status")

    async def written() -> dict[str, dict[str, Any]]:
        kinds = (SFUCLUSTERS, PODS, BUDGETS)
        bodies = [body for kind in kinds for body in await client.list(kind, namespace)]
        return {f"{body.get('kind', '')} {body['metadata']['name']}": body for body in bodies}

    before = await written()
    async with aiohttp.ClientSession() as session:
        begun = await _passes(session, operator)

        async def passed() -> bool:
            return await _passes(session, operator) >= begun + 3

        await until(passed, 40, "three more passes")
    changed = "\n".join(
        unified_diff(_lines(before), _lines(await written()), "settled", "later", n=4, lineterm="")
    )
    assert not changed, changed


async def _load_is_told(fleet: Fleet) -> bool:
    status = await fleet.status()
    return all("cpuPercent" in region for region in status["regions"])


async def _passes(session: aiohttp.ClientSession, operator: OperatorProcess) -> float:
    """How many looks at a fleet have ended well."""
    name = 'headwater_operator_reconcile_seconds_count{kind="SFUCluster",outcome="ok"}'
    async with session.get(f"{operator.admin}/metrics") as response:
        text = await response.text()
    return next((float(line.split()[-1]) for line in text.splitlines() if line.startswith(name)), 0.0)


def _lines(bodies: dict[str, Any]) -> list[str]:
    return json.dumps(bodies, indent=1, sort_keys=True).splitlines()


async def test_admin_port_answers(operator: OperatorProcess, fleet: Fleet) -> None:
    async with aiohttp.ClientSession() as session:
        for path, text in (
            ("/healthz", "ok"),
            ("/readyz", "leader"),
            ("/metrics", "headwater_operator_leader 1.0"),
        ):

            async def answers(path: str = path, text: str = text) -> bool:
                async with session.get(f"{operator.admin}{path}") as response:
                    return response.status == 200 and text in await response.text()

            await until(answers, 10, f"{path} says {text}")


async def test_children_of_another_owner_are_not_touched(
    operator: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet, client: KubeClient, namespace: str
) -> None:
    labels = {
        "app.kubernetes.io/component": "sfu-node",
        "headwater.dev/cluster": "demo",
        "headwater.dev/region": "eu",
    }
    stranger = {
        "metadata": {"name": "stranger", "labels": labels},
        "spec": {"serviceAccountName": "headwater-sfu", "containers": [{"name": "c", "image": "i"}]},
    }
    await client.create(PODS, namespace, {"apiVersion": "v1", "kind": "Pod", **stranger})
    await fleet.declare({"eu": (0, 1)})
    await fleet.says("Ready", "True")
    await asyncio.gather(*(fleet.conditions() for _ in range(3)))
    assert await fleet.names() == {"stranger"}
