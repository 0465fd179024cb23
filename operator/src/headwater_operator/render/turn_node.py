"""The manifest of a TURN Pod: pure. It holds the Pod contract of `wellknown` and no secret's value."""

import hashlib
import json
from dataclasses import dataclass
from typing import Final

from headwater_api import wellknown as wk
from headwater_api.sfucluster import RegionSpec, SFUCluster

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

CONTAINER: Final = "turn"
SECRETS_DIR: Final = "/etc/headwater/turn-secrets"
TLS_DIR: Final = "/etc/headwater/turn-tls"
ADMIN_TLS_DIR: Final = "/etc/headwater/turn-admin-tls"
RUN_DIR: Final = "/run/headwater-turn"
GRACE_S: Final = 60


@dataclass(frozen=True, slots=True)
class TurnDefaults:
    """What the installation decides and the SFUCluster does not."""

    image: str
    node_token_secret: str
    admin_tls_secret: str = ""  # empty: commands without TLS


def render_turn_pod(cluster: SFUCluster, region: RegionSpec, name: str, defaults: TurnDefaults) -> Manifest:
    """The Pod `name` of the cluster in the region, owned by the cluster."""
    spec = _spec(cluster, region, defaults)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": cluster.metadata.namespace,
            "labels": turn_labels(cluster.metadata.name, region.name),
            "annotations": {
                # Autoscalers of Kubernetes nodes must not take a node that relays: the operator drains first.
                "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
                "karpenter.sh/do-not-disrupt": "true",
                wk.ANNOTATION_REVISION: revision_of(cluster, region, defaults),
                wk.ANNOTATION_EXPOSURE: cluster.spec.node.exposure.mode,
                wk.ANNOTATION_NODE_TLS: str(bool(defaults.admin_tls_secret)).lower(),
            },
            "ownerReferences": [owner_of(cluster)],
        },
        "spec": spec,
    }


def render_external(name: str, uid: str, external: str) -> Manifest:
    """What is written on that incarnation of a TURN Pod, and nothing else is."""
    return {"metadata": {"name": name, "uid": uid, "annotations": {wk.ANNOTATION_EXTERNAL: external}}}


