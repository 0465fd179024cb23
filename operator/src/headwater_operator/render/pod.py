"""What SFU and TURN Pods have in common."""

from collections.abc import Mapping
from typing import Any, Final

from headwater_api import wellknown as wk
from headwater_api.certificates import CERTIFICATE, KEY
from headwater_api.sfucluster import KIND, RegionSpec, SFUCluster
from headwater_planner.status import selector_of

Manifest = dict[str, Any]
USER: Final = 65532  # the images' user
_PAIR: Final = [{"key": name, "path": name} for name in (CERTIFICATE, KEY)]


def spec_of(
    cluster: SFUCluster, region: RegionSpec, spread_over: Mapping[str, str], grace_s: int
) -> Manifest:
    """A Pod's spec without containers and volumes. `spread_over`: labels of those that it is spread with."""
    node = cluster.spec.node
    spec: Manifest = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": grace_s,
        "serviceAccountName": node.service_account_name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "nodeSelector": selector_of(region),
        "tolerations": [toleration.to_kubernetes() for toleration in region.tolerations],
        "topologySpreadConstraints": _spread(spread_over),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    if node.exposure.mode == "HostNetwork":
        spec |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    if node.image_pull_secrets:
        spec["imagePullSecrets"] = [secret.to_kubernetes() for secret in node.image_pull_secrets]
    if node.pod_template.priority_class_name:
        spec["priorityClassName"] = node.pod_template.priority_class_name
    return spec


def _spread(labels: Mapping[str, str]) -> list[Manifest]:
    """The Pods of these labels over zones, then over Kubernetes nodes, as far as there are any."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": dict(labels)},
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]


def labels_of(component: str, cluster: str, region: str) -> dict[str, str]:
    """What finds a Pod of that component."""
    return {
        wk.LABEL_MANAGED_BY: wk.MANAGED_BY,
        wk.LABEL_COMPONENT: component,
        wk.LABEL_CLUSTER: cluster,
        wk.LABEL_REGION: region,
    }


def owner_of(cluster: SFUCluster) -> Manifest:
    """The owner reference of whatever a fleet owns."""
    return {
        "apiVersion": f"{wk.GROUP}/{wk.VERSION}",
        "kind": KIND,
        "name": cluster.metadata.name,
        "uid": cluster.metadata.uid,
        "controller": True,
        # True would need a permission on the owner's finalizers subresource.
        "blockOwnerDeletion": False,
    }


def security_of(*added: str) -> Manifest:
    """A container's securityContext, with these capabilities."""
    capabilities: Manifest = {"drop": ["ALL"], **({"add": list(added)} if added else {})}
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": capabilities,
    }


def probe(path: str, port: int, **times: int) -> Manifest:
    """By HTTP."""
    return {"httpGet": {"path": path, "port": port}, "timeoutSeconds": 2, **times}


def env_of(fields: Mapping[str, str], values: Mapping[str, str], token_secret: str) -> list[Manifest]:
    """Variables from the Pod's own fields, with these values, and the nodes' token."""
    token = {"secretKeyRef": {"name": token_secret, "key": wk.NODE_TOKEN_KEY}}
    return [
        *({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()),
        *({"name": name, "value": value} for name, value in values.items()),
        {"name": wk.ENV_NODE_TOKEN, "valueFrom": token},
    ]


def pair_of(secret: str) -> Manifest:
    """A volume's source: certificate and key of a Secret, for the container's group."""
    return {"secretName": secret, "items": _PAIR, "defaultMode": 0o440}
