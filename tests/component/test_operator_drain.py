"""Drains and upgrades against a real API server, asked for and explained as people do it: by kubectl."""

import asyncio
import os
import subprocess
import sys
import time
from typing import Any

import pytest
from headwater_operator.kube.resources import BUDGETS, EVENTS, NODES
from support.deadline import until
from support.fake_kubelet import FakeKubelet
from support.fake_node import FakeNode
from support.kube import KUBECTL, ApiServer
from support.operator_fixtures import Fleet
from support.operator_process import OperatorProcess

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]
AT_ONCE = {"canary": {"nodes": 1, "duration": "0s"}}


class Plugin:
    """`kubectl headwater …` on the test's namespace."""

    def __init__(self, api_server: ApiServer, namespace: str) -> None:
        self._flags = [f"--kubeconfig={api_server.kubeconfig}", f"--namespace={namespace}"]

    async def run(self, *arguments: str, program: str = "headwater_cli.plugin") -> str:
        environment = {**os.environ, "PATH": f"{KUBECTL.parent}:{os.environ['PATH']}"}
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", program, *arguments, *self._flags],
            env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def plugin(api_server: ApiServer, namespace: str) -> Plugin:
    return Plugin(api_server, namespace)


async def pod_of(fleet: Fleet, name: str) -> dict[str, Any] | None:
    return next((pod for pod in await fleet.pods() if pod["metadata"]["name"] == name), None)


async def two_nodes(fleet: Fleet, kubelet: FakeKubelet, **spec: Any) -> tuple[FakeNode, FakeNode]:
    """A fleet of two nodes that both serve: the busier one first."""
    await fleet.declare({"eu": (2, 4)}, **spec)
    await until(lambda: len(kubelet.nodes) == 2, 20, "two nodes are up")
    await fleet.says("Ready", "True")
    first, second = kubelet.nodes.values()
    first.set_rooms({"standup": 3})
    second.set_rooms({"retro": 1})
    return first, second


async def test_a_node_is_drained_as_asked_and_can_be_called_back(
    operator: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet, plugin: Plugin
) -> None:
    node, _ = await two_nodes(fleet, kubelet, drain={"deadline": "5m", "movesPerSecond": 7})
    name = node.node_id
    pod = await pod_of(fleet, name)
    assert pod is not None
    budget = await fleet.client.get(BUDGETS, fleet.namespace, "demo-sfu")
    selector = budget["spec"]["selector"]["matchLabels"]
    assert selector.items() <= pod["metadata"]["labels"].items(), "nobody may evict it"
    assert pod["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    planned = await plugin.run("plan", "--dry-run", program="headwater_cli")
    assert "Nothing to do" in planned
    await plugin.run("drain", name)
    await until(lambda: node.report.draining, 20, "it is told to drain")
    assert len(kubelet.nodes) == 3, "its substitute was up first"
    assert (node.report.drain.reason, node.report.drain.move_rate) == ("its annotation asks for it", 7.0)
    seconds = node.report.drain.deadline_ms / 1000 - time.time()
    assert 240 < seconds <= 301, "five minutes from then"

    async def told() -> bool:
        text = await plugin.run("why", name)
        return "Draining: its annotation asks for it" in text and f"Drain SFU node {name}" in text

    await until(told, 15, "`kubectl headwater why` tells what the log and the event tell", every_s=0.5)
    sentence = next(e["event"] for e in operator.events() if e["event"].startswith(f"Drain SFU node {name}"))
    events = await fleet.client.list(EVENTS, fleet.namespace)
    assert sentence in {event.get("note") for event in events}

    await plugin.run("uncordon", name)
    await until(lambda: not node.report.draining, 20, "it is called back")
    await plugin.run("drain", name)
    await until(lambda: node.report.draining, 20, "and is drained after all")
    assert await pod_of(fleet, name) is not None, "it serves"
    node.set_rooms({})

    async def gone() -> bool:
        return await pod_of(fleet, name) is None

    await until(gone, 20, "emptied, it goes")
    assert name not in await plugin.run("top")
    assert "demo" in await plugin.run("status")


async def test_a_cordoned_kubernetes_node_is_emptied(
    operator: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet, namespace: str
) -> None:
    machine = f"m-{namespace}"
    labels = {"topology.kubernetes.io/region": "eu"}
    await fleet.client.apply(NODES, "", machine, {"metadata": {"name": machine, "labels": labels}})
    kubelet.machine = machine
    node, other = await two_nodes(fleet, kubelet)
    kubelet.machine = ""
    cordon = {"metadata": {"name": machine, "labels": labels}, "spec": {"unschedulable": True}}
    await fleet.client.apply(NODES, "", machine, cordon)
    await until(lambda: other.report.draining, 30, "the emptier one drains first")
    assert other.report.drain.reason == f"the Kubernetes node {machine} is cordoned"
    assert not node.report.draining, "one at a time"
    other.set_rooms({})
    await until(lambda: node.report.draining, 30, "then the other one")
    assert other.node_id not in kubelet.nodes, "the first is gone"
    node.set_rooms({})
    await until(lambda: node.node_id not in kubelet.nodes, 30, "it goes too")


async def test_an_upgrade_replaces_all_and_a_bad_one_halts_after_one_node(
    operator: OperatorProcess, kubelet: FakeKubelet, fleet: Fleet
) -> None:
    await fleet.declare({"eu": (2, 4)}, upgrade=AT_ONCE)
    before = await fleet.has(2)
    await fleet.says("Ready", "True")
    await fleet.declare({"eu": (2, 4)}, upgrade=AT_ONCE, node={"image": "headwater-sfu:2"})

    async def replaced() -> set[str] | None:
        names = await fleet.names()
        return names if len(names) == 2 and not names & before else None

    good = await until(replaced, 60, "both nodes are replaced")
    await fleet.says("Progressing", "False")
    assert "upgrade" not in await fleet.status()

    kubelet.ends_at_start = True
    await fleet.declare({"eu": (2, 4)}, upgrade=AT_ONCE, node={"image": "headwater-sfu:bad"})
    halted = await fleet.says("Degraded", "True", 60)
    assert halted["reason"] == "UpgradeHalted", halted
    assert "ended early: its process ended with exit code 1" in halted["message"]
    assert (await fleet.status())["upgrade"]["phase"] == "Halted"
    assert len(kubelet.ended) == 1, "one node was tried"
    assert good <= await fleet.names(), "the good ones serve on"

    kubelet.ends_at_start = False
    await fleet.declare({"eu": (2, 4)}, upgrade=AT_ONCE, node={"image": "headwater-sfu:2"})
    await fleet.says("Degraded", "False", 30)
    assert await fleet.names() == good, "rolled back without replacing anything"
