"""The manifest of the Service that leads to one SFU Pod and to no other: pure."""

from typing import Any

from headwater_api import wellknown as wk
from headwater_api.sfucluster import SFUCluster

from headwater_operator.render.sfu_node import node_labels

Manifest = dict[str, Any]


def render_service(cluster: SFUCluster, region: str, pod: str, *, uid: str, kind: str) -> Manifest:
    """A Service of type `kind` with the Pod's name, owned by that incarnation (`uid`) of the Pod."""
    owner = {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": pod,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": pod,
            "namespace": cluster.metadata.namespace,
            "labels": node_labels(cluster.metadata.name, region),
            "annotations": cluster.spec.node.exposure.service_annotations or {},
            "ownerReferences": [owner],
        },
        "spec": {
            "type": kind,
            "selector": {wk.LABEL_COMPONENT: wk.COMPONENT_SFU, wk.LABEL_NODE: pod},
            "ports": [
                {"name": "media", "protocol": "UDP", "port": wk.PORT_MEDIA, "targetPort": wk.PORT_MEDIA}
            ],
            # Clients are sent to the node's own machine: another one would pass on under its own address.
            "externalTrafficPolicy": "Local",
            # A node that drains is not ready, and serves until its last participant has moved.
            "publishNotReadyAddresses": True,
        },
    }
