"""Webhooks as an application receives them, checked with livekit-api's own receiver."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from livekit import api
from livekit.protocol import webhook
from support.deadline import until
from support.gateway_edge import API_KEY, API_SECRET
from support.gateways import SignalClient, running_gateways


class Application:
    """Takes webhooks; answers 500 to the first `fail` requests, nothing at all while `hangs`."""

    def __init__(self, fail: int = 0) -> None:
        self.fail = fail
        self.events: list[webhook.WebhookEvent] = []
        self.refused = 0
        self.url = ""
        self._receiver = api.WebhookReceiver(api.TokenVerifier(API_KEY, API_SECRET))

    async def handle(self, request: web.Request) -> web.Response:
        body = (await request.read()).decode()
        event = self._receiver.receive(body, request.headers["Authorization"])
        if self.fail:
            self.fail -= 1
            self.refused += 1
            return web.Response(status=500)
        self.events.append(event)
        return web.Response()

    def names(self) -> list[str]:
        return [event.event for event in self.events]


@asynccontextmanager
async def listening(application: Application) -> AsyncIterator[Application]:
    app = web.Application()
    app.router.add_post("/hook", application.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    application.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield application
    finally:
        await runner.cleanup()


async def test_events_of_a_room_come_signed_in_order_and_again_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(Application(fail=2)) as application, listening(Application()) as other:
        urls = (application.url, other.url)
        async with running_gateways(
            tmp_path, monkeypatch, webhook_urls=urls, webhook_api_key=API_KEY
        ) as gateways:
            async with SignalClient(gateways.urls[0], "ann") as ann:
                gateways.connect(ann.me)
                track = await ann.publish("audio", "mic")
                await until(lambda: "track_published" in other.names(), 15, "published")
                async with aiohttp.ClientSession() as http:
                    client = api.LiveKitAPI(gateways.urls[0], API_KEY, API_SECRET, session=http)
                    await client.room.delete_room(api.DeleteRoomRequest(room="demo"))
            expected = [
                "room_started",
                "participant_joined",
                "track_published",
                "track_unpublished",
                "participant_left",
                "room_finished",
            ]
            for app in (application, other):
                await until(lambda a=app: len(a.events) >= len(expected), 10, "all events")  # type: ignore[misc]
                assert sorted(app.names()) == sorted(expected)
                assert app.names()[:3] == expected[:3]
                assert app.names()[-1] == "room_finished"
                joined = next(e for e in app.events if e.event == "participant_joined")
                assert (joined.participant.identity, joined.room.name) == ("ann", "demo")
                assert next(e for e in app.events if e.event == "track_published").track.sid == track.sid
                assert len({e.id for e in app.events}) == len(expected)
            assert application.refused == 2


async def test_a_silent_application_holds_up_no_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = asyncio.Event()

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.set()
        await done.wait()
        writer.close()

    done = asyncio.Event()
    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    try:
        async with running_gateways(
            tmp_path, monkeypatch, webhook_urls=(url,), webhook_api_key=API_KEY
        ) as gateways:
            async with SignalClient(gateways.urls[0], "ann"):
                await asyncio.wait_for(opened.wait(), 5)
                async with SignalClient(gateways.urls[0], "bob"):
                    pass
            done.set()
    finally:
        done.set()
        server.close()
