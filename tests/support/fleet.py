"""Builders for the supply side's worlds, with telling defaults: tests say only what matters to them."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from headwater_api.meeting import Meeting
from headwater_api.sfucluster import SFUCluster, SFUClusterStatus
from headwater_planner.cluster import plan_cluster
from headwater_planner.scale.fixed import plan_fixed
from headwater_planner.scale.result import ScaleState
from headwater_planner.status import status_of_cluster
from headwater_planner.supply import Plan
from headwater_planner.world import ClusterWorld, KubeNodeView, NodeLoad, Phase, PodView, RoomLoad

NOW = datetime(2030, 1, 31, 9, 0, 0, tzinfo=UTC)


def a_cluster(regions: dict[str, tuple[int, int]] | None = None, **spec: Any) -> SFUCluster:
    """A fleet `demo`; regions by name with (minNodes, maxNodes)."""
    regions = regions if regions is not None else {"eu": (2, 10)}
    return SFUCluster.from_kubernetes(
        {
            "metadata": {"name": "demo", "namespace": "calls", "uid": "u-demo", "generation": 3},
            "spec": {
                "regions": [
                    {"name": name, "minNodes": low, "maxNodes": high} for name, (low, high) in regions.items()
                ],
                **spec,
            },
        }
    )


def a_pod(
    name: str, region: str = "eu", *, ready: bool = True, age_s: float = 600, **changes: Any
) -> PodView:
    """A running Pod, ready since its start."""
    created = NOW - timedelta(seconds=age_s)
    values: dict[str, Any] = {
        "name": name,
        "uid": f"u-{name}",
        "region": region,
        "phase": Phase.RUNNING,
        "created_at": created,
        "ready": ready,
        "ready_changed_at": created,
        "pod_ip": "127.9.0.1",
        "started": True,
    }
    return PodView(**(values | changes))


def a_pending_pod(name: str, region: str = "eu", **changes: Any) -> PodView:
    """A Pod that waits for its start."""
    waiting: dict[str, Any] = {"phase": Phase.PENDING, "pod_ip": "", "started": False, "ready": False}
    waiting["age_s"] = 2
    return a_pod(name, region, **(waiting | changes))


def a_load(
    node: str, region: str = "eu", *, participants: int = 0, age_s: float = 0.5, **changes: Any
) -> NodeLoad:
    """A report; with participants they are in room `r1`."""
    rooms = (RoomLoad("r1", participants),) if participants else ()
    values: dict[str, Any] = {
        "node": node,
        "region": region,
        "age_s": age_s,
        "participants": participants,
        "connections": 2 * participants,
        "max_connections": 1000,
        "rooms": rooms,
    }
    return NodeLoad(**(values | changes))


def a_world(
    cluster: SFUCluster | None = None,
    pods: Iterable[PodView] = (),
    loads: Iterable[NodeLoad] = (),
    *,
    kube_regions: Iterable[str] = ("eu", "us", "ap"),
    **changes: Any,
) -> ClusterWorld:
    """A world with one Kubernetes node in each of `kube_regions`."""
    nodes = tuple(KubeNodeView(f"k-{name}", {"topology.kubernetes.io/region": name}) for name in kube_regions)
    values: dict[str, Any] = {
        "cluster": cluster or a_cluster(),
        "pods": tuple(pods),
        "kube_nodes": nodes,
        "loads": {load.node: load for load in loads},
    }
    return ClusterWorld(**(values | changes))


def plan_fleet(world: ClusterWorld, now: datetime, rng: Random) -> Plan:
    """The plan of a fleet that is held at the spec's own numbers."""
    return plan_cluster(world, plan_fixed(world, ScaleState(), now).desired, now, rng)


def status_of_fleet(world: ClusterWorld, plan: Plan, now: datetime) -> SFUClusterStatus:
    """The status of such a fleet."""
    return status_of_cluster(world, plan, plan_fixed(world, ScaleState(), now), now)


def a_meeting(name: str = "standup", *, status: dict[str, Any] | None = None, **spec: Any) -> Meeting:
    """A Meeting of the fleet `demo`."""
    return Meeting.from_kubernetes(
        {
            "metadata": {"name": name, "namespace": "calls", "uid": f"u-{name}", "generation": 2},
            "spec": {"clusterRef": {"name": "demo"}, **spec},
            "status": status or {},
        }
    )
