"""/v1/meetings: creating, finding and ending meetings, and coming in."""

import hashlib
import secrets
import string
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aiohttp import web
from headwater_api import wellknown
from headwater_api.ids import ParticipantIdentity, ParticipantSid, RoomId
from headwater_api.meeting import KIND, Meeting
from headwater_api.reasons import Reason
from headwater_api.units import format_duration, format_time
from headwater_planner.place import Placement

from headwater_gateway.api import schemas, views
from headwater_gateway.api.context import JOIN_AUDIENCE, ApiContext, Caller
from headwater_gateway.api.errors import ApiError
from headwater_gateway.api.ics import invite
from headwater_gateway.api.rest import (
    Answer,
    Endpoint,
    Query,
    RestCall,
    need_host,
    need_meeting,
    need_member,
)
from headwater_gateway.limits import Rate
from headwater_gateway.meetings import WriteRefused
from headwater_gateway.passwords import HOST_KEY, hash_password
from headwater_gateway.room.access import Role
from headwater_gateway.room.model import JoinRequest
from headwater_gateway.room.ports import JoinRefusal
from headwater_gateway.room.rules import WAITING
from headwater_gateway.signal.session_runner import permission
from headwater_gateway.signal.types import VideoGrant

TOKEN_S: Final = 3600  # the gateway renews it while its bearer is in
LINK_S: Final = 7 * 86_400  # beyond the meeting's end
RETRY_S: Final = 2
ID_LETTERS: Final = string.ascii_lowercase + string.digits
PASSWORD_LETTERS: Final = "abcdefghjkmnpqrstuvwxyz23456789"  # none that is taken for another
DEFAULT_DURATION: Final = timedelta(hours=1)
PAST_S: Final = 60  # clocks differ


