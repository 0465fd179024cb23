"""Participant updates, collected for a moment and sent once to all."""

from typing import Final

from headwater_api.ids import ParticipantSid
from livekit.protocol import models

from headwater_gateway.limits import Rate

# Fan-out is quadratic in the room: a short delay turns a burst of changes into one message.
COALESCE_S: Final = 0.15
# Changes that should be seen at once: so many in a row go out by themselves, then one in each such moment.
# Of a new name and new attributes in one row the SDKs of the Rust engine tell their users only one.
HURRIED_IN_A_ROW: Final = 8


class UpdateBatch:
    """The latest row of each changed participant, in the order of their first change."""

    def __init__(self) -> None:
        self._rows: dict[ParticipantSid, tuple[models.ParticipantInfo, bool]] = {}
        self.due: float | None = None  # monotonic seconds
        self._hurries = Rate(1 / COALESCE_S, HURRIED_IN_A_ROW)

    def put(self, info: models.ParticipantInfo, *, hidden: bool, now: float) -> None:
        """Replace the participant's row. The first change starts the clock."""
        self._rows[ParticipantSid(info.sid)] = (info, hidden)
        if self.due is None:
            self.due = now + COALESCE_S

    def may_hurry(self, now: float) -> bool:
        """Whether a change that should be seen at once may go out now; if so it counts."""
        return self._hurries.take("", now)

    def take(self) -> tuple[list[models.ParticipantInfo], list[models.ParticipantInfo]]:
        """All rows for everybody, and the hidden ones, each for its own participant only."""
        rows, self._rows, self.due = self._rows, {}, None
        visible = [info for info, hidden in rows.values() if not hidden]
        hidden_rows = [info for info, hidden in rows.values() if hidden]
        return visible, hidden_rows
