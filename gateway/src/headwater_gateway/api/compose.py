"""Puts the API together: its routes on the public application, its tasks around them."""

import base64
import hashlib
import json
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Final

import aiohttp
import jwt
from aiohttp import web

from headwater_gateway.api.chat_api import ChatApi
from headwater_gateway.api.chat_notes import ChatNotes
from headwater_gateway.api.chat_store import LateStore
from headwater_gateway.api.context import ApiContext
from headwater_gateway.api.controls_api import ControlsApi
from headwater_gateway.api.forwardings import Forwardings
from headwater_gateway.api.meetings_api import MeetingsApi
from headwater_gateway.api.openapi import describe
from headwater_gateway.api.regions import RegionsApi
from headwater_gateway.api.rest import Rest
from headwater_gateway.api.room_service import SERVICE, RoomService
from headwater_gateway.api.twirp import TwirpService
from headwater_gateway.api.webhooks import Webhooks
from headwater_gateway.api.whip import Whip
from headwater_gateway.auth import KeyStore
from headwater_gateway.http.admission import Gatekeeper
from headwater_gateway.settings import Settings
from headwater_gateway.signal.types import RoomPlane

WEBHOOK_TOKEN_S: Final = 300
AddRoutes = Callable[[web.Application], None]


@asynccontextmanager
async def open_api(
    settings: Settings, keys: KeyStore, gatekeeper: Gatekeeper, plane: RoomPlane
) -> AsyncIterator[AddRoutes]:
    """Start what the API runs besides its handlers; yields what adds the routes. Ends all with the block."""
    connector = aiohttp.TCPConnector(limit=256, limit_per_host=64)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        context = ApiContext(settings, keys, gatekeeper, plane, session)
        hooks = Webhooks(
            settings.webhook_urls,
            lambda body: sign_webhook(keys, settings.webhook_api_key, body, int(time.time())),
            session,
            random.Random(),
            lambda: f"EV_{uuid.uuid4().hex[:16]}",
        )
        store = LateStore(settings.chat_database)
        chat = ChatApi(context, store)
        notes = ChatNotes(chat.hear)
        forwardings = Forwardings(context)
        forwardings.run()
        plane.directory.listen(hooks.put, notes.put)
        endpoints = [
            *MeetingsApi(context).endpoints(),
            *ControlsApi(context).endpoints(),
            *chat.endpoints(),
            *RegionsApi(context).endpoints(),
        ]

        def add_routes(app: web.Application) -> None:
            rooms = TwirpService(context, RoomService(context, forwardings).methods())
            forwardings.add(app)
            app.router.add_post(f"/twirp/{SERVICE}/{{method}}", rooms.handle)
            Whip(context).add(app)
            rest = Rest(context)
            for endpoint in endpoints:
                rest.add(app, endpoint)
            document = json.dumps(describe(endpoints, version("headwater-gateway")))

            async def openapi(_: web.Request) -> web.Response:
                return web.Response(text=document, content_type="application/json")

            app.router.add_get("/v1/openapi.json", openapi)

        try:
            yield add_routes
        finally:
            await forwardings.aclose()
            await notes.aclose()
            await hooks.aclose()
            await store.aclose()


def sign_webhook(keys: KeyStore, api_key: str, body: bytes, now: int) -> str | None:
    """The `Authorization` of a webhook's request. None: its API key is gone."""
    secret = keys.secret(api_key, time.monotonic())
    if secret is None:
        return None
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    payload = {"iss": api_key, "nbf": now, "exp": now + WEBHOOK_TOKEN_S, "sha256": digest}
    return jwt.encode(payload, secret, algorithm="HS256")