class MeetingsApi:
    """The endpoints. Everything that a join needs is in memory; only creating and ending write."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._creations = Rate(per_second=0.1, burst=20)
        self._joins = Rate(per_second=2, burst=40)

    def endpoints(self) -> list[Endpoint]:
        one = "/v1/meetings/{meeting_id}"
        return [
            Endpoint(
                "POST",
                "/v1/meetings",
                "Create a meeting, for now or for later",
                self.create,
                {201: schemas.MeetingCreated},
                takes=schemas.CreateMeeting,
                in_room=False,
            ),
            Endpoint(
                "GET",
                "/v1/meetings",
                "List meetings by name",
                self.list,
                {200: schemas.MeetingList},
                in_room=False,
                query=(Query("limit", 1, 500, 100),),
            ),
            Endpoint("GET", one, "One meeting", self.get, {200: schemas.MeetingView}),
            Endpoint("DELETE", one, "End it for all and delete it", self.delete, {200: schemas.Done}),
            Endpoint(
                "POST",
                one + "/join",
                "Come in: a token, and what a client needs to connect",
                self.join,
                {200: schemas.Joined, 202: schemas.Waiting},
                takes=schemas.JoinMeeting,
                audience=JOIN_AUDIENCE,
            ),
            Endpoint(
                "GET", one + "/invite.ics", "The invitation for a calendar", self.invite,
                {200: "text/calendar"},
            ),
        ]  # fmt: skip

    # -- creating and finding --------------------------------------------------------------------

    async def create(self, call: RestCall) -> Answer:
        body = call.of(schemas.CreateMeeting)
        if not call.caller.claims.video.room_create:
            raise ApiError(
                "permission_denied", "the access token lacks the grant video.roomCreate", Reason.GRANT_MISSING
            )
        identity = call.caller.claims.identity
        if identity and identity != body.host_id:
            raise ApiError("permission_denied", "host_id is not the token's own user", Reason.GRANT_MISSING)
        now = datetime.now(UTC)
        _check_schedule(body, now)
        if not self._creations.take(f"{call.caller.claims.api_key}/{body.host_id}", time.monotonic()):
            raise ApiError("resource_exhausted", "too many meetings at once: wait", Reason.RATE_LIMITED)
        name = "m-" + "".join(secrets.choice(ID_LETTERS) for _ in range(12))
        password = _password() if body.password is None else body.password
        meeting = self._object(name, body, has_password=bool(password))
        host_key = secrets.token_urlsafe(18)
        hashes = {"host-key": await hash_password(host_key)}
        if password:
            hashes["password"] = await hash_password(password)
        made = await self._write(meeting, hashes)
        view = views.meeting_view(Meeting.from_kubernetes(made))
        link = self._join_link(call, made, body)
        created = schemas.MeetingCreated(
            **view.model_dump(),
            host_id=body.host_id,
            host_key=host_key,
            password=password,
            join_url=link,
            invite_url=f"{self._base(call)}/v1/meetings/{name}/invite.ics",
        )
        return 201, created

    def _object(self, name: str, body: schemas.CreateMeeting, *, has_password: bool) -> dict[str, Any]:
        """The Meeting object, in the API server's words."""
        rules = body.settings
        access: dict[str, Any] = {
            "hosts": [body.host_id],
            "hostKeySecretRef": {"name": name, "key": "host-key"},
            "waitingRoom": rules.waiting_room,
            "invited": sorted(set(rules.invited)),
            "joinBeforeHost": rules.join_before_host,
            "muteOnEntry": rules.mute_on_entry,
            "allowScreenShare": rules.allow_screen_share,
            "recordingConsent": rules.recording_consent,
        }
        if has_password:
            access["passwordSecretRef"] = {"name": name, "key": "password"}
        spec: dict[str, Any] = {
            "clusterRef": {"name": self._cluster(body.cluster)},
            "title": body.title or "",
            "access": access,
            "media": {"e2ee": "Required" if rules.e2ee_required else "Optional"},
            "ttlAfterEnded": "24h",
        }
        if rules.max_participants is not None:
            spec["maxParticipants"] = rules.max_participants
        if rules.regions:
            spec["placement"] = {"pin": sorted(set(rules.regions))}
        if body.scheduled_time is not None:
            spec["schedule"] = {"start": format_time(body.scheduled_time.astimezone(UTC))}
            if body.duration is not None:
                spec["schedule"]["duration"] = format_duration(timedelta(minutes=body.duration))
        return {
            "apiVersion": f"{wellknown.GROUP}/{wellknown.VERSION}",
            "kind": KIND,
            "metadata": {"name": name, "labels": {wellknown.LABEL_MANAGED_BY: "headwater-rest"}},
            "spec": spec,
        }

    def _cluster(self, wanted: str | None) -> str:
        known = self._context.plane.meetings.clusters()
        if wanted is not None:
            if wanted not in known:
                raise ApiError("invalid_argument", "cluster: there is no SFUCluster of that name")
            return wanted
        if len(known) != 1:
            raise ApiError("invalid_argument", f"cluster: name one of the {len(known)} SFUClusters")
        return known[0]

    async def _write(self, meeting: dict[str, Any], hashes: Mapping[str, str]) -> Mapping[str, Any]:
        meetings = self._context.plane.meetings
        if meetings.writer is None:
            raise ApiError("unavailable", "this gateway may not create meetings", Reason.APPLY_FAILED)
        try:
            made = await meetings.writer.create(meeting, hashes)
        except WriteRefused as refused:
            if refused.status in (400, 422):
                raise ApiError("invalid_argument", f"the cluster refuses it: {refused}"[:300]) from None
            raise ApiError(
                "unavailable", "the meeting cannot be kept now: try again", Reason.APPLY_FAILED
            ) from None
        meetings.on_created(made["metadata"]["name"], made)
        return made

    async def list(self, call: RestCall) -> Answer:
        if not call.caller.claims.video.room_list:
            raise ApiError(
                "permission_denied", "the access token lacks the grant video.roomList", Reason.GRANT_MISSING
            )
        known = self._context.plane.meetings.all()[: call.query["limit"]]
        return schemas.MeetingList(meetings=[views.meeting_view(meeting) for meeting in known])

    async def get(self, call: RestCall) -> Answer:
        need_member(self._context, call)
        meeting = self._context.plane.meetings.get(call.meeting_id)
        if meeting is None:
            raise ApiError("not_found", "there is no such meeting", Reason.ROOM_NOT_FOUND)
        return views.meeting_view(meeting)

    async def delete(self, call: RestCall) -> Answer:
        need_host(self._context, call)
        if self._context.plane.meetings.get(call.meeting_id) is None:
            raise ApiError("not_found", "there is no such meeting", Reason.ROOM_NOT_FOUND)
        writer = self._context.plane.meetings.writer
        if writer is None:
            raise ApiError("unavailable", "this gateway may not delete meetings", Reason.APPLY_FAILED)
        try:
            await writer.delete(call.meeting_id)
        except WriteRefused:
            raise ApiError(
                "unavailable", "it cannot be deleted now: try again", Reason.APPLY_FAILED
            ) from None
        return schemas.Done()

    async def invite(self, call: RestCall) -> Answer:
        need_member(self._context, call)
        meeting = need_meeting(self._context, call.meeting_id)
        schedule = meeting.spec.schedule
        if schedule is None:
            raise ApiError("not_found", "the meeting is not scheduled", Reason.NOT_SCHEDULED)
        text = invite(
            call.meeting_id,
            meeting.spec.title,
            schedule.start,
            schedule.duration or DEFAULT_DURATION,
            f"{self._base(call)}/?meeting={call.meeting_id}",
            stamp=datetime.now(UTC),
        )
        return web.Response(text=text, content_type="text/calendar")

    # -- coming in -------------------------------------------------------------------------------

    async def join(self, call: RestCall) -> Answer:
        body, caller = call.of(schemas.JoinMeeting), call.caller
        if not self._joins.take(f"{caller.address}/{body.user_id}", time.monotonic()):
            raise ApiError("resource_exhausted", "too many attempts: wait", Reason.RATE_LIMITED)
        meeting = need_meeting(self._context, call.meeting_id)
        room = RoomId(call.meeting_id)
        identity, role = _person(call, body, meeting)
        passwords = self._context.plane.passwords
        if body.host_key and await passwords.prove(room, body.host_key, caller.address, HOST_KEY):
            role = Role.HOST
        proved = await passwords.prove(room, body.password, caller.address) if body.password else ""
        grant = _grant(caller, call.meeting_id, role)
        request = JoinRequest(
            identity=identity,
            name=body.name or caller.claims.name,
            permission=permission(grant),
            role=role,
            password=proved,
            issued_at=_issued_at(caller, int(time.time())),
            consents_to_recording=body.recording_consent,
            meeting=call.meeting_id,
            # What its client can do, for those who talk to it; codecs and sizes are agreed by offers.
            attributes={f"device.{name}": text for name, text in body.device_info.items()},
        )
        try:
            placement = self._context.directory.check(room, request)
        except JoinRefusal as refusal:
            if refusal.reason not in WAITING:
                raise
            self._context.directory.knock(room, identity, request.name)
            return 202, schemas.Waiting(participant_id=identity, retry_after=RETRY_S)
        return self._admitted(call, meeting, request, placement)

    def _admitted(
        self, call: RestCall, meeting: Meeting, request: JoinRequest, placement: Placement
    ) -> schemas.Joined:
        token = self._context.mint(
            call.caller.claims.api_key,
            {
                "sub": request.identity,
                "name": request.name,
                "attributes": dict(request.attributes),
                # As old as what it is made of: a revoked token cannot be exchanged for a new one. Older than
                # any revocation if nothing says how old that is (0 would count as not said).
                "iat": max(1, request.issued_at),
                "video": _grant_claim(call.caller, call.meeting_id, request.role),
                "headwater": {
                    "meeting": call.meeting_id,
                    "role": str(request.role),
                    "password": request.password,
                    "recordingConsent": request.consents_to_recording,
                },
            },
            TOKEN_S,
        )
        base = self._base(call)
        return schemas.Joined(
            participant_id=request.identity,
            role=str(request.role),
            signaling_server_url="ws" + base.removeprefix("http"),
            ice_servers=[
                schemas.IceServer(urls=list(s.urls), username=s.username, credential=s.credential)
                for s in self._context.plane.ice_servers(
                    placement.region, ParticipantSid(request.identity), placement.node_id
                )
            ],
            token=token,
            meeting_state=views.meeting_state(
                call.meeting_id, meeting.spec.title, self._context.directory.room(RoomId(call.meeting_id))
            ),
        )

    def _base(self, call: RestCall) -> str:
        """The address under which clients reach us: as set, else as the caller did."""
        return self._context.settings.public_url or f"{call.request.scheme}://{call.request.host}"

    def _join_link(self, call: RestCall, made: Mapping[str, Any], body: schemas.CreateMeeting) -> str:
        """For guests: it carries a token that is good for nothing but joining this meeting."""
        name = made["metadata"]["name"]
        end = body.scheduled_time or datetime.now(UTC)
        end += timedelta(minutes=body.duration or 0)
        seconds = int((end - datetime.now(UTC)).total_seconds()) + LINK_S
        claims: dict[str, object] = {
            "aud": JOIN_AUDIENCE,
            "headwater": {"meeting": name, "role": str(Role.GUEST)},
        }
        token = self._context.mint(call.caller.claims.api_key, claims, seconds)
        return f"{self._base(call)}/?meeting={name}#join={token}"


