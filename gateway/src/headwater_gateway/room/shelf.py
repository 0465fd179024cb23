"""Where a room is kept while nobody is in it: a node holds its snapshot, so that it is found and lives on."""

from headwater_api.ids import NodeId
from headwater_planner.place import PlacementView

from headwater_gateway.directory.hashing import rank
from headwater_gateway.room.state import RoomState


class Shelf:
    """Chooses the node. Called by the room's own task only."""

    def __init__(self, state: RoomState) -> None:
        self._state = state
        self.node_id: NodeId | None = None

    def find(self, view: PlacementView) -> list[NodeId]:
        """The node, if there is any that does not drain: the same one as long as it will do."""
        able = {node.node_id for node in view.nodes if not node.draining}
        if self.node_id not in able:
            self.node_id = max(able, key=lambda node: rank(self._state.room_id, node), default=None)
        return [] if self.node_id is None else [self.node_id]

    def leave(self, view: PlacementView) -> NodeId | None:
        """The node, once it is needed no more: the room has nodes of its own now, or this one drains."""
        left = self.node_id
        if left is None:
            return None
        known = {node.node_id: node for node in view.nodes}
        if not self._state.nodes and left in known and not known[left].draining:
            return None
        self.node_id = None
        return left if left in known and left not in self._state.nodes else None
