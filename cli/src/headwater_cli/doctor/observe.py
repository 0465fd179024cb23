"""The doctor's look at an installation: the API server, the nodes' reports, the public address."""

import asyncio
import base64
import ssl
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from cryptography import x509
from headwater_api import wellknown as wk
from headwater_api.model import InvalidResource
from headwater_api.sfucluster import PLURAL as SFUCLUSTERS
from headwater_api.sfucluster import SFUCluster

from headwater_cli.doctor import objects
from headwater_cli.doctor.facts import Certificate, Endpoint, Facts, LeaseFacts, PodFacts, Report
from headwater_cli.kube import KubeError, Reader

NETWORK_DEADLINE_S: Final = 5.0
LEASE: Final = "headwater-operator"
CRDS: Final = (f"sfuclusters.{wk.GROUP}", f"meetings.{wk.GROUP}")
COMPONENTS: Final = (wk.COMPONENT_OPERATOR, wk.COMPONENT_GATEWAY, wk.COMPONENT_SFU)
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404


async def observe(reader: Reader, namespace: str, url: str, clock: Callable[[], datetime]) -> Facts:
    """Everything that is to be known. What may not be read is left out; a dead API server is `api_error`."""
    try:
        missing = await _missing_crds(reader)
        if missing:
            return Facts(namespace, clock(), missing_crds=missing, server_time=reader.server_time)
        return await _observe(reader, namespace, url, clock)
    except KubeError as error:
        return Facts(namespace, clock(), api_error=str(error))


async def _observe(reader: Reader, namespace: str, url: str, clock: Callable[[], datetime]) -> Facts:
    base = f"/api/v1/namespaces/{namespace}"
    labels = f"{wk.LABEL_COMPONENT}+in+({','.join(COMPONENTS)})"
    pods = [objects.pod_facts(pod) for pod in await reader.items(f"{base}/pods?labelSelector={labels}")]
    nodes = await reader.items("/api/v1/nodes")
    server_time, asked = reader.server_time, clock()
    good, bad = _clusters(
        await reader.items(f"/apis/{wk.GROUP}/{wk.VERSION}/namespaces/{namespace}/{SFUCLUSTERS}")
    )
    names = {use.secret for pod in pods for use in pod.secrets}
    for turn in (cluster.spec.turn for cluster in good):
        if turn is not None:
            names |= {reference.name for reference in turn.shared_secret_refs}
            names |= {turn.tls_secret_ref.name} if turn.tls_secret_ref is not None else set()
    public = url or next(
        (pod.env["HEADWATER_PUBLIC_URL"] for pod in pods if pod.env.get("HEADWATER_PUBLIC_URL")), ""
    )
    sfu = [pod for pod in pods if pod.component == wk.COMPONENT_SFU and pod.ready]
    reports = await asyncio.gather(*(_report(reader, base, pod) for pod in sfu))
    return Facts(
        namespace,
        asked,
        server_time=server_time,
        clusters=tuple(good),
        bad_clusters=bad,
        nodes=tuple(objects.kube_node(node) for node in nodes),
        pods=tuple(pods),
        secrets=await _secrets(reader, base, sorted(names)),
        lease=await _lease(reader, namespace),
        reports={pod.name: report for pod, report in zip(sfu, reports, strict=True)},
        endpoint=await _endpoint(public) if public else None,
        certificates=await _certificates(public, asked),
    )


async def _missing_crds(reader: Reader) -> tuple[str, ...]:
    missing = []
    for name in CRDS:
        try:
            await reader.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
        except KubeError as error:
            if error.status == _NOT_FOUND:
                missing.append(name)
            elif error.status != _FORBIDDEN:  # not allowed to look at definitions: their lists will tell
                raise
    return tuple(missing)


def _clusters(items: Sequence[objects.Object]) -> tuple[list[SFUCluster], dict[str, str]]:
    good, bad = [], {}
    for item in items:
        try:
            good.append(SFUCluster.from_kubernetes(item))
        except InvalidResource as error:
            bad[item["metadata"]["name"]] = str(error)
    return good, bad


async def _secrets(reader: Reader, base: str, names: Sequence[str]) -> dict[str, dict[str, int] | None]:
    found: dict[str, dict[str, int] | None] = {}
    for name in names:
        try:
            data = (await reader.get(f"{base}/secrets/{name}")).get("data") or {}
        except KubeError as error:
            if error.status == _NOT_FOUND:
                found[name] = None
            elif error.status != _FORBIDDEN:
                raise
            continue
        found[name] = {key: len(base64.b64decode(value)) for key, value in data.items()}
    return found


async def _lease(reader: Reader, namespace: str) -> LeaseFacts | None:
    try:
        lease = await reader.get(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{LEASE}")
    except KubeError as error:
        if error.status in (_FORBIDDEN, _NOT_FOUND):
            return None
        raise
    return objects.lease_facts(lease)


async def _report(reader: Reader, base: str, pod: PodFacts) -> Report:
    """Through the API server, so that the doctor need not be in the Pods' network.

    An API server passes nothing on to loopback addresses, which the nodes of a cluster on one machine have:
    there, and where the proxy is not allowed, directly.
    """
    try:
        return objects.report(await reader.get(f"{base}/pods/{pod.name}:{wk.PORT_ADMIN}/proxy/status.json"))
    except KubeError as refused:
        timeout = aiohttp.ClientTimeout(total=NETWORK_DEADLINE_S)
        try:
            url = f"http://{pod.ip}:{wk.PORT_ADMIN}/status.json"
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
                return objects.report(await response.json())
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return Report(error=str(refused))


async def _endpoint(url: str) -> Endpoint:
    http = url.replace("ws", "http", 1) if url.startswith("ws") else url
    target = http.rstrip("/") + "/rtc/validate"
    timeout = aiohttp.ClientTimeout(total=NETWORK_DEADLINE_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(target) as response:
            return Endpoint(url, response.status)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return Endpoint(url, error=str(error) or f"no answer within {NETWORK_DEADLINE_S:g} s")


async def _certificates(url: str, now: datetime) -> tuple[Certificate, ...]:
    parts = urlsplit(url)
    if parts.scheme not in ("wss", "https") or not parts.hostname:
        return ()
    return (await _certificate(parts.hostname, parts.port or 443),)


async def _certificate(host: str, port: int) -> Certificate:
    """The certificate as shown, valid or not: whether clients accept it is for the endpoint to tell."""
    where = f"{host}:{port}"
    unchecked = ssl.create_default_context()
    unchecked.check_hostname = False
    unchecked.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(NETWORK_DEADLINE_S):
            _, writer = await asyncio.open_connection(host, port, ssl=unchecked, server_hostname=host)
    except (OSError, TimeoutError) as error:
        return Certificate(where, error=str(error) or f"no answer within {NETWORK_DEADLINE_S:g} s")
    shown: ssl.SSLObject = writer.get_extra_info("ssl_object")
    der = shown.getpeercert(binary_form=True)
    writer.close()
    if not der:
        return Certificate(where, error="it shows none")
    return Certificate(where, x509.load_der_x509_certificate(der).not_valid_after_utc.astimezone(UTC))
