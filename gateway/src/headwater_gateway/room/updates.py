"""Participant updates, collected for a moment and sent once to all."""

from typing import Final

from headwater_api.ids import ParticipantSid
from livekit.protocol import models

# Fan-out is quadratic in the room: a short delay turns a burst of changes into one message.
COALESCE_S: Final = 0.15


class UpdateBatch:
    """The latest row of each changed participant, in the order of their first change."""

    def __init__(self) -> None:
        self._rows: dict[ParticipantSid, tuple[models.ParticipantInfo, bool]] = {}
        self.due: float | None = None  # monotonic seconds

    def put(self, info: models.ParticipantInfo, *, hidden: bool, now: float) -> None:
        """Replace the participant's row. The first change starts the clock."""
        self._rows[ParticipantSid(info.sid)] = (info, hidden)
        if self.due is None:
            self.due = now + COALESCE_S

    def take(self) -> tuple[list[models.ParticipantInfo], list[models.ParticipantInfo]]:
        """All rows for everybody, and the hidden ones, each for its own participant only."""
        rows, self._rows, self.due = self._rows, {}, None
        visible = [info for info, hidden in rows.values() if not hidden]
        hidden_rows = [info for info, hidden in rows.values() if hidden]
        return visible, hidden_rows
