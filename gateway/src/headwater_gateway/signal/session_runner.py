"""All sessions of this gateway: joins, resumes, and the HTTP edge's questions before a join."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import structlog
from headwater_api.ids import NodeId, ParticipantSid, RegionName, RoomId
from headwater_api.reasons import Reason
from livekit.protocol import models, rtc

from headwater_gateway.room.access import Role
from headwater_gateway.room.actor import RoomActor
from headwater_gateway.room.directory import RoomDirectory
from headwater_gateway.room.model import NOWHERE, IdSource, JoinRequest
from headwater_gateway.room.ports import Joined, JoinRefusal
from headwater_gateway.room.requests import kind_of
from headwater_gateway.room.rules import WAITING
from headwater_gateway.room.snapshot import holder_of
from headwater_gateway.room.wire import leave
from headwater_gateway.signal.session import Session
from headwater_gateway.signal.types import (
    CLOSE_GOING_AWAY,
    CLOSE_NORMAL,
    CLOSE_TRY_AGAIN,
    Claims,
    ClientHello,
    JoinRefused,
    RegionSource,
    SignalChannel,
    VideoGrant,
    no_ice_servers,
)
from headwater_gateway.tracing import JOIN, stage

log = structlog.get_logger(__name__)

SOURCES: Final = {
    "camera": models.TrackSource.CAMERA,
    "microphone": models.TrackSource.MICROPHONE,
    "screen_share": models.TrackSource.SCREEN_SHARE,
    "screen_share_audio": models.TrackSource.SCREEN_SHARE_AUDIO,
}
STATUS_OF: Final = {
    Reason.ROOM_NOT_FOUND: 404,
    Reason.ROOM_LOCKED: 403,
    Reason.MEETING_ENDED: 403,
    Reason.MEETING_UNREADABLE: 503,  # until its object is mended
    Reason.TOKEN_REVOKED: 401,
    Reason.BANNED: 403,
    Reason.NOT_INVITED: 403,
    Reason.PASSWORD_REQUIRED: 403,
    Reason.MEETING_NOT_STARTED: 403,
    Reason.CONSENT_REQUIRED: 403,
    Reason.WAITING_FOR_HOST: 403,
    Reason.IN_WAITING_ROOM: 403,
    Reason.ADMISSION_DENIED: 403,
    Reason.ROOM_FULL: 503,
    Reason.ROOM_CLOSED: 404,
    Reason.NO_CAPACITY: 503,
    Reason.NO_NODE: 503,
    Reason.REGION_NOT_ALLOWED: 503,  # a permitted region may get a node
    Reason.NO_REGION_ALLOWED: 403,
    Reason.RATE_LIMITED: 503,
}


def join_request(hello: ClientHello) -> JoinRequest:
    """The room's view of a verified client."""
    return JoinRequest(
        identity=hello.identity,
        name=hello.name,
        metadata=hello.metadata,
        attributes=dict(hello.attributes),
        permission=permission(hello.grants),
        kind=kind_of(hello.claims.kind),
        # Measured times say more than an address; what the client asks for says more than both.
        region=NOWHERE if hello.rtts_ms and hello.region_source != RegionSource.OVERRIDE else hello.region,
        rtts_ms=hello.rtts_ms,
        auto_subscribe=hello.auto_subscribe,
        protocol=hello.protocol,
        client_protocol=hello.client_protocol,
        role=role(hello.claims),
        password=hello.proved or hello.claims.meeting.password,
        issued_at=hello.claims.issued_at,
        consents_to_recording=hello.consents_to_recording or hello.claims.meeting.consents_to_recording,
        meeting=hello.claims.meeting.meeting,
    )


def role(claims: Claims) -> Role:
    """By the token: who may administer the room hosts the meeting."""
    if claims.meeting.role:
        return Role(claims.meeting.role)
    return Role.HOST if claims.video.room_admin else Role.PARTICIPANT


def permission(grant: VideoGrant) -> models.ParticipantPermission:
    """The grants as the protocol's permission. Sources of unknown names are none that may be published."""
    named = [SOURCES[name] for name in map(str.lower, grant.can_publish_sources) if name in SOURCES]
    is_limited_to_none = bool(grant.can_publish_sources) and not named  # an empty list allows every source
    return models.ParticipantPermission(
        can_subscribe=grant.may_subscribe,
        can_publish=grant.may_publish and not is_limited_to_none,
        can_publish_data=grant.may_publish_data,
        can_publish_sources=named,
        hidden=grant.hidden,
        recorder=grant.recorder,
        can_update_metadata=grant.may_update_own_metadata,
        agent=grant.agent,
    )


class TurnList(Protocol):
    """Where a client's TURN servers come from."""

    def for_client(self, near: RegionName, sid: ParticipantSid, node: NodeId) -> list[rtc.ICEServer]: ...


