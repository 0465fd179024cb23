"""SFU nodes as the API server and the nodes themselves report them."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
from headwater_api import wellknown
from headwater_cli.kube import Reader

from headwater_sandbox.install import PODS
from headwater_sandbox.readiness import is_ready

REPORT_DEADLINE_S: Final = 2.0
_SELECTOR: Final = f"labelSelector={wellknown.LABEL_COMPONENT}%3D{wellknown.COMPONENT_SFU}"


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
    id: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "room": self.room,
            "peer": self.peer,
            "up": self.up,
            "txMbps": self.tx_mbps,
            "rxMbps": self.rx_mbps,
            "rttMs": self.rtt_ms,
            "loss": self.loss,
            "txTracks": self.tx_tracks,
            "rxTracks": self.rx_tracks,
        }


@dataclass(frozen=True, slots=True)
class NodeState:
    """An SFU Pod. `pid` is None while its process does not answer."""

    name: str
    uid: str
    region: str
    pod_ip: str
    ready: bool
    pid: int | None = None
    kubernetes_node: str = ""
    connections: int = 0
    participants: int = 0
    cpu_percent: float = 0.0
    rx_mbps: float = 0.0
    tx_mbps: float = 0.0
    forward_p95_us: float = 0.0
    rooms: tuple[tuple[str, int, int], ...] = ()  # room, participants, published tracks
    links: tuple[LinkState, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The contract of `headwater sandbox status --json`."""
        return {
            "name": self.name,
            "region": self.region,
            "podIP": self.pod_ip,
            "kubernetesNode": self.kubernetes_node,
            "ready": self.ready,
            "pid": self.pid,
            "rooms": len(self.rooms),
            "participants": self.participants,
            "relayLinks": len(self.links),
            "links": [link.to_json() for link in self.links],
        }


class ClusterView:
    """Reads Pods and reports. Close it."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REPORT_DEADLINE_S))

    @classmethod
    async def open(cls, kubeconfig: Path) -> "ClusterView":
        """Raises KubeError where the kubeconfig is of no use."""
        return cls(await Reader.open(kubeconfig, None))

    async def close(self) -> None:
        await self._session.close()
        await self._reader.close()

    async def nodes(self) -> list[NodeState]:
        """All SFU Pods by region and name, with the newest report of each that answers.

        Raises KubeError where the API server is away.
        """
        pods = await self._reader.items(f"{PODS}?{_SELECTOR}")
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
    """A Pod and its node's report: NodeReport in protobuf's JSON (64-bit numbers are strings), and pid."""
    meta, status = pod["metadata"], pod.get("status", {})
    rooms = tuple(
        (room["room_id"], int(room.get("participants") or 0), int(room.get("published_tracks") or 0))
        for room in report.get("rooms") or ()
    )
    return NodeState(
        name=meta["name"],
        uid=meta.get("uid", ""),
        region=(meta.get("labels") or {}).get(wellknown.LABEL_REGION, ""),
        pod_ip=status.get("podIP", ""),
        ready=is_ready(pod),
        pid=report.get("pid"),
        kubernetes_node=pod.get("spec", {}).get("nodeName", ""),
        connections=int(report.get("connections") or 0),
        participants=int(report.get("participants") or 0),
        cpu_percent=float(report.get("cpu_percent") or 0),
        rx_mbps=float(report.get("rx_mbps") or 0),
        tx_mbps=float(report.get("tx_mbps") or 0),
        forward_p95_us=float(report.get("forward_p95_us") or 0),
        rooms=rooms,
        links=tuple(_parse_link(link) for link in report.get("links") or ()),
    )


def _parse_link(link: dict[str, Any]) -> LinkState:
    return LinkState(
        room=link.get("room_id", ""),
        peer=link.get("peer_node_id", ""),
        up=bool(link.get("up")),
        tx_mbps=float(link.get("tx_mbps") or 0),
        rx_mbps=float(link.get("rx_mbps") or 0),
        rtt_ms=float(link.get("rtt_ms") or 0),
        loss=float(link.get("loss") or 0),
        tx_tracks=int(link.get("tx_tracks") or 0),
        rx_tracks=int(link.get("rx_tracks") or 0),
        id=link.get("link_id", ""),
    )
