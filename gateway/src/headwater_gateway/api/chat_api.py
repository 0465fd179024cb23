"""Chat and reactions: over data channels to those who are in, kept for those who ask later."""

import secrets
import time
from datetime import UTC, datetime
from typing import Final, Literal, cast

import structlog
from headwater_api.ids import RoomId
from headwater_api.reasons import Reason

from headwater_gateway.api import schemas
from headwater_gateway.api.chat_store import ChatEntry, ChatStore, StoreUnavailable
from headwater_gateway.api.context import ApiContext
from headwater_gateway.api.errors import ApiError
from headwater_gateway.api.rest import (
    Answer,
    Endpoint,
    Query,
    RestCall,
    need_inside,
    need_meeting,
    need_member,
)
from headwater_gateway.limits import Rate
from headwater_gateway.room import chat
from headwater_gateway.room.effects import ChatSaid

PATH: Final = "/v1/meetings/{meeting_id}/chat"

log = structlog.get_logger(__name__)


class ChatApi:
    """The endpoints, and the memory of what is said over data channels."""

    def __init__(self, context: ApiContext, store: ChatStore) -> None:
        self._context, self._store = context, store
        self._by_room = Rate(per_second=50, burst=200)

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                "POST", PATH, "Say something to all, or to one", self.send,
                {201: schemas.ChatMessageView}, schemas.SendChat,
            ),
            Endpoint(
                "GET", PATH, "What was said, oldest first", self.history, {200: schemas.ChatPage},
                query=(Query("after", 0, 2**53, 0), Query("limit", 1, 200, 100)),
            ),
        ]  # fmt: skip

    async def send(self, call: RestCall) -> Answer:
        body = call.of(schemas.SendChat)
        found = need_member(self._context, call)
        if found.here is None or found.identity != body.sender_id:
            raise ApiError(
                "permission_denied", "sender_id must be the caller, in the meeting", Reason.GRANT_MISSING
            )
        if not self._by_room.take(call.meeting_id, time.monotonic()):
            raise ApiError("resource_exhausted", "the meeting is too loud: wait", Reason.RATE_LIMITED)
        said = ChatSaid(
            message_id=f"CM_{secrets.token_hex(8)}",
            sender=found.identity,
            recipients=(body.recipient_id,) if body.recipient_id else (),
            kind=body.kind,
            message=body.message,
            sent_ms=time.time_ns() // 1_000_000,
        )
        actor = self._context.room(call.meeting_id)
        await actor.ask(lambda state, now: chat.say(state, said, now))
        entry = _entries(call.meeting_id, said)[0]
        await self._keep(entry)
        return 201, _view(entry)

    async def history(self, call: RestCall) -> Answer:
        found = need_inside(self._context, call)
        if self._context.directory.room(RoomId(call.meeting_id)) is None:
            need_meeting(self._context, call.meeting_id)
        try:
            entries = await self._store.page(
                call.meeting_id, found.identity, call.query["after"], call.query["limit"]
            )
        except StoreUnavailable:
            raise _unavailable() from None
        last = str(entries[-1].number) if entries else str(call.query["after"])
        return schemas.ChatPage(messages=[_view(entry) for entry in entries], next=last)

    async def hear(self, meeting: str, said: ChatSaid) -> None:
        """Somebody said it over a data channel: keep it."""
        for entry in _entries(meeting, said):
            try:
                await self._store.append(entry)
            except StoreUnavailable as error:
                log.warning("chat.not_kept", room=meeting, why=str(error))

    async def _keep(self, entry: ChatEntry) -> None:
        try:
            await self._store.append(entry)
        except StoreUnavailable:
            raise _unavailable() from None


def _unavailable() -> ApiError:
    return ApiError("unavailable", "chat history cannot be reached now", Reason.APPLY_FAILED)


def _entries(meeting: str, said: ChatSaid) -> list[ChatEntry]:
    """A message to several is kept once for each."""
    rows = []
    for number, recipient in enumerate(said.recipients or ("",)):
        message_id = said.message_id if not number else f"{said.message_id}-{number}"
        rows.append(
            ChatEntry(meeting, message_id, said.sender, recipient, said.kind, said.message, said.sent_ms)
        )
    return rows


def _view(entry: ChatEntry) -> schemas.ChatMessageView:
    return schemas.ChatMessageView(
        message_id=entry.message_id,
        sender_id=entry.sender,
        recipient_id=entry.recipient or None,
        kind=cast(Literal["message", "reaction"], entry.kind),
        message=entry.message,
        sent_at=datetime.fromtimestamp(entry.sent_ms / 1000, UTC),
    )