class SessionRunner:
    """Runs sessions; keeps those whose client may come back."""

    def __init__(
        self,
        directory: RoomDirectory,
        ids: IdSource,
        unix_ms: Callable[[], int],
        turn: TurnList | None = None,
    ) -> None:
        self._directory, self._turn = directory, turn
        self._ids, self._unix_ms = ids, unix_ms
        self._sessions: dict[ParticipantSid, Session] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._reviving: set[ParticipantSid] = set()

    def __len__(self) -> int:
        return len(self._sessions)

    async def admit(self, hello: ClientHello) -> None:
        """RoomPolicy: the room's verdict before the upgrade. A resume is judged by its own session."""
        if hello.reconnect:
            return
        try:
            self._directory.check(hello.room, join_request(hello))
        except JoinRefusal as refusal:
            if refusal.reason in WAITING:
                self._directory.knock(hello.room, hello.identity, hello.name)
            status = STATUS_OF.get(refusal.reason, 503)
            raise JoinRefused(status, refusal.reason, refusal.sentence) from None

    async def __call__(self, hello: ClientHello, channel: SignalChannel) -> None:
        """One WebSocket, from the first frame to its end."""
        if hello.reconnect:
            await self._resume(hello, channel)
        else:
            await self._join(hello, channel)

    def _session(self, hello: ClientHello) -> Session:
        servers = no_ice_servers if self._turn is None else partial(self._turn.for_client, hello.region)
        return Session(hello.room, hello.identity, self._ids, self._unix_ms, servers)

    async def _join(self, hello: ClientHello, channel: SignalChannel) -> None:
        session = self._session(hello)
        try:
            with stage("room"):
                room, joined = await self._directory.join(hello.room, join_request(hello), session)
        except (JoinRefusal, TimeoutError) as error:
            reason = error.reason if isinstance(error, JoinRefusal) else Reason.JOIN_TIMEOUT
            log.warning("join.refused", room=hello.room, identity=hello.identity, reason=reason)
            if (trace := JOIN.get()) is not None:
                trace.refused(reason, is_ours=True)
            # Only another gateway can let it in: that one is found by connecting again.
            is_elsewhere = reason is Reason.STALE_EPOCH
            action = rtc.LeaveRequest.RECONNECT if is_elsewhere else rtc.LeaveRequest.DISCONNECT
            farewell = leave(models.DisconnectReason.JOIN_FAILURE, action)
            await channel.send(rtc.SignalResponse(leave=farewell))
            await channel.close(CLOSE_TRY_AGAIN, f"{reason}: {error}")
            return
        try:
            with stage("answer"):
                await session.start(room, joined, channel)
        except BaseException:  # its task, which would take it off the roster, does not run yet
            room.leave(joined.sid, models.DisconnectReason.JOIN_FAILURE)
            raise
        JOIN.set(None)  # what follows is no join any more
        self._keep(session)
        await session.serve(channel)

    def _on_over(self, sid: ParticipantSid, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._sessions.pop(sid, None)
        if task.cancelled() or task.exception() is None:
            return
        log.error("session.task_failed", participant=sid, exc_info=task.exception())
        for room in self._directory.rooms():
            if sid in room.state.participants:
                room.leave(sid, models.DisconnectReason.UNKNOWN_REASON)

    async def _resume(self, hello: ClientHello, channel: SignalChannel) -> None:
        session = self._sessions.get(hello.reconnect_sid) if hello.reconnect_sid else None
        room = self._directory.room(hello.room)
        last_sequence: int | None = None
        if session is not None and room is not None and session.belongs_to(hello.room, hello.identity):
            last_sequence = await room.resume(session.sid)
        if session is None and room is not None and await self._revive(room, hello, channel):
            return
        if session is None or last_sequence is None:
            if self._is_elsewhere(hello.room, room):
                log.info("resume.elsewhere", room=hello.room, participant=hello.reconnect_sid)
                await channel.close(CLOSE_GOING_AWAY, "another gateway has the room")
                return
            log.info("resume.unknown", room=hello.room, participant=hello.reconnect_sid)
            farewell = leave(models.DisconnectReason.STATE_MISMATCH, rtc.LeaveRequest.RECONNECT)
            await channel.send(rtc.SignalResponse(leave=farewell))
            await channel.close(CLOSE_NORMAL)
            return
        log.info("resume.taken", room=hello.room, participant=hello.reconnect_sid)
        await session.resume(channel, last_sequence)
        await session.serve(channel)

    def _is_elsewhere(self, room_id: RoomId, room: RoomActor | None) -> bool:
        """Another gateway has taken the room, perhaps just now: the client finds it by resuming once more.

        `room`: as it was when the client came; nodes report only later who has it now.
        """
        if room is not None:
            return room.is_handed_over
        directory = self._directory
        holder = holder_of(directory.pool.room_reports(room_id).values())
        if holder is None or holder.gateway == directory.controller_id:
            return False
        return not directory.has_ended(room_id, holder.epoch)

    async def _revive(self, room: RoomActor, hello: ClientHello, channel: SignalChannel) -> bool:
        """Resume a participant of a room that was taken over. False: it is not one, or it cannot be."""
        left = room.state.participants.get(hello.reconnect_sid) if hello.reconnect_sid else None
        if left is not None and left.sid in self._reviving:
            return False  # the client has two connections: the one that came first goes on
        facts = self._directory.pool.facts(left.node_id) if left is not None else None
        if left is None or facts is None or left.identity != hello.identity:
            return False
        last_sequence = await room.resume(left.sid)
        if last_sequence is None:
            return False
        session = self._session(hello)
        joined = Joined(left.sid, facts, rtc.JoinResponse())
        self._reviving.add(left.sid)
        try:
            revived = await session.revive(room, left, joined, channel, last_sequence)
        finally:
            self._reviving.discard(left.sid)
        if not revived:
            room.detach(left.sid)
            return False
        log.info("resume.revived", room=hello.room, participant=left.sid)
        self._keep(session)
        await session.serve(channel)
        return True

    def _keep(self, session: Session) -> None:
        sid = session.sid
        self._sessions[sid] = session
        task = asyncio.create_task(session.run(), name=f"session {sid}")
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._on_over(sid, done))

    async def aclose(self, deadline_s: float) -> None:
        """Wait for the farewells of ended rooms, then end what is left."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=deadline_s)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
