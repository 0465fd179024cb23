"""The operator against a real API server: each way out of the cluster gets its Service and its address."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from headwater_api import wellknown as wk
from headwater_operator.kube.client import KubeClient
from headwater_operator.kube.resources import EVENTS, NODES, SERVICES
from support.deadline import until
from support.fake_kubelet import FakeKubelet
from support.operator_fixtures import Fleet
from support.operator_process import OperatorProcess

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(90)]
OUTSIDE = "203.0.113.7"


@pytest.fixture
async def machine(client: KubeClient, kubelet: FakeKubelet) -> AsyncIterator[None]:
    """Pods are bound to a machine with a private and, by one-to-one NAT, a public address."""
    addresses = [{"type": "InternalIP", "address": "10.0.0.7"}, {"type": "ExternalIP", "address": OUTSIDE}]
    await client.apply(NODES, "", "k-eu", {"status": {"addresses": addresses}}, subresource="status")
    kubelet.machine = "k-eu"
    yield
    await client.apply(NODES, "", "k-eu", {"status": {}}, subresource="status")


async def told(fleet: Fleet, wanted: str = "") -> str:
    """What the only Pod says of its external addresses, as soon as it says anything, or what is wanted."""

    async def probe() -> str:
        pods = await fleet.pods()
        annotations = pods[0]["metadata"].get("annotations") or {} if pods else {}
        said: str = annotations.get(wk.ANNOTATION_EXTERNAL, "")
        return said if not wanted or said == wanted else ""

    found: str = await until(probe, 15, f"the Pod says where clients reach it: {wanted}")
    return found


async def the_service(client: KubeClient, namespace: str) -> dict[str, Any]:
    async def probe() -> dict[str, Any] | None:
        services = await client.list(SERVICES, namespace)
        return services[0] if services else None

    found: dict[str, Any] = await until(probe, 15, "the Pod has a Service")
    return found


@pytest.mark.parametrize("mode", ["HostNetwork", "HostPort"])
async def test_behind_one_to_one_nat_clients_are_told_the_public_address(
    mode: str, operator: OperatorProcess, machine: None, fleet: Fleet
) -> None:
    await fleet.declare({"eu": (1, 1)}, node={"exposure": {"mode": mode}})
    assert await told(fleet) == f"{OUTSIDE}:7882"
    await fleet.says("Ready", "True")


async def test_turn_nodes_behind_one_to_one_nat_say_their_public_address(
    operator: OperatorProcess, machine: None, fleet: Fleet
) -> None:
    turn = {"minPerRegion": 1, "maxPerRegion": 1, "packetFilter": "Enabled"}
    turn["sharedSecretRefs"] = [{"name": "turn", "key": "current"}]
    await fleet.declare({"eu": (0, 1)}, node={"exposure": {"mode": "HostNetwork"}}, turn=turn)
    assert await told(fleet) == OUTSIDE
    (pod,) = await fleet.pods()
    assert pod["metadata"]["labels"][wk.LABEL_COMPONENT] == wk.COMPONENT_TURN


async def test_each_pod_gets_a_node_port_of_its_own(
    operator: OperatorProcess, machine: None, fleet: Fleet, client: KubeClient, namespace: str
) -> None:
    await fleet.declare({"eu": (1, 1)}, node={"exposure": {"mode": "NodePort"}})
    service = await the_service(client, namespace)
    (pod,) = await fleet.pods()
    assert service["spec"]["type"] == "NodePort"
    assert service["metadata"]["ownerReferences"][0]["uid"] == pod["metadata"]["uid"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert await told(fleet) == f"{OUTSIDE}:{service['spec']['ports'][0]['nodePort']}"
    await fleet.says("Ready", "True")

    async def posted() -> bool:
        return "NodeExposed" in {event["reason"] for event in await client.list(EVENTS, namespace)}

    await until(posted, 10, "an Event tells of it")
    # Somebody removes it: the next one has another port, and the Pod says so.
    await client.delete(SERVICES, namespace, service["metadata"]["name"], uid=service["metadata"]["uid"])

    async def another() -> dict[str, Any] | None:
        services = await client.list(SERVICES, namespace)
        return (
            services[0] if services and services[0]["metadata"]["uid"] != service["metadata"]["uid"] else None
        )

    fresh = await until(another, 15, "the Service is there again")
    await told(fleet, f"{OUTSIDE}:{fresh['spec']['ports'][0]['nodePort']}")


async def test_a_load_balancer_is_used_once_it_has_an_address(
    operator: OperatorProcess, machine: None, fleet: Fleet, client: KubeClient, namespace: str
) -> None:
    exposure = {"mode": "LoadBalancer", "serviceAnnotations": {"example.com/kind": "nlb"}}
    await fleet.declare({"eu": (1, 1)}, node={"exposure": exposure})
    service = await the_service(client, namespace)
    name = service["metadata"]["name"]
    assert service["metadata"]["annotations"] == {"example.com/kind": "nlb"}

    async def give(entry: dict[str, str]) -> None:
        status = {"status": {"loadBalancer": {"ingress": [entry]}}}
        await client.apply(SERVICES, namespace, name, status, subresource="status")

    await give({"hostname": "lb.example.com"})
    assert (await fleet.status())["nodes"] == "0/1"
    await give({"ip": "198.51.100.9"})
    assert await told(fleet) == "198.51.100.9:7882"
    await fleet.says("Ready", "True")
