"""Which changes of conditions are worth an Event: pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from headwater_api import meeting, sfucluster
from headwater_api.conditions import Condition, Status, find_condition
from headwater_api.reasons import Reason

# For each type the statuses that are told when they begin; True stands for "and it is bad news".
_TOLD: Final[dict[tuple[str, Status], bool]] = {
    (sfucluster.READY, Status.TRUE): False,
    (sfucluster.READY, Status.FALSE): False,
    (sfucluster.DEGRADED, Status.TRUE): True,
    (sfucluster.CAPACITY_AVAILABLE, Status.FALSE): True,
    (sfucluster.CAPACITY_AVAILABLE, Status.TRUE): False,
    (sfucluster.ADDRESS_REACHABLE, Status.FALSE): True,
    (meeting.PROVISIONED, Status.TRUE): False,
    (meeting.PROVISIONED, Status.FALSE): True,
    (meeting.ACTIVE, Status.TRUE): False,
    (meeting.ENDED, Status.TRUE): False,
}


@dataclass(frozen=True, slots=True)
class Transition:
    """One Event to be."""

    reason: Reason
    note: str
    warning: bool


def transitions(old: Sequence[Condition], new: Sequence[Condition]) -> list[Transition]:
    """What to tell about the step from `old` to `new`."""
    told = []
    for condition in new:
        before = find_condition(old, condition.type)
        bad = _TOLD.get((condition.type, condition.status))
        if bad is None or (before is not None and before.status == condition.status):
            continue
        note = f"{condition.type} is {condition.status.value}: {condition.message}"
        told.append(Transition(Reason(condition.reason), note, bad))
    return told
