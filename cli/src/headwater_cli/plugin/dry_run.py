"""An operator's plan for a fleet as it is seen now, in the operator's own words; nothing is carried out."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any

from google.protobuf.json_format import ParseDict, ParseError
from headwater_api.model import InvalidResource
from headwater_api.nodev1 import node_pb2
from headwater_api.sfucluster import SFUCluster
from headwater_operator.loop.views import kube_node_view, pod_view, service_view
from headwater_operator.nodes.inbox import load_of
from headwater_operator.render.sfu_node import SfuDefaults, template_hash
from headwater_planner.cluster import plan_cluster
from headwater_planner.scale.plan import plan_scale
from headwater_planner.scale.result import ScaleState
from headwater_planner.scale.signals import signals_of_reports
from headwater_planner.world import ClusterWorld, NodeLoad

from headwater_cli.errors import CliError

Object = Mapping[str, Any]


def dry_run(
    body: Object,
    pods: Sequence[Object],
    machines: Sequence[Object],
    reports: Mapping[str, Object],
    services: Sequence[Object] | None = (),
) -> list[str]:
    """Lines of text. `services`: None where they cannot be read. A fleet's history is not known here: as
    after a start, sizes are raised or held."""
    world = _world(body, pods, machines, reports, services)
    now = datetime.now(UTC)
    scale = plan_scale(world, signals_of_reports(world.loads), (), ScaleState(), now)
    plan = plan_cluster(world, scale.desired, now, Random())
    lines = [f"SFUCluster {world.cluster.metadata.name}"]
    lines += [f"  {decision.sentence}" for decision in scale.decisions]
    lines += [f"  {action}" for action in plan.actions] or ["  Nothing to do"]
    lines += [f"  Held back: {held.text}" for held in (*plan.held, *scale.problems)]
    if not world.templates:
        lines.append("  Not looked at: upgrades, for spec.node.image is the installation's own")
    return lines


def _world(
    body: Object,
    pods: Sequence[Object],
    machines: Sequence[Object],
    reports: Mapping[str, Object],
    services: Sequence[Object] | None,
) -> ClusterWorld:
    try:
        cluster = SFUCluster.from_kubernetes(body)
    except InvalidResource as error:
        raise CliError(str(error)) from error
    # The image that nodes get where the fleet names none is known to the operator only.
    defaults = SfuDefaults(image="", node_token_secret="")
    is_known = cluster.spec.node.image is not None
    loads = {name: load for name, report in reports.items() if (load := _load(report)) is not None}
    return ClusterWorld(
        cluster=cluster,
        pods=tuple(pod_view(pod) for pod in pods),
        kube_nodes=tuple(kube_node_view(machine) for machine in machines) or None,
        loads=loads,
        services=None
        if services is None
        else {service["metadata"]["name"]: service_view(service) for service in services},
        templates={region.name: template_hash(cluster, region, defaults) for region in cluster.spec.regions}
        if is_known
        else {},
    )


def _load(report: Object) -> NodeLoad | None:
    try:
        return load_of(ParseDict(dict(report), node_pb2.NodeReport(), ignore_unknown_fields=True))
    except ParseError:
        return None
