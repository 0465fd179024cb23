"""The Meetings that this gateway knows, and how it asks for new ones and for the end of old ones."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from headwater_api.ids import RoomId
from headwater_api.meeting import Meeting
from headwater_api.model import InvalidResource

Object = Mapping[str, Any]


class WriteRefused(Exception):
    """The API server did not take it. `status`: its HTTP status, 0 where it could not be asked."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class MeetingWriter(Protocol):
    """Creates and deletes Meeting objects, with the Secret that holds their hashes. WriteRefused."""

    async def create(self, meeting: Object, secret: Mapping[str, str]) -> Object:
        """The object as the API server keeps it. The Secret bears its name and goes with it."""

    async def delete(self, name: str) -> None:
        """Gone already is fine."""


class Meetings:
    """Filled by the watch. `on_created` hears of one that was made here, before the watch brings it."""

    def __init__(self) -> None:
        self._meetings: dict[RoomId, Meeting] = {}
        self.writer: MeetingWriter | None = None
        self.on_created: Callable[[str, Object], None] = lambda _, __: None
        self.clusters: Callable[[], tuple[str, ...]] = tuple

    def seen(self, name: str, body: Object) -> None:
        """It is there, or has changed."""
        try:
            self._meetings[RoomId(name)] = Meeting.from_kubernetes(body)
        except InvalidResource:
            return  # said by whoever reads its policy

    def gone(self, name: str) -> None:
        self._meetings.pop(RoomId(name), None)

    def get(self, name: str) -> Meeting | None:
        return self._meetings.get(RoomId(name))

    def all(self) -> list[Meeting]:
        """By name."""
        return [self._meetings[name] for name in sorted(self._meetings)]
