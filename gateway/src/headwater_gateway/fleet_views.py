"""Kubernetes objects as the gateway's own terms. Pure; nothing raises for an object of odd shape."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any

import structlog
from headwater_api.external import external_addresses
from headwater_api.fleet_policy import Turn
from headwater_api.ids import ClusterName, GatewayId, NodeId, ParticipantIdentity, RegionName
from headwater_api.meeting import ENDED, Meeting, Schedule
from headwater_api.reasons import Reason
from headwater_api.sfucluster import SFUCluster
from headwater_api.wellknown import (
    ANNOTATION_EXPOSURE,
    ANNOTATION_EXTERNAL,
    ANNOTATION_GATEWAY_TLS,
    ANNOTATION_NODE_TLS,
    EXPOSED_ELSEWHERE,
    LABEL_CLUSTER,
    LABEL_REGION,
    PORT_GATEWAY_TLS,
    PORT_NODE_GRPC,
    PORT_SIGNAL,
)
from headwater_planner.cascade import CascadePolicy
from headwater_planner.cluster_policy import ClusterPolicy
from headwater_planner.geo_distance import Coordinates, great_circle_km
from headwater_planner.hub_tree import RegionMap, edge
from headwater_planner.place import KM_PER_MS
from pydantic import ValidationError

from headwater_gateway.nodes.facts import NodePod
from headwater_gateway.passwords import HOST_KEY, PASSWORD
from headwater_gateway.room.model import RoomConfig
from headwater_gateway.signal.types import GatewayPeer
from headwater_gateway.turn.follow import TurnPod

log = structlog.get_logger(__name__)

Object = Mapping[str, Any]


def _host(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip


def has_ended(pod: Object) -> bool:
    """The Pod's processes are gone for good."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def node_pod(pod: Object) -> NodePod | None:
    """The node behind an SFU Pod; None while we or its clients have no address for it, and once it has
    ended."""
    metadata, status = pod["metadata"], pod.get("status", {})
    ip = status.get("podIP", "")
    labels = metadata.get("labels", {})
    region, cluster = labels.get(LABEL_REGION, ""), labels.get(LABEL_CLUSTER, "")
    if not ip or not region or has_ended(pod):
        return None
    annotations = metadata.get("annotations") or {}
    external = external_addresses(annotations)
    if not external and annotations.get(ANNOTATION_EXPOSURE) in EXPOSED_ELSEWHERE:
        return None
    tls = annotations.get(ANNOTATION_NODE_TLS) == "true"
    address = f"{_host(ip)}:{PORT_NODE_GRPC}"
    owner = ClusterName(cluster) or None
    return NodePod(NodeId(metadata["name"]), RegionName(region), address, owner, tls, external)


def turn_pod(pod: Object) -> TurnPod | None:
    """The TURN node behind a Pod; None while it has no address, and once it has ended."""
    metadata, ip = pod["metadata"], pod.get("status", {}).get("podIP", "")
    labels = metadata.get("labels", {})
    region, cluster = labels.get(LABEL_REGION, ""), labels.get(LABEL_CLUSTER, "")
    if not ip or not region or has_ended(pod):
        return None
    external = (metadata.get("annotations") or {}).get(ANNOTATION_EXTERNAL, "")
    if not _is_address(external):
        external = ""
    return TurnPod(metadata["name"], RegionName(region), ip, ClusterName(cluster) or None, external)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def takes_rooms(pod: Object) -> bool:
    """A gateway Pod that serves: it is ready and not on its way out."""
    conditions = {c.get("type"): c.get("status") for c in pod.get("status", {}).get("conditions") or ()}
    return not pod["metadata"].get("deletionTimestamp") and conditions.get("Ready") == "True"


def gateway_peer(pod: Object, tls: ssl.SSLContext | None = None) -> GatewayPeer | None:
    """Where a gateway Pod can be reached, ready or not; None: it has no address, or has ended.

    By TLS where both ends have it: while that is rolled out, some do not.
    """
    ip = pod.get("status", {}).get("podIP")
    if not ip or has_ended(pod):
        return None
    name, plain = GatewayId(pod["metadata"]["name"]), f"http://{_host(ip)}:{PORT_SIGNAL}"
    annotations = pod["metadata"].get("annotations") or {}
    if tls is None or annotations.get(ANNOTATION_GATEWAY_TLS) != "true":
        return GatewayPeer(name, plain)
    return GatewayPeer(name, f"https://{_host(ip)}:{PORT_GATEWAY_TLS}", tls, plain)


