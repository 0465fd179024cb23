"""Where clients measure their round trips: open to all, bounded, and only what can be measured."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from headwater_gateway.api.context import ApiContext, Caller
from headwater_gateway.api.errors import ApiError
from headwater_gateway.api.regions import BURST, PER_SECOND, RegionsApi
from headwater_gateway.api.rest import RestCall
from headwater_gateway.http.query import parse_query
from headwater_gateway.signal.types import Claims
from support.gateway_edge import REGIONS, edge_settings, running_edge

# No nodes are in `sa`, and `ap` has no gateways of its own.
URLS = {"us": "https://us.example", "eu": "https://eu.example/live", "sa": "https://sa.example"}


async def _get(url: str, **headers: str) -> tuple[int, dict[str, Any], Mapping[str, str]]:
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers) as answer:
        return answer.status, await answer.json(), answer.headers


async def test_anybody_may_ask_where_to_measure(tmp_path: Path) -> None:
    async with running_edge(tmp_path, region_urls=URLS) as edge:
        status, told, headers = await _get(f"{edge.url}/v1/regions", Origin="https://app.example")
        assert (status, headers["Access-Control-Allow-Origin"], headers["Cache-Control"]) == (
            200,
            "*",
            "no-store",
        )
        assert told["regions"] == [
            {"region": "eu", "probe_url": "https://eu.example/live/v1/regions"},
            {"region": "us", "probe_url": "https://us.example/v1/regions"},
        ]
        measured = ",".join(f"{row['region']}:{n}.5" for n, row in enumerate(told["regions"], 10))
        assert parse_query({"rtt": measured}).rtts_ms == {"eu": 10.5, "us": 11.5}
        _, described, _ = await _get(f"{edge.url}/v1/openapi.json")
        assert described["paths"]["/v1/regions"]["get"]["security"] == []
        assert (await _get(f"{edge.url}/v1/meetings"))[0] == 401, "what is beside it still needs a token"


async def test_pages_that_may_not_use_the_server_are_refused(tmp_path: Path) -> None:
    allowed = frozenset({"https://app.example"})
    async with running_edge(tmp_path, allowed_origins=allowed) as edge:
        status, told, _ = await _get(f"{edge.url}/v1/regions", Origin="https://other.example")
        assert (status, told["error"]["reason"]) == (403, "OriginNotAllowed")
        assert (await _get(f"{edge.url}/v1/regions", Origin="https://app.example"))[1] == {"regions": []}


async def test_an_address_that_asks_too_often_is_told_to_wait(tmp_path: Path) -> None:
    now = 0.0
    context = SimpleNamespace(
        settings=edge_settings(tmp_path, region_urls=URLS), plane=SimpleNamespace(regions=lambda: REGIONS)
    )
    api = RegionsApi(cast(ApiContext, context), lambda: now)

    async def ask(address: str) -> int:
        caller = Caller(cast(Claims, None), "", address, is_gateway=False)
        answer = await api.list(RestCall(caller, cast(web.Request, None), None, {}))
        return answer.status

    for _ in range(int(BURST)):
        assert await ask("192.0.2.1") == 200
    with pytest.raises(ApiError) as refused:
        await ask("192.0.2.1")
    assert refused.value.status == 429
    assert await ask("192.0.2.2") == 200, "others do not wait for it"
    now = 1.01 / PER_SECOND
    assert await ask("192.0.2.1") == 200
