"""SFUCluster, the fleet: spec and status as models. crds/sfuclusters.yaml says the same to the API server.

Every default here is also the schema's: an object read from the API server has them filled in.
"""

from datetime import timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from headwater_api.conditions import Condition
from headwater_api.fields import Count, LabelKey, LabelValue, NodeCount, ObjectName, Region, ShortText
from headwater_api.fleet_policy import Autoscaling, Cascade, Drain, Placement, Turn, Upgrade
from headwater_api.model import ApiModel, ObjectMeta
from headwater_api.units import Duration, Quantity, Time
from headwater_api.wellknown import GROUP, VERSION

KIND: Final = "SFUCluster"
PLURAL: Final = "sfuclusters"

READY: Final = "Ready"
PROGRESSING: Final = "Progressing"
DEGRADED: Final = "Degraded"
SCALING_ACTIVE: Final = "ScalingActive"
SCALING_LIMITED: Final = "ScalingLimited"
CAPACITY_AVAILABLE: Final = "CapacityAvailable"
ADDRESS_REACHABLE: Final = "AddressReachable"


class Coordinates(ApiModel):
    """Degrees north and east."""

    latitude: Annotated[float, Field(ge=-90, le=90)]
    longitude: Annotated[float, Field(ge=-180, le=180)]


class Toleration(ApiModel):
    """As in a Pod."""

    key: LabelKey | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: Annotated[int, Field(ge=0)] | None = None


class RegionSpec(ApiModel):
    """One region of the fleet."""

    name: Region
    coordinates: Coordinates | None = None
    # Empty: Kubernetes nodes with topology.kubernetes.io/region = name.
    node_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=16)] = Field(default_factory=dict)
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16)] = ()
    min_nodes: NodeCount = 1
    max_nodes: Annotated[int, Field(ge=1, le=1000)] = 10


class Resources(ApiModel):
    """Requests and limits of the SFU container."""

    requests: Annotated[dict[LabelKey, Quantity], Field(max_length=8)] = Field(default_factory=dict)
    limits: Annotated[dict[LabelKey, Quantity], Field(max_length=8)] = Field(default_factory=dict)


class Exposure(ApiModel):
    """How clients reach a node. PodIP: the Pod's address; HostNetwork: the Kubernetes node's; HostPort: its
    port 7882; NodePort and LoadBalancer: a Service for each Pod."""

    mode: Literal["PodIP", "HostNetwork", "HostPort", "NodePort", "LoadBalancer"] = "PodIP"
    service_annotations: (
        Annotated[dict[LabelKey, Annotated[str, Field(max_length=4096)]], Field(max_length=32)] | None
    ) = None


class Capacity(ApiModel):
    """What one node may carry. Placement stops at `connections`; all of it sizes the fleet."""

    connections: Annotated[int, Field(ge=1, le=100_000)] = 1000
    egress_mbps: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    packets_per_second: Annotated[int, Field(ge=1, le=100_000_000)] | None = None


class PodTemplate(ApiModel):
    """Additions to every SFU Pod. Headwater's own labels win."""

    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=32)] = Field(default_factory=dict)
    annotations: Annotated[dict[LabelKey, Annotated[str, Field(max_length=4096)]], Field(max_length=32)] = (
        Field(default_factory=dict)
    )
    priority_class_name: ObjectName | None = None
    termination_grace_period: Duration = timedelta(seconds=60)


class PullSecret(ApiModel):
    """A Secret of the namespace with registry credentials."""

    name: ObjectName


class NodeSpec(ApiModel):
    """The SFU node: one Pod."""

    # None: the image that the operator was installed with.
    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: Annotated[tuple[PullSecret, ...], Field(max_length=8)] = ()
    service_account_name: ObjectName = "headwater-sfu"
    resources: Resources = Resources()
    exposure: Exposure = Exposure()
    capacity: Capacity = Capacity()
    pod_template: PodTemplate = PodTemplate()


class SFUClusterSpec(ApiModel):
    """What the fleet should be."""

    regions: Annotated[tuple[RegionSpec, ...], Field(min_length=1, max_length=32)]
    # Floor for the total of nodes: beyond minNodes, the region that wants the fewest gets the next, within
    # its maxNodes. `kubectl scale` sets it.
    replicas: Annotated[int, Field(ge=0, le=10_000)] | None = None
    node: NodeSpec = NodeSpec()
    autoscaling: Autoscaling = Autoscaling()
    cascade: Cascade = Cascade()
    placement: Placement = Placement()
    drain: Drain = Drain()
    upgrade: Upgrade = Upgrade()
    turn: Turn = Turn()

    def region(self, name: str) -> RegionSpec | None:
        """The region of that name, or None."""
        return next((region for region in self.regions if region.name == name), None)


class RegionStatus(ApiModel):
    """One region's figures, as of the last write."""

    name: Region
    desired: Count = 0
    ready: Count = 0
    draining: Count = 0
    participants: Count = 0
    rooms: Count = 0
    # Mean over the nodes that report; None: none reports.
    cpu_percent: Annotated[int, Field(ge=0)] | None = None
    # Nodes that the forecast expects to be needed within its horizon; None: no forecast.
    forecast_nodes: Count | None = None
    # Worst node's 95th percentile of forwarding, ingress socket to egress, milliseconds.
    p95_latency_ms: Annotated[float, Field(ge=0)] | None = None


class ScaleDecision(ApiModel):
    """The last change of a region's wanted size, and why."""

    time: Time
    region: Region
    from_nodes: Count
    to_nodes: Count
    reason: Annotated[str, Field(max_length=128)]
    message: Annotated[str, Field(max_length=1024)] = ""


class UpgradeStatus(ApiModel):
    """An upgrade under way: nodes made from the present template, and those that are not."""

    phase: Literal["Canary", "Rolling", "Halted"]
    template: Annotated[str, Field(max_length=64)]
    updated: Count = 0
    outdated: Count = 0
    message: Annotated[str, Field(max_length=1024)] = ""


class SFUClusterStatus(ApiModel):
    """What the fleet is. Written by the operator only."""

    observed_generation: Count = 0
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16)] = ()
    regions: Annotated[tuple[RegionStatus, ...], Field(max_length=64)] = ()
    last_scale: ScaleDecision | None = None
    upgrade: UpgradeStatus | None = None
    # For the scale subresource: SFU Pods that exist, and the selector that finds them.
    replicas: Count = 0
    selector: Annotated[str, Field(max_length=1024)] = ""
    # Totals and texts for printer columns.
    nodes: ShortText = ""  # "5/6": ready of wanted
    rooms: Count = 0
    participants: Count = 0
    region_summary: Annotated[str, Field(max_length=2048)] = ""  # "ap 2/2, eu 2/2, us 1/2"


class SFUCluster(ApiModel):
    """The whole object."""

    metadata: ObjectMeta
    spec: SFUClusterSpec
    status: SFUClusterStatus = SFUClusterStatus()

    def to_kubernetes(self) -> dict[str, Any]:
        """The object with apiVersion and kind."""
        return {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, **super().to_kubernetes()}
