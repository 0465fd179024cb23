"""TLS between gateways, switched on in a cluster that runs without it: nobody is lost, and it is used."""

import asyncio
import json
import re
import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from headwater_api import wellknown as wk
from headwater_sandbox.config import NAMESPACE
from support.authority import Authority
from support.clients import bot_spec, bots, until_seen
from support.cluster import Cluster, running_cluster
from support.kube import poll

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
DIRECTORY = "/etc/headwater/gateway-tls"
BOTH = [("ann", "bob"), ("bob", "ann")]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with running_cluster(("--regions", "eu", "--nodes-per-region", "1", "--gateways", "2")) as running:
        yield running


def switch_on(cluster: Cluster) -> None:
    """What the chart's gatewayTls.existingSecret adds to the Deployment."""
    container = {
        "name": "gateway",
        "env": [{"name": wk.ENV_GATEWAY_TLS_DIR, "value": DIRECTORY}],
        "volumeMounts": [{"name": "gateway-tls", "mountPath": DIRECTORY, "readOnly": True}],
    }
    template = {
        "metadata": {"annotations": {wk.ANNOTATION_GATEWAY_TLS: "true"}},
        "spec": {
            "containers": [container],
            "volumes": [{"name": "gateway-tls", "secret": {"secretName": "gateway-tls"}}],
        },
    }
    patch = json.dumps({"spec": {"template": template}})
    name = "headwater-gateway"
    cluster.kubectl("patch", "deployment", name, "-n", NAMESPACE, "--type=strategic", "-p", patch)
    told = ("rollout", "status", f"deployment/{name}", "-n", NAMESPACE, "--watch=false")
    poll(f"{name} is rolled out", 90, lambda: "successfully rolled out" in cluster.kubectl(*told))


def gateway_pods(cluster: Cluster) -> list[dict[str, Any]]:
    labels = f"{wk.LABEL_COMPONENT}={wk.COMPONENT_GATEWAY}"
    listed = json.loads(cluster.kubectl("get", "pods", "-n", NAMESPACE, "-l", labels, "-o", "json"))
    return [pod for pod in listed["items"] if not pod["metadata"].get("deletionTimestamp")]


async def serial_at(ip: str) -> int:
    """Of the certificate that the gateway there shows to others."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opened = asyncio.open_connection(
        ip, wk.PORT_GATEWAY_TLS, ssl=context, server_hostname=wk.GATEWAY_TLS_NAME
    )
    _, writer = await asyncio.wait_for(opened, 5)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return Authority.serial_of(shown)


def passed_on(ip: str) -> float:
    """Sessions that the gateway there has passed on so far."""
    with urllib.request.urlopen(f"http://{ip}:{wk.PORT_ADMIN}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    found = re.search(r'headwater_gateway_forwarded_sessions_total\{outcome="connected"\} (\S+)', text)
    return float(found.group(1)) if found else 0.0


async def test_gateways_speak_tls_to_each_other_once_it_is_switched_on(
    cluster: Cluster, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "ca")
    authority.issue(tmp_path / "tls", wk.GATEWAY_TLS_NAME, serial=77)
    files = [tmp_path / "tls" / "tls.crt", tmp_path / "tls" / "tls.key", tmp_path / "ca" / "ca.crt"]
    given = [f"--from-file={path}" for path in files]
    cluster.kubectl("create", "secret", "generic", "gateway-tls", "-n", NAMESPACE, *given)
    before = [bot_spec(cluster, "before", who, n, "eu") for n, who in enumerate(("ann", "bob"))]
    async with bots(before) as callers:
        await until_seen(callers, BOTH, 60)
        await asyncio.to_thread(switch_on, cluster)
        await until_seen(callers, BOTH, 60)
    addresses = [pod["status"]["podIP"] for pod in gateway_pods(cluster)]
    assert [await serial_at(ip) for ip in addresses] == [77, 77]
    # Of six rooms each gateway has some: whoever comes to the wrong one is passed on.
    for number in range(6):
        specs = [bot_spec(cluster, f"after-{number}", who, n, "eu") for n, who in enumerate(("ann", "bob"))]
        async with bots(specs) as callers:
            await until_seen(callers, BOTH, 60)
    assert sum(passed_on(ip) for ip in addresses) > 0
