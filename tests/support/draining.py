"""Live clients on nodes that leave: who was where, and what it cost at the subscribers."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headwater_api import wellknown as wk
from headwater_operator.kube.client import KubeClient
from headwater_operator.kube.resources import PODS
from headwater_sandbox.demo.fleet import Fleet
from headwater_sandbox.demo.judge import Pair
from support.cluster import Cluster
from support.deadline import until

NAMESPACE = "headwater"


def sfu_pods(cluster: Cluster) -> list[dict[str, Any]]:
    """The SFU Pods that are there, deleted ones not."""
    labels = f"{wk.LABEL_COMPONENT}={wk.COMPONENT_SFU}"
    pods = json.loads(cluster.kubectl("get", "pods", "-n", NAMESPACE, "-l", labels, "-o", "json"))["items"]
    return [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]


async def look(client: KubeClient) -> list[dict[str, Any]]:
    """As `sfu_pods`, without a process for each look: for loops on a busy machine."""
    labels = f"{wk.LABEL_COMPONENT}={wk.COMPONENT_SFU}"
    pods = await client.list(PODS, NAMESPACE, labels=labels)
    return [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]


def is_ready(pod: dict[str, Any]) -> bool:
    """By its condition."""
    conditions = pod.get("status", {}).get("conditions", ())
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def describe(cluster: Cluster) -> str:
    """What is to be seen of the fleet, for a test that failed."""
    commands = (
        ("get", "pods", "-n", NAMESPACE, "-o", "wide"),
        ("logs", "-n", NAMESPACE, "deployment/headwater-operator", "--tail=40"),
    )
    return "\n".join(cluster.try_kubectl(*command).stdout for command in commands)


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


@dataclass(frozen=True)
class Gaps:
    """Of each pair of a subscriber and a publisher its longest time without tone and picture, in ms."""

    tone_ms: list[int]
    picture_ms: list[int]

    def at(self, share: float) -> int:
        """The tone's gap that this share of the pairs stays within (nearest rank)."""
        return sorted(self.tone_ms)[max(0, math.ceil(share * len(self.tone_ms)) - 1)]

    def __str__(self) -> str:
        text = f"longest tone gap of {len(self.tone_ms)} pairs p50 {self.at(0.5)}, p90 {self.at(0.9)}, "
        text += f"p99 {self.at(0.99)}, max {self.at(1.0)} ms"
        return f"{text}, picture max {max(self.picture_ms)} ms" if any(self.picture_ms) else text


def gaps(fleet: Fleet, pairs: Sequence[Pair]) -> Gaps:
    """Since `fleet.mark()`."""
    return Gaps([fleet.tone_gap_ms(*pair) for pair in pairs], [fleet.gap_ms(*pair) for pair in pairs])


async def until_gone(cluster: Cluster, node: str, within_s: float) -> None:
    """Waits until that SFU node's Pod is deleted."""
    await until(
        lambda: node not in {pod["metadata"]["name"] for pod in sfu_pods(cluster)},
        within_s,
        f"{node} has left",
        every_s=0.5,
    )
