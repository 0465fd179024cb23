"""What the demo sees of the cluster: SFU Pods from the API server, reports from the nodes themselves."""

import asyncio
import base64
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml
from headwater_api import wellknown

NAMESPACE: Final = "headwater"
CALL_DEADLINE_S: Final = 2.0
_SELECTOR: Final = f"{wellknown.LABEL_COMPONENT}={wellknown.COMPONENT_SFU}"


@dataclass(frozen=True, slots=True)
class LinkState:
    """One end of a relay link, as its node reports it."""

    room: str
    peer: str
    up: bool
    tx_mbps: float
    rx_mbps: float
    rtt_ms: float
    loss: float
    tx_tracks: int
    rx_tracks: int


@dataclass(frozen=True, slots=True)
class NodeState:
    """An SFU Pod. `pid` is None while its process does not answer."""

    name: str
    uid: str
    region: str
    pod_ip: str
    ready: bool
    pid: int | None = None
    connections: int = 0
    participants: int = 0
    cpu_percent: float = 0.0
    rx_mbps: float = 0.0
    tx_mbps: float = 0.0
    forward_p95_us: float = 0.0
    rooms: tuple[tuple[str, int, int], ...] = ()  # room, participants, published tracks
    links: tuple[LinkState, ...] = ()


@dataclass(frozen=True, slots=True)
class _Access:
    server: str
    ssl: ssl.SSLContext
    headers: dict[str, str]


class ClusterView:
    """Reads Pods and reports. One session, closed by `close`."""

    def __init__(self, kubeconfig: Path) -> None:
        self._access = _read_access(yaml.safe_load(kubeconfig.read_text()))
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CALL_DEADLINE_S))

    async def close(self) -> None:
        await self._session.close()

    async def list_objects(self, path: str, **params: str) -> list[dict[str, Any]]:
        """The items of a list call. Raises aiohttp.ClientError or TimeoutError."""
        access = self._access
        async with self._session.get(
            access.server + path, params=params, ssl=access.ssl, headers=access.headers
        ) as response:
            response.raise_for_status()
            items: list[dict[str, Any]] = (await response.json())["items"]
            return items

    async def nodes(self) -> list[NodeState]:
        """All SFU Pods by region and name, with the newest report of each that answers.

        Raises aiohttp.ClientError or TimeoutError where the API server is away.
        """
        path = f"/api/v1/namespaces/{NAMESPACE}/pods"
        pods = await self.list_objects(path, labelSelector=_SELECTOR)
        states = await asyncio.gather(*(self._node(pod) for pod in pods))
        return sorted(states, key=lambda node: (node.region, node.name))

    async def _node(self, pod: dict[str, Any]) -> NodeState:
        address = pod.get("status", {}).get("podIP", "")
        report: dict[str, Any] = {}
        if address:
            url = f"http://{address}:{wellknown.PORT_ADMIN}/status.json"
            try:
                async with self._session.get(url) as response:
                    report = await response.json() if response.status == 200 else {}
            except (aiohttp.ClientError, TimeoutError, ValueError):
                report = {}  # starting, or dead: the Pod's own state tells which
        return parse_node(pod, report)


def parse_node(pod: dict[str, Any], report: dict[str, Any]) -> NodeState:
    """A Pod object and its node's report (protobuf's JSON: 64-bit numbers are strings)."""
    meta, status = pod["metadata"], pod.get("status", {})
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))
    rooms = tuple(
        (room["room_id"], int(room["participants"]), int(room["published_tracks"]))
        for room in report.get("rooms", ())
    )
    return NodeState(
        name=meta["name"],
        uid=meta["uid"],
        region=meta.get("labels", {}).get(wellknown.LABEL_REGION, ""),
        pod_ip=status.get("podIP", ""),
        ready=ready and "deletionTimestamp" not in meta,
        pid=report.get("pid"),
        connections=int(report.get("connections", 0)),
        participants=int(report.get("participants", 0)),
        cpu_percent=float(report.get("cpu_percent", 0)),
        rx_mbps=float(report.get("rx_mbps", 0)),
        tx_mbps=float(report.get("tx_mbps", 0)),
        forward_p95_us=float(report.get("forward_p95_us", 0)),
        rooms=rooms,
        links=tuple(_parse_link(link) for link in report.get("links", ())),
    )


def _parse_link(link: dict[str, Any]) -> LinkState:
    return LinkState(
        room=link["room_id"],
        peer=link["peer_node_id"],
        up=bool(link["up"]),
        tx_mbps=float(link["tx_mbps"]),
        rx_mbps=float(link["rx_mbps"]),
        rtt_ms=float(link["rtt_ms"]),
        loss=float(link["loss"]),
        tx_tracks=int(link["tx_tracks"]),
        rx_tracks=int(link["rx_tracks"]),
    )


def _read_access(config: dict[str, Any]) -> _Access:
    """The current context of a kubeconfig with certificates (inline or files) or a bearer token."""
    contexts = {item["name"]: item["context"] for item in config["contexts"]}
    context = contexts[config["current-context"]]
    cluster = next(c["cluster"] for c in config["clusters"] if c["name"] == context["cluster"])
    user = next(u["user"] for u in config["users"] if u["name"] == context["user"])
    authority = _material(cluster, "certificate-authority")
    tls = ssl.create_default_context(cadata=authority.decode() if authority else None)
    certificate, key = _material(user, "client-certificate"), _material(user, "client-key")
    if certificate and key:
        # The ssl module loads a chain from files only; both vanish again at once.
        with tempfile.NamedTemporaryFile() as cert_file, tempfile.NamedTemporaryFile() as key_file:
            cert_file.write(certificate)
            key_file.write(key)
            cert_file.flush()
            key_file.flush()
            tls.load_cert_chain(cert_file.name, key_file.name)
    headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
    return _Access(cluster["server"].rstrip("/"), tls, headers)


def _material(section: dict[str, Any], name: str) -> bytes:
    if data := section.get(f"{name}-data"):
        return base64.b64decode(data)
    return Path(section[name]).read_bytes() if name in section else b""
