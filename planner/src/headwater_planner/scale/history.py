"""Each region's load over the past seasons, in buckets: what the forecast learns from.

A plain value that the caller keeps and may store (`to_json`, `from_json`): without it a forecast needs two
seasons to come back after a restart.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

BUCKETS_PER_SEASON: Final = 288  # of a day: five minutes each
SEASONS_KEPT: Final = 3
_KEPT: Final = BUCKETS_PER_SEASON * SEASONS_KEPT
_UNKNOWN: Final = math.nan


@dataclass(frozen=True, slots=True)
class Series:
    """Nodes that the load asked for, not rounded, the highest of each bucket; NaN where it was not known.

    `start` is the number of the first bucket since 1970.
    """

    start: int
    values: tuple[float, ...]

    @property
    def end(self) -> int:
        """The number of the bucket after the last one."""
        return self.start + len(self.values)


@dataclass(frozen=True, slots=True)
class History:
    """`bucket_s` follows from the season: with another season, history starts anew."""

    bucket_s: float = 300.0
    regions: Mapping[str, Series] = field(default_factory=dict)

    def bucket(self, now: datetime) -> int:
        """The number of the bucket that `now` is in."""
        return int(now.timestamp() // self.bucket_s)


def record(history: History, season: timedelta, loads: Mapping[str, float | None], now: datetime) -> History:
    """The history with what is known now; None: the region's load is not known. Other regions are dropped."""
    bucket_s = max(1.0, season.total_seconds() / BUCKETS_PER_SEASON)
    if bucket_s != history.bucket_s:
        history = History(bucket_s)
    number = history.bucket(now)
    regions = {
        name: _append(history.regions.get(name), number, _UNKNOWN if load is None else load)
        for name, load in loads.items()
    }
    return History(bucket_s, regions)


def to_json(history: History) -> dict[str, Any]:
    """Values for JSON, at most about 5 kB for each region."""
    return {
        "bucketSeconds": history.bucket_s,
        "regions": {
            name: {
                "start": series.start,
                "values": [None if math.isnan(value) else round(value, 2) for value in series.values],
            }
            for name, series in history.regions.items()
        },
    }


def from_json(stored: object) -> History:
    """What `to_json` made; anything else gives an empty history: it is a help, not a truth."""
    try:
        return _parse(stored)
    except (TypeError, ValueError, KeyError, AttributeError):
        return History()


def _parse(stored: Any) -> History:
    bucket_s = float(stored["bucketSeconds"])
    if not 1.0 <= bucket_s <= 1e7:
        raise ValueError(f"bucketSeconds is {bucket_s}")
    regions = {}
    for name, series in stored["regions"].items():
        values = [_UNKNOWN if value is None else float(value) for value in series["values"][-_KEPT:]]
        if any(value < 0 or math.isinf(value) for value in values):
            raise ValueError(f"region {name} has a figure that no load can be")
        if values:
            regions[str(name)] = Series(
                int(series["start"]) + len(series["values"]) - len(values), tuple(values)
            )
    return History(bucket_s, regions)


def _append(series: Series | None, number: int, value: float) -> Series:
    if series is None or number < series.start or number - series.end >= _KEPT:
        return Series(number, (value,))
    if number < series.end:  # the current bucket, or one that the clock went back to
        index = number - series.start
        known = series.values[index]
        if not known < value and not math.isnan(known):
            return series
        return Series(series.start, (*series.values[:index], value, *series.values[index + 1 :]))
    gap = (_UNKNOWN,) * (number - series.end)
    values = (*series.values, *gap, value)[-_KEPT:]
    return Series(number + 1 - len(values), values)
