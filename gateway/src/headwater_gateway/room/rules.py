"""A meeting's rules for who comes in, in the order in which they are asked. Decisions only.

Somebody who may not come in learns the one reason that stands first and nothing about the room: what a
stranger must not know (who is there, how many) is asked last, after the waiting room.
"""

from typing import Final

from headwater_api.ids import ParticipantIdentity
from headwater_api.reasons import Reason
from livekit.protocol import models

from headwater_gateway.room.access import Access, Role
from headwater_gateway.room.model import JoinRequest, RoomConfig
from headwater_gateway.room.ports import JoinRefusal

SCREEN: Final = (models.TrackSource.SCREEN_SHARE, models.TrackSource.SCREEN_SHARE_AUDIO)
ALL_SOURCES: Final = (
    models.TrackSource.CAMERA,
    models.TrackSource.MICROPHONE,
    models.TrackSource.SCREEN_SHARE,
    models.TrackSource.SCREEN_SHARE_AUDIO,
)
# What asks again by itself once it is admitted; everybody else is told no.
WAITING: Final = (Reason.IN_WAITING_ROOM, Reason.WAITING_FOR_HOST)


def role_of(config: RoomConfig, access: Access, request: JoinRequest) -> Role:
    """What the hosts made of it, else what the Meeting says, else what its token says."""
    given = access.roles.get(request.identity)
    if given is not None:
        return given
    return Role.HOST if request.identity in config.hosts else request.role


def check_rules(
    config: RoomConfig, access: Access, request: JoinRequest, now_ms: int, *, returning: bool = False
) -> Role:
    """The participant's role, if it may come in now (Unix milliseconds). JoinRefusal.

    `returning`: it is on the roster and has lost its connection or its node. A ban and a revoked token hold
    for it too; what else was asked of it once is not asked again.
    """
    _check_person(access, request)
    role = role_of(config, access, request)
    if returning:
        return role
    if config.unreadable:
        sentence = f"the meeting's rules cannot be read, so nobody is let in: {config.unreadable}"
        raise JoinRefusal(Reason.MEETING_UNREADABLE, sentence)
    if config.has_ended or (request.meeting and not config.is_declared):
        raise JoinRefusal(Reason.MEETING_ENDED, "the meeting has ended")
    _check_invitation(config, request, role, now_ms)
    if access.is_recorded and config.recording_consent and not request.consents_to_recording:
        raise JoinRefusal(
            Reason.CONSENT_REQUIRED, "the meeting is recorded: join with recording_consent=1 to agree"
        )
    if not role.moderates:
        _check_door(config, access, request.identity)
    return role


def _check_person(access: Access, request: JoinRequest) -> None:
    if request.identity in access.banned:
        raise JoinRefusal(Reason.BANNED, "you were removed from this meeting")
    since = access.revoked.get(request.identity)
    if since is not None and request.issued_at < since:
        raise JoinRefusal(Reason.TOKEN_REVOKED, "the access token was revoked: request a new one")


def _check_invitation(config: RoomConfig, request: JoinRequest, role: Role, now_ms: int) -> None:
    if role.moderates:
        return
    if config.invited and request.identity not in config.invited:
        raise JoinRefusal(Reason.NOT_INVITED, "you are not on the meeting's list of invited participants")
    if config.password and request.password != config.password:
        raise JoinRefusal(Reason.PASSWORD_REQUIRED, "the meeting's password is missing or wrong")
    if now_ms < config.opens_at_ms:
        raise JoinRefusal(Reason.MEETING_NOT_STARTED, "the meeting has not started yet")


def _check_door(config: RoomConfig, access: Access, identity: ParticipantIdentity) -> None:
    locked = config.locked if access.locked is None else access.locked
    if locked:
        raise JoinRefusal(Reason.ROOM_LOCKED, "the room is locked")
    if not config.join_before_host and not access.host_came:
        raise JoinRefusal(Reason.WAITING_FOR_HOST, "the host is not here yet: wait")
    if identity in access.denied:
        raise JoinRefusal(Reason.ADMISSION_DENIED, "the host has not let you in")
    if config.waiting_room and identity not in access.admitted:
        raise JoinRefusal(Reason.IN_WAITING_ROOM, "you are in the waiting room: the host will let you in")


def permission_of(
    config: RoomConfig, access: Access, request: JoinRequest, role: Role
) -> models.ParticipantPermission:
    """What it may do: as the hosts set it, else by its token and the Meeting."""
    given = access.permissions.get(request.identity)
    permission = models.ParticipantPermission()
    permission.CopyFrom(given if given is not None else request.permission)
    if given is None and not config.allow_screen_share and not role.moderates:
        sources = permission.can_publish_sources or ALL_SOURCES
        narrowed = [source for source in sources if source not in SCREEN]
        del permission.can_publish_sources[:]
        permission.can_publish_sources.extend(narrowed)
        permission.can_publish = permission.can_publish and bool(
            narrowed
        )  # an empty list allows every source
    return permission


def is_void(access: Access, identity: ParticipantIdentity, issued_at: int) -> bool:
    """Banned, or its token was revoked after it was made (Unix seconds): it is good for nothing here."""
    return is_barred(access, identity) or issued_at < access.revoked.get(identity, 0)


def may_moderate(access: Access, identity: ParticipantIdentity, issued_at: int, *, by_token: bool) -> bool:
    """Whether a call of the API is a host's: as the hosts decided, else as its token says."""
    given = access.roles.get(identity)
    is_host = by_token if given is None else given.moderates
    return is_host and not is_void(access, identity, issued_at)


def is_barred(access: Access, identity: ParticipantIdentity) -> bool:
    """Banned: its connection is not taken up again, whatever the roster says."""
    return identity in access.banned
