"""A region's load in the near future, from its seasons: additive Holt-Winters with a damped trend.

The three smoothing weights are those of a small grid with the least one-step error over the history. Gaps
carry the state on. A forecast only ever becomes a floor: wrong, it costs nodes, never capacity.
"""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt

from headwater_planner.scale.history import BUCKETS_PER_SEASON, History, Series

SEASONS_NEEDED: Final = 2
# Of the history's buckets, so many must be known.
KNOWN_SHARE: Final = 0.8
# The forecast is never higher than this many times the highest load that was seen.
HEADROOM: Final = 1.5
_DAMPING: Final = 0.98
_LEVEL: Final = (0.05, 0.2, 0.5)
_TREND: Final = (0.0, 0.02, 0.1)
_SEASON: Final = (0.05, 0.2, 0.5)
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Forecast:
    """`nodes`: the peak within the horizon, not rounded; None: too little is known yet, `text` says what.

    `error`: mean absolute error of the one-step forecasts over the last season, in nodes.
    """

    bucket: int
    nodes: float | None
    error: float
    text: str


def forecast_region(history: History, region: str, horizon: timedelta, now: datetime) -> Forecast:
    """The forecast as of `now`. The same for a whole bucket: callers keep it until the next one."""
    bucket = history.bucket(now)
    series = history.regions.get(region)
    values = _known_past(series, bucket)
    seasons = len(values) / BUCKETS_PER_SEASON
    if seasons < SEASONS_NEEDED:
        return Forecast(bucket, None, 0.0, f"{seasons:.1f} of {SEASONS_NEEDED} seasons of history are known")
    share = 1.0 - float(np.isnan(values).mean())
    if share < KNOWN_SHARE or np.isnan(values[:BUCKETS_PER_SEASON]).mean() > 1 - KNOWN_SHARE:
        return Forecast(
            bucket, None, 0.0, f"{share:.0%} of the history is known, {KNOWN_SHARE:.0%} is needed"
        )
    steps = max(1, math.ceil(horizon.total_seconds() / history.bucket_s)) + 1
    ahead, error = holt_winters(values, BUCKETS_PER_SEASON, steps)
    peak = float(np.clip(ahead.max(), 0.0, HEADROOM * np.nanmax(values)))
    text = f"the forecast expects a load of {peak:.1f} nodes soon (past error {error:.2f} nodes)"
    return Forecast(bucket, peak, error, text)


def holt_winters(values: _Floats, season: int, steps: int) -> tuple[_Floats, float]:
    """The next `steps` values after `values` (at least two seasons; NaN: unknown), and the past error.

    The error is the mean absolute one-step error over the last season, for the weights that did best.
    """
    level_w, trend_w, season_w = (
        grid.ravel() for grid in np.meshgrid(_LEVEL, _TREND, _SEASON, indexing="ij")
    )
    first = values[:season]
    mean = float(np.nanmean(first))
    seasonal = np.tile(np.where(np.isnan(first), 0.0, first - mean), (len(level_w), 1))
    level, trend = np.full(len(level_w), mean), np.zeros(len(level_w))
    squares, misses = np.zeros(len(level_w)), []
    for index in range(season, len(values)):
        place = index % season
        base = level + _DAMPING * trend
        value = float(values[index])
        if math.isnan(value):
            level, trend = base, _DAMPING * trend
            continue
        miss = value - base - seasonal[:, place]
        squares += miss**2
        misses.append(np.abs(miss))
        level = base + level_w * miss
        trend = _DAMPING * trend + level_w * trend_w * miss
        seasonal[:, place] += season_w * (1 - level_w) * miss
    best = int(np.argmin(squares))
    recent = [float(miss[best]) for miss in misses[-season:]]
    damped = _DAMPING * (1 - _DAMPING ** np.arange(1, steps + 1)) / (1 - _DAMPING)
    places = (len(values) + np.arange(steps)) % season
    ahead: _Floats = level[best] + damped * trend[best] + seasonal[best, places]
    return ahead, sum(recent) / len(recent) if recent else 0.0


def _known_past(series: Series | None, bucket: int) -> _Floats:
    """The closed buckets up to now; the one that is still filling is not among them."""
    if series is None:
        return np.empty(0)
    past = series.values[: max(0, bucket - series.start)]
    gap = (math.nan,) * (bucket - series.start - len(past))
    return np.array((*past, *gap), dtype=np.float64)
