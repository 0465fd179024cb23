"""What a room does by the clock."""

from typing import Final

from livekit.protocol import rtc

from headwater_gateway.room import crossings, forwarding, roster, showing
from headwater_gateway.room.links import mend_links
from headwater_gateway.room.state import RoomState
from headwater_gateway.room.subscriptions import settle_due

HOUSEKEEPING_S: Final = 1.0


def next_deadline(room: RoomState, now: float) -> float:
    """Seconds until `run_due` has something to do; 0 or less: now."""
    dues = [
        d for d in (room.updates.due, room.speakers.due, room.quality.due, room.moves_due) if d is not None
    ]
    return min([room.housekeeping_due, *dues]) - now


def run_due(room: RoomState, now: float) -> None:
    """Everything whose time has come."""
    if room.updates.due is not None and now >= room.updates.due:
        room.flush_updates()
    if room.speakers.due is not None and now >= room.speakers.due:
        news = room.speakers.changes(now)
        if news:
            room.tell_all(rtc.SignalResponse(speakers_changed=rtc.SpeakersChanged(speakers=news)))
    if room.quality.due is not None and now >= room.quality.due:
        updates = room.quality.report(now)
        if updates:
            room.tell_all(rtc.SignalResponse(connection_quality=rtc.ConnectionQualityUpdate(updates=updates)))
    if now >= room.housekeeping_due:
        room.housekeeping_due = now + HOUSEKEEPING_S
        roster.expire(room, now)
        mend_links(room, now)
        crossings.mend(room, now)
        forwarding.expire(room, now)
        showing.lapse(room, now)
        settle_due(room, now)
        roster.end_if_empty(room, now)
