"""One room out of what several owners knew of it: in doubt the more restrictive value. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import reduce

from headwater_gateway.room import access
from headwater_gateway.room.model import Participant, RoomConfig
from headwater_gateway.room.snapshot import index
from headwater_gateway.room.state import RoomState


def merge(states: Sequence[RoomState]) -> RoomState:
    """The first (of the highest claim) with what the others knew besides. ValueError: there is none."""
    if not states:
        raise ValueError("nothing to merge")
    first = states[0]
    first.access = reduce(access.merge, (s.access for s in states))
    first.config = reduce(stricter, (s.config for s in states))
    first.created_ms = min(s.created_ms for s in states)
    first.was_joined = any(s.was_joined for s in states)
    first.participants = {p.sid: p for p in _roster(p for s in states for p in s.participants.values())}
    if first.participants:
        first.empty_since = None
    index(first)
    return first


def _roster(participants: Iterable[Participant]) -> list[Participant]:
    """Each sid once, each identity once: of two sessions of one the later one."""
    by_sid: dict[str, Participant] = {}
    for participant in participants:
        by_sid.setdefault(participant.sid, participant)
    by_identity: dict[str, Participant] = {}
    for participant in by_sid.values():
        other = by_identity.get(participant.identity)
        if other is None or _age(participant) > _age(other):
            by_identity[participant.identity] = participant
    return sorted(by_identity.values(), key=_age)


def _age(participant: Participant) -> tuple[int, str]:
    return participant.joined_at_ms, participant.sid


def stricter(mine: RoomConfig, other: RoomConfig) -> RoomConfig:
    """What both allow, of what decides who comes in; the rest as mine."""
    limits = [limit for limit in (mine.max_participants, other.max_participants) if limit]
    return replace(
        mine,
        max_participants=min(limits, default=0),
        locked=mine.locked or other.locked,
        has_ended=mine.has_ended or other.has_ended,
        waiting_room=mine.waiting_room or other.waiting_room,
        join_before_host=mine.join_before_host and other.join_before_host,
        e2ee_required=mine.e2ee_required or other.e2ee_required,
        recording_consent=mine.recording_consent or other.recording_consent,
        allow_screen_share=mine.allow_screen_share and other.allow_screen_share,
    )
