"""TLS to nodes, switched on in a cluster that runs without it: nobody is lost, and the next nodes have it."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from headwater_api import wellknown as wk
from headwater_api.nodev1 import node_pb2, node_pb2_grpc
from headwater_sandbox.config import NAMESPACE
from support.authority import Authority
from support.clients import bot_spec, bots, until_seen
from support.cluster import Cluster, running_cluster
from support.deadline import until
from support.kube import poll

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
DIRECTORY = "/etc/headwater/node-tls"
BOTH = [("ann", "bob"), ("bob", "ann")]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with running_cluster(("--regions", "eu", "--nodes-per-region", "1")) as running:
        yield running


def switch_on(cluster: Cluster, component: str) -> None:
    """What the chart's nodeTls.existingSecret adds to a Deployment."""
    env = {wk.ENV_NODE_TLS_DIR: DIRECTORY}
    if component == wk.COMPONENT_OPERATOR:
        env[wk.ENV_NODE_TLS_SECRET] = "node-tls"
    container = {
        "name": component,
        "env": [{"name": name, "value": value} for name, value in env.items()],
        "volumeMounts": [{"name": "node-tls", "mountPath": DIRECTORY, "readOnly": True}],
    }
    secret = {"secretName": "node-tls", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    spec = {"containers": [container], "volumes": [{"name": "node-tls", "secret": secret}]}
    patch = json.dumps({"spec": {"template": {"spec": spec}}})
    name = f"headwater-{component}"
    cluster.kubectl("patch", "deployment", name, "-n", NAMESPACE, "--type=strategic", "-p", patch)
    told = ("rollout", "status", f"deployment/{name}", "-n", NAMESPACE, "--watch=false")
    poll(f"{name} is rolled out", 60, lambda: "successfully rolled out" in cluster.kubectl(*told))


def sfu_pods(cluster: Cluster) -> list[dict[str, Any]]:
    labels = f"{wk.LABEL_COMPONENT}={wk.COMPONENT_SFU}"
    listed = cluster.kubectl("get", "pods", "-n", NAMESPACE, "-l", labels, "-o", "json")
    found: list[dict[str, Any]] = json.loads(listed)["items"]
    return found


def tls_pod(cluster: Cluster) -> dict[str, Any] | None:
    """The fleet's only Pod, once that was made with TLS and has an address."""
    pods = sfu_pods(cluster)
    if len(pods) != 1 or pods[0]["metadata"]["annotations"][wk.ANNOTATION_NODE_TLS] != "true":
        return None
    return pods[0] if pods[0]["status"].get("podIP") else None


async def test_nodes_speak_tls_once_it_is_switched_on(cluster: Cluster, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    authority.issue(tmp_path / "tls", wk.NODE_TLS_NAME, serial=1)
    files = [tmp_path / "tls" / "tls.crt", tmp_path / "tls" / "tls.key", tmp_path / "ca" / "ca.crt"]
    given = [f"--from-file={path}" for path in files]
    cluster.kubectl("create", "secret", "generic", "node-tls", "-n", NAMESPACE, *given)
    (old,) = sfu_pods(cluster)
    for component in (wk.COMPONENT_GATEWAY, wk.COMPONENT_OPERATOR):
        await asyncio.to_thread(switch_on, cluster, component)
    specs = [bot_spec(cluster, "before", who, n, "eu") for n, who in enumerate(("ann", "bob"))]
    async with bots(specs) as callers:
        await until_seen(callers, BOTH, 60)
        assert sfu_pods(cluster)[0]["metadata"]["uid"] == old["metadata"]["uid"], "the old node serves on"
    cluster.kubectl("delete", "pod", old["metadata"]["name"], "-n", NAMESPACE, "--grace-period=1")
    pod = await until(lambda: tls_pod(cluster), 60, "the next node has TLS", every_s=0.5)
    specs = [bot_spec(cluster, "after", who, n, "eu") for n, who in enumerate(("ann", "bob"))]
    async with bots(specs) as callers:
        await until_seen(callers, BOTH, 60)
    async with grpc.aio.insecure_channel(f"{pod['status']['podIP']}:{wk.PORT_NODE_GRPC}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await node_pb2_grpc.NodeStub(channel).Info(node_pb2.InfoRequest(), timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE, "not even heard, without TLS"
