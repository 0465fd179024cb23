"""WHIP and WHEP as HTTP: resources, conditions, restarts, redirects, refusals; the node is a fake."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from headwater_api.ids import NodeId, RegionName, RoomId
from headwater_api.nodev1 import node_pb2
from headwater_gateway.nodes.facts import NodePod
from headwater_gateway.room import snapshot
from livekit.protocol import rtc
from support.deadline import until
from support.fake_channel import publisher_offer
from support.fake_node import FakeNode, serving
from support.gateway_edge import NODE_TOKEN, token
from support.gateways import Gateways, SignalClient, running_gateways

SDP, FRAGMENT = "application/sdp", "application/trickle-ice-sdpfrag"
REDUNDANT = (
    publisher_offer(("audio", "a"))
    .replace("SAVPF 111", "SAVPF 111 63")
    .replace("opus/48000/2\r\n", "opus/48000/2\r\na=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\n")
)
VIEWER = publisher_offer(("audio", "a"), ("video", "v")).replace("a=sendonly", "a=recvonly")


@pytest.fixture
async def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateways]:
    async with running_gateways(tmp_path, monkeypatch, 2) as gateways:
        yield gateways


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def _auth(identity: str = "cam", **video: Any) -> dict[str, str]:
    grant = {"roomJoin": True, "room": "demo", **video}
    return {"Authorization": f"Bearer {token(sub=identity, video=grant)}"}


def _commands(pair: Gateways, kind: str, match: Callable[[Any], bool] = lambda _: True) -> list[Any]:
    found = []
    for node in pair.nodes:
        for request in node.applied:
            for command in request.commands:
                if command.WhichOneof("command") == kind and match(getattr(command, kind)):
                    found.append(getattr(command, kind))
    return found


async def test_whip_publishes_at_any_gateway_until_deleted(
    pair: Gateways, http: aiohttp.ClientSession
) -> None:
    offer = publisher_offer(("audio", "a"), ("video", "v"))
    async with SignalClient(pair.urls[0], "ann") as ann:
        for number, url in enumerate(pair.urls):
            who = f"cam-{number}"
            headers = {**_auth(who), "Content-Type": SDP}
            async with http.post(f"{url}/whip/demo", data=offer, headers=headers) as answer:
                text = await answer.text()
                assert answer.status == 201, text
                assert answer.content_type == SDP and "a=recvonly" in text and "a=ice-lite" in text
                resource, tag = url + answer.headers["Location"], answer.headers["ETag"]
            await ann.wait(
                "update",
                match=lambda u, w=who: any(p.identity == w and len(p.tracks) == 2 for p in u.participants),  # type: ignore[misc]
            )
            sections = (await until(lambda: _commands(pair, "configure_receive"), 15, "configured"))[
                -1
            ].sections
            assert [len(s.layers) for s in sections] == [1, 3]

            trickle = {**_auth(who), "Content-Type": FRAGMENT}
            candidate = "a=ice-ufrag:cufr\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\na=end-of-candidates\r\n"
            async with http.patch(resource, data=candidate, headers=trickle) as answer:
                assert answer.status == 428
            async with http.patch(
                resource, data=candidate, headers={**trickle, "If-Match": '"old"'}
            ) as answer:
                assert answer.status == 412
            async with http.patch(resource, data=candidate, headers={**trickle, "If-Match": tag}) as answer:
                assert answer.status == 204
            restart = candidate.replace("cufr", "newfrag")
            async with http.patch(resource, data=restart, headers={**trickle, "If-Match": "*"}) as answer:
                assert answer.status == 200 and answer.headers["ETag"] != tag
                assert f"a=ice-ufrag:{answer.headers['ETag'].strip(chr(34))}" in await answer.text()
            again = await until(lambda: _commands(pair, "restart_ice"), 15, "ICE restarts")
            assert again[-1].transport_id.endswith("/pub")
            mine = [c for c in _commands(pair, "set_remote") if c.transport_id == again[-1].transport_id]
            assert mine[-1].remote_ufrag == "newfrag"

            async with http.delete(resource, headers=_auth("somebody")) as answer:
                assert answer.status == 404, "only its owner"
            async with http.delete(resource, headers=_auth(who)) as answer:
                assert answer.status == 200
            await ann.wait(
                "update",
                match=lambda u, w=who: any(p.identity == w and p.state == 3 for p in u.participants),  # type: ignore[misc]
            )
            async with http.delete(resource, headers=_auth(who)) as answer:
                assert answer.status == 404


async def test_a_resource_outlives_the_gateway_of_its_room(
    pair: Gateways, http: aiohttp.ClientSession
) -> None:
    headers = {**_auth(), "Content-Type": SDP}
    offer = publisher_offer(("audio", "a"))
    async with http.post(f"{pair.urls[0]}/whip/demo", data=offer, headers=headers) as answer:
        assert answer.status == 201, await answer.text()
        path, tag = answer.headers["Location"], answer.headers["ETag"]

    def is_kept() -> bool:
        held = [node.held["demo"].snapshot for node in pair.nodes if "demo" in node.held]
        return any(snapshot.decode(blob).packed["participants"] for blob in held if blob)

    await until(is_kept, 15, "a node keeps the room with who is in")
    plane = pair.planes[pair.owner("demo")]
    room = plane.directory.room(RoomId("demo"))
    assert room is not None
    room.hand_over("as a gateway that ends")
    # The one that looks after rooms may have taken it anew by the time that we look.
    await until(lambda: plane.directory.room(RoomId("demo")) is not room, 5, "it has let go")
    trickle = {**_auth(), "Content-Type": FRAGMENT}
    restart = "a=ice-ufrag:newfrag\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\na=end-of-candidates\r\n"
    for url in pair.urls:
        async with http.patch(url + path, data=restart, headers={**trickle, "If-Match": tag}) as answer:
            assert answer.status == 204, await answer.text()
    async with http.patch(pair.urls[1] + path, data=restart, headers={**trickle, "If-Match": "*"}) as answer:
        assert answer.status == 200 and answer.headers["ETag"] != tag
        assert f"a=ice-ufrag:{answer.headers['ETag'].strip(chr(34))}" in await answer.text()
    again = await until(lambda: _commands(pair, "restart_ice"), 15, "ICE restarts")
    assert again[-1].transport_id.endswith("/pub")
    async with http.delete(pair.urls[0] + path, headers=_auth("somebody")) as answer:
        assert answer.status == 404, "only its owner"
    async with http.delete(pair.urls[0] + path, headers=_auth()) as answer:
        assert answer.status == 200
    await until(lambda: _commands(pair, "close_transport"), 15, "its transport is closed")


async def test_whep_gets_what_is_there_and_what_comes(pair: Gateways, http: aiohttp.ClientSession) -> None:
    headers = {**_auth("tv"), "Content-Type": SDP}
    async with SignalClient(pair.urls[0], "ann") as ann:
        video = await ann.publish("video", "v1")
        async with http.post(f"{pair.urls[1]}/whep/demo", data=VIEWER, headers=headers) as answer:
            text = await answer.text()
            assert answer.status == 201, text
            assert text.count("a=sendonly") == 2 and "VP8" in text
            mine = answer.headers["Location"].rpartition("/")[2] + "/sub"

        def carried() -> list[str]:
            sent = _commands(pair, "configure_send", lambda c: c.transport_id == mine)
            return [s.track_id for s in sent[-1].sections] if sent else []

        await until(lambda: carried() == [video.sid], 15, "the video is carried")
        async with SignalClient(pair.urls[0], "bob") as bob:
            audio = await bob.publish("audio", "a1")
            await until(lambda: sorted(carried()) == sorted([video.sid, audio.sid]), 5, "the voice too")
            await bob.say(leave=rtc.LeaveRequest())
        await until(lambda: carried() == [video.sid], 15, "it has gone")


@pytest.mark.parametrize("over", [node_pb2.TRANSPORT_FAILED, node_pb2.TRANSPORT_CLOSED])
async def test_a_transport_that_fails_or_is_closed_ends_the_resource(
    pair: Gateways, http: aiohttp.ClientSession, over: node_pb2.TransportState.ValueType
) -> None:
    offer, headers = publisher_offer(("audio", "a")), {**_auth(), "Content-Type": SDP}
    async with http.post(f"{pair.urls[0]}/whip/demo", data=offer, headers=headers) as answer:
        location = answer.headers["Location"]
    sid = location.rpartition("/")[2]
    for state in (node_pb2.TRANSPORT_CONNECTED, over):
        event = node_pb2.Event(room_id="demo")
        event.transport.transport_id, event.transport.state = f"{sid}/pub", state
        for node in pair.nodes:
            node.emit(event)
    directory = pair.planes[pair.owner("demo")].directory
    await until(lambda: not directory.rooms()[0].state.participants, 15, "it is off the roster")
    async with http.delete(pair.urls[0] + location, headers=_auth()) as answer:
        assert answer.status == 404


async def test_refusals(pair: Gateways, http: aiohttp.ClientSession) -> None:
    url, offer = f"{pair.urls[0]}/whip/demo", publisher_offer(("audio", "a"))
    cases = [
        (url, {"Content-Type": SDP}, offer, 401),
        (url, {**_auth(), "Content-Type": "text/plain"}, offer, 415),
        (url, {**_auth(), "Content-Type": SDP}, "v=0", 400),
        (url, {**_auth(canPublish=False), "Content-Type": SDP}, offer, 403),
        (url.replace("demo", "other"), {**_auth(), "Content-Type": SDP}, offer, 403),
        (url, {**_auth(), "Content-Type": SDP}, "x" * 70_000, 413),
        (url.replace("whip", "whep"), {**_auth(canSubscribe=False), "Content-Type": SDP}, VIEWER, 403),
        (url.replace("whip", "whep"), {**_auth(), "Content-Type": SDP}, offer, 400),
    ]
    for target, headers, body, status in cases:
        async with http.post(target, data=body, headers=headers) as answer:
            assert answer.status == status, (target, headers, await answer.text())
    for plane in pair.planes:
        for room in plane.directory.rooms():
            await until(lambda r=room: not r.state.participants, 15, "nobody is left behind")  # type: ignore[misc]
    async with http.options(url) as answer:
        assert answer.status == 204 and answer.headers["Accept-Post"] == SDP


async def test_clients_of_another_region_are_sent_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, http: aiohttp.ClientSession
) -> None:
    urls = {"us": "http://us.example", "eu": "http://eu.example"}
    async with running_gateways(tmp_path, monkeypatch, region="eu", region_urls=urls) as gateways:
        headers = {**_auth(), "Content-Type": SDP}
        offer, url = publisher_offer(("audio", "a")), f"{gateways.urls[0]}/whip/demo"
        async with http.post(
            f"{url}?region=us", data=offer, headers=headers, allow_redirects=False
        ) as answer:
            assert (answer.status, answer.headers["Location"]) == (
                307,
                "http://us.example/whip/demo?region=us",
            )
        async with http.post(
            f"{url}?region=eu", data=offer, headers=headers, allow_redirects=False
        ) as answer:
            assert answer.status == 201


async def test_copies_are_agreed_to_where_every_node_knows_them(
    pair: Gateways, http: aiohttp.ClientSession
) -> None:
    async def is_agreed(who: str) -> bool:
        headers = {**_auth(who), "Content-Type": SDP}
        async with http.post(f"{pair.urls[0]}/whip/demo", data=REDUNDANT, headers=headers) as answer:
            text = await answer.text()
            assert answer.status == 201 and "opus/48000/2" in text, text
            return "a=rtpmap:63 red/48000/2" in text

    assert await is_agreed("cam-1")
    pool = pair.planes[0].directory.pool
    async with serving(FakeNode("old-1", "eu", with_token=NODE_TOKEN, is_old=True)) as older:
        pool.pod_seen(NodePod(NodeId("old-1"), RegionName("eu"), older.address))
        await until(lambda: pool.facts(NodeId("old-1")), 15, "the older node is known")
        assert not await is_agreed("cam-2")
