"""The gateway's watches in one place: what they feed, and whether they have been read once."""

import asyncio
import random
import ssl
from dataclasses import replace

import structlog
from headwater_api import wellknown
from headwater_api.ids import ClusterName, GatewayId, NodeId, RegionName, RoomId
from headwater_planner.cluster_policy import ClusterPolicy
from headwater_planner.geo_distance import Coordinates
from kubernetes.aio.client import ApiClient

from headwater_gateway import fleet_views as views
from headwater_gateway.directory.peers import Peers
from headwater_gateway.kube.meeting_secrets import MeetingSecrets
from headwater_gateway.kube.reflector import CallbackSink, Object, Reflector
from headwater_gateway.meetings import Meetings
from headwater_gateway.room.directory import RoomDirectory
from headwater_gateway.room.model import RoomConfig
from headwater_gateway.signal.types import GatewayPeer
from headwater_gateway.tasks import report
from headwater_gateway.turn.servers import TurnServers

log = structlog.get_logger(__name__)


class Fleet:
    """What is known of regions and gateways. Filled by the watches, read on the join path."""

    def __init__(
        self,
        directory: RoomDirectory,
        defaults: RoomConfig,
        secrets: MeetingSecrets,
        *,
        turn: TurnServers,
        links: Peers,
        meetings: Meetings,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._tls = tls  # what other gateways are checked by
        self._directory, self._defaults, self._secrets = directory, defaults, secrets
        self._turn, self._links = turn, links
        self._known = meetings
        meetings.on_created = self.meeting_seen
        meetings.clusters = lambda: tuple(sorted(self._clusters))
        self._meetings: dict[RoomId, RoomConfig] = {}
        secrets.on_changed = self._apply
        self._clusters: dict[ClusterName, views.ClusterView] = {}
        self.gateways: dict[str, GatewayPeer] = {}  # those that take rooms
        self.peers: dict[str, GatewayPeer] = {}  # all others that can be reached

    def regions(self) -> dict[RegionName, Coordinates | None]:
        """All regions of all clusters."""
        merged: dict[RegionName, Coordinates | None] = {}
        for cluster in self._clusters.values():
            merged.update(cluster.regions)
        return merged

    def allowed_regions(self) -> dict[ClusterName, frozenset[RegionName]]:
        """Where each cluster lets participants be placed; empty: everywhere."""
        return {name: cluster.allowed for name, cluster in self._clusters.items()}

    def policies(self) -> dict[ClusterName, ClusterPolicy]:
        """Each cluster's capacity, strategy and cascade."""
        return {name: cluster.policy for name, cluster in self._clusters.items()}

    def pod_seen(self, name: str, body: Object) -> None:
        pod = views.node_pod(body)
        if pod is not None:
            self._directory.pool.pod_seen(pod)
        elif views.has_ended(body):
            self._directory.pool.pod_gone(NodeId(name), "its Pod has ended")

    def pod_gone(self, name: str) -> None:
        self._directory.pool.pod_gone(NodeId(name))

    def gateway_seen(self, name: str, body: Object) -> None:
        peer = views.gateway_peer(body, self._tls)
        if peer is None:
            self.gateway_gone(name)
            return
        if views.takes_rooms(body):
            self.gateways[name] = peer
        else:
            self.gateways.pop(name, None)
        self.gateway_reachable(peer)

    def gateway_reachable(self, peer: GatewayPeer) -> None:
        """A gateway with an address: it is followed, unless it is this one."""
        if peer.gateway != self._directory.controller_id:
            self.peers[peer.gateway] = peer
            self._links.seen(peer.gateway, peer.beats or peer.url)

    def gateway_gone(self, name: str) -> None:
        self.gateways.pop(name, None)
        self.peers.pop(name, None)
        self._links.gone(GatewayId(name))

    def cluster_seen(self, name: str, body: Object) -> None:
        cluster = views.cluster_view(body)
        if cluster is not None:
            self._clusters[ClusterName(name)] = cluster
            self._turn.policy_seen(ClusterName(name), cluster.turn)

    def cluster_gone(self, name: str) -> None:
        self._clusters.pop(ClusterName(name), None)
        self._turn.policy_gone(ClusterName(name))

    def turn_seen(self, name: str, body: Object) -> None:
        pod = views.turn_pod(body)
        if pod is not None:
            self._turn.pod_seen(pod)
        elif views.has_ended(body):
            self._turn.pod_gone(name, "its Pod has ended")

    def turn_gone(self, name: str) -> None:
        self._turn.pod_gone(name)

    def meeting_seen(self, name: str, body: Object) -> None:
        self._known.seen(name, body)
        config = views.meeting_config(body, self._defaults)
        if config.unreadable:  # what it said before holds for those who are in
            config = replace(self._meetings.get(RoomId(name), config), unreadable=config.unreadable)
        else:
            self._secrets.want(RoomId(name), views.secret_refs(body))
        self._meetings[RoomId(name)] = config
        self._apply(RoomId(name))

    def _apply(self, room: RoomId) -> None:
        """The Meeting's policy, with the password that its Secret holds now."""
        config = self._meetings.get(room)
        if config is not None:
            fingerprint = self._secrets.fingerprint(room)
            self._directory.meeting_seen(room, replace(config, password=fingerprint))

    def meeting_gone(self, name: str) -> None:
        self._known.gone(name)
        self._meetings.pop(RoomId(name), None)
        self._secrets.want(RoomId(name), {})
        self._directory.meeting_gone(RoomId(name))


class Watches:
    """Owner of the reflectors' tasks."""

    def __init__(self, api: ApiClient, namespace: str, fleet: Fleet, rng: random.Random) -> None:
        pods = f"/api/v1/namespaces/{namespace}/pods"
        ours = f"/apis/{wellknown.GROUP}/{wellknown.VERSION}/namespaces/{namespace}"
        nodes = f"{wellknown.LABEL_MANAGED_BY}={wellknown.MANAGED_BY}"
        nodes += f",{wellknown.LABEL_COMPONENT}={wellknown.COMPONENT_SFU}"
        gateways = f"{wellknown.LABEL_COMPONENT}={wellknown.COMPONENT_GATEWAY}"
        turns = f"{wellknown.LABEL_MANAGED_BY}={wellknown.MANAGED_BY}"
        turns += f",{wellknown.LABEL_COMPONENT}={wellknown.COMPONENT_TURN}"
        self._api = api
        self._reflectors = {
            "TURN Pods": Reflector(
                api, pods, CallbackSink(fleet.turn_seen, fleet.turn_gone), rng, labels=turns
            ),
            "SFU Pods": Reflector(api, pods, CallbackSink(fleet.pod_seen, fleet.pod_gone), rng, labels=nodes),
            "gateway Pods": Reflector(
                api, pods, CallbackSink(fleet.gateway_seen, fleet.gateway_gone), rng, labels=gateways
            ),
            "SFUClusters": Reflector(
                api, f"{ours}/sfuclusters", CallbackSink(fleet.cluster_seen, fleet.cluster_gone), rng
            ),
            "Meetings": Reflector(
                api, f"{ours}/meetings", CallbackSink(fleet.meeting_seen, fleet.meeting_gone), rng
            ),
        }
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to follow."""
        for name, reflector in self._reflectors.items():
            task = asyncio.create_task(reflector.run(), name=f"watch {name}")
            report(task, "kube.watch_died")
            self._tasks.append(task)

    def missing(self) -> list[str]:
        """What has never been read yet."""
        return [name for name, reflector in self._reflectors.items() if not reflector.synced.is_set()]

    def dead(self) -> list[str]:
        """Watches that have ended by a fault of ours."""
        return [t.get_name() for t in self._tasks if t.done()]

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._api.close()  # type: ignore[no-untyped-call]
