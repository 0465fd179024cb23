"""Durations, quantities and times: round trips, and parsers that take what the CRDs' patterns take."""

import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from headwater_api.units import (
    DURATION_PATTERN,
    QUANTITY_PATTERN,
    TIME_PATTERN,
    format_duration,
    format_time,
    parse_duration,
    parse_quantity,
    parse_time,
)
from hypothesis import given
from hypothesis import strategies as st

ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.integers(0, 10**9))
def test_a_duration_comes_back(seconds: int) -> None:
    value = timedelta(seconds=seconds)
    assert parse_duration(format_duration(value)) == value


@given(st.from_regex(DURATION_PATTERN, fullmatch=True).filter(lambda text: len(text) >= 2))
def test_every_duration_that_the_schema_takes_is_read(text: str) -> None:
    assert parse_duration(text) >= timedelta(0)


@given(st.text(alphabet="0123456789hmsd. -+µ٣", max_size=8))
def test_every_other_text_is_refused_by_name(text: str) -> None:
    if text and re.fullmatch(DURATION_PATTERN, text, re.ASCII):
        return
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@given(st.from_regex(QUANTITY_PATTERN, fullmatch=True))
def test_every_quantity_that_the_schema_takes_is_read(text: str) -> None:
    assert parse_quantity(text) >= 0


@pytest.mark.parametrize(
    ("text", "value"),
    [("500m", "0.5"), (2, "2"), ("64Mi", 64 * 2**20), ("1.5Gi", 3 * 2**29), ("1k", 1000), ("3E", 3 * 10**18)],
)
def test_quantities(text: str | int, value: str | int) -> None:
    assert parse_quantity(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "two", "-1", "1 Gi", "1e3", "1Zi", "1gi", ".5"])
def test_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59, "59s"), (60, "1m"), (5400, "1h30m"), (86461, "24h1m1s")]
)
def test_the_shortest_duration(seconds: int, text: str) -> None:
    assert format_duration(timedelta(seconds=seconds)) == text


def test_a_negative_duration_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="negative"):
        format_duration(timedelta(seconds=-1))


@given(st.datetimes(datetime(1001, 1, 1), datetime(2999, 12, 30), timezones=ZONES))
def test_a_time_comes_back_to_the_second(value: datetime) -> None:
    text = format_time(value)
    assert re.fullmatch(TIME_PATTERN, text)
    assert parse_time(text) == value.astimezone(UTC).replace(microsecond=0)


def test_a_time_needs_its_zone() -> None:
    with pytest.raises(ValueError, match="zone"):
        parse_time("2030-01-31T09:00:00")
    with pytest.raises(ValueError, match="zone"):
        format_time(datetime(2030, 1, 1))
