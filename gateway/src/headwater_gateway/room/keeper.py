"""When a room's snapshot is due, and who waits for it to be kept by others. No I/O."""

import asyncio
from collections.abc import Mapping
from typing import Final

import structlog
from headwater_api.nodev1 import node_pb2
from livekit.protocol import rtc

from headwater_gateway.room import codec, effects, snapshot
from headwater_gateway.room.snapshot import Claim
from headwater_gateway.room.state import RoomState

log = structlog.get_logger(__name__)

FIRST_S: Final = 0.02  # so that a burst of changes goes out as one
EVERY_S: Final = 1.0
# Of a room so large that its encoding takes long, no more than this share of the time is spent on it.
SHARE: Final = 0.05
STORED_DEADLINE_S: Final = 2.0

# What clients are told all the time and a successor finds out by itself.
_PASSING: Final = frozenset(
    {"speakers_changed", "connection_quality", "stream_state_update", "request_response"}
)


def matters(effect: effects.Effect) -> bool:
    """Whether a decision with this effect has changed what a successor needs."""
    match effect:
        case effects.ToNode(_, commands):
            return any(command.WhichOneof("command") != "send_data" for command in commands)
        case effects.ToClients(_, message):
            return _kind(message) not in _PASSING
        case _:
            return True


def _kind(message: rtc.SignalResponse) -> str:
    return str(message.WhichOneof("message"))


def promised(state: RoomState) -> object:
    """What a command's answer promises: who comes in, who is in, and how. A change must outlive this gateway.

    A participant's version counts the changes of its row: mutes, roles, attributes.
    """
    rows = {sid: participant.version for sid, participant in state.participants.items()}
    return codec.pack(state.access, 0.0), state.config, bool(state.ended), rows


class SnapshotKeeper:
    """The versions of one room's snapshot, under one claim."""

    def __init__(self, claim: Claim, version: int = 0, seen: Mapping[str, int] | None = None) -> None:
        self.claim = claim
        self.version = version
        self.seen = dict(seen or {})
        self.due: float | None = None  # monotonic seconds
        self.stored_version = 0
        self._not_before = 0.0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._has_failed = False

    def touch(self, now: float) -> None:
        """Something has changed that a successor needs."""
        if self.due is None:
            self.due = max(now + FIRST_S, self._not_before)

    def urge(self, now: float) -> "asyncio.Future[None]":
        """Something has changed that must not be lost: done when somebody else keeps it."""
        self.due = now
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((self.version + 1, kept))
        return kept

    def make(self, state: RoomState, now: float) -> node_pb2.PutSnapshot | None:
        """The snapshot that is due; None if the room is too large for one."""
        self.due = None
        self._not_before = now + EVERY_S
        self.version += 1
        try:
            blob = snapshot.encode(state, self.claim, self.version, self.seen, now)
        except (snapshot.SnapshotError, TypeError, ValueError) as error:  # must not end the room
            if not self._has_failed:
                log.error("room.snapshot_impossible", room=state.room_id, reason=str(error))
            self._has_failed = True
            return None
        self._has_failed = False
        return node_pb2.PutSnapshot(version=self.version, blob=blob)

    def spent(self, seconds: float) -> None:
        """So much processor time the making took, in seconds."""
        self._not_before += max(0.0, seconds / SHARE - EVERY_S)

    def stored(self, version: int) -> None:
        """Somebody outside this process holds that version."""
        self.stored_version = max(self.stored_version, version)
        for wanted, kept in self._waiting:
            if wanted <= version and not kept.done():
                kept.set_result(None)
        self._waiting = [(wanted, kept) for wanted, kept in self._waiting if not kept.done()]

    def close(self) -> None:
        """Nothing will be kept any more: who waits gets a TimeoutError."""
        for _, kept in self._waiting:
            if not kept.done():
                kept.set_exception(TimeoutError("the room has ended here before its change was kept"))
                kept.exception()  # nobody may be waiting
        self._waiting.clear()
