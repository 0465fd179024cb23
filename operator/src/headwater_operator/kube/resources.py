"""Where the kinds we touch live in the API: REST paths, no I/O."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from headwater_api import wellknown


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind: `group` is empty for the core API."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The REST path; without `namespace` of a namespaced kind, that of all namespaces."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        parts += [quote(part, safe="") for part in (name, subresource) if part]
        return "/".join(parts)


SFUCLUSTERS: Final = Resource(wellknown.GROUP, wellknown.VERSION, "sfuclusters", "SFUCluster")
MEETINGS: Final = Resource(wellknown.GROUP, wellknown.VERSION, "meetings", "Meeting")
PODS: Final = Resource("", "v1", "pods", "Pod")
SERVICES: Final = Resource("", "v1", "services", "Service")
NODES: Final = Resource("", "v1", "nodes", "Node", namespaced=False)
CONFIG_MAPS: Final = Resource("", "v1", "configmaps", "ConfigMap")
BUDGETS: Final = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease")
EVENTS: Final = Resource("events.k8s.io", "v1", "events", "Event")
