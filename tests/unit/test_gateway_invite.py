"""Calendar invitations (RFC 5545)."""

from datetime import UTC, datetime, timedelta, timezone

from headwater_gateway.api.ics import invite

START = datetime(2030, 1, 31, 9, 0, tzinfo=timezone(timedelta(hours=2)))


def test_an_invitation() -> None:
    text = invite(
        "m-1",
        "Plan; a, b\nc",
        START,
        timedelta(minutes=90),
        "https://meet.example/?meeting=m-1",
        stamp=datetime(2030, 1, 1, tzinfo=UTC),
    )
    lines = text.split("\r\n")
    assert lines[0] == "BEGIN:VCALENDAR" and lines[-2] == "END:VCALENDAR" and lines[-1] == ""
    assert "DTSTART:20300131T070000Z" in lines and "DTEND:20300131T083000Z" in lines
    assert "SUMMARY:Plan\\; a\\, b\\nc" in lines


def test_long_lines_are_folded_between_characters() -> None:
    title = "Müßiggang " * 20
    text = invite("m-1", title, START, timedelta(hours=1), "https://meet.example/", stamp=START)
    assert all(len(line.encode()) <= 75 for line in text.split("\r\n"))
    assert title.strip() in text.replace("\r\n ", "")
