"""The two HTTP applications: the public one and the admin one."""

from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from typing import Any

from aiohttp import web
from headwater_api.reasons import Reason
from prometheus_client.exposition import choose_encoder

from headwater_gateway.directory.peers import PATH
from headwater_gateway.http.doorkeeper import note_response
from headwater_gateway.http.peer import PeerDoor
from headwater_gateway.http.signalling import Signalling
from headwater_gateway.http.site import Site
from headwater_gateway.metrics import Metrics

# Clients carry tokens and session descriptions in the query; aiohttp's own limit is 8190.
MAX_LINE = 64 * 1024
OPEN = ("/rtc", "/v1/", "/whip/", "/whep/")
MAX_BODY = 256 * 1024
MAX_PLACEMENTS = 500


def public_app(signalling: Signalling, site: Site, peers: PeerDoor) -> web.Application:
    """Signalling under /rtc, the page elsewhere. Paths under /rtc that are not known are 404 with CORS.

    Newer clients ask /rtc/v1 first and fall back to /rtc on that 404.
    """
    app = web.Application(client_max_size=MAX_BODY)
    app.on_response_prepare.append(_open_to(signalling.gatekeeper.allowed_origins))
    for path in ("/rtc", "/rtc/"):
        app.router.add_get(path, signalling.join, allow_head=False)
    for path in ("/rtc/validate", "/rtc/validate/"):
        app.router.add_get(path, signalling.validate, allow_head=False)
    app.router.add_options("/rtc{rest:(/.*)?}", _preflight)
    app.router.add_get("/rtc/{rest:.*}", _unknown_path, allow_head=False)
    app.router.add_get(PATH, peers.beats, allow_head=False)
    app.router.add_get("/", site.index)
    app.router.add_get("/vendor/livekit-client.js", site.client)
    app.router.add_get("/{name}", site.file)
    return app


def admin_app(
    metrics: Metrics, unready: Callable[[], str], placements: Callable[..., Iterator[dict[str, Any]]]
) -> web.Application:
    """/healthz says that this process's loop turns, and nothing else; /readyz whether joins can be served.

    /placements.json?room=&identity=&node= tells why participants are where they are, newest first.
    """

    async def placed(request: web.Request) -> web.Response:
        named = {key: request.query.get(key, "") for key in ("room", "identity", "node")}
        return web.json_response({"placements": list(islice(placements(**named), MAX_PLACEMENTS))})

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def readyz(_: web.Request) -> web.Response:
        why = unready()
        return web.Response(status=503 if why else 200, text=why or "ok")

    async def exposition(request: web.Request) -> web.Response:
        # OpenMetrics where it is asked for: with exemplars.
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(metrics.registry), headers={"Content-Type": content_type})

    app = web.Application()
    app.on_response_prepare.append(_on_admin_response)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", exposition)
    app.router.add_get("/placements.json", placed)
    return app


def _open_to(
    allowed: frozenset[str],
) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """Tokens, not cookies, say who a client is: any page may ask, or those that are allowed."""

    async def on_response(request: web.Request, response: web.StreamResponse) -> None:
        note_response(request)
        if not request.path.startswith(OPEN):
            return
        origin = request.headers.get("Origin", "")
        if not allowed:
            response.headers["Access-Control-Allow-Origin"] = "*"
        elif origin.lower() in allowed:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Vary"] = "Origin"

    return on_response


async def _on_admin_response(request: web.Request, _: web.StreamResponse) -> None:
    note_response(request)


async def _preflight(_: web.Request) -> web.Response:
    return web.Response(
        status=204,
        headers={
            "Access-Control-Allow-Methods": "GET, OPTIONS",
            "Access-Control-Allow-Headers": "*, Authorization",
            "Access-Control-Max-Age": "86400",
        },
    )


async def _unknown_path(_: web.Request) -> web.Response:
    return web.Response(
        status=404,
        text="no such endpoint: this server speaks /rtc",
        headers={"X-Headwater-Reason": Reason.PROTOCOL_UNSUPPORTED},
    )
