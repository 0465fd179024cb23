"""Who may come into a room and what they may do there: what its hosts have decided so far.

Part of the room's state: it must outlive the actor that holds it, or a ban would end with a gateway.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from headwater_api.ids import ParticipantIdentity
from livekit.protocol import models

MAX_NAMED: Final = 20_000  # identities that one room remembers in each of its lists
MAX_WAITING: Final = 500
KNOCK_S: Final = 60.0  # a client that waits asks again more often than this


class Role(StrEnum):
    """What a participant is in its meeting."""

    HOST = "host"
    COHOST = "co-host"
    PARTICIPANT = "participant"
    GUEST = "guest"

    @property
    def moderates(self) -> bool:
        return self in (Role.HOST, Role.COHOST)


@dataclass(frozen=True, slots=True)
class Knock:
    """Somebody in the waiting room."""

    identity: ParticipantIdentity
    name: str
    since_ms: int  # Unix
    seen_ms: int  # when it last asked


@dataclass(slots=True)
class Access:
    """Decisions of the room's hosts, over what its Meeting says."""

    locked: bool | None = None  # None: as the Meeting says
    admitted: set[ParticipantIdentity] = field(default_factory=set)
    denied: set[ParticipantIdentity] = field(default_factory=set)
    banned: set[ParticipantIdentity] = field(default_factory=set)
    # Tokens of the identity made before then (Unix seconds) are void.
    revoked: dict[ParticipantIdentity, int] = field(default_factory=dict)
    roles: dict[ParticipantIdentity, Role] = field(default_factory=dict)
    # Set over what the token grants, for this and later joins.
    permissions: dict[ParticipantIdentity, models.ParticipantPermission] = field(default_factory=dict)
    host_came: bool = False
    is_recorded: bool = False
    # In the waiting room now; a client that still waits asks again, so nobody needs to carry it over.
    waiting: dict[ParticipantIdentity, Knock] = field(default_factory=dict)

    def ban(self, identity: ParticipantIdentity) -> None:
        """Off, and never in again."""
        self.banned.add(identity)
        self.admitted.discard(identity)
        self.waiting.pop(identity, None)

    def admit(self, identities: Iterable[ParticipantIdentity]) -> None:
        """Out of the waiting room, into the room."""
        for identity in identities:
            self.admitted.add(identity)
            self.denied.discard(identity)
            self.waiting.pop(identity, None)

    def deny(self, identities: Iterable[ParticipantIdentity]) -> None:
        """Out of the waiting room, away."""
        for identity in identities:
            self.denied.add(identity)
            self.admitted.discard(identity)
            self.waiting.pop(identity, None)

    def knock(self, identity: ParticipantIdentity, name: str, now_ms: int) -> bool:
        """Somebody asks to be let in. True: it is new here, the hosts are to be told."""
        self.waiting = {k: v for k, v in self.waiting.items() if now_ms - v.seen_ms < KNOCK_S * 1000}
        known = self.waiting.get(identity)
        if known is None and len(self.waiting) >= MAX_WAITING:
            return False
        since = known.since_ms if known is not None else now_ms
        self.waiting[identity] = Knock(identity, name, since, now_ms)
        return known is None

    @property
    def is_full(self) -> bool:
        """Too many names to remember one more."""
        named = (self.admitted, self.denied, self.banned, self.revoked, self.roles, self.permissions)
        return any(len(names) >= MAX_NAMED for names in named)


def merge(mine: Access, other: Access) -> Access:
    """Of two actors that both held the room for a while: each value the more restrictive one."""
    revoked = dict(mine.revoked)
    for identity, at in other.revoked.items():
        revoked[identity] = max(at, revoked.get(identity, 0))
    banned = mine.banned | other.banned
    denied = mine.denied | other.denied
    return Access(
        locked=_stricter(mine.locked, other.locked),
        admitted=(mine.admitted & other.admitted) - banned - denied,
        denied=denied,
        banned=banned,
        revoked=revoked,
        roles={k: v for k, v in mine.roles.items() if other.roles.get(k) == v},
        permissions=_fewest(mine.permissions, other.permissions),
        host_came=mine.host_came and other.host_came,
        is_recorded=mine.is_recorded or other.is_recorded,
        waiting={k: v for k, v in {**other.waiting, **mine.waiting}.items() if k not in banned | denied},
    )


def _stricter(mine: bool | None, other: bool | None) -> bool | None:
    if mine is None or other is None:
        return mine or other or None
    return mine or other


def _fewest(
    mine: dict[ParticipantIdentity, models.ParticipantPermission],
    other: dict[ParticipantIdentity, models.ParticipantPermission],
) -> dict[ParticipantIdentity, models.ParticipantPermission]:
    """What both allow; sources that one side narrows stay narrowed."""
    merged = {**other, **mine}
    for identity in mine.keys() & other.keys():
        one, two = mine[identity], other[identity]
        both = models.ParticipantPermission()
        both.CopyFrom(one)
        both.can_subscribe = one.can_subscribe and two.can_subscribe
        both.can_publish = one.can_publish and two.can_publish
        both.can_publish_data = one.can_publish_data and two.can_publish_data
        both.can_update_metadata = one.can_update_metadata and two.can_update_metadata
        if one.can_publish_sources and two.can_publish_sources:
            del both.can_publish_sources[:]
            common = set(one.can_publish_sources) & set(two.can_publish_sources)
            both.can_publish_sources.extend(sorted(common))
            both.can_publish = both.can_publish and bool(common)  # an empty list would allow every source
        elif two.can_publish_sources:
            both.can_publish_sources.extend(two.can_publish_sources)
        merged[identity] = both
    return {identity: _plain(permission) for identity, permission in merged.items()}


def _plain(permission: models.ParticipantPermission) -> models.ParticipantPermission:
    """Without sources where nothing may be published, so that all orders of merging end alike."""
    if permission.can_publish or not permission.can_publish_sources:
        return permission
    plain = models.ParticipantPermission()
    plain.CopyFrom(permission)
    del plain.can_publish_sources[:]
    return plain
