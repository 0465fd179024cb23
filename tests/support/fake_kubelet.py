"""Plays scheduler and kubelet for one namespace of a bare API server: Pending SFU Pods get an address and a
FakeNode that answers there, and their status says Running and Ready. Tests kill, cordon and fill the nodes.
"""

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from headwater_api.units import format_time
from headwater_api.wellknown import LABEL_REGION, PORT_NODE_GRPC
from headwater_operator.kube.client import KubeClient
from headwater_operator.kube.errors import KubeError
from headwater_operator.kube.resources import PODS, Resource
from support.fake_node import FakeNode, serving

BINDINGS = Resource("", "v1", "bindings", "Binding")
_addresses = itertools.count()


def next_ip() -> str:
    """A loopback address that no other test process uses at the same time."""
    number = next(_addresses)
    return f"127.{200 + os.getpid() % 50}.{(os.getpid() // 50) % 250}.{number % 250 + 1}"


@dataclass
class FakeKubelet:
    """`nodes` by Pod name. `hold`: Pods stay Pending while it is set."""

    client: KubeClient
    namespace: str
    token: str = ""
    hold: bool = False
    interval_s: float = 0.2  # between a node's reports
    pause_s: float = 0.05  # between two looks at the Pods
    machine: str = ""  # the Kubernetes node that Pods are bound to from now on; empty: to none
    ends_at_start: bool = False  # processes end with exit code 1 as soon as they are started
    ended: list[str] = field(default_factory=list)
    nodes: dict[str, FakeNode] = field(default_factory=dict)
    _stacks: dict[str, AsyncExitStack] = field(default_factory=dict)
    _done: set[str] = field(default_factory=set)
    _bound: set[str] = field(default_factory=set)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with contextlib.suppress(KubeError):
                await self._round()
            await asyncio.sleep(self.pause_s)

    async def pods(self) -> list[dict[str, Any]]:
        """The namespace's Pods."""
        return await self.client.list(PODS, self.namespace)

    async def kill(self, name: str, exit_code: int = 137) -> None:
        """The Pod's process is gone: its server stops, its status says Failed."""
        await self._stop(name)
        end = {"exitCode": exit_code, "reason": "Error", "finishedAt": _now(), "startedAt": _now()}
        status = {
            "phase": "Failed",
            "conditions": [_condition("Ready", "False")],
            "containerStatuses": [_container({"terminated": end}, ready=False)],
        }
        await self._write(name, status)

    async def close(self) -> None:
        """Stops every node."""
        await asyncio.gather(*(self._stop(name) for name in list(self._stacks)))

    async def _round(self) -> None:
        pods = await self.pods()
        for gone in set(self._stacks) - {pod["metadata"]["name"] for pod in pods}:
            await self._stop(gone)
        for pod in pods:
            name = pod["metadata"]["name"]
            if pod["metadata"].get("deletionTimestamp") and name in self._bound:
                await self._stop(name)
                await self.client.delete(PODS, self.namespace, name, uid=pod["metadata"]["uid"], grace_s=0)
            elif not self.hold and name not in self._done:
                self._done.add(name)
                if self.machine:
                    await self._bind(name)
                if self.ends_at_start:
                    self.ended.append(name)
                    await self.kill(name, exit_code=1)
                    continue
                await self._start(name, pod["metadata"]["labels"].get(LABEL_REGION, ""))

    async def _start(self, name: str, region: str) -> None:
        node = FakeNode(name, region, with_token=self.token, interval_s=self.interval_s)
        stack = AsyncExitStack()
        ip = next_ip()
        await stack.enter_async_context(serving(node, ip, PORT_NODE_GRPC))
        self._stacks[name], self.nodes[name] = stack, node
        status = {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "conditions": [_condition("Ready", "True"), _condition("PodScheduled", "True")],
            "containerStatuses": [_container({"running": {"startedAt": _now()}}, ready=True)],
        }
        await self._write(name, status)

    async def _bind(self, name: str) -> None:
        """What the scheduler does. A bound Pod goes when its kubelet says that it is gone."""
        target = {"apiVersion": "v1", "kind": "Node", "name": self.machine}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        await self.client.create(BINDINGS, self.namespace, body)
        self._bound.add(name)

    async def _stop(self, name: str) -> None:
        self.nodes.pop(name, None)
        stack = self._stacks.pop(name, None)
        if stack is not None:
            await stack.aclose()

    async def _write(self, name: str, status: dict[str, Any]) -> None:
        body = {"metadata": {"name": name}, "status": status}
        await self.client.apply(PODS, self.namespace, name, body, subresource="status")


def _now() -> str:
    return format_time(datetime.now(UTC))


def _condition(type_: str, status: str) -> dict[str, Any]:
    return {"type": type_, "status": status, "lastTransitionTime": _now()}


def _container(state: dict[str, Any], *, ready: bool) -> dict[str, Any]:
    common = {"name": "sfu", "image": "i", "imageID": "i", "restartCount": 0, "containerID": "process://1"}
    return {**common, "ready": ready, "started": ready, "state": state}


@asynccontextmanager
async def fake_kubelet(client: KubeClient, namespace: str, *, token: str = "") -> AsyncIterator[FakeKubelet]:
    """Runs one within the block."""
    kubelet = FakeKubelet(client, namespace, token)
    task = asyncio.create_task(kubelet.run())
    try:
        yield kubelet
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await kubelet.close()
