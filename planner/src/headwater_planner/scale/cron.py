"""When a schedule's floor holds: five-field cron expressions in a time zone, daylight saving included.

At a clock change the starts are those of Debian's cron: a start in the skipped hour is moved behind it, one
in the repeated hour happens once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError


class InvalidSchedule(ValueError):
    """A cron expression or time zone that cannot be read; the text names it and shows a right one."""


@dataclass(frozen=True, slots=True)
class Starts:
    """The starts around a moment, in UTC. None: there is none within decades."""

    last: datetime | None
    next: datetime | None


def starts_around(cron: str, time_zone: str, now: datetime) -> Starts:
    """The last start at or before `now`, and the next one after it. Raises InvalidSchedule."""
    if len(cron.split()) != 5:
        raise InvalidSchedule(
            f"{cron!r} is not a cron expression of five fields: write one such as 0 8 * * 1-5"
        )
    try:
        local = now.astimezone(ZoneInfo(time_zone))
    except (KeyError, ValueError, OSError):
        raise InvalidSchedule(
            f"{time_zone!r} is not an IANA time zone: write one such as Europe/Berlin"
        ) from None
    at = local.replace(microsecond=0)
    try:
        # Backwards it yields what is strictly before: a second later, so that a start just now is the last.
        return Starts(
            _first(CronSim(cron, at + timedelta(seconds=1), reverse=True)), _first(CronSim(cron, at))
        )
    except CronSimError as error:
        raise InvalidSchedule(
            f"{cron!r} is not a cron expression ({error}): write one such as 0 8 * * 1-5"
        ) from None


def _first(times: Iterator[datetime]) -> datetime | None:
    found = next(times, None)
    return None if found is None else found.astimezone(UTC)
