"""The manifest of one SFU Pod.

restartPolicy is Never: a killed process is a new Pod with a new name, so that nobody mistakes the empty
newcomer for the node whose rooms it does not have.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Final

from headwater_api import wellknown as wk
from headwater_api.external import annotation_of
from headwater_api.sfucluster import RegionSpec, SFUCluster
from headwater_api.traces import ENV_ENDPOINT
from headwater_planner.world import Guard

from headwater_operator.render.pod import (
    USER,
    Manifest,
    env_of,
    labels_of,
    owner_of,
    pair_of,
    probe,
    security_of,
    spec_of,
)

CONTAINER: Final = "sfu"
TLS_DIR: Final = "/etc/headwater/node-tls"
_MORE_THAN_ANY: Final = 1_000_000  # nodes of one fleet
# What the kubelet's own work takes of the termination grace.
GRACE_MARGIN_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class SfuDefaults:
    """What the installation decides and the SFUCluster does not."""

    image: str
    node_token_secret: str
    node_tls_secret: str = ""  # empty: gRPC without TLS
    traces: str = ""  # endpoint; empty: none are made


def render_sfu_pod(cluster: SFUCluster, region: RegionSpec, name: str, defaults: SfuDefaults) -> Manifest:
    """The Pod `name` of the cluster in the region, owned by the cluster."""
    grace_s = int(cluster.spec.node.pod_template.termination_grace_period.total_seconds())
    together = {wk.LABEL_CLUSTER: cluster.metadata.name, wk.LABEL_REGION: region.name}
    spec = spec_of(cluster, region, together, grace_s)
    spec["containers"] = [_container(cluster, region, defaults)]
    if defaults.node_tls_secret:
        spec["volumes"] = [{"name": "node-tls", "secret": pair_of(defaults.node_tls_secret)}]
        spec["securityContext"]["fsGroup"] = USER
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _metadata(cluster, region, name, defaults),
        "spec": spec,
    }


def _metadata(cluster: SFUCluster, region: RegionSpec, name: str, defaults: SfuDefaults) -> Manifest:
    template = cluster.spec.node.pod_template
    guard = render_guard(name, Guard(serves=True))["metadata"]
    return {
        "name": name,
        "namespace": cluster.metadata.namespace,
        "labels": {
            **template.labels,
            **node_labels(cluster.metadata.name, region.name),
            **guard["labels"],
            wk.LABEL_NODE: name,
            wk.LABEL_TEMPLATE: template_hash(cluster, region, defaults),
        },
        "annotations": {
            **guard["annotations"],
            **template.annotations,
            wk.ANNOTATION_EXPOSURE: cluster.spec.node.exposure.mode,
            wk.ANNOTATION_NODE_TLS: str(bool(defaults.node_tls_secret)).lower(),
        },
        "ownerReferences": [owner_of(cluster)],
    }


def render_guard(name: str, guard: Guard) -> Manifest:
    """What a Pod says to those who would evict it, and where clients reach it. Autoscalers of Kubernetes
    nodes and `kubectl drain` must not take a node that serves: the operator drains it first."""
    serves, idle = ("true", "false") if guard.serves else ("false", "true")
    return {
        "metadata": {
            "name": name,
            "labels": {wk.LABEL_SERVES: serves},
            "annotations": {
                "cluster-autoscaler.kubernetes.io/safe-to-evict": idle,
                "karpenter.sh/do-not-disrupt": serves,
                wk.ANNOTATION_STATE: guard.state,
                **annotation_of(guard.external),
            },
        }
    }


def template_hash(cluster: SFUCluster, region: RegionSpec, defaults: SfuDefaults) -> str:
    """What the region's nodes are made from, as ten characters: what people declare, not how we render it,
    so that a newer operator replaces no node for its own sake."""
    parts = [
        cluster.spec.node.to_kubernetes(),
        cluster.spec.node.image or defaults.image,
        region.node_selector,
        [toleration.to_kubernetes() for toleration in region.tolerations],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]


def render_budget(cluster: SFUCluster) -> Manifest:
    """No serving SFU Pod may be evicted: whoever wants its machine cordons that, and the operator drains."""
    labels = {
        wk.LABEL_COMPONENT: wk.COMPONENT_SFU,
        wk.LABEL_CLUSTER: cluster.metadata.name,
        wk.LABEL_SERVES: "true",
    }
    return {
        "metadata": {
            "name": budget_name(cluster.metadata.name),
            "namespace": cluster.metadata.namespace,
            "labels": {wk.LABEL_MANAGED_BY: wk.MANAGED_BY, wk.LABEL_CLUSTER: cluster.metadata.name},
            "ownerReferences": [owner_of(cluster)],
        },
        # Not maxUnavailable: 0. For that the controller asks the owner's scale, whose `replicas` is a floor
        # for the fleet and not the number of these Pods.
        "spec": {"minAvailable": _MORE_THAN_ANY, "selector": {"matchLabels": labels}},
    }


def budget_name(cluster: str) -> str:
    """Of the fleet's PodDisruptionBudget."""
    return f"{cluster}-sfu"


