"""Where participants go when they must leave their node: asks the planner, paces, says why."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog
from headwater_api.ids import ClusterName, NodeId, RegionName
from headwater_api.reasons import Reason
from headwater_planner.place import Placement, PlacementView, Refusal

from headwater_gateway.nodes.decisions import Decision
from headwater_gateway.nodes.facts import NodeFacts
from headwater_gateway.nodes.pool import NodePool
from headwater_gateway.room import drains, roster
from headwater_gateway.room.links import sync_cascade
from headwater_gateway.room.migration import Lead, can_migrate
from headwater_gateway.room.model import JoinRequest, Participant, Wish
from headwater_gateway.room.moderation import participant_of
from headwater_gateway.room.policy import (
    FailedNodes,
    View,
    check_join,
    choose_node,
    choose_other,
    nodes_to_leave,
)
from headwater_gateway.room.ports import JoinRefusal, RoomError
from headwater_gateway.room.state import RoomState
from headwater_gateway.tracing import JOIN

log = structlog.get_logger(__name__)

# More than that at once come back spread out, at what a gateway takes of resumes.
CROWD: Final = 40
RETURNS_PER_S: Final = 200.0
CLOSED_BY_US: Final = "closed by the controller"  # why a room has ended, in the words of nodes
LOOK_S: Final = 0.5  # how often the room looks for nodes that it has to leave


@dataclass(frozen=True, slots=True)
class Admitted:
    """Somebody who has come in, and why it is where it is."""

    participant: Participant
    facts: NodeFacts
    placement: Placement


class Mover:
    """Moves one room's participants. Called by the room's own task only."""

    def __init__(self, state: RoomState, pool: NodePool, view: View, unix_ms: Callable[[], int]) -> None:
        self._state, self._pool, self._view, self._unix_ms = state, pool, view, unix_ms
        self.failed = FailedNodes()
        self._rng = random.Random(state.ids.number())
        self._look_at = 0.0
        self._lost: set[NodeId] = set()  # taken for dead while they had participants of the room
        self._log = log.bind(room=state.room_id)

    def admit(self, request: JoinRequest, now: float) -> "Admitted":
        """Put somebody on the roster and on a node, by the room's rules. JoinRefusal."""
        state = self._state
        role = check_join(state, request, self._unix_ms())
        wish, failed = Wish(request.region, request.rtts_ms), self.failed.at(now)
        answer = choose_node(self._view(), state.config, wish, state.counts(), failed)
        facts = self._pool.facts(answer.node_id)
        if facts is None:
            raise JoinRefusal(Reason.NO_CAPACITY, "the chosen node has just gone; try again")
        self._pool.promise(answer.node_id)
        participant = roster.join(state, request, facts, now=now, unix_ms=self._unix_ms(), role=role)
        self.note(participant, answer, "join.placed")
        return Admitted(participant, facts, answer)

    def run_due(self, now: float) -> None:
        """Off nodes that drain or that policy permits no more, each at its pace."""
        state, due = self._state, self._state.moves_due
        if not state.nodes:
            state.moves_due = None  # a due time that nobody works off would keep the room from its messages
            return
        if now < (self._look_at if due is None else due):
            return
        self._look_at = now + LOOK_S
        view = self._view()
        policy = view.policy_of(state.config.cluster or self._only_cluster(view)).cascade
        if policy != state.cascade.policy:
            state.cascade.policy = policy
            sync_cascade(state)
        here = {node_id: drains.here_on(state, node_id) for node_id in state.nodes}
        unfit = nodes_to_leave(view, state.config, here, self._unix_ms())
        avoid = frozenset(unfit)
        done = drains.empty_nodes(state, unfit, lambda p: self._choose(view, p, avoid, now), now, self._rng)
        self._report(done, avoid)

    def _only_cluster(self, view: PlacementView) -> ClusterName | None:
        """The cluster of an ad-hoc room: that of its nodes, where they have one and the same."""
        clusters = {node.cluster for node in view.nodes if node.node_id in self._state.nodes}
        return clusters.pop() if len(clusters) == 1 else None

    def is_lost(self, node_id: NodeId) -> bool:
        """Whether the room has given the node up and not told it so."""
        return node_id in self._lost

    def found(self, node_id: NodeId) -> None:
        """The node knows."""
        self._lost.discard(node_id)

    def room_closed(self, node_id: NodeId, why: str, now: float) -> None:
        """The node has ended the room: as good as dead, for this room. Not if we told it so: people may have
        come to it again since."""
        if why != CLOSED_BY_US:
            self.lose_node(node_id, f"the node closed the room: {why}", now)

    def lose_node(self, node_id: NodeId, why: str, now: float) -> None:
        """A node has died: its participants are led to others at once."""
        self.failed.note(node_id, now)
        self._lost.add(node_id)
        view = self._view()
        drained = frozenset(n.node_id for n in view.nodes if n.draining)

        crowd = drains.here_on(self._state, node_id)
        spread_s = crowd / RETURNS_PER_S if crowd > CROWD else 0.0

        def find(participant: Participant) -> Lead | None:
            answer = self._choose(view, participant, drained | {node_id}, now)
            return Lead(answer, spread_s * self._rng.random()) if isinstance(answer, NodeFacts) else None

        moved = roster.lose_node(self._state, node_id, why, now, find)
        if moved:
            self._log.warning("room.node_lost", node=node_id, reason=why, participants=moved)

    def lead(
        self, identity: str, now: float, *, node_id: NodeId | None = None, region: RegionName | None = None
    ) -> None:
        """Off its node because the API asks for it: to that node, to the best one of that region, or (without
        either) to the best other one. Nothing happens where it is there already.

        RoomError: nobody of that identity, no such node or region, no place, or a client that cannot be led.
        """
        state, view = self._state, self._view()
        participant = participant_of(state, identity)
        is_here = participant.node_id == node_id or participant.region == region
        if is_here and participant.node_id in state.nodes:
            return
        if not can_migrate(participant):
            why = "its client cannot be led to another node now: it is on its way, or knows no resume"
            raise RoomError(Reason.PARTICIPANT_NOT_MOVABLE, why)
        known = frozenset(node.node_id for node in view.nodes)
        wanted = known - {participant.node_id}
        if node_id is not None:
            wanted &= {node_id}
        elif region is not None:
            wanted &= {node.node_id for node in view.nodes if node.region == region}
        if not wanted and node_id is not None:
            raise RoomError(Reason.PARAMETER_INVALID, "node_id: no SFU node of that name is known here")
        if not wanted and region is not None:
            raise RoomError(Reason.PARAMETER_INVALID, "region: no SFU node of that region is known here")
        answer = self._choose(view, participant, known - wanted | {participant.node_id}, now)
        if isinstance(answer, Refusal):
            raise RoomError(answer.reason, answer.sentence)
        roster.move(state, participant, Lead(answer), "the API asks for it", now)

    def place_anew(self, participant: Participant, now: float) -> NodeFacts | None:
        """A node for somebody who has none; None: there is no place now."""
        answer = self._choose(self._view(), participant, frozenset(), now)
        return answer if isinstance(answer, NodeFacts) else None

    def _choose(
        self, view: PlacementView, participant: Participant, avoid: frozenset[NodeId], now: float
    ) -> NodeFacts | Refusal:
        state, failed = self._state, self.failed.at(now)
        counts, wish = state.counts(), participant.wish
        answer = choose_other(view, state.config, wish, counts, avoid | failed)
        if isinstance(answer, Refusal) and failed - avoid:
            answer = choose_other(view, state.config, wish, counts, avoid)
        if isinstance(answer, Refusal):
            return answer
        facts = self._pool.facts(answer.node_id)
        if facts is None:
            return Refusal(Reason.NO_CAPACITY, f"{answer.node_id} has just gone.")
        self._pool.promise(answer.node_id)
        self.note(participant, answer, "move.placed", source=participant.node_id)
        return facts

    def note(self, participant: Participant, answer: Placement, event: str, source: str = "") -> None:
        """Say where the participant goes and why: in the log, in its trace, and for whoever asks later."""
        if (trace := JOIN.get()) is not None:
            trace.placed(participant.sid, answer.node_id, answer.region, answer.reason)
        decision = Decision(
            at_ms=self._unix_ms(),
            room=self._state.room_id,
            participant=participant.sid,
            identity=participant.identity,
            node=answer.node_id,
            region=answer.region,
            reason=answer.reason,
            sentence=answer.sentence,
            source=source,
        )
        self._pool.decisions.note(decision)
        self._log.info(
            event,
            participant=decision.participant,
            identity=decision.identity,
            node=decision.node,
            region=decision.region,
            reason=decision.reason,
            sentence=decision.sentence,
            **({"source": source} if source else {}),
        )

    def _report(self, done: drains.Emptied, unfit: frozenset[NodeId]) -> None:
        state = self._state
        if done.moved:
            self._log.info("room.nodes_left", nodes=sorted(unfit), participants=sorted(done.moved))
        for node_id, refusal in done.stuck.items():
            if state.stuck.get(node_id) != refusal:
                self._log.warning(
                    "room.node_stays", node=node_id, reason=refusal.reason, sentence=refusal.sentence
                )
        kept = {node_id: refusal for node_id, refusal in state.stuck.items() if node_id in unfit}
        state.stuck = {**kept, **done.stuck}
