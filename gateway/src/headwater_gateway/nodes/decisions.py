"""Why participants are where they are: the last placements of this gateway, for `why`."""

from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

KEPT: Final = 2000


@dataclass(frozen=True, slots=True)
class Decision:
    """One placement or refusal. `source`: the node that a moved participant left; empty for a join."""

    at_ms: int  # Unix
    room: str
    participant: str
    identity: str
    node: str  # empty: refused
    region: str
    reason: str
    sentence: str
    source: str = ""


class Decisions:
    """A bounded ring of them, newest last."""

    def __init__(self, kept: int = KEPT) -> None:
        self._ring: deque[Decision] = deque(maxlen=kept)

    def note(self, decision: Decision) -> None:
        """Keep it; the oldest goes when there are too many."""
        self._ring.append(decision)

    def about(self, room: str = "", identity: str = "", node: str = "") -> Iterator[dict[str, Any]]:
        """Newest first, those of the room, identity and node that are named. Ready for JSON."""
        for row in reversed(self._ring):
            is_asked = (not room or row.room == room) and (not identity or row.identity == identity)
            if is_asked and (not node or node in (row.node, row.source)):
                yield asdict(row)