def _check_schedule(body: schemas.CreateMeeting, now: datetime) -> None:
    if body.scheduled_time is None:
        if body.duration is not None:
            return
        return
    if body.scheduled_time < now - timedelta(seconds=PAST_S):
        raise ApiError("invalid_argument", "scheduled_time is in the past")
    if body.scheduled_time > now + timedelta(days=3650):
        raise ApiError("invalid_argument", "scheduled_time is more than ten years ahead")


def _password() -> str:
    return "".join(secrets.choice(PASSWORD_LETTERS) for _ in range(10))


def _person(call: RestCall, body: schemas.JoinMeeting, meeting: Meeting) -> tuple[ParticipantIdentity, Role]:
    """Who joins. ApiError 403: the token does not stand for that user, or for another meeting."""
    claims = call.caller.claims
    if claims.is_join_link:
        if claims.meeting.meeting != call.meeting_id:
            raise ApiError("permission_denied", "the link is for another meeting", Reason.GRANT_MISSING)
        # Whoever knows somebody's user_id must not be able to take its place: it is the guest's own secret.
        digest = hashlib.sha256(f"{call.meeting_id}\n{body.user_id}".encode()).hexdigest()[:16]
        return ParticipantIdentity(f"guest-{digest}"), Role.GUEST
    found = claims.video.room_create or claims.identity == body.user_id
    if not found or (claims.video.room and claims.video.room != call.meeting_id):
        raise ApiError(
            "permission_denied", "the access token is for another user or meeting", Reason.GRANT_MISSING
        )
    identity = ParticipantIdentity(body.user_id)
    admin = claims.video.room_admin and claims.video.room == call.meeting_id
    role = Role.HOST if admin or identity in meeting.spec.access.hosts else Role.PARTICIPANT
    return identity, role


