"""Real WHIP and WHEP clients' signalling (aiortc, simple-whip-client); the node is a fake: no media."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription, VideoStreamTrack
from headwater_api.ids import RoomId
from livekit.protocol import models
from support.deadline import until
from support.gateway_edge import token
from support.gateways import Gateways, running_gateways
from support.whip_client import whip_client


@pytest.fixture
async def gateways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateways]:
    async with running_gateways(tmp_path, monkeypatch) as running:
        yield running


def _token(identity: str) -> str:
    return token(sub=identity, video={"roomJoin": True, "room": "demo"})


async def test_aiortc_takes_both_answers(gateways: Gateways) -> None:
    sender, viewer = RTCPeerConnection(), RTCPeerConnection()
    sender.addTrack(VideoStreamTrack())
    for kind in ("audio", "video"):
        viewer.addTransceiver(kind, direction="recvonly")
    try:
        async with aiohttp.ClientSession() as http:
            for pc, path, who in ((sender, "whip", "cam"), (viewer, "whep", "tv")):
                # Not applied: it would gather candidates and begin to check a node that is none.
                offer = await pc.createOffer()
                headers = {"Authorization": f"Bearer {_token(who)}", "Content-Type": "application/sdp"}
                sdp = _with_credentials(offer.sdp)
                async with http.post(f"{gateways.urls[0]}/{path}/demo", data=sdp, headers=headers) as answer:
                    text = await answer.text()
                    assert answer.status == 201, text
                parsed = RTCSessionDescription(text, "answer")
                assert parsed.sdp.count("m=") == offer.sdp.count("m=")
    finally:
        await sender.close()
        await viewer.close()


def _with_credentials(sdp: str) -> str:
    """createOffer leaves out what only a gathering connection has."""
    if "a=ice-ufrag" in sdp:
        return sdp
    extra = "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n"
    if "a=fingerprint" not in sdp:
        extra += "a=fingerprint:sha-256 " + ":".join(["AB"] * 32) + "\r\na=setup:actpass\r\n"
    return sdp.replace("a=mid:", extra + "a=mid:")


async def test_simple_whip_client_opens_trickles_and_deletes(gateways: Gateways, tmp_path: Path) -> None:
    directory = gateways.planes[0].directory

    def tracks() -> set[int]:
        actor = directory.room(RoomId("demo"))
        there = actor.state.of_identity("gst") if actor is not None else None
        return {t.info.type for t in there.tracks.values() if t.is_live} if there is not None else set()

    async with whip_client(f"{gateways.urls[0]}/whip/demo", _token("gst"), tmp_path) as client:
        both = {models.TrackType.AUDIO, models.TrackType.VIDEO}
        try:
            await until(lambda: tracks() == both, 20, "it publishes")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{client.printed()}") from None
        await client.interrupt()
        actor = directory.room(RoomId("demo"))
        assert actor is not None
        await until(lambda: not actor.state.participants, 15, f"it has left ({client.printed()})")
        assert "[ERR]" not in client.printed(), client.printed()
