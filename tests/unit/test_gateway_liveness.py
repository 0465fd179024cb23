"""When a silent node counts as dead, case by case."""

from dataclasses import replace

import pytest
from headwater_api.ids import NodeId
from headwater_api.nodev1 import node_pb2
from headwater_gateway.nodes.liveness import CONTROL_ONLY_S, DEAD_S, PROBES, Evidence, is_dead, neighbours

LOST = Evidence(DEAD_S, PROBES, known=10)
NODE = NodeId("eu-1")


@pytest.mark.parametrize(
    ("changes", "dead"),
    [
        ({}, True),
        ({"silent_s": DEAD_S - 0.1}, False),
        ({"probes_failed": PROBES - 1}, False),
        ({"refused": True, "silent_s": 0.0, "probes_failed": 1}, True),
        # More than a fifth, and two at least, at once: only with a neighbour's word.
        ({"suspects": 2}, True),
        ({"suspects": 3}, False),
        ({"suspects": 3, "missed_by": 1}, True),
        ({"suspects": 1, "known": 2}, True),
        ({"suspects": 2, "known": 2}, False),
        ({"suspects": 10, "refused": True}, True),
        # A neighbour still hears it: only its control is away.
        ({"heard_by": 1}, False),
        ({"heard_by": 1, "silent_s": CONTROL_ONLY_S}, True),
        ({"heard_by": 1, "missed_by": 2}, True),
    ],
)
def test_verdicts(changes: dict[str, float], dead: bool) -> None:
    assert is_dead(replace(LOST, **changes)) is dead  # type: ignore[arg-type]


def report(silent_ms: int, up: bool = True, peer: str = NODE) -> node_pb2.NodeReport:
    return node_pb2.NodeReport(links=[node_pb2.LinkReport(peer_node_id=peer, up=up, silent_ms=silent_ms)])


@pytest.mark.parametrize(
    ("age_s", "row", "verdict"),
    [
        (0.1, report(0), (1, 0)),
        (0.5, report(0), (0, 0)),  # so long ago that the node may have been well then
        (0.1, report(1300), (0, 1)),
        (0.1, report(0, up=False), (0, 1)),
        (0.1, report(1300, peer="us-1"), (0, 0)),
        (0.1, node_pb2.NodeReport(), (0, 0)),
    ],
)
def test_what_a_neighbours_report_says(
    age_s: float, row: node_pb2.NodeReport, verdict: tuple[int, int]
) -> None:
    assert neighbours(NODE, 1.5, [(row, age_s)]) == verdict
