"""How fast the number may change: stabilisation windows and policies, as in HorizontalPodAutoscaler v2.

Unlike there, `policies` count nodes, and a growth by percent is at least one node, so that it can start
from none. Floors and maxNodes are not slowed down by any of this.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from headwater_api.fleet_policy import ScalingPolicy, ScalingRules

_PERIOD: Final = timedelta(seconds=15)
DEFAULT_UP_WINDOW: Final = timedelta(0)
DEFAULT_DOWN_WINDOW: Final = timedelta(minutes=5)
# Those of HorizontalPodAutoscaler v2.
DEFAULT_UP_POLICIES: Final = (
    ScalingPolicy(type="Nodes", value=4, period=_PERIOD),
    ScalingPolicy(type="Percent", value=100, period=_PERIOD),
)
DEFAULT_DOWN_POLICIES: Final = (ScalingPolicy(type="Percent", value=100, period=_PERIOD),)
_MAX_CHANGES: Final = 512


@dataclass(frozen=True, slots=True)
class Sample:
    """A recommendation or a change (negative: fewer nodes) and its time."""

    at: datetime
    nodes: int


def up_window(rules: ScalingRules) -> timedelta:
    """The window in which the lowest recommendation bounds a raise."""
    return DEFAULT_UP_WINDOW if rules.stabilization_window is None else rules.stabilization_window


def down_window(rules: ScalingRules) -> timedelta:
    """The window in which the highest recommendation bounds a lowering."""
    return DEFAULT_DOWN_WINDOW if rules.stabilization_window is None else rules.stabilization_window


def remember_high(samples: Sequence[Sample], new: Sample, window: timedelta) -> tuple[Sample, ...]:
    """The samples that may yet be a window's highest: each higher than all later ones."""
    kept = _recent(samples, new.at, window)
    while kept and kept[-1].nodes <= new.nodes:
        kept.pop()
    return (*kept, new)


def remember_low(samples: Sequence[Sample], new: Sample, window: timedelta) -> tuple[Sample, ...]:
    """The samples that may yet be a window's lowest: each lower than all later ones."""
    kept = _recent(samples, new.at, window)
    while kept and kept[-1].nodes >= new.nodes:
        kept.pop()
    return (*kept, new)


def remember_change(
    changes: Sequence[Sample], change: int, now: datetime, rules: Iterable[ScalingRules]
) -> tuple[Sample, ...]:
    """The changes that policies still look at."""
    periods = [p.period for r in rules for p in (*r.policies, *DEFAULT_UP_POLICIES)]
    kept = _recent(changes, now, max(periods))
    if change:
        kept.append(Sample(now, change))
    # More changes than this in the longest period: the oldest count as one, at the younger one's time.
    while len(kept) > _MAX_CHANGES:
        first, second = kept[0], kept[1]
        kept[:2] = [Sample(second.at, first.nodes + second.nodes)]
    return tuple(kept)


def stabilise(current: int, highs: Sequence[Sample], lows: Sequence[Sample]) -> int:
    """Up to the lowest, down to the highest recommendation of the direction's window."""
    raise_to = min(sample.nodes for sample in lows)
    lower_to = max(sample.nodes for sample in highs)
    if current < raise_to:
        return raise_to
    return min(current, lower_to)


def up_limit(rules: ScalingRules, changes: Sequence[Sample], current: int, now: datetime) -> int:
    """The most that scaleUp's policies allow now."""
    if rules.select_policy == "Disabled":
        return current
    proposals = []
    for policy in rules.policies or DEFAULT_UP_POLICIES:
        start = current - sum(c.nodes for c in changes if _within(c, policy, now))
        if policy.type == "Nodes":
            proposals.append(start + policy.value)
        else:
            proposals.append(max(start + 1, math.ceil(start * (1 + policy.value / 100))))
    return max(current, min(proposals) if rules.select_policy == "Min" else max(proposals))


def down_limit(rules: ScalingRules, changes: Sequence[Sample], current: int, now: datetime) -> int:
    """The least that scaleDown's policies allow now."""
    if rules.select_policy == "Disabled":
        return current
    proposals = []
    for policy in rules.policies or DEFAULT_DOWN_POLICIES:
        start = current - sum(c.nodes for c in changes if _within(c, policy, now))
        if policy.type == "Nodes":
            proposals.append(start - policy.value)
        else:
            proposals.append(int(start * (1 - policy.value / 100)))
    return min(current, max(0, max(proposals) if rules.select_policy == "Min" else min(proposals)))


def _within(change: Sample, policy: ScalingPolicy, now: datetime) -> bool:
    return now - change.at < policy.period


def _recent(samples: Sequence[Sample], now: datetime, window: timedelta) -> list[Sample]:
    """Those of the window. A time ahead of `now` (the clock was set back) counts as now."""
    return [Sample(min(s.at, now), s.nodes) for s in samples if now - s.at < window]
