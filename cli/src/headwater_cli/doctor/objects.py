"""From Kubernetes objects to facts. Pure."""

from datetime import UTC, datetime
from typing import Any

from headwater_api import wellknown as wk
from headwater_api.external import external_addresses

from headwater_cli.doctor.facts import KubeNode, LeaseFacts, PodFacts, Report, SecretUse

Object = dict[str, Any]


def kube_node(node: Object) -> KubeNode:
    meta = node["metadata"]
    ready = _condition(node, "Ready")
    return KubeNode(
        meta["name"], meta.get("labels") or {}, ready, not node.get("spec", {}).get("unschedulable", False)
    )


def pod_facts(pod: Object) -> PodFacts:
    meta, spec, status = pod["metadata"], pod["spec"], pod.get("status", {})
    labels = meta.get("labels") or {}
    container = spec["containers"][0]
    state: Object = next(iter(status.get("containerStatuses") or ()), {})
    waiting = state.get("state", {}).get("waiting") or {}
    ended = state.get("state", {}).get("terminated") or {}
    unscheduled = next(
        (c.get("message", "") for c in status.get("conditions") or () if c["type"] == "PodScheduled"), ""
    )
    return PodFacts(
        name=meta["name"],
        component=labels.get(wk.LABEL_COMPONENT, ""),
        region=labels.get(wk.LABEL_REGION, ""),
        ready=_condition(pod, "Ready"),
        phase=status.get("phase", ""),
        waiting=waiting.get("reason", ""),
        message=waiting.get("message") or ended.get("message") or status.get("message") or unscheduled,
        restarts=int(state.get("restartCount", 0)),
        image=container.get("image", ""),
        env={e["name"]: e["value"] for e in container.get("env") or () if "value" in e},
        secrets=_secret_uses(spec, container),
        ip=status.get("podIP", ""),
        external=external_addresses(meta.get("annotations") or {}),
    )


def _secret_uses(spec: Object, container: Object) -> tuple[SecretUse, ...]:
    uses = []
    for variable in container.get("env") or ():
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        if reference and not reference.get("optional"):
            uses.append(SecretUse(reference["name"], reference["key"]))
    for volume in spec.get("volumes") or ():
        secret = volume.get("secret")
        if secret and not secret.get("optional"):
            uses.append(SecretUse(secret["secretName"], ""))
    return tuple(uses)


def lease_facts(lease: Object) -> LeaseFacts:
    spec = lease.get("spec", {})
    renewed = spec.get("renewTime")
    return LeaseFacts(
        holder=spec.get("holderIdentity") or "",
        renewed=datetime.fromisoformat(renewed) if renewed else None,
        duration_s=int(spec.get("leaseDurationSeconds") or 0),
    )


def report(body: Object) -> Report:
    at_ms = int(body.get("at_ms", 0))
    return Report(
        at=datetime.fromtimestamp(at_ms / 1000, UTC) if at_ms else None,
        media_addresses=tuple(body.get("media_addresses", ())),
        receive_buffer_bytes=int(body.get("receive_buffer_bytes", 0)),
    )


def _condition(item: Object, kind: str) -> bool:
    conditions = item.get("status", {}).get("conditions") or ()
    return any(c["type"] == kind and c["status"] == "True" for c in conditions)
