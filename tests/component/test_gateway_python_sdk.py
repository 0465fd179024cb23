"""An unmodified client SDK against the HTTP edge and the SDP code, without media."""

import asyncio
from pathlib import Path

from headwater_gateway.sdp import (
    PublisherAnswer,
    PublisherNegotiation,
    SubscriberAnswer,
    SubscriberNegotiation,
)
from headwater_gateway.signal.types import ClientHello, SignalChannel
from livekit import rtc as sdk
from livekit.protocol import models, rtc
from support.deadline import until
from support.gateway_edge import FakePlane, running_edge, token
from support.sdp_fixtures import LOCAL


class Negotiating:
    """A session that negotiates both peer connections, towards a node that is not there."""

    def __init__(self) -> None:
        self.published: list[PublisherAnswer] = []
        self.subscribed: list[SubscriberAnswer] = []

    async def __call__(self, hello: ClientHello, channel: SignalChannel) -> None:
        publisher, subscriber = PublisherNegotiation(), SubscriberNegotiation()
        join = rtc.JoinResponse(
            room=models.Room(sid="RM_1", name=hello.room),
            participant=models.ParticipantInfo(sid="PA_1", identity=hello.identity),
            server_version="1.9.0",
            ping_interval=5,
            ping_timeout=15,
            subscriber_primary=True,
            fast_publish=True,
        )
        await channel.send(rtc.SignalResponse(join=join))
        offer_id, offer = subscriber.offer(LOCAL)
        description = rtc.SessionDescription(type="offer", sdp=offer, id=offer_id)
        await channel.send(rtc.SignalResponse(offer=description))
        while (request := await channel.recv()) is not None:
            if request.WhichOneof("message") == "offer":
                answer = publisher.answer(request.offer.sdp, LOCAL)
                self.published.append(answer)
                description = rtc.SessionDescription(type="answer", sdp=answer.sdp, id=request.offer.id)
                await channel.send(rtc.SignalResponse(answer=description))
            elif request.WhichOneof("message") == "answer":
                self.subscribed.append(subscriber.apply_answer(request.answer.sdp, request.answer.id))


async def test_python_sdk_falls_back_keeps_the_region_and_negotiates(tmp_path: Path) -> None:
    session = Negotiating()
    async with running_edge(tmp_path, FakePlane(session=session), region_override=True) as edge:
        room = sdk.Room()
        url = edge.url.replace("http", "ws") + "?region=us"
        connecting = asyncio.create_task(room.connect(url, token(), sdk.RoomOptions(auto_subscribe=False)))
        try:
            await until(lambda: session.published and session.subscribed, 20, "both descriptions are agreed")
        finally:
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
        hello = edge.plane.hellos[0]
        assert (hello.sdk, hello.region, hello.auto_subscribe) == ("python", "us", False)
        assert hello.protocol >= 17
    # Its publisher offer holds m-lines for tracks to come: nothing flows on them yet.
    assert all(section.inactive for section in session.published[0].sections)
    assert session.published[0].has_data
    assert session.subscribed[0].sections == ()
