"""Whole gateways in this process over fake nodes, and a client of their signalling without media."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
from headwater_api import wellknown
from headwater_api.ids import ClusterName, GatewayId, NodeId, RegionName, RoomId
from headwater_api.nodev1 import node_pb2
from headwater_gateway.app import run
from headwater_gateway.directory.hashing import choose
from headwater_gateway.directory.liveness import Verdict
from headwater_gateway.meetings import WriteRefused
from headwater_gateway.metrics import Metrics
from headwater_gateway.nodes.facts import NodePod
from headwater_gateway.passwords import HOST_KEY, PASSWORD
from headwater_gateway.plane import Plane, open_plane
from headwater_gateway.settings import Settings
from livekit.protocol import models, rtc
from support.deadline import until
from support.fake_channel import answer_to, publisher_offer
from support.fake_node import FakeNode, serving
from support.gateway_edge import NODE_TOKEN, edge_settings, token
from support.processes import loopback_address


@dataclass
class Gateways:
    """Gateways `gw-0`, `gw-1`, … that know each other, over the nodes `eu-1` and `us-1`."""

    urls: list[str] = field(default_factory=list)
    planes: list[Plane] = field(default_factory=list)
    nodes: list[FakeNode] = field(default_factory=list)
    writer: "FakeWriter | None" = None

    def owner(self, room: str) -> int:
        """Which gateway keeps the room."""
        names = [GatewayId(f"gw-{n}") for n in range(len(self.planes))]
        return names.index(choose(RoomId(room), names))

    def know_each_other(self) -> bool:
        """Until then one may take the other for dead, and hashing does not say where a room is."""
        others = [
            (plane, GatewayId(f"gw-{number}"))
            for mine, plane in enumerate(self.planes)
            for number in range(len(self.planes))
            if number != mine
        ]
        return all(plane.fleet._links.verdict(other) is Verdict.ALIVE for plane, other in others)

    def connect(self, participant: models.ParticipantInfo, room: str = "demo") -> None:
        """Its subscriber transport is up, says its node."""
        event = node_pb2.Event(room_id=room)
        event.transport.transport_id = f"{participant.sid}/sub"
        event.transport.state = node_pb2.TRANSPORT_CONNECTED
        for node in self.nodes:
            node.emit(event)


@asynccontextmanager
async def running_gateways(
    folder: Path, monkeypatch: pytest.MonkeyPatch, count: int = 1, **changes: Any
) -> AsyncIterator[Gateways]:
    """Run them until the end of the block."""
    gateways = Gateways()
    addresses = [loopback_address() for _ in range(count)]
    gateways.urls = [f"http://{ip}:{wellknown.PORT_SIGNAL}" for ip in addresses]
    async with AsyncExitStack() as stack:
        for region in ("eu", "us"):
            node = FakeNode(f"{region}-1", region, with_token=NODE_TOKEN)
            gateways.nodes.append(await stack.enter_async_context(serving(node)))
        known = ",".join(f"{n.node_id}={n.region}@{n.address}" for n in gateways.nodes)
        monkeypatch.setenv("HEADWATER_STATIC_NODES", known)
        peers = ",".join(f"gw-{n}={url}" for n, url in enumerate(gateways.urls))
        monkeypatch.setenv("HEADWATER_STATIC_GATEWAYS", peers)
        for number, ip in enumerate(addresses):
            settings = edge_settings(
                folder,
                **{
                    "gateway": GatewayId(f"gw-{number}"),
                    "bind_address": ip,
                    "signal_port": wellknown.PORT_SIGNAL,
                    "region_override": True,
                    **changes,
                },
            )
            gateways.planes.append(await stack.enter_async_context(gateway_running(settings)))
        declare_fleet(gateways)
        for plane in gateways.planes:
            await until(lambda p=plane: len(p.directory.pool.views()) == 2, 10, "the nodes are known")  # type: ignore[misc]
        await until(gateways.know_each_other, 15, "the gateways have heard each other")
        yield gateways


class FakeWriter:
    """A cluster that keeps Meetings: every gateway hears of what one of them creates or deletes."""

    def __init__(self, gateways: Gateways) -> None:
        self._gateways = gateways
        self.bodies: dict[str, dict[str, Any]] = {}
        self.refuse = 0  # the status of every answer, if set

    async def create(self, meeting: Mapping[str, Any], secret: Mapping[str, str]) -> Mapping[str, Any]:
        if self.refuse:
            raise WriteRefused(self.refuse, "no")
        body = json.loads(json.dumps(meeting))
        name = body["metadata"]["name"]
        body["metadata"] |= {"uid": f"u-{name}", "namespace": "default"}
        self.bodies[name] = body
        for plane in self._gateways.planes:
            plane.fleet.meeting_seen(name, body)
            for what, key in ((PASSWORD, "password"), (HOST_KEY, "host-key")):
                if key in secret:
                    plane.passwords.set(RoomId(name), what, secret[key])
            plane.fleet.meeting_seen(name, body)
        return body

    async def delete(self, name: str) -> None:
        if self.bodies.pop(name, None) is not None:
            for plane in self._gateways.planes:
                plane.fleet.meeting_gone(name)


def declare_fleet(gateways: Gateways) -> None:
    """One SFUCluster `demo`, and a place for Meetings."""
    gateways.writer = FakeWriter(gateways)
    cluster = {
        "metadata": {"name": "demo"},
        "spec": {"regions": [{"name": name, "minNodes": 1, "maxNodes": 2} for name in ("eu", "us")]},
    }
    for plane in gateways.planes:
        plane.fleet.cluster_seen("demo", cluster)
        plane.meetings.writer = gateways.writer
        for node in gateways.nodes:
            pod = NodePod(NodeId(node.node_id), RegionName(node.region), node.address, ClusterName("demo"))
            plane.directory.pool.pod_seen(pod)


@asynccontextmanager
async def gateway_running(settings: Settings) -> AsyncIterator[Plane]:
    stop, ports, planes = asyncio.Event(), dict[str, int](), list[Plane]()

    @asynccontextmanager
    async def opened(settings: Settings, metrics: Metrics) -> AsyncIterator[Plane]:
        async with open_plane(settings, metrics) as plane:
            planes.append(plane)
            yield plane

    task = asyncio.create_task(run(settings, opened, stop, lambda name, port: ports.update({name: port})))
    try:
        await until(lambda: task.done() or "signal" in ports, 10, "gateway listens")
        if task.done():
            await task
        yield planes[0]
    finally:
        stop.set()
        await asyncio.wait_for(task, 15)


class SignalClient:
    """Joins over a WebSocket and answers offers by text. `async with`; refusals raise aiohttp's error."""

    def __init__(
        self,
        url: str,
        identity: str,
        room: str = "demo",
        *,
        claims: dict[str, Any] | None = None,
        first: str = "join",
        **query: str,
    ) -> None:
        rest = dict(claims or {})
        grant = {"roomJoin": True, "room": room, **rest.pop("video", {})}
        self.token = token(sub=identity, name=identity.title(), video=grant, **rest)
        self._first = first
        pairs = {"protocol": "16", "sdk": "python", "version": "1.2.0"} | query
        self.url = f"{url}/rtc?" + "&".join(f"{k}={v}" for k, v in pairs.items())
        self._http = aiohttp.ClientSession()
        self._reader: asyncio.Task[None] | None = None
        self.received: list[rtc.SignalResponse] = []
        self.closed = False

    async def __aenter__(self) -> Self:
        headers = {"Authorization": f"Bearer {self.token}"}
        try:
            self._socket = await self._http.ws_connect(self.url, headers=headers)
        except BaseException:
            await self._http.close()
            raise
        self._reader = asyncio.create_task(self._read())
        await self.wait(self._first, 15)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._reader is not None
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._socket.close()
        await self._http.close()

    async def _read(self) -> None:
        async for frame in self._socket:
            response = rtc.SignalResponse.FromString(frame.data)
            self.received.append(response)
            if response.HasField("offer"):
                answer = rtc.SessionDescription(
                    type="answer", sdp=answer_to(response.offer.sdp), id=response.offer.id
                )
                await self.say(answer=answer)
        self.closed = True

    async def say(self, **fields: Any) -> None:
        await self._socket.send_bytes(rtc.SignalRequest(**fields).SerializeToString())

    async def publish(self, kind: str, cid: str) -> models.TrackInfo:
        """Publish one track; its row."""
        audio = kind == "audio"
        await self.say(
            add_track=rtc.AddTrackRequest(
                cid=cid,
                name=cid,
                type=models.TrackType.AUDIO if audio else models.TrackType.VIDEO,
                source=models.TrackSource.MICROPHONE if audio else models.TrackSource.CAMERA,
            )
        )
        published = await self.wait("track_published", match=lambda p: p.cid == cid)
        await self.say(offer=rtc.SessionDescription(type="offer", sdp=publisher_offer((kind, cid)), id=1))
        await self.wait("answer")
        return published.track  # type: ignore[no-any-return]

    async def wait(
        self, kind: str, within_s: float = 15, match: Callable[[Any], bool] = lambda _: True
    ) -> Any:
        """The first message of a kind that matches."""

        def find() -> Any:
            for message in self.received:
                if message.WhichOneof("message") == kind and match(getattr(message, kind)):
                    return message
            return None

        what = f"{kind} (got {[m.WhichOneof('message') for m in self.received]})"
        return getattr(await until(find, within_s, what, 0.005), kind)

    @property
    def me(self) -> models.ParticipantInfo:
        return next(m.join.participant for m in self.received if m.HasField("join"))


def unix_s() -> int:
    """Now."""
    return int(time.time())
