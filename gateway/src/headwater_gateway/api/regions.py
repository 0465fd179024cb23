"""GET /v1/regions: where a client measures its round trips, for the `rtt=` of its join."""

import time
from collections.abc import Callable
from typing import Final

from aiohttp import web
from headwater_api.ids import RegionName
from headwater_api.reasons import Reason

from headwater_gateway.api.context import ApiContext
from headwater_gateway.api.errors import ApiError
from headwater_gateway.api.rest import Endpoint, RestCall
from headwater_gateway.api.schemas import RegionList, RegionView
from headwater_gateway.limits import Rate

PATH: Final = "/v1/regions"
# Of an address: an office behind one asks three times in each region for each of its joins.
PER_SECOND: Final = 20.0
BURST: Final = 200.0


class RegionsApi:
    """Needs no token: it says no more than the joins' own addresses do."""

    def __init__(self, context: ApiContext, clock: Callable[[], float] = time.monotonic) -> None:
        self._context, self._clock = context, clock
        self._rate = Rate(PER_SECOND, BURST)

    def endpoints(self) -> list[Endpoint]:
        summary = "Regions with an address to measure the round trip to; needs no token"
        return [Endpoint("GET", PATH, summary, self.list, {200: RegionList}, in_room=False, is_open=True)]

    async def list(self, call: RestCall) -> web.Response:
        """Those that have nodes and gateways of their own, by name."""
        if not self._rate.take(call.caller.address, self._clock()):
            raise ApiError(
                "resource_exhausted", "too many requests from your address: wait", Reason.RATE_LIMITED
            )
        known = self._context.plane.regions()
        urls = self._context.settings.region_urls
        regions = [
            RegionView(region=name, probe_url=url + PATH)
            for name, url in sorted(urls.items())
            if RegionName(name) in known
        ]
        answer = RegionList(regions=regions)
        return web.json_response(text=answer.model_dump_json(), headers={"Cache-Control": "no-store"})
