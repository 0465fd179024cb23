"""An API server that refuses, forgets and falls silent: the fleet ends as wanted, and nobody is harmed."""

import itertools

import pytest
from aiohttp import web
from support.api_proxy import status
from support.bad_api import survive_absence
from support.deadline import until
from support.fake_kubelet import FakeKubelet
from support.kube import ApiServer
from support.operator_fixtures import Fleet
from support.restarts import restarting

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]


async def test_refusals_cost_time_and_nothing_else(
    api_server: ApiServer, namespace: str, kubelet: FakeKubelet, fleet: Fleet
) -> None:
    patches, posts, watches = itertools.count(), itertools.count(), itertools.count()
    injected: list[int] = []

    def fault(request: web.BaseRequest) -> web.Response | None:
        refusal = None
        if request.method == "PATCH" and next(patches) % 2 == 0:
            refusal = status(409, "Conflict")
        elif request.method == "POST" and "/pods" in request.path and next(posts) % 2 == 0:
            refusal = status(429, "TooManyRequests", **{"Retry-After": "1"})
        elif "watch=true" in request.query_string and next(watches) < 6:
            refusal = status(410, "Expired")
        if refusal is not None:
            injected.append(refusal.status)
        return refusal

    async with restarting(api_server, namespace) as operator:
        operator.proxy.fault = fault
        await fleet.declare({"eu": (3, 5)})
        await until(lambda: len(kubelet.nodes) == 3, 60, "three nodes are up")
        await fleet.says("Ready", "True", 30)
        assert len(await fleet.names()) == 3, "a refused create was not made twice"
        assert {409, 410, 429} <= set(injected)
        assert operator.starts == 1


async def test_an_absence_of_the_api_server_touches_no_node(
    api_server: ApiServer, namespace: str, kubelet: FakeKubelet, fleet: Fleet
) -> None:
    async with restarting(api_server, namespace) as operator:
        back = await survive_absence(8.0, operator, kubelet, fleet)
        assert back.lists <= 20, "no storm of lists when it is back"
