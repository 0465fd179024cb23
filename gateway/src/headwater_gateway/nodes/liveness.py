"""Whether a node that has fallen silent is dead. Pure.

Three kinds of evidence: its own silence (reports come each second) together with probes that fail, a refused
connection, and what its relay neighbours say. A gateway whose own network or event loop failed sees everybody
fall silent at once: that alone moves nobody.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from headwater_api.ids import NodeId
from headwater_api.nodev1 import node_pb2

QUIET_S: Final = 1.1  # one report is missing: start to probe
DEAD_S: Final = 1.5
PROBES: Final = 2
# Links carry something each second.
LINK_SILENT_MS: Final = 1200
# Media flows though its control does not answer: moving its participants would hurt more than waiting.
CONTROL_ONLY_S: Final = 10.0
MASS_SHARE: Final = 0.2
MASS_LEAST: Final = 2


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for a node's death. `heard_by` and `missed_by`: relay neighbours, by their last reports."""

    silent_s: float
    probes_failed: int
    refused: bool = False
    heard_by: int = 0
    missed_by: int = 0
    suspects: int = 1  # nodes silent at the moment, this one among them
    known: int = 1


def is_dead(evidence: Evidence) -> bool:
    """The verdict."""
    if evidence.refused:  # its process is gone: its machine says so
        return True
    if evidence.silent_s < DEAD_S or evidence.probes_failed < PROBES:
        return False
    if evidence.missed_by > evidence.heard_by:
        return True
    if evidence.heard_by:
        return evidence.silent_s >= CONTROL_ONLY_S and not is_mass(evidence.suspects, evidence.known)
    return not is_mass(evidence.suspects, evidence.known)


def is_mass(suspects: int, known: int) -> bool:
    """So many at once that the observer is the likelier patient."""
    return suspects >= MASS_LEAST and suspects > MASS_SHARE * known


def neighbours(
    node_id: NodeId, silent_s: float, reports: Iterable[tuple[node_pb2.NodeReport, float]]
) -> tuple[int, int]:
    """(heard by, missed by) among nodes with a link to it. `reports`: each with its age in seconds.

    A neighbour has heard it only if that was after the report that is missing was due.
    """
    heard = missed = 0
    for report, age_s in reports:
        links = [link for link in report.links if link.peer_node_id == node_id]
        if any(link.up and age_s + link.silent_ms / 1000 < silent_s - QUIET_S for link in links):
            heard += 1
        elif links and all(not link.up or link.silent_ms >= LINK_SILENT_MS for link in links):
            missed += 1
    return heard, missed