def _issued_at(caller: Caller, now: int) -> int:
    """When what the caller shows was made (Unix seconds); an application vouches for its users now."""
    return now if caller.claims.video.room_create else caller.claims.issued_at


def _grant(caller: Caller, meeting_id: str, role: Role) -> VideoGrant:
    """No more than the caller's own token allows; an application's allows all."""
    mine = caller.claims.video
    bound = not mine.room_create
    return VideoGrant(
        room_join=True,
        room=meeting_id,
        room_admin=role is Role.HOST,
        can_publish=mine.can_publish if bound else True,
        can_subscribe=mine.can_subscribe if bound else True,
        can_publish_data=mine.can_publish_data if bound else True,
        can_publish_sources=mine.can_publish_sources if bound else (),
    )


def _grant_claim(caller: Caller, meeting_id: str, role: Role) -> dict[str, object]:
    grant = _grant(caller, meeting_id, role)
    claim: dict[str, object] = {
        "roomJoin": True,
        "room": meeting_id,
        "roomAdmin": grant.room_admin,
        "canPublish": grant.may_publish,
        "canSubscribe": grant.may_subscribe,
        "canPublishData": grant.may_publish_data,
    }
    if grant.can_publish_sources:
        claim["canPublishSources"] = list(grant.can_publish_sources)
    return claim
