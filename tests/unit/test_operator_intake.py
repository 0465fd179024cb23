"""How Meetings come in: each version is read once, and a relist never holds them all as they were sent."""

import gc
import weakref
from collections.abc import AsyncIterator
from random import Random
from typing import Any, cast

from headwater_api.meeting import Meeting
from headwater_operator.kube.resources import MEETINGS, Resource
from headwater_operator.loop.intake import Intake
from headwater_operator.loop.observe import Key
from headwater_operator.loop.store import Store
from headwater_operator.loop.views import planned_meeting
from headwater_operator.loop.wake import WakeQueue

PAGES, OF = 6, 50


class Body(dict[str, Any]):
    """A dict that can be watched going."""


def a_body(number: int, version: int = 1, **spec: Any) -> Body:
    return Body(
        metadata={
            "name": f"m-{number}",
            "namespace": "calls",
            "uid": f"u-{number}",
            "resourceVersion": str(version),
        },
        spec={"clusterRef": {"name": "demo"}, **spec},
    )


class Cell:
    """An Intake over an API server that has PAGES pages of OF Meetings, and how many bodies were alive."""

    def __init__(self) -> None:
        self.store = Store()
        self.woken: WakeQueue[Key] = WakeQueue(monotonic=lambda: 0.0)
        self.most = 0
        self.intake = Intake(
            self.store, WakeQueue(monotonic=lambda: 0.0), self.woken, client=cast(Any, self), namespaces=(),
            resync_s=30.0, monotonic=lambda: 0.0, rng=Random(1),
        )  # fmt: skip

    async def pages(self, resource: Resource, namespace: str = "") -> AsyncIterator[list[Body]]:
        alive: weakref.WeakSet[_Tracked] = weakref.WeakSet()
        for number in range(PAGES if resource is MEETINGS else 0):
            page = [a_body(number * OF + i) for i in range(OF)]
            for body in page:
                tracked = _Tracked()
                body["tracked"] = tracked
                alive.add(tracked)
            del body, tracked
            gc.collect()
            self.most = max(self.most, len(alive))
            yield page
            del page


class _Tracked:
    """Lives as long as the body it is in."""


def known(cell: Cell, number: int) -> Meeting:
    return cell.store.meetings["calls", f"m-{number}"]


async def test_a_relist_holds_a_page_or_two_and_not_all() -> None:
    cell = Cell()
    await cell.intake.relist()
    assert len(cell.store.meetings) == len(cell.woken) == PAGES * OF
    assert 0 < cell.most <= 2 * OF


async def test_a_version_that_is_known_is_neither_read_again_nor_looked_at() -> None:
    """The watch tells of our own status writes, and after a start of all that the relist has told."""
    cell = Cell()
    cell.intake.meeting_seen(a_body(1, version=7), deleted=False)
    first = known(cell, 1)
    assert await cell.woken.get() == ("calls", "m-1")
    cell.woken.done(("calls", "m-1"))
    cell.intake.meeting_seen(a_body(1, version=7), deleted=False)
    assert known(cell, 1) is first and len(cell.woken) == 0
    cell.intake.meeting_seen(a_body(1, version=8), deleted=False)
    assert known(cell, 1) is not first and len(cell.woken) == 1


async def test_a_second_relist_reads_only_what_has_changed() -> None:
    cell = Cell()
    await cell.intake.relist()
    before = dict(cell.store.meetings)
    cell.intake.meeting_seen(a_body(3, version=9), deleted=False)
    await cell.intake.relist()
    anew = {key for key, meeting in cell.store.meetings.items() if meeting is not before[key]}
    assert anew == {("calls", "m-3")}


def test_what_no_plan_reads_is_not_kept() -> None:
    body = a_body(1, access={"invited": ["somebody"] * 1000}, title="t", emptyTimeout="90s")
    body["metadata"]["annotations"] = {"a": "b" * 1000}
    meeting = planned_meeting(body)
    assert not meeting.spec.access.invited and not meeting.spec.title and not meeting.metadata.annotations
    assert meeting.spec.empty_timeout.total_seconds() == 90
