"""What a room's policy says of joins and of nodes. Decisions only."""

from collections.abc import Callable, Mapping
from typing import Final

from headwater_api.ids import NodeId
from headwater_api.reasons import Reason
from headwater_planner.moves import Leaving
from headwater_planner.place import Placement, PlacementRequest, PlacementView, Refusal, is_permitted, place

from headwater_gateway.room.access import Role
from headwater_gateway.room.model import JoinRequest, RoomConfig, Wish
from headwater_gateway.room.ports import JoinRefusal
from headwater_gateway.room.rules import check_rules
from headwater_gateway.room.state import RoomState

AVOID_S: Final = 10.0

ANYWHERE: Final = Wish()
NOBODY: Final[Mapping[NodeId, int]] = {}

View = Callable[[], PlacementView]


def check_join(state: RoomState, request: JoinRequest, now_ms: int) -> Role:
    """The participant's role, or JoinRefusal with what of the room's policy stands against it.

    `now_ms`: Unix milliseconds.
    """
    if state.ended:
        raise JoinRefusal(Reason.ROOM_CLOSED, f"the room has ended: {state.ended}")
    config = state.config
    returning = state.of_identity(request.identity) is not None
    role = check_rules(config, state.access, request, now_ms, returning=returning)
    limit = config.max_participants
    if limit and not returning and len(state.visible()) >= limit and not request.permission.hidden:
        raise JoinRefusal(Reason.ROOM_FULL, f"the room has its {limit} participants")
    return role


class FailedNodes:
    """Nodes that did not serve the room lately though they look well: they are tried last for a while."""

    def __init__(self) -> None:
        self._until: dict[NodeId, float] = {}

    def note(self, node_id: NodeId, now: float) -> None:
        """It has failed now (monotonic seconds)."""
        self._until[node_id] = now + AVOID_S

    def at(self, now: float) -> frozenset[NodeId]:
        """Those to be avoided; what has lapsed is forgotten."""
        self._until = {node: until for node, until in self._until.items() if until > now}
        return frozenset(self._until)


def choose_node(
    view: PlacementView,
    config: RoomConfig,
    wish: Wish = ANYWHERE,
    counts: Mapping[NodeId, int] = NOBODY,
    failed: frozenset[NodeId] = frozenset(),
) -> Placement:
    """The node for one participant. JoinRefusal with the planner's reason and sentence: there is none.

    `counts`: how many of the room each of its nodes has.
    """
    answer = place(view, _request(config, wish, counts, failed))
    if isinstance(answer, Refusal) and failed:
        answer = place(view, _request(config, wish, counts, frozenset()))
    if isinstance(answer, Refusal):
        raise JoinRefusal(answer.reason, answer.sentence)
    return answer


def nodes_to_leave(
    view: PlacementView, config: RoomConfig, here: Mapping[NodeId, int], unix_ms: int
) -> dict[NodeId, Leaving]:
    """Nodes of the room that drain or that policy permits no more. `here`: its participants on each."""
    request = _request(config, ANYWHERE, NOBODY, frozenset())
    return {
        node.node_id: Leaving(
            node.node_id,
            node.move_rate,
            node.participants,
            here[node.node_id],
            overdue=0 < node.move_by_ms <= unix_ms,
        )
        for node in view.nodes
        if node.node_id in here and (node.draining or not is_permitted(view, request, node))
    }


def choose_other(
    view: PlacementView,
    config: RoomConfig,
    wish: Wish,
    counts: Mapping[NodeId, int],
    unfit: frozenset[NodeId],
) -> Placement | Refusal:
    """Where a participant of an unfit node goes: as if it joined now, and not to another unfit one."""
    fit = {node_id: count for node_id, count in counts.items() if node_id not in unfit}
    return place(view, _request(config, wish, fit, unfit))


def _request(
    config: RoomConfig, wish: Wish, counts: Mapping[NodeId, int], excluded: frozenset[NodeId]
) -> PlacementRequest:
    return PlacementRequest(
        named_region=wish.region or None,
        rtts_ms=wish.rtts_ms,
        allowed_regions=config.allowed_regions,
        denied_regions=config.denied_regions,
        cluster=config.cluster,
        room_nodes=frozenset(counts),
        room_counts=counts,
        excluded_nodes=excluded,
    )
