"""What a running sandbox does: SFU nodes as the API server and the nodes themselves report them."""

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Final

from headwater_api import wellknown
from rich import box
from rich.table import Table

from headwater_sandbox.install import PODS
from headwater_sandbox.kube import Api
from headwater_sandbox.readiness import is_ready

REPORT_TIMEOUT_S: Final = 1.0
_SELECTOR: Final = f"labelSelector={wellknown.LABEL_COMPONENT}%3D{wellknown.COMPONENT_SFU}"


@dataclass(frozen=True, slots=True)
class SfuNode:
    """One SFU node. `pid` is None while its process does not answer."""

    name: str
    region: str
    pod_ip: str
    kubernetes_node: str
    ready: bool
    pid: int | None
    rooms: int
    participants: int
    links: tuple[dict[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        data = asdict(self)
        return {
            "name": data["name"],
            "region": data["region"],
            "podIP": data["pod_ip"],
            "kubernetesNode": data["kubernetes_node"],
            "ready": data["ready"],
            "pid": data["pid"],
            "rooms": data["rooms"],
            "participants": data["participants"],
            "relayLinks": len(self.links),
            "links": list(self.links),
        }


def observe_nodes(api: Api) -> list[SfuNode]:
    """Raises OSError or http.client.HTTPException where the API server does not answer."""
    pods = api.items(f"{PODS}?{_SELECTOR}")
    with ThreadPoolExecutor(max_workers=16) as pool:
        reports = list(pool.map(_fetch_report, (pod.get("status", {}).get("podIP", "") for pod in pods)))
    nodes = [sfu_node(pod, report) for pod, report in zip(pods, reports, strict=True)]
    return sorted(nodes, key=lambda node: (node.region, node.name))


def _fetch_report(address: str) -> dict[str, Any]:
    if not address:
        return {}
    connection = http.client.HTTPConnection(address, wellknown.PORT_ADMIN, timeout=REPORT_TIMEOUT_S)
    try:
        connection.request("GET", "/status.json")
        response = connection.getresponse()
        body = response.read(4 << 20)
        report = json.loads(body) if response.status == http.client.OK else {}
    except (OSError, http.client.HTTPException, ValueError):
        return {}  # starting, or dead: `ready` tells which
    finally:
        connection.close()
    return report if isinstance(report, dict) else {}


def sfu_node(pod: dict[str, Any], report: dict[str, Any]) -> SfuNode:
    """A Pod and its node's report: NodeReport in protobuf's JSON (64-bit numbers are strings), and pid."""
    labels, status = pod["metadata"].get("labels") or {}, pod.get("status", {})
    return SfuNode(
        name=pod["metadata"]["name"],
        region=labels.get(wellknown.LABEL_REGION, ""),
        pod_ip=status.get("podIP", ""),
        kubernetes_node=pod.get("spec", {}).get("nodeName", ""),
        ready=is_ready(pod),
        pid=report.get("pid"),
        rooms=len(report.get("rooms") or ()),
        participants=int(report.get("participants") or 0),
        links=tuple(_link(link) for link in report.get("links") or ()),
    )


def _link(link: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": link.get("link_id", ""),
        "room": link.get("room_id", ""),
        "peer": link.get("peer_node_id", ""),
        "up": bool(link.get("up")),
        "txMbps": float(link.get("tx_mbps") or 0),
        "rxMbps": float(link.get("rx_mbps") or 0),
        "rttMs": float(link.get("rtt_ms") or 0),
        "loss": float(link.get("loss") or 0),
        "txTracks": int(link.get("tx_tracks") or 0),
        "rxTracks": int(link.get("rx_tracks") or 0),
    }


def node_table(nodes: list[SfuNode]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("Region", "SFU node", "Pod IP", "PID", "Ready"):
        table.add_column(title, no_wrap=True)
    for title in ("Rooms", "Participants", "Relay links"):
        table.add_column(title, no_wrap=True, justify="right")
    for node in nodes:
        up = sum(link["up"] for link in node.links)
        table.add_row(
            node.region,
            node.name,
            node.pod_ip or "-",
            str(node.pid or "-"),
            "yes" if node.ready else "no",
            str(node.rooms),
            str(node.participants),
            f"{up}/{len(node.links)} up" if node.links else "-",
        )
    return table
