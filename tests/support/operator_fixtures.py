"""Fixtures for the operator's component tests: a client, a kubelet's stand-in, an operator, a fleet."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from headwater_operator.kube.client import KubeClient, open_client
from headwater_operator.kube.errors import Conflict, NotFound
from headwater_operator.kube.resources import MEETINGS, NODES, PODS, SFUCLUSTERS, Resource
from support.deadline import until
from support.fake_kubelet import FakeKubelet, fake_kubelet
from support.kube import ApiServer
from support.operator_process import TOKEN, OperatorProcess, operator_process

SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")


@pytest.fixture
async def client(api_server: ApiServer, namespace: str) -> AsyncIterator[KubeClient]:
    """A client of the test's own; the namespace gets the nodes' ServiceAccount, the cluster its nodes."""
    async with open_client({"KUBECONFIG": str(api_server.kubeconfig)}) as opened:
        account = {"metadata": {"name": "headwater-sfu"}}
        await opened.apply(SERVICE_ACCOUNTS, namespace, "headwater-sfu", account)
        for region in ("eu", "us", "ap"):
            labels = {"topology.kubernetes.io/region": region}
            await opened.apply(
                NODES, "", f"k-{region}", {"metadata": {"name": f"k-{region}", "labels": labels}}
            )
        yield opened


@pytest.fixture
async def kubelet(client: KubeClient, namespace: str) -> AsyncIterator[FakeKubelet]:
    async with fake_kubelet(client, namespace, token=TOKEN) as started:
        yield started


@pytest.fixture(scope="module")
def operator(api_server: ApiServer, request: pytest.FixtureRequest) -> Iterator[OperatorProcess]:
    """The module's operator, which serves every namespace. Tests of its life take `leader` instead."""
    namespace = f"{request.module.__name__.rpartition('.')[2].replace('_', '-')}-{secrets.token_hex(3)}"
    api_server.kubectl("create", "namespace", namespace)
    with operator_process(api_server.kubeconfig, namespace, HEADWATER_LEASE_DURATION="15") as started:
        yield started


@pytest.fixture
def leader(api_server: ApiServer, namespace: str) -> Iterator[OperatorProcess]:
    """An operator of the test's own, for its namespace only."""
    with operator_process(api_server.kubeconfig, namespace, HEADWATER_NAMESPACES=namespace) as started:
        yield started


class Fleet:
    """The SFUCluster `demo` of the test's namespace."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self.client, self.namespace = client, namespace

    async def declare(self, regions: dict[str, tuple[int, int]], **spec: Any) -> None:
        place = {"coordinates": {"latitude": 50, "longitude": 8}}
        listed = [
            {"name": name, "minNodes": low, "maxNodes": high, **place}
            for name, (low, high) in regions.items()
        ]
        body = {"metadata": {"name": "demo"}, "spec": {"regions": listed, **spec}}
        await self.client.apply(SFUCLUSTERS, self.namespace, "demo", body)

    async def status(self) -> dict[str, Any]:
        status: dict[str, Any] = (await self.client.get(SFUCLUSTERS, self.namespace, "demo")).get(
            "status"
        ) or {}
        return status

    async def conditions(self) -> dict[str, dict[str, Any]]:
        return {condition["type"]: condition for condition in (await self.status()).get("conditions", [])}

    async def says(self, type_: str, status: str, within_s: float = 20) -> dict[str, Any]:
        async def probe() -> dict[str, Any] | None:
            found = (await self.conditions()).get(type_)
            return found if found and found["status"] == status else None

        found: dict[str, Any] = await until(probe, within_s, f"{type_} is {status}")
        return found

    async def settled(self, within_s: float = 60) -> None:
        """Waits until the operator has seen what was declared and has nothing left to do."""

        async def probe() -> bool:
            body = await self.client.get(SFUCLUSTERS, self.namespace, "demo")
            status = body.get("status") or {}
            told = {c["type"]: c["status"] for c in status.get("conditions", [])}
            seen = status.get("observedGeneration") == body["metadata"]["generation"]
            return seen and told.get("Progressing") == "False" and told.get("Ready") == "True"

        await until(probe, within_s, "the fleet is as declared")

    async def pods(self) -> list[dict[str, Any]]:
        return await self.client.list(PODS, self.namespace)

    async def names(self) -> set[str]:
        return {pod["metadata"]["name"] for pod in await self.pods()}

    async def has(self, count: int, within_s: float = 20) -> set[str]:
        async def probe() -> set[str] | None:
            names = await self.names()
            return names if len(names) == count else None

        return await until(probe, within_s, f"the fleet has {count} Pods") if count else set()


@pytest.fixture
def standby(api_server: ApiServer, namespace: str, leader: OperatorProcess) -> Iterator[OperatorProcess]:
    """A second replica beside `leader`."""
    wait = "standing by"
    with operator_process(
        api_server.kubeconfig, namespace, "op-2", wait=wait, HEADWATER_NAMESPACES=namespace
    ) as started:
        yield started


@pytest.fixture
async def fleet(client: KubeClient, namespace: str) -> AsyncIterator[Fleet]:
    """No fleet and no Meeting is left afterwards: a session's operator would go on with them."""
    yield Fleet(client, namespace)
    # A connection for each that is deleted at the same time: only for thousands, since the client's
    # connections outlive its end by a moment, and a test's loop does not.
    side_by_side = 64

    async def delete(resource: Resource, metadata: dict[str, Any], limit: asyncio.Semaphore) -> None:
        async with limit:
            with contextlib.suppress(NotFound, Conflict):
                await client.delete(resource, namespace, metadata["name"], uid=metadata["uid"])

    for resource in (MEETINGS, SFUCLUSTERS, PODS):
        found = [body["metadata"] for body in await client.list(resource, namespace)]
        limit = asyncio.Semaphore(side_by_side if len(found) > side_by_side else 1)
        await asyncio.gather(*(delete(resource, metadata, limit) for metadata in found))
