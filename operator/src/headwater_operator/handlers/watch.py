"""The kopf handlers: each hands its event to the Intake and returns. No state, no I/O, no patch."""

from typing import Any

import kopf
from headwater_api import wellknown as wk

from headwater_operator.loop.intake import Intake

_DELETED = "DELETED"


def register(registry: kopf.OperatorRegistry, intake: Intake) -> None:
    """Adds the handlers. Their ids are explicit: kopf would derive them from where they are defined."""

    @kopf.on.event(wk.GROUP, wk.VERSION, "sfuclusters", id="sfucluster-seen", registry=registry)
    async def on_sfucluster(type: str | None, body: kopf.Body, **_: Any) -> None:
        intake.fleet_seen(body, deleted=type == _DELETED)

    @kopf.on.event(wk.GROUP, wk.VERSION, "meetings", id="meeting-seen", registry=registry)
    async def on_meeting(type: str | None, body: kopf.Body, **_: Any) -> None:
        intake.meeting_seen(dict(body), deleted=type == _DELETED)

    @kopf.on.event(
        "", "v1", "pods", labels={wk.LABEL_CLUSTER: kopf.PRESENT}, id="sfu-pod-seen", registry=registry
    )
    async def on_sfu_pod(body: kopf.Body, **_: Any) -> None:
        intake.pod_seen(body)