def revision_of(cluster: SFUCluster, region: RegionSpec, defaults: TurnDefaults) -> str:
    """A digest of all that a Pod is made of: changes of it need a new Pod. Names of secrets' keys do not."""
    text = json.dumps(_spec(cluster, region, defaults), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def turn_labels(cluster: str, region: str) -> dict[str, str]:
    """What finds a TURN Pod."""
    return labels_of(wk.COMPONENT_TURN, cluster, region)


def tls_port(cluster: SFUCluster) -> int:
    """443; on the host's network the first port that needs no privilege."""
    return wk.PORT_TURN_TLS_HIGH if _on_host(cluster) else wk.PORT_TURN_TLS


def _on_host(cluster: SFUCluster) -> bool:
    return cluster.spec.node.exposure.mode == "HostNetwork"


def _filters(cluster: SFUCluster) -> bool:
    return cluster.spec.turn.packet_filter == "Enabled"


def _spec(cluster: SFUCluster, region: RegionSpec, defaults: TurnDefaults) -> Manifest:
    spec = spec_of(cluster, region, turn_labels(cluster.metadata.name, region.name), GRACE_S)
    spec["containers"] = [_container(cluster, region, defaults)]
    spec["volumes"] = _volumes(cluster, defaults)
    spec["securityContext"]["fsGroup"] = USER
    if _filters(cluster):
        # Added capabilities reach root only. The agent is root, of coturn's group; it starts coturn as USER.
        spec["securityContext"] |= {"runAsNonRoot": False, "runAsUser": 0}
    if not _on_host(cluster):  # 443 without a capability, which Pod Security's restricted profile allows
        sysctl = {"name": "net.ipv4.ip_unprivileged_port_start", "value": str(wk.PORT_TURN_TLS)}
        spec["securityContext"]["sysctls"] = [sysctl]
    return spec


def _container(cluster: SFUCluster, region: RegionSpec, defaults: TurnDefaults) -> Manifest:
    turn = cluster.spec.turn
    # nft; starting coturn as another user, and signalling it
    capabilities = ("NET_ADMIN", "SETUID", "SETGID", "KILL") if _filters(cluster) else ()
    port = tls_port(cluster)
    return {
        "name": CONTAINER,
        "image": turn.image or defaults.image,
        "imagePullPolicy": cluster.spec.node.image_pull_policy,
        "command": ["headwater-turn"],
        "env": _env(cluster, region, defaults),
        "ports": [
            {"name": "turn-udp", "containerPort": wk.PORT_TURN, "protocol": "UDP"},
            {"name": "turn-tcp", "containerPort": wk.PORT_TURN, "protocol": "TCP"},
            {"name": "turn-tls", "containerPort": port, "protocol": "TCP"},
            {"name": "admin", "containerPort": wk.PORT_TURN_ADMIN, "protocol": "TCP"},
            *_commands_port(defaults),
        ],
        "securityContext": security_of(*capabilities),
        "readinessProbe": probe("/readyz", wk.PORT_TURN_ADMIN, periodSeconds=1, failureThreshold=1),
        "livenessProbe": probe(
            "/healthz", wk.PORT_TURN_ADMIN, periodSeconds=5, failureThreshold=6, initialDelaySeconds=10
        ),
        "volumeMounts": _mounts(cluster, defaults),
    }


def _commands_port(defaults: TurnDefaults) -> list[Manifest]:
    port = {"name": "commands", "containerPort": wk.PORT_TURN_COMMANDS, "protocol": "TCP"}
    return [port] if defaults.admin_tls_secret else []


def _env(cluster: SFUCluster, region: RegionSpec, defaults: TurnDefaults) -> list[Manifest]:
    turn = cluster.spec.turn
    values = {
        wk.ENV_REGION: region.name,
        wk.ENV_TURN_SECRETS_DIR: SECRETS_DIR,
        "HEADWATER_TURN_RUN_DIR": RUN_DIR,
        "HEADWATER_TURN_TLS_PORT": str(tls_port(cluster)),
        "HEADWATER_TURN_PACKET_FILTER": str(_filters(cluster)).lower(),
        "HEADWATER_TURN_GRACE_SECONDS": str(GRACE_S - 10),
    }
    if _filters(cluster):
        values["HEADWATER_TURN_RUN_AS"] = str(USER)
    if turn.tls_secret_ref is not None:
        values["HEADWATER_TURN_TLS_DIR"] = TLS_DIR
    if defaults.admin_tls_secret:
        values[wk.ENV_TURN_ADMIN_TLS_DIR] = ADMIN_TLS_DIR
    fields = {wk.ENV_POD_NAME: "metadata.name", wk.ENV_POD_IP: "status.podIP"}
    return env_of(fields, values, defaults.node_token_secret)


def _secret_names(cluster: SFUCluster) -> list[str]:
    return sorted({reference.name for reference in cluster.spec.turn.shared_secret_refs})


def _volumes(cluster: SFUCluster, defaults: TurnDefaults) -> list[Manifest]:
    """Whole Secrets, so that a new key of theirs needs no new Pod; absent ones do not hold the Pod up."""
    volumes: list[Manifest] = [{"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}]
    for number, name in enumerate(_secret_names(cluster)):
        source = {"secretName": name, "optional": True, "defaultMode": 0o440}
        volumes.append({"name": f"secret-{number}", "secret": source})
    if cluster.spec.turn.tls_secret_ref is not None:
        source = {"secretName": cluster.spec.turn.tls_secret_ref.name, "defaultMode": 0o440}
        volumes.append({"name": "tls", "secret": source})
    if defaults.admin_tls_secret:
        volumes.append({"name": "admin-tls", "secret": pair_of(defaults.admin_tls_secret)})
    return volumes


def _mounts(cluster: SFUCluster, defaults: TurnDefaults) -> list[Manifest]:
    mounts: list[Manifest] = [{"name": "run", "mountPath": RUN_DIR}]
    for number, name in enumerate(_secret_names(cluster)):
        mounts.append({"name": f"secret-{number}", "mountPath": f"{SECRETS_DIR}/{name}", "readOnly": True})
    if cluster.spec.turn.tls_secret_ref is not None:
        mounts.append({"name": "tls", "mountPath": TLS_DIR, "readOnly": True})
    if defaults.admin_tls_secret:
        mounts.append({"name": "admin-tls", "mountPath": ADMIN_TLS_DIR, "readOnly": True})
    return mounts
