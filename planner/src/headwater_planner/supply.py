"""The plan for one SFUCluster: small frozen actions, each with a reason and one sentence.

The sentence is the log line, the event and the dry run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from headwater_api.reasons import Reason
from headwater_api.sfucluster import UpgradeStatus

from headwater_planner.world import Guard


@dataclass(frozen=True, slots=True)
class CreateNode:
    """Make an SFU Pod of this name."""

    name: str
    region: str
    reason: Reason
    because: str

    def __str__(self) -> str:
        return f"Create SFU node {self.name} in region {self.region}: {self.because}"


@dataclass(frozen=True, slots=True)
class DeleteNode:
    """Delete that incarnation of an SFU Pod, which serves nobody."""

    name: str
    uid: str
    region: str
    reason: Reason
    because: str
    resource_version: str = ""  # of the Pod as it was seen; empty: whatever it is now
    drained: bool = False  # only while its own report says that it is cordoned and empty

    def __str__(self) -> str:
        return f"Delete SFU node {self.name} in region {self.region}: {self.because}"


@dataclass(frozen=True, slots=True)
class DrainNode:
    """Cordon a node; the gateways move its participants away, past `deadline` all of the rest at once."""

    name: str
    region: str
    reason: Reason
    because: str
    deadline: datetime
    moves_per_s: float

    def __str__(self) -> str:
        return (
            f"Drain SFU node {self.name} in region {self.region} until {self.deadline:%H:%M:%S} UTC: "
            f"{self.because}"
        )


@dataclass(frozen=True, slots=True)
class UncordonNode:
    """Return a node to service."""

    name: str
    region: str
    reason: Reason
    because: str

    def __str__(self) -> str:
        return f"Return SFU node {self.name} in region {self.region} to service: {self.because}"


@dataclass(frozen=True, slots=True)
class GuardNode:
    """Say on the Pod whether it serves, so that nobody evicts it while it does, what becomes of it, and where
    clients reach it."""

    name: str
    uid: str
    region: str
    reason: Reason
    guard: Guard

    def __str__(self) -> str:
        what = (
            "Protect SFU node {} in region {} from eviction"
            if self.guard.serves
            else ("Let SFU node {} in region {} be evicted")
        )
        text = what.format(self.name, self.region) + (f": {self.guard.state}" if self.guard.state else "")
        where = ", ".join(self.guard.external)
        return f"{text} (clients reach it at {where})" if where else text


@dataclass(frozen=True, slots=True)
class ExposeNode:
    """Make the Service that leads to that incarnation of an SFU Pod and to no other."""

    name: str
    uid: str
    region: str
    reason: Reason
    kind: str  # of the Service

    def __str__(self) -> str:
        return f"Make a Service of type {self.kind} for SFU node {self.name} in region {self.region}"


@dataclass(frozen=True, slots=True)
class Held:
    """A wish that is put off or was refused, and why: shown in Degraded."""

    reason: Reason
    text: str


def nodes_text(count: int) -> str:
    """`1 node`, `2 nodes`."""
    return f"{count} node" if count == 1 else f"{count} nodes"


Action = CreateNode | DeleteNode | DrainNode | UncordonNode | GuardNode | ExposeNode


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now. `again_at`: look again then even if nothing changes; `held`: why a wish was put off."""

    actions: tuple[Action, ...] = ()
    desired: Mapping[str, int] = field(default_factory=dict)
    again_at: datetime | None = None
    partial: bool = False  # a cap cut the plan short
    held: tuple[Held, ...] = ()
    upgrade: UpgradeStatus | None = None

    def __str__(self) -> str:
        return "\n".join(str(action) for action in self.actions) or "Nothing to do"
