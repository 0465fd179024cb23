"""What SFU and TURN Pods have in common."""

from collections.abc import Mapping
from typing import Any


def spread(labels: Mapping[str, str]) -> list[dict[str, Any]]:
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
