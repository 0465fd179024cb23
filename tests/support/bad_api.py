"""An API server that is away for a while, and what an operator may do about it."""

import time
from dataclasses import dataclass

from support.deadline import until
from support.fake_kubelet import FakeKubelet
from support.operator_fixtures import Fleet
from support.restarts import Restarting

CONVERGED_S = 30.0


@dataclass(frozen=True)
class Return:
    """How the operator took the return of the API server: seconds, and how often it listed Pods meanwhile."""

    converged_s: float
    lists: int


async def survive_absence(away_s: float, operator: Restarting, kubelet: FakeKubelet, fleet: Fleet) -> Return:
    """No byte passes for `away_s` seconds; the fleet's wish changes meanwhile. Asserts what must hold."""
    await fleet.declare({"eu": (2, 4)})
    await until(lambda: len(kubelet.nodes) == 2, 20, "two nodes are up")
    await fleet.says("Ready", "True")
    nodes = list(kubelet.nodes.values())
    for node in nodes:
        node.set_rooms({"standup": 2})
    uids = {pod["metadata"]["uid"] for pod in await fleet.pods()}
    writes = len(operator.proxy.writes)
    operator.proxy.hold()
    back_at = time.monotonic() + away_s
    await fleet.declare({"eu": (3, 4)})
    await until(lambda: time.monotonic() >= back_at, away_s + 5, "the API server is away", every_s=0.2)
    assert len(operator.proxy.writes) == writes, "nothing was written meanwhile"
    assert not any(node.drained for node in nodes), "no node was touched"
    before = operator.proxy.requests.get("GET pods", 0)
    operator.proxy.release()
    returned = time.monotonic()

    async def converged() -> bool:
        ready = (await fleet.conditions()).get("Ready", {})
        return bool(ready.get("status") == "True" and len(await fleet.names()) == 3)

    await until(converged, CONVERGED_S, "the fleet is as wanted again")
    lists = operator.proxy.requests.get("GET pods", 0) - before
    assert uids <= {pod["metadata"]["uid"] for pod in await fleet.pods()}, "nobody lost their node"
    assert not any(node.drained for node in nodes)
    return Return(time.monotonic() - returned, lists)
