"""From Kubernetes objects to the planner's views: pure, and forgiving to objects that are half written."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from headwater_api.external import external_addresses
from headwater_api.meeting import Meeting
from headwater_api.units import parse_time
from headwater_api.wellknown import (
    ANNOTATION_DRAIN,
    ANNOTATION_EXPOSURE,
    ANNOTATION_NODE_TLS,
    ANNOTATION_STATE,
    ANNOTATION_TERMINATION,
    LABEL_REGION,
    LABEL_SERVES,
    LABEL_TEMPLATE,
)
from headwater_planner.world import Guard, KubeNodeView, Phase, PodView, ServiceView

from headwater_operator.render import sfu_node, turn_node

_PHASES: Final = {phase.value: phase for phase in Phase}
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
# Others may put containers of their own into the Pod, which end when they like.
_CONTAINERS: Final = (sfu_node.CONTAINER, turn_node.CONTAINER)


# What plans read of a Meeting. All of them are kept in memory, and the rest may be long: lists of invited.
_METADATA: Final = ("name", "namespace", "uid", "generation", "resourceVersion", "deletionTimestamp")
_SPEC: Final = (
    "clusterRef",
    "schedule",
    "expectedParticipants",
    "placement",
    "emptyTimeout",
    "ttlAfterEnded",
)


def planned_meeting(meeting: Mapping[str, Any]) -> Meeting:
    """A Meeting as far as plans read it; the other fields are at their defaults. Raises InvalidResource."""
    spec = meeting.get("spec") or {}
    return Meeting.from_kubernetes(
        {
            "metadata": {
                field: meeting["metadata"][field] for field in _METADATA if field in meeting["metadata"]
            },
            "spec": {field: spec[field] for field in _SPEC if field in spec},
            "status": meeting.get("status") or {},
        }
    )


def pod_view(pod: Mapping[str, Any]) -> PodView:
    """One SFU Pod."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    labels: Mapping[str, str] = metadata.get("labels") or {}
    annotations: Mapping[str, str] = metadata.get("annotations") or {}
    ready = _condition(status, "Ready")
    scheduled = _condition(status, "PodScheduled")
    containers = _own_containers(status)
    waiting: Mapping[str, Any] = next(
        (state for c in containers if (state := (c.get("state") or {}).get("waiting"))), {}
    )
    is_unschedulable = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    return PodView(
        name=metadata["name"],
        uid=metadata["uid"],
        region=labels.get(LABEL_REGION, ""),
        phase=_phase(status, containers),
        created_at=_time(metadata.get("creationTimestamp")) or _EPOCH,
        ready=ready.get("status") == "True",
        ready_changed_at=_time(ready.get("lastTransitionTime")),
        terminating=metadata.get("deletionTimestamp") is not None,
        pod_ip=status.get("podIP", ""),
        started=any(c.get("containerID") or c.get("started") for c in containers),
        unschedulable=scheduled.get("message", "") if is_unschedulable else "",
        trouble=_trouble(waiting),
        trouble_message=str(waiting.get("message", ""))[:300],
        ended=_ended(status, containers),
        resource_version=metadata.get("resourceVersion", ""),
        node_name=(pod.get("spec") or {}).get("nodeName", ""),
        template=labels.get(LABEL_TEMPLATE, ""),
        drain_wanted=annotations.get(ANNOTATION_DRAIN, "").lower() == "true",
        guard=_guard(labels, annotations),
        exposure=annotations.get(ANNOTATION_EXPOSURE, "PodIP"),
        tls=annotations.get(ANNOTATION_NODE_TLS) == "true",
        host_ips=_host_ips(status),
    )


def _guard(labels: Mapping[str, str], annotations: Mapping[str, str]) -> Guard | None:
    """None: an older operator made the Pod."""
    if LABEL_SERVES not in labels:
        return None
    state = annotations.get(ANNOTATION_STATE, "")
    return Guard(labels[LABEL_SERVES] == "true", state, external_addresses(annotations))


def _host_ips(status: Mapping[str, Any]) -> tuple[str, ...]:
    """hostIPs; hostIP of kubelets that have not got it yet."""
    listed = [str(entry.get("ip", "")) for entry in status.get("hostIPs") or ()]
    return tuple(ip for ip in (listed or [str(status.get("hostIP", ""))]) if ip)


def pod_ended_at(pod: Mapping[str, Any]) -> datetime | None:
    """When its process ended, as far as the kubelet said."""
    containers = _own_containers(pod.get("status") or {})
    ends = [_time(((c.get("state") or {}).get("terminated") or {}).get("finishedAt")) for c in containers]
    return max((end for end in ends if end is not None), default=None)


