"""What the loop over fleets says of one that it cannot read."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from headwater_api.sfucluster import SFUClusterStatus
from headwater_operator.loop.fleets import FleetLoop
from headwater_operator.loop.observe import Invalid
from support.fleet import NOW

KEY = ("calls", "demo")


@pytest.mark.parametrize("readable", [True, False])
async def test_a_spec_that_cannot_be_read_leaves_the_rest_of_the_status(readable: bool) -> None:
    written: list[SFUClusterStatus] = []

    async def observe(key: object) -> Invalid:
        upgrade = {"phase": "Halted", "template": "t", "message": "m"}
        status = {"upgrade": upgrade, "participants": 7 if readable else "many", "nodes": "2/2"}
        return Invalid(
            {"metadata": {"name": "demo", "uid": "u", "generation": 4}, "status": status}, "spec.x"
        )

    async def write(resource: object, namespace: str, name: str, status: SFUClusterStatus) -> None:
        written.append(status)

    loop = FleetLoop(
        observer=cast(Any, SimpleNamespace(observe_cluster=observe)),
        statuses=cast(Any, SimpleNamespace(write=write)),
        events=cast(Any, SimpleNamespace(emit=lambda *_, **__: None)),
        now=lambda: NOW,
        **cast(
            Any,
            dict.fromkeys(
                ("actor", "streams", "scaler", "turn", "store", "metrics", "monotonic", "rng", "on_change")
            ),
        ),
    )
    await loop.reconcile(KEY)
    (status,) = written
    assert {condition.message for condition in status.conditions} == {"spec.x"}
    if readable:
        assert status.upgrade is not None and status.upgrade.phase == "Halted"
        assert (status.participants, status.nodes) == (7, "2/2")
