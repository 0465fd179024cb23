"""Live clients on nodes that leave: who was where, and what it cost at the subscribers."""

import json
from dataclasses import dataclass
from typing import Any

from headwater_api import wellknown as wk
from headwater_sandbox.demo.fleet import Fleet
from support.cluster import Cluster
from support.deadline import until

NAMESPACE = "headwater"


def sfu_pods(cluster: Cluster) -> list[dict[str, Any]]:
    """The SFU Pods that are there, deleted ones not."""
    labels = f"{wk.LABEL_COMPONENT}={wk.COMPONENT_SFU}"
    pods = json.loads(cluster.kubectl("get", "pods", "-n", NAMESPACE, "-l", labels, "-o", "json"))["items"]
    return [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]


def node_of(fleet: Fleet, identity: str) -> str:
    """The SFU node that the server says a bot is on."""
    return fleet.bots[identity].attributes.get(wk.ATTRIBUTE_NODE, "")


def machine_of(cluster: Cluster, node: str) -> str:
    """The Kubernetes node of an SFU node."""
    pod = next(pod for pod in sfu_pods(cluster) if pod["metadata"]["name"] == node)
    name: str = pod["spec"]["nodeName"]
    return name


@dataclass(frozen=True)
class Cost:
    """What a change cost, over all pairs: longest silence of picture and tone in ms, and joins."""

    picture_ms: int
    tone_ms: int
    rejoins: int
    errors: tuple[str, ...]


def cost(fleet: Fleet, joins_before: int) -> Cost:
    """Since `fleet.mark()`."""
    pairs = [(who, publisher) for who in fleet.bots for publisher in fleet.bots if who != publisher]
    return Cost(
        max(fleet.gap_ms(*pair) for pair in pairs),
        max(fleet.tone_gap_ms(*pair) for pair in pairs),
        sum(bot.joins for bot in fleet.bots.values()) - joins_before,
        tuple(error for bot in fleet.bots.values() for error in bot.errors),
    )


async def until_gone(cluster: Cluster, node: str, within_s: float) -> None:
    """Waits until that SFU node's Pod is deleted."""
    await until(
        lambda: node not in {pod["metadata"]["name"] for pod in sfu_pods(cluster)},
        within_s,
        f"{node} has left",
        every_s=0.5,
    )