@dataclass(frozen=True, slots=True)
class ClusterView:
    """What placement needs of an SFUCluster. `allowed` empty: participants may be placed in each region."""

    regions: Mapping[RegionName, Coordinates | None]
    allowed: frozenset[RegionName] = frozenset()
    policy: ClusterPolicy = field(default_factory=ClusterPolicy)
    turn: Turn = field(default_factory=Turn)


def cluster_view(cluster: Object) -> ClusterView | None:
    """The regions of an SFUCluster and its placement policy; None for one that cannot be read."""
    try:
        parsed = SFUCluster.model_validate(cluster)
    except ValidationError as error:
        log.warning("kube.cluster_unreadable", name=cluster["metadata"]["name"], reason=_first(error))
        return None
    regions = {
        RegionName(r.name): (
            Coordinates(r.coordinates.latitude, r.coordinates.longitude) if r.coordinates else None
        )
        for r in parsed.spec.regions
    }
    allowed = frozenset(RegionName(r) for r in parsed.spec.placement.allowed_regions)
    return ClusterView(regions, allowed, cluster_policy(parsed, regions), parsed.spec.turn)


def cluster_policy(cluster: SFUCluster, regions: Mapping[RegionName, Coordinates | None]) -> ClusterPolicy:
    """What the planner needs of spec.node.capacity, spec.placement and spec.cascade."""
    spec = cluster.spec
    shape = spec.cascade.topology
    return ClusterPolicy(
        egress_mbps=spec.node.capacity.egress_mbps,
        packets_per_second=spec.node.capacity.packets_per_second,
        strategy=spec.placement.strategy,
        sticky=spec.placement.stickiness == "Room",
        one_node=shape == "Disabled",
        cascade=CascadePolicy(
            "Auto" if shape == "Disabled" else shape,
            spec.cascade.max_hops,
            RegionMap(
                {(RegionName(c.source), RegionName(c.target)): c.cost for c in spec.cascade.egress_costs},
                {
                    edge(a, b): great_circle_km(here, there) / KM_PER_MS / 2
                    for a, here in regions.items()
                    for b, there in regions.items()
                    if a < b and here is not None and there is not None
                },
            ),
        ),
    )


def meeting_config(meeting: Object, defaults: RoomConfig) -> RoomConfig:
    """The room's policy from its Meeting. One that cannot be read lets nobody in."""
    try:
        parsed = Meeting.model_validate(meeting)
    except ValidationError as error:
        name, why = meeting["metadata"]["name"], _first(error)
        log.error("kube.meeting_unreadable", name=name, reason=Reason.MEETING_UNREADABLE, why=why)
        return replace(defaults, is_declared=True, unreadable=why)
    spec = parsed.spec
    allowed = spec.placement.pin or spec.placement.allow
    denied = () if spec.placement.pin else spec.placement.deny
    timeout = int(spec.empty_timeout.total_seconds())
    return RoomConfig(
        max_participants=spec.max_participants or 0,
        empty_timeout_s=timeout,
        departure_timeout_s=timeout,
        locked=spec.access.locked,
        metadata=defaults.metadata,
        allowed_regions=frozenset(RegionName(r) for r in allowed),
        denied_regions=frozenset(RegionName(r) for r in denied),
        cluster=ClusterName(spec.cluster_ref.name),
        max_spatial=spec.media.max_video_layer,
        resume_grace_s=defaults.resume_grace_s,
        move_grace_s=defaults.move_grace_s,
        is_declared=True,
        title=spec.title,
        waiting_room=spec.access.waiting_room,
        invited=frozenset(ParticipantIdentity(i) for i in spec.access.invited),
        hosts=frozenset(ParticipantIdentity(i) for i in spec.access.hosts),
        join_before_host=spec.access.join_before_host,
        opens_at_ms=_opens_at_ms(spec.schedule),
        mute_on_entry=spec.access.mute_on_entry,
        allow_screen_share=spec.access.allow_screen_share,
        e2ee_required=spec.media.e2ee == "Required",
        recording_consent=spec.access.recording_consent,
        audio_top_n=spec.media.audio_top_n,
        has_ended=any(c.type == ENDED and c.status == "True" for c in parsed.status.conditions),
    )


def _opens_at_ms(schedule: Schedule | None) -> int:
    """Participants come in with the capacity, a lead time before the start."""
    if schedule is None:
        return 0
    return int((schedule.start - schedule.lead_time).timestamp() * 1000)


def secret_refs(meeting: Object) -> dict[str, tuple[str, str]]:
    """Where the password and the host key of a Meeting are: what → (Secret, key)."""
    access = meeting.get("spec", {}).get("access") or {}
    refs = {PASSWORD: access.get("passwordSecretRef"), HOST_KEY: access.get("hostKeySecretRef")}
    return {what: (str(ref["name"]), str(ref["key"])) for what, ref in refs.items() if ref}


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
