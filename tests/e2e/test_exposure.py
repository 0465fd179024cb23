"""A node behind a load balancer, in a whole cluster; the test plays the cloud, which has the balancer."""

import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from headwater_api import wellknown as wk
from headwater_sandbox.config import NAMESPACE
from support.cluster import Cluster
from support.deadline import until
from support.protocol_client import ProtocolClient
from support.udp_forwarder import forwarding

pytestmark = pytest.mark.timeout(90)
FLEET, ROOM = "balanced", "behind-a-balancer"
BALANCER = "127.88.7.9"
SFU_PODS = f"{wk.LABEL_COMPONENT}={wk.COMPONENT_SFU},{wk.LABEL_CLUSTER}={FLEET}"


def resource(kind: str, name: str, spec: dict[str, Any]) -> str:
    metadata = {"name": name, "namespace": NAMESPACE}
    return json.dumps(
        {"apiVersion": f"{wk.GROUP}/{wk.VERSION}", "kind": kind, "metadata": metadata, "spec": spec}
    )


@pytest.fixture
def fleet(cluster: Cluster) -> Iterator[None]:
    """One node in eu that clients reach by its load balancer only, and a Meeting that is held there."""
    place = {"latitude": 50.1, "longitude": 8.7}
    spec = {
        "regions": [{"name": "eu", "coordinates": place, "minNodes": 1, "maxNodes": 1}],
        # A short grace: its Pod is told to end while it still has the room.
        "node": {"exposure": {"mode": "LoadBalancer"}, "podTemplate": {"terminationGracePeriod": "4s"}},
    }
    cluster.kubectl("apply", "-f", "-", stdin=resource("SFUCluster", FLEET, spec))
    meeting = {"clusterRef": {"name": FLEET}, "title": "Behind a balancer"}
    cluster.kubectl("apply", "-f", "-", stdin=resource("Meeting", ROOM, meeting))
    yield
    cluster.kubectl("delete", "meeting", ROOM, "-n", NAMESPACE)
    cluster.kubectl("delete", "sfucluster", FLEET, "-n", NAMESPACE)


def the_pod(cluster: Cluster) -> dict[str, Any] | None:
    """The fleet's Pod, once it has an address."""
    listed = cluster.kubectl("get", "pods", "-n", NAMESPACE, "-l", SFU_PODS, "-o", "json")
    found: list[dict[str, Any]] = json.loads(listed)["items"]
    return next((pod for pod in found if pod["status"].get("podIP")), None)


def client(cluster: Cluster, identity: str) -> ProtocolClient:
    """One who has no way to the Pod's own address."""
    return ProtocolClient(cluster.gateway, cluster.token(ROOM, identity), reaches=BALANCER, region="eu")


async def test_clients_reach_a_node_through_its_load_balancer_and_none_before_it_has_one(
    cluster: Cluster, fleet: None
) -> None:
    pod = await until(lambda: the_pod(cluster), 30, "the fleet has a Pod with an address", every_s=0.3)
    name, ip = pod["metadata"]["name"], pod["status"]["podIP"]

    def has_service() -> bool:
        return cluster.try_kubectl("get", "service", name, "-n", NAMESPACE).returncode == 0

    await until(has_service, 15, "the Pod has a Service", every_s=0.3)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with client(cluster, "early"):
            pass
    assert refused.value.status == 503, "nobody is placed where clients cannot get"
    given = json.dumps({"status": {"loadBalancer": {"ingress": [{"ip": BALANCER}]}}})
    cluster.kubectl(
        "patch", "service", name, "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", given
    )
    told = ("get", "sfucluster", FLEET, "-n", NAMESPACE, "-o", "jsonpath={.status.nodes}")
    await until(lambda: cluster.kubectl(*told) == "1/1", 20, "the node is ready", every_s=0.3)
    async with forwarding((BALANCER, wk.PORT_MEDIA), (ip, wk.PORT_MEDIA)) as balancer:
        async with client(cluster, "ann") as ann, client(cluster, "bob") as bob:
            await ann.publish(7)

            def decodes() -> bool:
                return any(len(seen.marks) >= 10 for seen in bob.seen.values())

            await until(decodes, 30, "bob sees ann", every_s=0.1)
        assert {mark.source for seen in bob.seen.values() for mark in seen.marks} == {7}
        assert balancer.sent > 10 and balancer.returned > 10
