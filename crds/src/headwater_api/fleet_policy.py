"""SFUCluster's policies: autoscaling, cascade, placement, drain, upgrade, turn."""

from datetime import timedelta
from typing import Annotated, Final, Literal

from pydantic import Field

from headwater_api.fields import ObjectName, Percent, Region
from headwater_api.model import ApiModel, SecretKeyRef
from headwater_api.units import Duration

CRON_PATTERN: Final = r"^[^ ]+( +[^ ]+){4}$"


class ScalingTargets(ApiModel):
    """The load per node that the fleet is sized for."""

    # Mean over a region's nodes, of all cores of a node.
    cpu_percent: Percent = 70
    # At most node.capacity.connections count. A participant has two.
    connections_per_node: Annotated[int, Field(ge=1, le=100_000)] = 1000
    # From ingress socket to egress, mean over a region's nodes.
    p95_latency_ms: Annotated[int, Field(ge=1, le=10_000)] = 100
    # Room to spare above connections, egress and packets.
    buffer_percent: Annotated[int, Field(ge=0, le=500)] = 20


class ScalingPolicy(ApiModel):
    """At most so much change in a period, as in HorizontalPodAutoscaler v2."""

    type: Literal["Nodes", "Percent"]
    value: Annotated[int, Field(ge=1, le=1000)]
    period: Duration


class ScalingRules(ApiModel):
    """How fast one direction may go.

    Without policies: up by 4 nodes or 100 % in 15 s, down by 100 % in 15 s.
    """

    # None: 0s up, 5m down.
    stabilization_window: Duration | None = None
    # Up: load may be so much above CPU, latency and queue targets. Down: it must fit with so much to spare.
    tolerance_percent: Annotated[int, Field(ge=0, le=100)] = 10
    select_policy: Literal["Max", "Min", "Disabled"] = "Max"
    policies: Annotated[tuple[ScalingPolicy, ...], Field(max_length=8)] = ()


class ScalingBehavior(ApiModel):
    """Both directions. Floors and maxNodes are not slowed down by it."""

    scale_up: ScalingRules = ScalingRules()
    scale_down: ScalingRules = ScalingRules()


class Forecast(ApiModel):
    """A floor from the load of past seasons."""

    method: Literal["None", "HoltWinters"] = "None"
    # Shadow: only reported. Enabled: a floor.
    mode: Literal["Shadow", "Enabled"] = "Shadow"
    season: Duration = timedelta(hours=24)
    # The highest load expected within it counts.
    horizon: Duration = timedelta(minutes=15)


class ScalingSchedule(ApiModel):
    """A floor for some hours; after them it goes down over ten minutes."""

    name: ObjectName
    # Five fields; day of month and day of week as in Debian's cron.
    cron: Annotated[str, Field(min_length=9, max_length=128, pattern=CRON_PATTERN)]
    time_zone: Annotated[str, Field(min_length=1, max_length=64)] = "Etc/UTC"
    duration: Duration
    # Empty: every region.
    regions: Annotated[tuple[Region, ...], Field(max_length=32)] = ()
    # In each of the regions.
    min_nodes: Annotated[int, Field(ge=0, le=1000)]


class Prometheus(ApiModel):
    """Where the nodes' metrics are read with metricsSource Prometheus, by the labels namespace and pod."""

    url: Annotated[str, Field(min_length=8, max_length=512, pattern=r"^https?://[^\s]+$")]


class Autoscaling(ApiModel):
    """When the number of nodes changes."""

    # Fixed: minNodes and `replicas`.
    mode: Literal["Fixed", "Automatic"] = "Fixed"
    metrics_source: Literal["NodeReports", "Prometheus"] = "NodeReports"
    prometheus: Prometheus | None = None
    # All regions' nodes together; None: the regions' maxNodes alone limit.
    max_nodes: Annotated[int, Field(ge=1, le=10_000)] | None = None
    targets: ScalingTargets = ScalingTargets()
    behavior: ScalingBehavior = ScalingBehavior()
    forecast: Forecast = Forecast()
    schedules: Annotated[tuple[ScalingSchedule, ...], Field(max_length=32)] = ()


