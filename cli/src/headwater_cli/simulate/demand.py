"""Load for a simulation: participants who arrive and leave, as sorted events; made up, or recorded."""

import csv
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Final

from headwater_api.meeting import Meeting
from headwater_api.units import format_duration, format_time

# By UTC, the middle of a region's working day for a synthetic week; others by their place in the list.
_NOON: Final = {"eu": 11.0, "us": 17.0, "ap": 4.0}
_HOURS: Final = 3.0  # standard deviation of starts around noon
_MINUTES: Final = (15, 30, 30, 45, 60, 60, 90)
_WEEKEND: Final = 0.12  # of a working day's meetings
_BATCHES: Final = 4


@dataclass(frozen=True, slots=True, order=True)
class Event:
    """`change` participants of a region join (positive) or leave a room."""

    at: datetime
    room: str
    region: str
    change: int


@dataclass(frozen=True, slots=True)
class Demand:
    """Events in order, the Meetings announced with them, and the time they span."""

    start: datetime
    end: datetime
    events: Sequence[Event]
    meetings: Sequence[Meeting] = ()


class InvalidRecording(ValueError):
    """A recording that cannot be read; the text names the line and says what to write."""


def synthetic(
    regions: Sequence[str],
    *,
    cluster: str,
    start: datetime,
    days: float,
    meetings: int,
    seed: int,
    announced: float = 0.5,
    size: int = 30,
) -> Demand:
    """`meetings` meetings of about `size` participants over `days`, most in working hours.

    Each has a home region with two thirds of its people; a share `announced` is known as Meetings ahead.
    """
    rng = Random(seed)
    events: list[Event] = []
    known: list[Meeting] = []
    for number in range(meetings):
        home = rng.choice(list(regions))
        begin = _start(rng, start, days, _NOON.get(home, 24.0 * regions.index(home) / len(regions)))
        length = timedelta(minutes=rng.choice(_MINUTES))
        people = max(2, round(rng.lognormvariate(math.log(size), 0.6)))
        shares = _shares(rng, regions, home, people)
        name = f"meeting-{number}"
        for region, count in shares.items():
            events += _attendance(rng, name, region, count, span=(begin, begin + length))
        if rng.random() < announced:
            known.append(_announce(name, cluster, begin, length, shares))
    end = start + timedelta(days=days)
    known.sort(key=lambda meeting: meeting.metadata.name)
    return Demand(start, end, sorted(event for event in events if event.at < end), tuple(known))


def read_recording(path: Path) -> Demand:
    """CSV (with a header) or JSON Lines with time, region and participants: how many there were then.

    `time` is RFC 3339 or Unix seconds. Raises InvalidRecording, OSError.
    """
    rows = list(_rows(path))
    if not rows:
        raise InvalidRecording(f"{path}: no rows: write lines with time, region and participants")
    present: dict[str, int] = {}
    events = []
    for at, region, participants in sorted(rows):
        change = participants - present.get(region, 0)
        present[region] = participants
        if change:
            events.append(Event(at, region, region, change))
    return Demand(min(row[0] for row in rows), max(row[0] for row in rows), events)


def _rows(path: Path) -> Iterator[tuple[datetime, str, int]]:
    with path.open(newline="", encoding="utf-8") as file:
        records: Iterable[Any] = (
            (json.loads(line) for line in file if line.strip())
            if path.suffix in (".jsonl", ".ndjson", ".json")
            else csv.DictReader(file)
        )
        number = 0
        try:
            for record in records:
                number += 1
                yield _time(record["time"]), str(record["region"]), _count(record["participants"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"{error.args[0]} is missing" if isinstance(error, KeyError) else error
            raise InvalidRecording(
                f"{path}: record {number}: {what}: write time (2030-01-31T09:00:00Z), region and participants"
            ) from None


def _time(value: object) -> datetime:
    text = str(value)
    try:
        return datetime.fromtimestamp(float(text), UTC)
    except (ValueError, OverflowError):
        parsed = datetime.fromisoformat(text)
        return parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _count(value: object) -> int:
    number = float(str(value))
    if not 0 <= number <= 10_000_000:
        raise ValueError(f"participants is {value}")
    return round(number)


def _start(rng: Random, start: datetime, days: float, noon: float) -> datetime:
    """A time of a working day, with breaks at full and half hours as people plan."""
    while True:
        day = rng.randrange(math.ceil(days))
        midnight = (start + timedelta(days=day)).replace(hour=0, minute=0, second=0, microsecond=0)
        if midnight.weekday() >= 5 and rng.random() > _WEEKEND:
            continue
        hours = round(2 * rng.gauss(noon, _HOURS)) / 2
        begin = midnight + timedelta(hours=hours % 24)
        if start <= begin < start + timedelta(days=days):
            return begin


def _shares(rng: Random, regions: Sequence[str], home: str, people: int) -> dict[str, int]:
    shares = {home: people}
    for region in regions:
        if region != home:
            part = int(people * rng.uniform(0, 1) / (2 * len(regions)))
            shares[home] -= part
            if part:
                shares[region] = part
    return shares


def _attendance(
    rng: Random, room: str, region: str, count: int, *, span: tuple[datetime, datetime]
) -> Iterator[Event]:
    """They come in batches from two minutes before to five after, and leave around the end."""
    begin, end = span
    left = count
    for batch in range(_BATCHES, 0, -1):
        some = left if batch == 1 else round(left / batch)
        left -= some
        if some:
            comes = begin + timedelta(seconds=rng.uniform(-120, 300))
            yield Event(comes, room, region, some)
            yield Event(max(comes, end + timedelta(seconds=rng.uniform(-180, 240))), room, region, -some)


def _announce(name: str, cluster: str, begin: datetime, length: timedelta, shares: dict[str, int]) -> Meeting:
    return Meeting.from_kubernetes(
        {
            "metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {
                "clusterRef": {"name": cluster},
                "schedule": {"start": format_time(begin), "duration": format_duration(length)},
                "expectedParticipants": {"byRegion": shares},
            },
        }
    )
