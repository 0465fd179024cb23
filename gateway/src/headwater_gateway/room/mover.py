"""Where participants go when they must leave their node: asks the planner, paces, says why."""

import random
from collections.abc import Callable
from typing import Final

import structlog
from headwater_planner.place import Placement, Refusal

from headwater_gateway.nodes.pool import NodePool
from headwater_gateway.room import drains
from headwater_gateway.room.model import Participant
from headwater_gateway.room.policy import FailedNodes, View, choose_other, nodes_to_leave
from headwater_gateway.room.state import RoomState

log = structlog.get_logger(__name__)

LOOK_S: Final = 0.5  # how often the room looks for nodes that it has to leave


class Mover:
    """Moves one room's participants. Called by the room's own task only."""

    def __init__(self, state: RoomState, pool: NodePool, view: View, unix_ms: Callable[[], int]) -> None:
        self._state, self._pool, self._view, self._unix_ms = state, pool, view, unix_ms
        self.failed = FailedNodes()
        self._rng = random.Random(state.ids.number())
        self._look_at = 0.0
        self._log = log.bind(room=state.room_id)

    def run_due(self, now: float) -> None:
        """Off nodes that drain or that policy permits no more, each at its pace."""
        state, due = self._state, self._state.moves_due
        if now < (self._look_at if due is None else due) or not state.nodes:
            return
        self._look_at = now + LOOK_S
        view = self._view()
        here = {node_id: drains.here_on(state, node_id) for node_id in state.nodes}
        unfit = nodes_to_leave(view, state.config, here, self._unix_ms())
        nodes, avoid, failed = frozenset(state.nodes), frozenset(unfit), self.failed.at(now)

        def choose(participant: Participant) -> Placement | Refusal:
            answer = choose_other(view, state.config, participant.wish, nodes, avoid | failed)
            if isinstance(answer, Refusal) and failed:
                answer = choose_other(view, state.config, participant.wish, nodes, avoid)
            if isinstance(answer, Placement):
                self._pool.promise(answer.node_id)
            return answer

        self._report(drains.empty_nodes(state, unfit, choose, now, self._rng), avoid)

    def _report(self, done: drains.Emptied, unfit: frozenset[str]) -> None:
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
