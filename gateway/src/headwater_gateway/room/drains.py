"""Emptying nodes that drain or that policy permits no more: who moves, when, and who cannot."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from headwater_api.ids import NodeId, ParticipantSid
from headwater_planner.moves import STEP_S, Leaving, plan_step
from headwater_planner.place import Refusal

from headwater_gateway.nodes.facts import NodeFacts
from headwater_gateway.room import roster
from headwater_gateway.room.links import sync_cascade
from headwater_gateway.room.migration import Lead
from headwater_gateway.room.model import Participant
from headwater_gateway.room.state import RoomState

WHY: Final = "its node drains or is permitted no more"

Choose = Callable[[Participant], NodeFacts | Refusal]


@dataclass(frozen=True, slots=True)
class Emptied:
    """What one step did: who was moved, and for which nodes there was no other to move to, and why."""

    moved: dict[ParticipantSid, NodeId] = field(default_factory=dict)
    stuck: dict[NodeId, Refusal] = field(default_factory=dict)


def empty_nodes(
    room: RoomState,
    unfit: Mapping[NodeId, Leaving],
    choose: Choose,
    now: float,
    rng: random.Random,
) -> Emptied:
    """One step off all of these nodes. Relay hubs hand over first; who finds no place stays.

    Whose client is awaited after a takeover is led away once it is back, or joins anew after the deadline.

    Nodes that are no longer among them are back in service: nobody leaves them any more.
    """
    done = Emptied()
    if room.cascade.avoid != frozenset(unfit):
        room.cascade.avoid = frozenset(unfit)
        sync_cascade(room)
    for node_id, leaving in unfit.items():
        elapsed = now - room.drains.get(node_id, now)
        moves = plan_step(leaving, elapsed, rng.random())
        ready = [p for p in _who_leaves(room, node_id) if leaving.overdue or not p.is_awaited]
        for participant in ready[:moves]:
            answer = choose(participant)
            if isinstance(answer, Refusal):
                done.stuck[node_id] = answer
                break
            done.moved[participant.sid] = answer.node_id
            roster.move(room, participant, Lead(answer), WHY, now)
    room.drains = dict.fromkeys(unfit, now)
    room.moves_due = now + STEP_S if unfit else None
    return done


def here_on(room: RoomState, node_id: NodeId) -> int:
    """How many of the room's participants are on the node and not on their way."""
    return len(_who_leaves(room, node_id))


def _who_leaves(room: RoomState, node_id: NodeId) -> list[Participant]:
    everybody = room.participants.values()
    return [p for p in everybody if p.node_id == node_id and p.moving_at is None and p.migration is None]
