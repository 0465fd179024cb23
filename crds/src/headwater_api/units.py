"""Durations, quantities and times as Kubernetes writes them, and their Python types.

Parsers accept what the CRDs' patterns accept, and nothing else; every error names the value and
shows a right one. Nothing here reads a clock.
"""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Final

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, PlainSerializer, WithJsonSchema

DURATION_PATTERN: Final = r"^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$"
# Stricter than the format date-time, which lets a time without a zone pass.
TIME_PATTERN: Final = (
    r"^[12][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$"
)
TIME_MAX_LENGTH: Final = 35
QUANTITY_PATTERN: Final = r"^[0-9]{1,15}(\.[0-9]{1,9})?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
DURATION_MAX_LENGTH: Final = 21
QUANTITY_MAX_LENGTH: Final = 32

_DURATION = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?", re.ASCII)
_QUANTITY = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)(m|[kMGTPE]|[KMGTPE]i)?", re.ASCII)
_SCALE: Final[dict[str | None, Decimal]] = {
    None: Decimal(1),
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", start=1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", start=1)},
}


def parse_duration(text: str) -> timedelta:
    """A duration such as `90s`, `5m` or `1h30m`. Raises ValueError for anything else, also an empty text."""
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        raise ValueError(
            f"{text!r} is not a duration: write whole hours, minutes and seconds, such as 1h30m or 90s"
        )
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)


def format_duration(value: timedelta) -> str:
    """The shortest text that `parse_duration` reads back; parts of a second are cut off."""
    total = int(value.total_seconds())
    if total < 0:
        raise ValueError(f"a duration cannot be negative: {value}")
    hours, rest = divmod(total, 3600)
    minutes, seconds = divmod(rest, 60)
    parts = ((hours, "h"), (minutes, "m"), (seconds, "s"))
    return "".join(f"{number}{unit}" for number, unit in parts if number) or "0s"


def parse_quantity(value: str | int) -> Decimal:
    """A Kubernetes quantity in its base unit: `500m` is 0.5, `1Gi` is 1073741824. Raises ValueError."""
    match = _QUANTITY.fullmatch(str(value))
    if match is None:
        raise ValueError(
            f"{value!r} is not a quantity: write a number with a unit such as 500m, 2, 64Mi or 1Gi"
        )
    return Decimal(match.group(1)) * _SCALE[match.group(2)]


def parse_time(text: str) -> datetime:
    """An RFC 3339 time with its zone, in UTC. Raises ValueError."""
    parsed = datetime.fromisoformat(text)
    if parsed.tzinfo is None:
        raise ValueError(f"{text!r} lacks a time zone: write 2030-01-31T09:00:00Z")
    return parsed.astimezone(UTC)


def format_time(value: datetime) -> str:
    """Kubernetes' time: RFC 3339 in UTC, whole seconds. `value` must know its zone."""
    if value.tzinfo is None:
        raise ValueError("a time without a zone cannot be written")
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _duration(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def _quantity(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{value!r} is not a quantity")
    parse_quantity(value)
    return str(value)


Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {"type": "string", "pattern": DURATION_PATTERN, "minLength": 2, "maxLength": DURATION_MAX_LENGTH}
    ),
]
# Kept as written, so that a Pod shows what the user wrote; `parse_quantity` gives the number.
Quantity = Annotated[
    str,
    BeforeValidator(_quantity),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "minimum": 0,
            "maximum": 10**15 - 1,
            "pattern": QUANTITY_PATTERN,
            "maxLength": QUANTITY_MAX_LENGTH,
        }
    ),
]
Time = Annotated[
    AwareDatetime,
    AfterValidator(lambda value: value.astimezone(UTC)),
    PlainSerializer(format_time, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
# A time that a user wrote.
ZonedTime = Annotated[
    Time,
    WithJsonSchema(
        {"type": "string", "format": "date-time", "pattern": TIME_PATTERN, "maxLength": TIME_MAX_LENGTH}
    ),
]
