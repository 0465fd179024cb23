"""The node's drain: begun by the operator, or by the node itself when its Pod is to end.

Pure: times come in. The gateways that have participants here see the state in the node's report, and move
them; the node itself moves nobody.
"""

import math
from dataclasses import dataclass, field
from typing import Final

from headwater_api import wellknown
from headwater_api.nodev1 import node_pb2

STOP_REASON: Final = wellknown.DRAIN_REASON_STOPPING
# Of the grace, how much the gateways have to move people at a pace; then all of the rest go at once.
PACED_SHARE: Final = 0.7
MIN_MOVES_PER_S: Final = 10.0


class Stopping(Exception):
    """A drain that the end of the Pod has begun cannot be cancelled."""


@dataclass(slots=True)
class Drain:
    """Whether the node is cordoned, and on which terms."""

    state: node_pb2.DrainState | None = None
    stopping: bool = field(default=False, init=False)

    @property
    def active(self) -> bool:
        """Whether the node takes no new transports."""
        return self.state is not None

    def order(self, request: node_pb2.SetDrainingRequest, now_ms: int) -> None:
        """Takes an order: a repeated one keeps its start, a stopping node its own deadline if sooner.

        Raises Stopping where a stopping node is told to return to service.
        """
        if not request.draining:
            if self.stopping:
                raise Stopping(f"this node cannot return to service: {STOP_REASON}")
            self.state = None
            return
        old = self.state
        deadline_ms = request.deadline_ms
        if self.stopping and old is not None:
            deadline_ms = min(deadline_ms or old.deadline_ms, old.deadline_ms)
        self.state = node_pb2.DrainState(
            reason=request.reason or "asked over gRPC",
            move_rate=request.move_rate,
            deadline_ms=deadline_ms,
            since_ms=old.since_ms if old is not None else now_ms,
        )

    def stop(self, now_ms: int, grace_s: float, participants: int) -> None:
        """Begins the last drain: everybody is to be gone within `grace_s` seconds from now."""
        paced_s = grace_s * PACED_SHARE
        rate = max(MIN_MOVES_PER_S, math.ceil(participants / max(paced_s * 0.8, 0.1)))
        old = self.state
        deadline_ms = now_ms + int(paced_s * 1000)
        if old is not None and old.deadline_ms:
            deadline_ms = min(deadline_ms, old.deadline_ms)
        self.stopping = True
        self.state = node_pb2.DrainState(
            reason=STOP_REASON,
            move_rate=max(rate, old.move_rate if old is not None else 0.0),
            deadline_ms=deadline_ms,
            since_ms=old.since_ms if old is not None else now_ms,
        )


def is_empty(report: node_pb2.NodeReport) -> bool:
    """Nobody is on the node and no media passes through it."""
    return not (
        report.participants
        or report.connections
        or any(room.participants for room in report.rooms)
        or any(link.up for link in report.links)
    )
