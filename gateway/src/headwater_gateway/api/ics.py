"""A scheduled meeting as an iCalendar invitation (RFC 5545)."""

from datetime import UTC, datetime, timedelta
from typing import Final

CRLF: Final = "\r\n"
OCTETS: Final = 75  # of a line, §3.1


def invite(
    meeting_id: str, title: str, start: datetime, duration: timedelta, join_url: str, *, stamp: datetime
) -> str:
    """The calendar object with its one event. All times are aware."""
    lines = [
        "BEGIN:VCALENDAR",
        "VERSION:2.0",
        "PRODID:-//Headwater//Meetings//EN",
        "METHOD:PUBLISH",
        "BEGIN:VEVENT",
        f"UID:{_text(meeting_id)}@headwater.dev",
        f"DTSTAMP:{_instant(stamp)}",
        f"DTSTART:{_instant(start)}",
        f"DTEND:{_instant(start + duration)}",
        f"SUMMARY:{_text(title or 'Meeting')}",
        f"URL:{join_url}",
        f"DESCRIPTION:{_text('Join: ' + join_url)}",
        "STATUS:CONFIRMED",
        "END:VEVENT",
        "END:VCALENDAR",
    ]
    return CRLF.join(_fold(line) for line in lines) + CRLF


def _instant(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def _text(text: str) -> str:
    """Escaped as §3.3.11 asks."""
    for char, escaped in (("\\", "\\\\"), (";", "\\;"), (",", "\\,"), ("\r", ""), ("\n", "\\n")):
        text = text.replace(char, escaped)
    return text


def _fold(line: str) -> str:
    """Long lines go on after CRLF and a space; no character is cut in two."""
    parts: list[bytes] = []
    part = b""
    for char in line:
        encoded = char.encode()
        if len(part) + len(encoded) > OCTETS - (1 if parts else 0):
            parts.append(part)
            part = b""
        part += encoded
    return (CRLF + " ").join(p.decode() for p in [*parts, part])
