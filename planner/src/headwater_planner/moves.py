"""How fast a room's participants leave a node that drains. Pure: times in seconds, randomness as an argument.

A drain's rate holds for the node. Its rooms, of whichever gateways, know nothing of each other: each moves at
the part of the rate that its participants are of the node's, in steps of chance without memory, so that all
together keep to the rate and none of them waits for another.
"""

from dataclasses import dataclass
from typing import Final

from headwater_api.ids import NodeId

DEFAULT_RATE: Final = 10.0  # participants per second, where the drain names none
STEP_S: Final = 0.25
# A room that was asked late must not make up for it in one burst.
MAX_ELAPSED_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Leaving:
    """A node that is to lose its participants, as one of its rooms sees it."""

    node_id: NodeId
    rate: float  # participants per second, of all rooms together; 0: the default
    on_node: int  # participants on it, of all rooms, as last reported
    here: int  # this room's
    overdue: bool = False  # past its deadline: the rest goes at once


def plan_step(leaving: Leaving, elapsed_s: float, draw: float) -> int:
    """How many go now, `elapsed_s` after the last step. `draw`: a random number of 0 to 1, new each time."""
    if leaving.overdue:
        return leaving.here
    share = leaving.here / max(leaving.on_node, leaving.here, 1)
    expected = (leaving.rate or DEFAULT_RATE) * share * min(MAX_ELAPSED_S, max(0.0, elapsed_s))
    whole = int(expected)
    return min(leaving.here, whole + (draw < expected - whole))
