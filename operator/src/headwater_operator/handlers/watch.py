"""The kopf handlers: each hands its event to the Intake's loop and returns. No state, no I/O, no patch."""

from collections.abc import Callable
from typing import Any, Protocol

import kopf
from headwater_api import wellknown as wk

from headwater_operator.loop.intake import Intake

_DELETED = "DELETED"


class Post(Protocol):
    """Calls a function in the loop that owns the Intake."""

    def __call__(self, call: Callable[..., None], *args: Any) -> None: ...


def register(registry: kopf.OperatorRegistry, intake: Intake, post: Post) -> None:
    """Adds the handlers. Their ids are explicit: kopf would derive them from where they are defined."""

    @kopf.on.event(wk.GROUP, wk.VERSION, "sfuclusters", id="sfucluster-seen", registry=registry)
    async def on_sfucluster(type: str | None, body: kopf.Body, **_: Any) -> None:
        post(intake.fleet_seen, dict(body), type == _DELETED)

    @kopf.on.event(wk.GROUP, wk.VERSION, "meetings", id="meeting-seen", registry=registry)
    async def on_meeting(type: str | None, body: kopf.Body, **_: Any) -> None:
        post(intake.meeting_seen, dict(body), type == _DELETED)

    labels = {wk.LABEL_CLUSTER: kopf.PRESENT}

    @kopf.on.event("", "v1", "pods", labels=labels, id="sfu-pod-seen", registry=registry)
    async def on_sfu_pod(body: kopf.Body, **_: Any) -> None:
        post(intake.pod_seen, dict(body))
