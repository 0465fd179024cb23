"""A short memory of SFU Pods that ended by themselves, for the pause between attempts of a crashing fleet."""

from collections import deque
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from headwater_planner.world import Death, PodView

from headwater_operator.loop.views import pod_ended_at

_REMEMBERED: Final = 64


class Deaths:
    """Of one fleet. Lost with the process: then the first attempts are made without a pause."""

    def __init__(self) -> None:
        self._deaths: deque[tuple[str, Death]] = deque(maxlen=_REMEMBERED)

    def see(self, pod: PodView, body: Mapping[str, Any], now: datetime) -> None:
        """Notes a dead Pod once."""
        if not pod.dead or pod.terminating or any(uid == pod.uid for uid, _ in self._deaths):
            return
        at = min(pod_ended_at(body) or now, now)
        lifetime = max(0.0, (at - pod.created_at).total_seconds())
        self._deaths.append(
            (pod.uid, Death(pod.name, pod.region, at, lifetime, pod.ended or "no reason known", pod.template))
        )

    def known(self) -> tuple[Death, ...]:
        """Oldest first."""
        return tuple(death for _, death in self._deaths)