def kube_node_view(node: Mapping[str, Any]) -> KubeNodeView:
    """One Kubernetes node."""
    ready = _condition(node.get("status") or {}, "Ready")
    return KubeNodeView(
        name=node["metadata"]["name"],
        labels=dict(node["metadata"].get("labels") or {}),
        ready=ready.get("status") == "True",
        schedulable=not (node.get("spec") or {}).get("unschedulable", False),
        notice=_notice(node),
        external_ips=tuple(
            str(entry["address"])
            for entry in (node.get("status") or {}).get("addresses") or ()
            if entry.get("type") == "ExternalIP" and entry.get("address")
        ),
    )


def service_view(service: Mapping[str, Any]) -> ServiceView:
    """The Service of one SFU Pod."""
    owners = service["metadata"].get("ownerReferences") or ()
    ports = (service.get("spec") or {}).get("ports") or ()
    balancer = (service.get("status") or {}).get("loadBalancer") or {}
    ingress: Sequence[Mapping[str, Any]] = balancer.get("ingress") or ()
    return ServiceView(
        pod_uid=next((str(owner["uid"]) for owner in owners if owner.get("kind") == "Pod"), ""),
        node_port=next((int(port.get("nodePort") or 0) for port in ports), 0),
        addresses=tuple(str(entry["ip"]) for entry in ingress if entry.get("ip")),
        names=tuple(str(entry["hostname"]) for entry in ingress if entry.get("hostname")),
    )


# Taints by which clouds and autoscalers say that a machine is about to go: the one list of them.
# `kubectl cordon` and drain set spec.unschedulable instead; ANNOTATION_TERMINATION is for anything else.
TERMINATION_TAINTS: Final = (
    "ToBeDeletedByClusterAutoscaler",
    "aws-node-termination-handler/asg-lifecycle-termination",
    "aws-node-termination-handler/rebalance-recommendation",
    "aws-node-termination-handler/scheduled-maintenance",
    "aws-node-termination-handler/spot-itn",
    "cloud.google.com/impending-node-termination",
    "karpenter.sh/disrupted",
    "node.cloudprovider.kubernetes.io/shutdown",
    "node.kubernetes.io/out-of-service",
)


def _notice(node: Mapping[str, Any]) -> str:
    """Why the machine is about to go, or empty."""
    annotations: Mapping[str, str] = node["metadata"].get("annotations") or {}
    if ANNOTATION_TERMINATION in annotations:
        return annotations[ANNOTATION_TERMINATION][:200] or "no reason given"
    taints = (node.get("spec") or {}).get("taints") or ()
    return next((f"taint {t['key']}" for t in taints if t.get("key") in TERMINATION_TAINTS), "")


def _condition(status: Mapping[str, Any], type_: str) -> Mapping[str, Any]:
    conditions: Sequence[Mapping[str, Any]] = status.get("conditions") or ()
    return next((condition for condition in conditions if condition.get("type") == type_), {})


def _own_containers(status: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """What the kubelet says of the node's own container: at most one."""
    return [c for c in status.get("containerStatuses") or () if c.get("name") in _CONTAINERS]


def _phase(status: Mapping[str, Any], containers: Sequence[Mapping[str, Any]]) -> Phase:
    """The Pod's phase; Failed as soon as its container has ended: the phase tells it a second later."""
    if any((container.get("state") or {}).get("terminated") for container in containers):
        return Phase.SUCCEEDED if status.get("phase") == "Succeeded" else Phase.FAILED
    return _PHASES.get(status.get("phase", ""), Phase.UNKNOWN)


def _trouble(waiting: Mapping[str, Any]) -> str:
    """The kubelet's reason, unless it is only the usual way to a start."""
    reason = str(waiting.get("reason", ""))
    return "" if reason in ("ContainerCreating", "PodInitializing") else reason


def _ended(status: Mapping[str, Any], containers: Sequence[Mapping[str, Any]]) -> str:
    """How the process ended, in words; empty while it has not."""
    if _phase(status, containers) not in (Phase.FAILED, Phase.SUCCEEDED):
        return ""
    if status.get("reason"):
        return f"{status['reason']}: {status.get('message', '')}".rstrip(": ")[:300]
    for container in containers:
        end = (container.get("state") or {}).get("terminated")
        if end:
            reason = f" ({end['reason']})" if end.get("reason") else ""
            return f"its process ended with exit code {end.get('exitCode', 'unknown')}{reason}"
    return f"its Pod is {status.get('phase')}"


def _time(text: object) -> datetime | None:
    try:
        return parse_time(text) if isinstance(text, str) else None
    except ValueError:
        return None
