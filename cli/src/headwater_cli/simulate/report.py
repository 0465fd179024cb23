"""What `headwater simulate` reads and prints."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml
from headwater_api.meeting import Meeting
from headwater_api.model import InvalidResource
from headwater_api.sfucluster import SFUCluster
from rich.table import Table

from headwater_cli.simulate.demand import Demand, InvalidRecording, read_recording, synthetic
from headwater_cli.simulate.run import Outcome

# Made-up days begin on a Monday.
_MONDAY: Final = datetime(2030, 1, 28, tzinfo=UTC)
_DEFAULT_REGIONS: Final[dict[str, tuple[float, float]]] = {
    "eu": (50.11, 8.68),
    "us": (39.04, -77.49),
    "ap": (1.35, 103.82),
}


def read_input(
    file: Path | None, cluster: Path | None, *, days: float, meetings: int, announced: float, seed: int
) -> tuple[SFUCluster, Demand]:
    """The fleet and its load. Raises InvalidRecording, InvalidResource, OSError, YAMLError."""
    demand = None if file is None else read_recording(file)
    known = set() if demand is None else {event.region for event in demand.events}
    fleet, extra = (_default_cluster(known), ()) if cluster is None else _read_cluster(cluster)
    if demand is None:
        demand = synthetic(
            [region.name for region in fleet.spec.regions],
            cluster=fleet.metadata.name,
            start=_MONDAY,
            days=days,
            meetings=meetings,
            seed=seed,
            announced=announced,
        )
    _check_regions(fleet, demand)
    return fleet, replace(demand, meetings=(*demand.meetings, *extra))


def _read_cluster(path: Path) -> tuple[SFUCluster, tuple[Meeting, ...]]:
    """Raises OSError, YAMLError, InvalidResource."""
    objects: list[Any] = [
        item for item in yaml.safe_load_all(path.read_text("utf-8")) if isinstance(item, dict)
    ]
    fleets = [item for item in objects if item.get("kind") == "SFUCluster"]
    if len(fleets) != 1:
        raise InvalidResource(f"{path}: {len(fleets)} SFUClusters: write one")
    fleet = SFUCluster.from_kubernetes(fleets[0])
    found = (Meeting.from_kubernetes(item) for item in objects if item.get("kind") == "Meeting")
    return fleet, tuple(item for item in found if item.spec.cluster_ref.name == fleet.metadata.name)


def _default_cluster(regions: set[str]) -> SFUCluster:
    """A fleet that scales, in the recorded regions or three of our own. A node takes 100 participants."""
    names = sorted(regions) or list(_DEFAULT_REGIONS)
    bodies = []
    for name in names:
        latitude, longitude = _DEFAULT_REGIONS.get(name, (0.0, 0.0))
        place = {"latitude": latitude, "longitude": longitude}
        bodies.append({"name": name, "minNodes": 1, "maxNodes": 100, "coordinates": place})
    return SFUCluster.from_kubernetes(
        {
            "metadata": {"name": "demo", "namespace": "default", "uid": "demo"},
            "spec": {
                "regions": bodies,
                "node": {"capacity": {"connections": 200}},
                "autoscaling": {"mode": "Automatic"},
            },
        }
    )


def _check_regions(fleet: SFUCluster, demand: Demand) -> None:
    known = [region.name for region in fleet.spec.regions]
    unknown = sorted({event.region for event in demand.events} - set(known))
    if unknown:
        offered = ", ".join(known)
        raise InvalidRecording(
            f"region {unknown[0]} is not one of SFUCluster {fleet.metadata.name}'s ({offered})"
        )


def render_table(fleet: SFUCluster, outcome: Outcome) -> Table:
    """One line for each region."""
    table = Table(box=None, pad_edge=False)
    for heading in ("region", "peak participants", "peak load", "nodes least", "most", "changes"):
        table.add_column(heading, justify="left" if heading == "region" else "right")
    for region in fleet.spec.regions:
        samples = [sample for sample in outcome.samples if sample.region == region.name]
        changes = [change for change in outcome.changes if change.decision.region == region.name]
        table.add_row(
            region.name,
            str(max(sample.participants for sample in samples)),
            f"{max(sample.load for sample in samples):.1f}",
            str(min(sample.desired for sample in samples)),
            str(max(sample.desired for sample in samples)),
            str(len(changes)),
        )
    return table


def summary_of(outcome: Outcome, span_s: float, took_s: float) -> Sequence[tuple[str, str]]:
    """Names and values, for the terminal and the page."""
    hours = outcome.node_seconds / 3600
    static = outcome.peak_nodes * span_s / 3600
    saved = f", {1 - hours / static:.0%} less than {outcome.peak_nodes} nodes all the time" if static else ""
    wait = "nobody waited for a place"
    if outcome.longest_wait_at is not None:
        when = f"{outcome.longest_wait_at:%a %H:%M:%S}"
        wait = f"places were short for {outcome.longest_wait_s:.0f} s at the most, from {when}"
    return (
        ("peak", f"{outcome.peak_participants} participants on {outcome.peak_nodes} nodes"),
        ("node hours", f"{hours:.0f}{saved}"),
        ("waiting", wait),
        ("moved by drains", f"{outcome.moved} participants, {outcome.deleted} nodes deleted, none serving"),
        ("simulated", f"{span_s / 3600:.1f} hours in {took_s:.1f} s"),
    )