class EgressCost(ApiModel):
    """The price of one GiB from one region to another, both ways unless given twice."""

    source: Annotated[Region, Field(alias="from")]
    target: Annotated[Region, Field(alias="to")]
    cost: Annotated[float, Field(ge=0, le=1_000_000)]


class Cascade(ApiModel):
    """How the nodes of one room are linked."""

    # Auto: a mesh of up to five regions' hubs, beyond that a tree; other nodes under their hub.
    topology: Literal["Auto", "Mesh", "Tree", "Disabled"] = "Auto"
    max_hops: Annotated[int, Field(ge=1, le=8)] = 3
    egress_costs: Annotated[tuple[EgressCost, ...], Field(max_length=256)] = ()


class Placement(ApiModel):
    """Which node a participant gets."""

    # The node of the nearest region with room. Nearest: the emptiest; Packed: the fullest; Spread: the
    # emptiest, whichever the room is on.
    strategy: Literal["Nearest", "Packed", "Spread"] = "Nearest"
    # Empty: every region.
    allowed_regions: Annotated[tuple[Region, ...], Field(max_length=32)] = ()
    # Room: prefer a node that already serves the room, within the region.
    stickiness: Literal["Room", "None"] = "Room"


class Drain(ApiModel):
    """How a node is emptied: cordoned, its participants moved at that pace, past the deadline all at once;
    deleted when nobody is left. Scale-down, upgrade and repair share `max_concurrent_per_region`."""

    deadline: Duration = timedelta(minutes=10)
    moves_per_second: Annotated[int, Field(ge=1, le=1000)] = 10
    max_concurrent_per_region: Annotated[int, Field(ge=1, le=100)] = 1


class Canary(ApiModel):
    """The first nodes of an upgrade and how long they are watched."""

    nodes: Annotated[int, Field(ge=0, le=100)] = 1
    duration: Duration = timedelta(minutes=10)


class Upgrade(ApiModel):
    """How a new image or template is rolled out: `max_unavailable` nodes at once, by surge and drain."""

    max_unavailable: Annotated[int, Field(ge=1, le=100)] = 1
    canary: Canary = Canary()


class SecretRef(ApiModel):
    """A Secret of the namespace."""

    name: ObjectName


class TurnTargets(ApiModel):
    """The load of one TURN node that the fleet is sized for."""

    allocations_per_node: Annotated[int, Field(ge=1, le=4000)] = 500
    mbps_per_node: Annotated[int, Field(ge=1, le=1_000_000)] = 500


class TurnDrain(ApiModel):
    """How long clients may stay on a TURN node that goes; then they are sent to another."""

    deadline: Duration = timedelta(minutes=30)


class Turn(ApiModel):
    """TURN servers: coturn Pods in each region, and servers of somebody else's."""

    min_per_region: Annotated[int, Field(ge=0, le=100)] = 0
    max_per_region: Annotated[int, Field(ge=0, le=100)] = 0
    # None: the image that the operator was installed with.
    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    targets: TurnTargets = TurnTargets()
    drain: TurnDrain = TurnDrain()
    # Enabled: the kernel refuses other peers too. It needs NET_ADMIN, which Pod Security's baseline forbids.
    packet_filter: Literal["Disabled", "Enabled"] = "Disabled"
    # A Secret of type kubernetes.io/tls. None: no TLS.
    tls_secret_ref: SecretRef | None = None
    # The certificate's domain: a node is 203-0-113-7.<tlsDomain>. None: the address, for a certificate of it.
    tls_domain: (
        Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]
        | None
    ) = None
    # The first signs; all are accepted, so that a secret can be rotated.
    shared_secret_refs: Annotated[tuple[SecretKeyRef, ...], Field(max_length=4)] = ()
    external_servers: Annotated[
        tuple[Annotated[str, Field(min_length=6, max_length=256, pattern=r"^turns?:.+$")], ...],
        Field(max_length=16),
    ] = ()
