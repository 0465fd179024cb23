"""Which Pods a sandbox still waits for: pure, from lists of Pods to sentences."""

from dataclasses import dataclass
from typing import Any

from headwater_api import wellknown

from headwater_sandbox.config import SandboxConfig


@dataclass(frozen=True, slots=True)
class Need:
    """`count` ready Pods with these labels."""

    title: str
    labels: tuple[tuple[str, str], ...]
    count: int


def needs(config: SandboxConfig) -> tuple[Need, ...]:
    component = wellknown.LABEL_COMPONENT
    return (
        Need("operator", ((component, wellknown.COMPONENT_OPERATOR),), 1),
        Need("gateway", ((component, wellknown.COMPONENT_GATEWAY),), config.gateways),
        *(
            Need(
                f"sfu {region}",
                ((component, wellknown.COMPONENT_SFU), (wellknown.LABEL_REGION, region)),
                config.nodes_per_region,
            )
            for region in config.regions
        ),
    )


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return "deletionTimestamp" not in pod["metadata"] and any(
        condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions
    )


def ready_count(need: Need, pods: list[dict[str, Any]]) -> int:
    return sum(is_ready(pod) and _matches(need, pod) for pod in pods)


def progress(config: SandboxConfig, pods: list[dict[str, Any]]) -> str:
    """Such as "operator 1/1, gateway 0/1, sfu eu 1/2"."""
    return ", ".join(f"{need.title} {ready_count(need, pods)}/{need.count}" for need in needs(config))


def all_ready(config: SandboxConfig, pods: list[dict[str, Any]]) -> bool:
    return all(ready_count(need, pods) >= need.count for need in needs(config))


def complaints(config: SandboxConfig, pods: list[dict[str, Any]]) -> list[str]:
    """A line for everything that is missing, with the kubelet's reason."""
    lines = [
        f"{need.title}: {sum(_matches(need, pod) for pod in pods)} Pods of {need.count}"
        for need in needs(config)
        if sum(_matches(need, pod) for pod in pods) < need.count
    ]
    return lines + [f"{pod['metadata']['name']}: {_reason(pod)}" for pod in pods if not is_ready(pod)]


def _matches(need: Need, pod: dict[str, Any]) -> bool:
    labels = pod["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in need.labels)


def _reason(pod: dict[str, Any]) -> str:
    status = pod.get("status", {})
    for container in status.get("containerStatuses") or ():
        state, last = container.get("state", {}), container.get("lastState", {})
        if ended := state.get("terminated") or last.get("terminated"):
            times = container.get("restartCount", 0)
            return f"{container['name']} ended with status {ended.get('exitCode')}, {times} restarts"
        if waiting := state.get("waiting"):
            return f"{container['name']} waits: {waiting.get('reason')} {waiting.get('message', '')}".strip()
        if "running" in state and not container.get("ready"):
            return f"{container['name']} runs and is not ready"
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"not scheduled: {condition.get('message', '')}"
    return str(status.get("phase", "unknown"))
