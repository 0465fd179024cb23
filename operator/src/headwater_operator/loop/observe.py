"""Reads all that a fleet's plan needs: the SFUCluster and its Pods freshly from the API server, Kubernetes
nodes at most `NODES_TTL_S` old, node reports from memory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog
from headwater_api import wellknown
from headwater_api.model import InvalidResource
from headwater_api.sfucluster import SFUCluster
from headwater_planner.exposure import BY_SERVICE
from headwater_planner.world import ClusterWorld, KubeNodeView, NodeLoad, PodView, ServiceView

from headwater_operator.kube.client import KubeClient, Object
from headwater_operator.kube.errors import NotFound, Refused
from headwater_operator.kube.resources import NODES, PODS, SERVICES, SFUCLUSTERS
from headwater_operator.loop.deaths import Deaths
from headwater_operator.loop.views import kube_node_view, pod_view, service_view
from headwater_operator.nodes.inbox import Inbox
from headwater_operator.render.sfu_node import SfuDefaults, template_hash

log = structlog.get_logger(__name__)
Key = tuple[str, str]  # namespace, name
NODES_TTL_S: Final = 4.0


@dataclass(frozen=True, slots=True)
class Invalid:
    """An SFUCluster that this version cannot read, and why."""

    body: Object
    why: str


class Observer:
    """Builds worlds. One for the whole operator."""

    def __init__(
        self,
        client: KubeClient,
        inbox: Inbox,
        defaults: SfuDefaults,
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._client = client
        self._inbox = inbox
        self._defaults = defaults
        self._now = now
        self._monotonic = monotonic
        self._deaths: dict[str, Deaths] = {}  # by the fleet's uid
        self._nodes: tuple[KubeNodeView, ...] | None = None
        self._nodes_at = float("-inf")

    async def observe_cluster(self, key: Key) -> ClusterWorld | Invalid | None:
        """The world of one fleet; None where the SFUCluster is gone. Raises KubeError."""
        namespace, name = key
        try:
            body = await self._client.get(SFUCLUSTERS, namespace, name)
        except NotFound:
            return None
        try:
            cluster = SFUCluster.from_kubernetes(body)
        except InvalidResource as error:
            return Invalid(body, str(error))
        labels = f"{wellknown.LABEL_COMPONENT}={wellknown.COMPONENT_SFU},{wellknown.LABEL_CLUSTER}={name}"
        bodies = [
            pod
            for pod in await self._client.list(PODS, namespace, labels=labels)
            if _owner(pod) == cluster.metadata.uid
        ]
        deaths = self._deaths.setdefault(cluster.metadata.uid, Deaths())
        pods = []
        for pod_body in bodies:
            pod = pod_view(pod_body)
            deaths.see(pod, pod_body, self._now())
            pods.append(pod)
        kube_nodes = await self._kube_nodes()
        return ClusterWorld(
            cluster=cluster,
            pods=tuple(pods),
            kube_nodes=kube_nodes,
            loads=self.loads(namespace, pods),
            deaths=deaths.known(),
            templates={
                region.name: template_hash(cluster, region, self._defaults) for region in cluster.spec.regions
            },
            services=await self._services(namespace, labels, pods),
        )

    def loads(self, namespace: str, pods: list[PodView] | tuple[PodView, ...]) -> dict[str, NodeLoad]:
        """The last reports of those Pods, aged to now."""
        found = ((pod.name, self._inbox.get((namespace, pod.name), pod.uid)) for pod in pods)
        return {name: load for name, load in found if load is not None}

    def loads_of_room(self, namespace: str, room: str, pods: Mapping[str, PodView]) -> tuple[NodeLoad, ...]:
        """The last reports, aged to now, of those of `pods` (by name) that serve the room."""
        serving = (pods[name] for name in self._inbox.serving(namespace, room) if name in pods)
        loads = (self._inbox.get((namespace, pod.name), pod.uid) for pod in serving)
        return tuple(load for load in loads if load is not None)

    def is_heard(self, namespace: str, pod: PodView) -> bool:
        """Whether the Pod's last report still tells about now."""
        return self._inbox.is_fresh((namespace, pod.name), pod.uid)

    def forget(self, uid: str) -> None:
        """The fleet is gone."""
        self._deaths.pop(uid, None)

    async def _services(
        self, namespace: str, labels: str, pods: list[PodView]
    ) -> dict[str, ServiceView] | None:
        """By Pod name; asked for only where a Pod was made to have one. None where that is refused."""
        if not any(pod.exposure in BY_SERVICE for pod in pods):
            return {}
        try:
            bodies = await self._client.list(SERVICES, namespace, labels=labels)
        except Refused as error:
            log.warning("Services cannot be listed", namespace=namespace, error=str(error))
            return None
        return {body["metadata"]["name"]: service_view(body) for body in bodies}

    async def _kube_nodes(self) -> tuple[KubeNodeView, ...] | None:
        """None where the operator may not list them: a namespaced installation."""
        if self._monotonic() - self._nodes_at < NODES_TTL_S:
            return self._nodes
        try:
            self._nodes = tuple(kube_node_view(node) for node in await self._client.list(NODES))
        except Refused as error:
            log.info("Kubernetes nodes cannot be listed", error=str(error))
            self._nodes = None
        self._nodes_at = self._monotonic()
        return self._nodes


def _owner(pod: Object) -> str:
    """The uid of the Pod's controller."""
    references = pod["metadata"].get("ownerReferences") or ()
    return next((str(reference["uid"]) for reference in references if reference.get("controller")), "")
