"""A small fleet with TURN under a Prometheus with the chart's rules, and the faults of critical alerts."""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, Final

import aiohttp
from headwater_api import wellknown as wk
from headwater_sandbox.config import CLUSTER_NAME, NAMESPACE, TURN_SECRET
from support.charts import CHARTS
from support.cluster import Cluster
from support.deadline import until
from support.prometheus import Prometheus, write_targets
from support.protocol_client import socket_url
from support.turn_world import make_certificate

Alert = tuple[str, str]  # its name; its region, "" where it has none
RULES: Final = CHARTS / "headwater" / "files" / "rules.yaml"
TLS_SECRET: Final = "turn-tls"
CONNECTIONS: Final = 10  # what one SFU node takes: two for each who publishes
TAINT: Final = "headwater.dev/test=broken:NoExecute"
OPERATOR: Final = "headwater-operator"
_UNIT_S: Final = {"m": 60, "h": 3600, "d": 86_400}


def with_short_windows(rules: str, divisor: int) -> str:
    """The rules with every window of the recording rules divided; each alert's `for` stays as it is."""
    recording, marker, alerting = rules.partition("- name: headwater-alerts")

    def shorter(found: re.Match[str]) -> str:
        return f"[{int(found[1]) * _UNIT_S[found[2]] // divisor}s]"

    return re.sub(r"\[(\d+)([mhd])\]", shorter, recording) + marker + alerting


def fleet() -> dict[str, Any]:
    places = {"eu": {"latitude": 50.1, "longitude": 8.7}, "ap": {"latitude": 1.3, "longitude": 103.8}}
    return {
        "apiVersion": f"{wk.GROUP}/{wk.VERSION}",
        "kind": "SFUCluster",
        "metadata": {"name": CLUSTER_NAME, "namespace": NAMESPACE},
        "spec": {
            "regions": [
                {"name": name, "coordinates": at, "minNodes": 1, "maxNodes": 1} for name, at in places.items()
            ],
            "node": {"capacity": {"connections": CONNECTIONS}},
            "turn": {
                "minPerRegion": 1,
                "maxPerRegion": 1,
                "sharedSecretRefs": [{"name": TURN_SECRET, "key": "current"}],
                "tlsSecretRef": {"name": TLS_SECRET},
            },
        },
    }


def pods(cluster: Cluster, component: str, region: str = "") -> list[dict[str, Any]]:
    labels = f"{wk.LABEL_COMPONENT}={component}" + (f",{wk.LABEL_REGION}={region}" if region else "")
    listed = cluster.kubectl("get", "pods", "-n", NAMESPACE, "-l", labels, "-o", "json")
    found: list[dict[str, Any]] = json.loads(listed)["items"]
    return found


def ready(found: Iterable[dict[str, Any]]) -> int:
    return sum(
        condition["type"] == "Ready" and condition["status"] == "True"
        for pod in found
        for condition in pod["status"].get("conditions", ())
    )


async def declare(cluster: Cluster, tmp: Path) -> None:
    """The sandbox's fleet becomes the small one; ready when it returns."""
    cluster.kubectl("delete", "sfucluster", CLUSTER_NAME, "-n", NAMESPACE, "--wait=true")
    await until(lambda: not pods(cluster, wk.COMPONENT_SFU), 30, "the first fleet is gone", every_s=0.5)
    secret = f"--from-literal=current={'s' * 32}"
    cluster.kubectl("create", "secret", "generic", TURN_SECRET, "-n", NAMESPACE, secret)
    put_certificate(cluster, tmp, days=30)
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(fleet()))

    def complete() -> bool:
        return ready(pods(cluster, wk.COMPONENT_SFU)) == 2 and ready(pods(cluster, wk.COMPONENT_TURN)) == 2

    await until(complete, 60, "SFU and TURN nodes are ready", every_s=0.5)


def put_certificate(cluster: Cluster, tmp: Path, days: float) -> None:
    """Writes the Secret of TURN's certificate; kubelets look at it now instead of within a minute."""
    make_certificate(tmp / "tls", "127.0.0.1", days=days)
    files = [f"--cert={tmp / 'tls' / 'tls.crt'}", f"--key={tmp / 'tls' / 'tls.key'}"]
    manifest = cluster.kubectl(
        "create", "secret", "tls", TLS_SECRET, "-n", NAMESPACE, *files, "--dry-run=client", "-o", "yaml"
    )
    cluster.kubectl("apply", "-f", "-", stdin=manifest)
    labels = f"{wk.LABEL_COMPONENT}={wk.COMPONENT_TURN}"
    mark = f"headwater.dev/test=certificate-{time.monotonic_ns()}"
    cluster.kubectl("annotate", "pods", "-n", NAMESPACE, "-l", labels, "--overwrite", mark)


def taint(cluster: Cluster, region: str, on: bool = True) -> None:
    """Makes every Kubernetes node of the region unusable, or usable again."""
    nodes = f"topology.kubernetes.io/region={region}"
    cluster.kubectl("taint", "nodes", "-l", nodes, TAINT if on else f"{TAINT}-")


async def connections(address: str) -> int:
    """How many an SFU node has now, by its own word."""
    url = f"http://{address}:{wk.PORT_ADMIN}/status.json"
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        return int((await response.json())["connections"])


async def join_status(cluster: Cluster, identity: str, region: str) -> int:
    """What a join is answered with; 101 where it was admitted."""
    token = cluster.token("crowd", identity)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http:
        try:
            async with http.ws_connect(socket_url(cluster.gateway, region=region)):
                return 101
        except aiohttp.WSServerHandshakeError as refused:
            return refused.status


@contextlib.asynccontextmanager
async def repeated(work: Any, every_s: float) -> AsyncIterator[None]:
    """`work()` again and again during the block; an error of it ends the block with that error."""

    async def forever() -> None:
        while True:
            await work()
            await asyncio.sleep(every_s)

    task = asyncio.create_task(forever())
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def followed(cluster: Cluster, directory: Path) -> AsyncIterator[None]:
    """Prometheus' targets follow the Pods during the block, as a PodMonitor's do."""

    async def write() -> None:
        await asyncio.to_thread(write_targets, cluster, directory)

    await write()
    async with repeated(write, 2.0):
        yield


async def until_fires(prom: Prometheus, alert: Alert, since: float, within_s: float) -> float:
    """Seconds from `since` (monotonic) until the alert fires."""

    async def fires() -> bool:
        return alert in await prom.firing()

    await until(fires, max(1.0, since + within_s - time.monotonic()), f"{alert} fires", every_s=0.5)
    return time.monotonic() - since


async def until_quiet(prom: Prometheus, alert: Alert, since: float, within_s: float) -> float:
    """Seconds from `since` (monotonic) until the alert fires no more."""

    async def quiet() -> bool:
        return alert not in await prom.firing()

    await until(quiet, max(1.0, since + within_s - time.monotonic()), f"{alert} resolves", every_s=0.5)
    return time.monotonic() - since