def node_labels(cluster: str, region: str) -> dict[str, str]:
    """What finds an SFU Pod."""
    return labels_of(wk.COMPONENT_SFU, cluster, region)


def _container(cluster: SFUCluster, region: RegionSpec, defaults: SfuDefaults) -> Manifest:
    node = cluster.spec.node
    return {
        "name": CONTAINER,
        "image": node.image or defaults.image,
        "imagePullPolicy": node.image_pull_policy,
        "command": ["headwater-sfu"],
        "env": _env(cluster, region, defaults),
        "ports": [
            {"name": "media", "containerPort": wk.PORT_MEDIA, "protocol": "UDP", **_host_port(cluster)},
            {"name": "grpc", "containerPort": wk.PORT_NODE_GRPC, "protocol": "TCP"},
            {"name": "admin", "containerPort": wk.PORT_ADMIN, "protocol": "TCP"},
        ],
        "resources": node.resources.to_kubernetes(),
        "securityContext": security_of(),
        **_tls_mounts(defaults),
        "readinessProbe": probe("/readyz", wk.PORT_ADMIN, periodSeconds=1, failureThreshold=3),
        # The process's own loop only; generous, for a busy node is not a dead one.
        "livenessProbe": probe(
            "/healthz", wk.PORT_ADMIN, periodSeconds=5, failureThreshold=6, initialDelaySeconds=10
        ),
    }


def _tls_mounts(defaults: SfuDefaults) -> Manifest:
    """Whole, not a file of it: what is mounted so follows the Secret."""
    mount = {"name": "node-tls", "mountPath": TLS_DIR, "readOnly": True}
    return {"volumeMounts": [mount]} if defaults.node_tls_secret else {}


def _host_port(cluster: SFUCluster) -> Manifest:
    """The scheduler gives a Kubernetes node's port to one Pod at a time."""
    return {"hostPort": wk.PORT_MEDIA} if cluster.spec.node.exposure.mode == "HostPort" else {}


def _drain_grace_s(cluster: SFUCluster) -> float:
    """What a node that is told to end has for emptying itself."""
    grace_s = cluster.spec.node.pod_template.termination_grace_period.total_seconds()
    return max(grace_s - GRACE_MARGIN_S, grace_s / 2)


def _env(cluster: SFUCluster, region: RegionSpec, defaults: SfuDefaults) -> list[Manifest]:
    fields = {
        wk.ENV_POD_NAME: "metadata.name",
        wk.ENV_POD_IP: "status.podIP",
        wk.ENV_POD_NAMESPACE: "metadata.namespace",
    }
    values = {
        wk.ENV_REGION: region.name,
        wk.ENV_CLUSTER: cluster.metadata.name,
        wk.ENV_MAX_CONNECTIONS: str(cluster.spec.node.capacity.connections),
        wk.ENV_DRAIN_GRACE: f"{_drain_grace_s(cluster):g}",
    }
    if defaults.node_tls_secret:
        values[wk.ENV_NODE_TLS_DIR] = TLS_DIR
    if defaults.traces:
        values[ENV_ENDPOINT] = defaults.traces
    return env_of(fields, values, defaults.node_token_secret)
