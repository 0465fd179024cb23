"""/v1/meetings/{id}/…: what participants and hosts do while it runs."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, TypeVar

from headwater_api.ids import NodeId, ParticipantIdentity, RegionName, RoomId
from headwater_api.reasons import Reason
from livekit.protocol import models
from pydantic import BaseModel

from headwater_gateway.api import schemas, views
from headwater_gateway.api.context import ApiContext
from headwater_gateway.api.errors import ApiError
from headwater_gateway.api.rest import (
    Answer,
    Endpoint,
    Query,
    RestCall,
    need_host,
    need_inside,
    need_meeting,
    need_member,
)
from headwater_gateway.room import moderation
from headwater_gateway.room.access import Role
from headwater_gateway.room.ending import end_for_all
from headwater_gateway.room.state import RoomState

T = TypeVar("T")
ONE: Final = "/v1/meetings/{meeting_id}"
PERSON: Final = ONE + "/participants/{participant_id}"


class ControlsApi:
    """The endpoints. All of them are for a room of this gateway."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def endpoints(self) -> list[Endpoint]:
        done: dict[int, type[BaseModel] | str] = {200: schemas.Done}
        person: dict[int, type[BaseModel] | str] = {200: schemas.ParticipantView}
        return [
            Endpoint("POST", ONE + "/leave", "Leave", self.leave, done, schemas.LeaveMeeting),
            Endpoint("GET", ONE + "/participants", "Who is in", self.people, {200: schemas.ParticipantList}),
            Endpoint("GET", PERSON + "/media", "What somebody sends", self.media, person),
            Endpoint(
                "PUT", PERSON + "/media", "Mute, unmute, stop", self.set_media, person, schemas.MediaState
            ),
            Endpoint("PUT", PERSON + "/role", "Make a co-host", self.set_role, person, schemas.RoleChange),
            Endpoint(
                "GET", PERSON + "/node", "Where somebody is", self.where, {200: schemas.ParticipantNode}
            ),
            Endpoint(
                "PUT",
                PERSON + "/node",
                "Lead somebody to another SFU node without a new join",
                self.lead,
                {200: schemas.ParticipantNode},
                schemas.NodeChange,
            ),
            Endpoint(
                "DELETE",
                PERSON,
                "Remove somebody; for good with ban=1",
                self.remove,
                done,
                query=(Query("ban", 0, 1, 0),),
            ),
            Endpoint("PUT", ONE + "/lock", "Lock or unlock", self.lock, done, schemas.Lock),
            Endpoint("GET", ONE + "/waiting", "Who waits", self.waiting, {200: schemas.WaitingList}),
            Endpoint(
                "PUT", ONE + "/waiting/{participant_id}", "Admit or deny", self.admit, done, schemas.Admission
            ),
            Endpoint(
                "POST", ONE + "/mute", "Mute everybody", self.mute_all, {200: schemas.Muted}, schemas.MuteAll
            ),
            Endpoint(
                "PUT",
                ONE + "/recording",
                "Say that it is recorded",
                self.record,
                done,
                schemas.RecordingState,
            ),
            Endpoint("POST", ONE + "/end", "End it for all who are in", self.end, done),
        ]

    async def _ask(self, call: RestCall, decide: Callable[[RoomState, float], T]) -> T:
        return await self._context.room(call.meeting_id).ask(decide)

    async def _decide(self, call: RestCall, decide: Callable[[RoomState, float], T]) -> T:
        """As `_ask`, where the room need not have begun: a lock before the first participant holds."""
        need_meeting(self._context, call.meeting_id)
        return await self._context.directory.open(RoomId(call.meeting_id)).ask(decide)

    # -- oneself and others ----------------------------------------------------------------------

    async def leave(self, call: RestCall) -> Answer:
        body = call.of(schemas.LeaveMeeting)
        found = need_member(self._context, call)
        if found.identity != body.participant_id and not found.is_application:
            raise ApiError("permission_denied", "participant_id is somebody else", Reason.GRANT_MISSING)
        await self._ask(call, lambda state, now: moderation.leave_room(state, body.participant_id, now))
        return schemas.Done()

    async def people(self, call: RestCall) -> Answer:
        need_inside(self._context, call)
        state = self._context.room(call.meeting_id).state
        return schemas.ParticipantList(participants=[views.participant_view(p) for p in state.visible()])

    async def media(self, call: RestCall) -> Answer:
        need_inside(self._context, call)
        state = self._context.room(call.meeting_id).state
        return views.participant_view(moderation.participant_of(state, call.participant_id))

    async def set_media(self, call: RestCall) -> Answer:
        body = call.of(schemas.MediaState)
        found = need_member(self._context, call)
        mine = found.identity == call.participant_id and found.here is not None
        if not mine and not found.moderates:
            raise ApiError("permission_denied", "participant_id is somebody else", Reason.GRANT_MISSING)
        wanted = {
            models.TrackSource.MICROPHONE: body.audio_enabled,
            models.TrackSource.CAMERA: body.video_enabled,
            models.TrackSource.SCREEN_SHARE: body.screen_sharing,
        }
        if not mine and any(wanted.values()):
            raise ApiError(
                "permission_denied", "only its owner turns a microphone or camera on", Reason.GRANT_MISSING
            )
        return await self._ask(
            call,
            lambda state, now: views.participant_view(
                moderation.set_media(state, call.participant_id, wanted, now)
            ),
        )

    # -- hosts -----------------------------------------------------------------------------------

    async def set_role(self, call: RestCall) -> Answer:
        need_host(self._context, call)
        role = Role(call.of(schemas.RoleChange).role)

        def decide(state: RoomState, now: float) -> schemas.ParticipantView:
            moderation.set_role(state, call.participant_id, role, now)
            return views.participant_view(moderation.participant_of(state, call.participant_id))

        return await self._ask(call, decide)

    async def where(self, call: RestCall) -> Answer:
        need_host(self._context, call)
        state = self._context.room(call.meeting_id).state
        return views.participant_node(moderation.participant_of(state, call.participant_id))

    async def lead(self, call: RestCall) -> Answer:
        need_host(self._context, call)
        wanted = call.of(schemas.NodeChange)
        node_id = NodeId(wanted.node_id) if wanted.node_id is not None else None
        region = RegionName(wanted.region) if wanted.region is not None else None
        actor = self._context.room(call.meeting_id)

        def decide(state: RoomState, now: float) -> schemas.ParticipantNode:
            actor.mover.lead(call.participant_id, now, node_id=node_id, region=region)
            return views.participant_node(moderation.participant_of(state, call.participant_id))

        return await self._ask(call, decide)

    async def remove(self, call: RestCall) -> Answer:
        need_host(self._context, call)
        ban = bool(call.query["ban"])
        ask = self._decide if ban else self._ask
        await ask(call, lambda state, now: moderation.remove(state, call.participant_id, now, ban=ban))
        return schemas.Done()

    async def lock(self, call: RestCall) -> Answer:
        need_host(self._context, call)
        locked = call.of(schemas.Lock).locked
        await self._decide(call, lambda state, _: moderation.set_lock(state, locked))
        return schemas.Done()

    async def waiting(self, call: RestCall) -> Answer:
        need_host(self._context, call)
        access = self._context.room(call.meeting_id).state.access
        people = [
            schemas.WaitingPerson(
                participant_id=knock.identity,
                name=knock.name,
                since=datetime.fromtimestamp(knock.since_ms / 1000, UTC),
            )
            for knock in access.waiting.values()
        ]
        return schemas.WaitingList(waiting=people)

    async def admit(self, call: RestCall) -> Answer:
        need_host(self._context, call)
        let_in, who = call.of(schemas.Admission).admit, ParticipantIdentity(call.participant_id)
        await self._decide(call, lambda state, _: moderation.admit(state, [who], let_in=let_in))
        return schemas.Done()

    async def mute_all(self, call: RestCall) -> Answer:
        found = need_host(self._context, call)
        video = call.of(schemas.MuteAll).video
        count = await self._ask(
            call, lambda state, now: moderation.mute_all(state, now, video=video, but=[found.identity])
        )
        return schemas.Muted(muted=count)

    async def record(self, call: RestCall) -> Answer:
        need_host(self._context, call)
        recording = call.of(schemas.RecordingState).recording
        await self._ask(call, lambda state, _: moderation.set_recorded(state, recording))
        return schemas.Done()

    async def end(self, call: RestCall) -> Answer:
        need_host(self._context, call)
        await end_for_all(self._context.room(call.meeting_id), "a host ended it for all")
        return schemas.Done()
