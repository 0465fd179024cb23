"""What is put to a room: messages, and questions that wait for their answer."""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

import structlog
from headwater_api.ids import ParticipantSid
from headwater_api.reasons import Reason

from headwater_gateway.room.mailbox import Job, Mailbox, Share
from headwater_gateway.room.ports import HANDED_OVER, JoinRefusal, RoomError
from headwater_gateway.room.state import RoomState
from headwater_gateway.tracing import carried

log = structlog.get_logger(__name__)

WARN_EVERY_S: Final = 1.0

T = TypeVar("T")


class Inbox:
    """One room's. `post` and `decide` from any task of the loop, the rest by the room's own."""

    def __init__(self, state: RoomState, clock: Callable[[], float]) -> None:
        self._state, self._clock = state, clock
        self._mailbox = Mailbox()
        self._may_warn_at = 0.0
        self._log = log.bind(room=state.room_id)
        self.is_handed_over = False  # the room has not ended, it is another gateway's

    @property
    def dropped(self) -> int:
        """Messages that found no place."""
        return self._mailbox.dropped

    def post(self, blame: ParticipantSid | None, job: Job, share: Share = Share.OWN) -> bool:
        """A message, with the participant that it is of. False: the room has ended or has no place for it."""
        if self._state.ended:
            return False
        if not self._mailbox.put(share, blame, job):
            now = self._clock()
            if now >= self._may_warn_at:
                self._may_warn_at = now + WARN_EVERY_S
                self._log.warning("room.mailbox_full", participant=blame, share=share)
            return False
        return True

    def decide(self, decide: Callable[[float], T]) -> "asyncio.Future[T]":
        """A question. JoinRefusal: the room has ended or is busy; of the future: what `decide` raises."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        decide = carried("place", decide)

        def job(now: float) -> None:
            if answer.cancelled():
                return
            try:
                if self._state.ended:
                    raise self._over()
                answer.set_result(decide(now))
            except (RoomError, JoinRefusal) as error:
                answer.set_exception(error)
            except BaseException:
                answer.cancel()
                raise

        if not self.post(None, job, Share.COMMAND):
            if self._state.ended:
                raise self._over()
            raise JoinRefusal(Reason.RATE_LIMITED, "the room is busy; try again")
        return answer

    def _over(self) -> JoinRefusal:
        if self.is_handed_over:
            return JoinRefusal(Reason.STALE_EPOCH, HANDED_OVER)
        return JoinRefusal(Reason.ROOM_CLOSED, f"the room has ended: {self._state.ended}")

    async def get(self, wait_s: float) -> tuple[ParticipantSid | None, Job] | None:
        """The oldest message; None: none has come for so long."""
        return await self._mailbox.get(wait_s)

    def rest(self) -> list[Job]:
        """All that is left, taken out."""
        return self._mailbox.rest()
