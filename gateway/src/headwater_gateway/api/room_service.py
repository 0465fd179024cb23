"""livekit.RoomService, as the protocol's server API has it. Grants are checked as that server checks them."""

import asyncio
import secrets
from collections.abc import Callable
from typing import Final, TypeVar, cast

from google.protobuf.message import DecodeError, Message
from headwater_api.ids import RoomId
from headwater_api.reasons import Reason
from livekit.protocol import models, room, rtc

from headwater_gateway.api.context import ApiContext, Caller
from headwater_gateway.api.errors import ApiError
from headwater_gateway.api.forwardings import Forwardings
from headwater_gateway.api.twirp import PROTOBUF, Call, Method
from headwater_gateway.room import moderation, showing
from headwater_gateway.room.crossing import Start
from headwater_gateway.room.ending import end_for_all
from headwater_gateway.room.roster import SERVER_PREFIX
from headwater_gateway.room.rules import may_moderate
from headwater_gateway.room.state import RoomState
from headwater_gateway.room.wire import participant_info
from headwater_gateway.signal.types import Claims, GatewayPeer

SERVICE: Final = "livekit.RoomService"
MAX_RPC_S: Final = 60.0
DEFAULT_RPC_MS: Final = 15_000
T = TypeVar("T")


class RoomService:
    """The methods, each for a room of this gateway."""

    def __init__(self, context: ApiContext, forwardings: Forwardings) -> None:
        self._context, self._forwardings = context, forwardings

    def methods(self) -> dict[str, Method]:
        """By name, for the Twirp service."""

        def of(takes: type[Message], handle: Callable[..., object]) -> Method:
            return Method(takes, handle, lambda message: str(getattr(message, "room", "")))  # type: ignore[arg-type]

        return {
            "CreateRoom": Method(room.CreateRoomRequest, self.create, lambda m: str(getattr(m, "name", ""))),
            "ListRooms": Method(room.ListRoomsRequest, self.list_rooms, lambda _: ""),
            "DeleteRoom": of(room.DeleteRoomRequest, self.delete),
            "ListParticipants": of(room.ListParticipantsRequest, self.list_participants),
            "GetParticipant": of(room.RoomParticipantIdentity, self.get_participant),
            "RemoveParticipant": of(room.RoomParticipantIdentity, self.remove),
            "MutePublishedTrack": of(room.MuteRoomTrackRequest, self.mute),
            "UpdateParticipant": of(room.UpdateParticipantRequest, self.update_participant),
            "UpdateSubscriptions": of(room.UpdateSubscriptionsRequest, self.update_subscriptions),
            "SendData": of(room.SendDataRequest, self.send_data),
            "UpdateRoomMetadata": of(room.UpdateRoomMetadataRequest, self.update_metadata),
            "ForwardParticipant": of(room.ForwardParticipantRequest, self.forward),
            "MoveParticipant": of(room.MoveParticipantRequest, self.move),
            "PerformRpc": of(room.PerformRpcRequest, self.perform_rpc),
        }

    async def _ask(self, name: str, decide: Callable[[RoomState, float], T]) -> T:
        return await self._context.room(name).ask(decide)

    def _need_admin(self, claims: Claims, name: str) -> None:
        _need(claims.video.room_admin, "roomAdmin")
        if not name or claims.video.room != name:
            raise ApiError(
                "unauthenticated", "permissions denied: video.room is another room", Reason.GRANT_MISSING
            )
        actor = self._context.directory.room(RoomId(name))
        if actor is None or claims.video.room_create:
            return
        # A host's token is an administrator's: it counts no longer once the host was sent away or demoted.
        if not may_moderate(actor.state.access, claims.identity, claims.issued_at, by_token=True):
            raise ApiError(
                "unauthenticated", "permissions denied: the token's bearer is no host", Reason.GRANT_MISSING
            )

    def _need_destination(self, claims: Claims, name: str, destination: str) -> None:
        self._need_admin(claims, name)
        if not destination or claims.video.destination_room != destination:
            raise ApiError(
                "unauthenticated",
                "permissions denied: video.destinationRoom is another room",
                Reason.GRANT_MISSING,
            )

    # -- rooms -----------------------------------------------------------------------------------

    async def create(self, call: Call, message: Message) -> models.Room:
        request = cast(room.CreateRoomRequest, message)
        _need(call.caller.claims.video.room_create, "roomCreate")
        if not request.name:
            raise ApiError("invalid_argument", "name is missing", Reason.ROOM_NAME_MISSING)
        settings = moderation.RoomSettings(
            request.empty_timeout, request.departure_timeout, request.max_participants, request.metadata
        )
        actor = self._context.directory.open(RoomId(request.name))
        return await actor.ask(lambda state, _: moderation.set_room(state, settings))

    async def list_rooms(self, call: Call, message: Message) -> room.ListRoomsResponse:
        request = cast(room.ListRoomsRequest, message)
        _need(call.caller.claims.video.room_list, "roomList")
        names = set(request.names)
        rows: list[models.Room] = [
            actor.state.info()
            for actor in self._context.directory.rooms()
            if not actor.state.ended and (not names or actor.state.room_id in names)
        ]
        if not call.caller.is_gateway:
            answers = await asyncio.gather(
                *(self._rooms_of(peer, request, call.caller) for peer in self._context.plane.peers())
            )
            rows += [row for answer in answers for row in answer]
        by_name = {str(row.name): row for row in rows}
        return room.ListRoomsResponse(rooms=[by_name[name] for name in sorted(by_name)])

    async def _rooms_of(
        self, peer: GatewayPeer, request: room.ListRoomsRequest, caller: Caller
    ) -> list[models.Room]:
        """Another gateway's rooms; none if it does not answer: its rooms are on their way elsewhere."""
        try:
            answer = await self._call_peer(peer, "ListRooms", request, caller.token, caller.address)
            return list(room.ListRoomsResponse.FromString(answer).rooms)
        except (ApiError, DecodeError):
            return []

    async def _call_peer(
        self, peer: GatewayPeer, method: str, request: Message, token: str, address: str
    ) -> bytes:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": PROTOBUF}
        status, answer, _ = await self._context.call(
            peer,
            "POST",
            f"/twirp/{SERVICE}/{method}",
            body=request.SerializeToString(),
            headers=headers,
            address=address,
            token=token,
        )
        if status != 200:
            raise ApiError("unavailable", f"the other gateway answered {status}", Reason.OWNER_UNREACHABLE)
        return answer

    async def delete(self, call: Call, message: Message) -> room.DeleteRoomResponse:
        request = cast(room.DeleteRoomRequest, message)
        _need(call.caller.claims.video.room_create, "roomCreate")
        await end_for_all(self._context.room(request.room), "deleted by the API")
        return room.DeleteRoomResponse()

    async def update_metadata(self, call: Call, message: Message) -> models.Room:
        request = cast(room.UpdateRoomMetadataRequest, message)
        self._need_admin(call.caller.claims, request.room)
        return await self._ask(
            request.room, lambda state, _: moderation.set_metadata(state, request.metadata)
        )

    # -- participants ----------------------------------------------------------------------------

    async def list_participants(self, call: Call, message: Message) -> room.ListParticipantsResponse:
        request = cast(room.ListParticipantsRequest, message)
        self._need_admin(call.caller.claims, request.room)
        actor = self._context.directory.room(RoomId(request.room))
        present = [] if actor is None else list(actor.state.participants.values())
        return room.ListParticipantsResponse(participants=[participant_info(p) for p in present])

    async def get_participant(self, call: Call, message: Message) -> models.ParticipantInfo:
        request = cast(room.RoomParticipantIdentity, message)
        self._need_admin(call.caller.claims, request.room)
        state = self._context.room(request.room).state
        return participant_info(moderation.participant_of(state, request.identity))

    async def remove(self, call: Call, message: Message) -> room.RemoveParticipantResponse:
        request = cast(room.RoomParticipantIdentity, message)
        self._need_admin(call.caller.claims, request.room)
        revoke = int(request.revoke_token_ts)
        await self._ask(
            request.room,
            lambda state, now: moderation.remove(state, request.identity, now, revoke_before_s=revoke),
        )
        return room.RemoveParticipantResponse()

    async def mute(self, call: Call, message: Message) -> room.MuteRoomTrackResponse:
        request = cast(room.MuteRoomTrackRequest, message)
        self._need_admin(call.caller.claims, request.room)
        track = await self._ask(
            request.room,
            lambda state, now: moderation.mute_track(
                state, request.identity, request.track_sid, request.muted, now
            ),
        )
        return room.MuteRoomTrackResponse(track=track)

    async def update_participant(self, call: Call, message: Message) -> models.ParticipantInfo:
        request = cast(room.UpdateParticipantRequest, message)
        self._need_admin(call.caller.claims, request.room)
        change = moderation.ParticipantChange(
            request.name,
            request.metadata,
            dict(request.attributes),
            request.permission if request.HasField("permission") else None,
        )
        return await self._ask(
            request.room,
            lambda state, now: moderation.update_participant(state, request.identity, change, now),
        )

    async def update_subscriptions(self, call: Call, message: Message) -> room.UpdateSubscriptionsResponse:
        request = cast(room.UpdateSubscriptionsRequest, message)
        self._need_admin(call.caller.claims, request.room)
        wish = rtc.UpdateSubscription(
            track_sids=request.track_sids,
            subscribe=request.subscribe,
            participant_tracks=request.participant_tracks,
        )
        await self._ask(
            request.room, lambda state, _: moderation.set_subscriptions(state, request.identity, wish)
        )
        return room.UpdateSubscriptionsResponse()

    # -- data ------------------------------------------------------------------------------------

    async def send_data(self, call: Call, message: Message) -> room.SendDataResponse:
        request = cast(room.SendDataRequest, message)
        self._need_admin(call.caller.claims, request.room)
        await self._ask(request.room, lambda state, _: moderation.send_data(state, request))
        return room.SendDataResponse()

    async def perform_rpc(self, call: Call, message: Message) -> room.PerformRpcResponse:
        request = cast(room.PerformRpcRequest, message)
        self._need_admin(call.caller.claims, request.room)
        request.response_timeout_ms = request.response_timeout_ms or DEFAULT_RPC_MS
        actor = self._context.room(request.room)
        seconds = min(request.response_timeout_ms / 1000, MAX_RPC_S)
        call_id = secrets.token_hex(8)
        await actor.ask(lambda state, _: moderation.call(state, request, call_id))
        try:
            answer = await actor.calls.wait(call_id, seconds)
        except TimeoutError:
            raise ApiError(
                "deadline_exceeded", "the participant did not answer in time", Reason.COMMAND_TIMEOUT
            ) from None
        if answer.HasField("error"):
            raise ApiError(
                "failed_precondition", f"RPC error {answer.error.code}: {answer.error.message}"[:500]
            )
        return room.PerformRpcResponse(payload=answer.payload)

    # -- other rooms -----------------------------------------------------------------------------

    async def move(self, call: Call, message: Message) -> room.MoveParticipantResponse:
        request = cast(room.MoveParticipantRequest, message)
        claims = call.caller.claims
        self._need_destination(claims, request.room, request.destination_room)
        actor = self._context.room(request.room)
        if request.destination_room == request.room:  # it stays in the room and goes to another node of it
            await actor.ask(lambda _, now: actor.mover.lead(request.identity, now))
            return room.MoveParticipantResponse()
        participant = moderation.participant_of(actor.state, request.identity)
        destination = await self._destination(request.destination_room, call.caller)
        token = self._context.mint(
            claims.api_key, _claims_of(participant_info(participant), request.destination_room), 600
        )
        await actor.ask(lambda state, now: moderation.move(state, request.identity, destination, token, now))
        return room.MoveParticipantResponse()

    async def _destination(self, name: str, caller: Caller) -> models.Room:
        """The row of the room that somebody is moved to, made there if need be."""
        peer = await self._context.plane.owner(RoomId(name), hops=0, resumes=False)
        if peer is None:
            return self._context.directory.open(RoomId(name)).state.info()
        token = self._context.mint(caller.claims.api_key, {"video": {"roomCreate": True}})
        request = room.CreateRoomRequest(name=name)
        return models.Room.FromString(
            await self._call_peer(peer, "CreateRoom", request, token, caller.address)
        )

    async def forward(self, call: Call, message: Message) -> room.ForwardParticipantResponse:
        request = cast(room.ForwardParticipantRequest, message)
        self._need_destination(call.caller.claims, request.room, request.destination_room)
        if request.destination_room == request.room:
            raise ApiError("invalid_argument", "destination_room is the room that it is in")
        actor = self._context.room(request.room)
        sight = await actor.ask(lambda state, _: showing.look(state, request.identity))
        start = Start(RoomId(request.room), RoomId(request.destination_room), sight)
        await self._forwardings.start(start)
        return room.ForwardParticipantResponse()


def _claims_of(row: models.ParticipantInfo, destination: str) -> dict[str, object]:
    """The token with which somebody joins another room as what it is here."""
    allowed = row.permission
    grant: dict[str, object] = {
        "roomJoin": True,
        "room": destination,
        "canPublish": allowed.can_publish,
        "canSubscribe": allowed.can_subscribe,
        "canPublishData": allowed.can_publish_data,
        "canUpdateOwnMetadata": allowed.can_update_metadata,
        "hidden": allowed.hidden,
    }
    if allowed.can_publish_sources:
        sources = [models.TrackSource.Name(source).lower() for source in allowed.can_publish_sources]
        grant["canPublishSources"] = sources
    attributes = {k: v for k, v in row.attributes.items() if not k.startswith(SERVER_PREFIX)}
    return {
        "sub": row.identity,
        "name": row.name,
        "metadata": row.metadata,
        "attributes": attributes,
        "video": grant,
    }


def _need(granted: bool, grant: str) -> None:
    if not granted:
        raise ApiError(
            "unauthenticated", f"permissions denied: the token lacks video.{grant}", Reason.GRANT_MISSING
        )
