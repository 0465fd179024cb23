"""A client that misbehaves gets a clear error; nobody else's stream notices."""

import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from headwater_sandbox.demo.fleet import Fleet
from livekit.protocol import models, rtc
from support.clients import bot_spec, bots, until_seen
from support.cluster import Cluster
from support.deadline import until
from support.protocol_client import ProtocolClient, socket_url

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

PAIRS = [("good-eu", "good-us"), ("good-us", "good-eu")]


@asynccontextmanager
async def undisturbed(cluster: Cluster, room: str) -> AsyncIterator[Fleet]:
    """Two bots in two regions, whose streams must go on through whatever the block does."""
    specs = [bot_spec(cluster, room, f"good-{r}", n, r) for n, r in enumerate(("eu", "us"))]
    async with bots(specs) as fleet:
        await until_seen(fleet, PAIRS, 30)
        fleet.mark()
        yield fleet
        await until_seen(fleet, PAIRS, 10)
        assert {pair: fleet.gap_ms(*pair) for pair in PAIRS if fleet.gap_ms(*pair) > 500} == {}


async def refusal(cluster: Cluster, token: str, **query: str) -> tuple[int, str]:
    """The status and text with which both /rtc and /rtc/validate refuse, which must agree."""
    answers = set()
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http:
        url = socket_url(cluster.gateway, **query)
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await http.ws_connect(url)
        validate = url.replace("ws", "http", 1).replace("/rtc?", "/rtc/validate?")
        async with http.get(validate) as response:
            answers = {caught.value.status, response.status}
            text = await response.text()
    assert len(answers) == 1, answers
    return answers.pop(), text


async def test_bad_tokens_are_refused_with_the_reason(cluster: Cluster) -> None:
    good = cluster.token("r", "i")
    expired = cluster.token("r", "i", life_s=-60)
    no_grant = cluster.token("r", "i", grants={"roomJoin": False})
    for token, status, word in (
        ("garbage", 401, "token"),
        (good[:-4] + "AAAA", 401, "signed"),
        (expired, 401, "expired"),
        (no_grant, 403, "roomJoin"),
    ):
        got, text = await refusal(cluster, token)
        assert got == status, text
        assert word in text
    status, text = await refusal(cluster, good, region="atlantis")
    assert status == 400
    assert "atlantis" in text


async def test_malformed_frames_and_absurd_sdp_stay_with_their_sender(cluster: Cluster) -> None:
    room = "hostile"
    async with undisturbed(cluster, room):
        for number, frame in enumerate(
            (b"\xff" * 64, b"", rtc.SignalRequest().SerializeToString(), b"\x0a\xff\xff\xff\xff\x0f")
        ):
            async with ProtocolClient(cluster.gateway, cluster.token(room, f"bad-{number}")) as client:
                assert client.socket is not None
                await client.socket.send_bytes(frame)
                await client.socket.send_str("{not json")
        for number, sdp in enumerate(absurd_sdps()):
            async with ProtocolClient(cluster.gateway, cluster.token(room, f"absurd-{number}")) as client:
                await client.send(offer=rtc.SessionDescription(type="offer", sdp=sdp))
                await client.send(answer=rtc.SessionDescription(type="answer", sdp=sdp))
                await client.send(ping_req=rtc.Ping(timestamp=int(time.time() * 1000)))
                # It is told why, or thrown out; it is not left without an answer.
                await _answered(client)


async def _answered(client: ProtocolClient) -> None:
    kinds = ("leave", "pong_resp", "request_response")
    await until(
        lambda: client.closed.is_set() or any(m.WhichOneof("message") in kinds for m in client.messages),
        10,
        "the gateway answers or closes",
    )


def absurd_sdps() -> list[str]:
    """Descriptions that get deeper into the parser one after the other."""
    print_of = ":".join(["AB"] * 32)
    head = (
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=ice-ufrag:abcd\r\n"
        f"a=ice-pwd:{'p' * 24}\r\na=fingerprint:sha-256 {print_of}\r\na=setup:actpass\r\n"
    )
    media = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=rtcp-mux\r\na=mid:0\r\n"
    return [
        "",
        "not sdp at all",
        head + "m=video 99999999 UDP/TLS/RTP/SAVPF 4096\r\n",
        head + media * 500,
        head + "a=x:" + "x" * 10_000 + "\r\n" + media,
        head + media + "a=rtpmap:96 VP8/0\r\na=extmap:999 urn:ietf:params:rtp-hdrext:sdes:mid\r\n",
        head + media + "a=rtpmap:96 VP8/90000\r\na=ssrc:99999999999 cname:x\r\n",
        head + media + "a=rtpmap:96 VP8/90000\r\n" + "".join(f"a=rid:r{n} send\r\n" for n in range(300)),
        head.replace("sha-256 AB", "sha-256 ZZ") + media + "a=rtpmap:96 VP8/90000\r\n",
    ]


async def test_an_oversize_frame_closes_only_its_own_connection(cluster: Cluster) -> None:
    room = "oversize"
    token = cluster.token(room, "big")
    async with undisturbed(cluster, room), ProtocolClient(cluster.gateway, token) as client:
        assert client.socket is not None
        with contextlib.suppress(OSError):  # it may be closed before all of it is sent
            await client.socket.send_bytes(b"\x00" * (8 * 1024 * 1024))
        await until(client.closed.is_set, 10, "the gateway closes the connection")


async def test_tracks_without_a_grant_are_not_published(cluster: Cluster) -> None:
    token = cluster.token("no-publish", "mute", grants={"canPublish": False})
    async with ProtocolClient(cluster.gateway, token) as client:
        await client.send(
            add_track=rtc.AddTrackRequest(
                cid="c1", name="x", type=models.TrackType.VIDEO, width=320, height=180
            )
        )
        await client.send(ping_req=rtc.Ping(timestamp=1))
        await client.wait_for("pong_resp")
        assert not any(m.WhichOneof("message") == "track_published" for m in client.messages)
