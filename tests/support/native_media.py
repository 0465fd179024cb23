"""The native module under real clients: an engine with its events, and aiortc peers.

Descriptions come from the gateway's SDP module. No gateway and no gRPC: commands go into `Engine.apply`.
"""

import asyncio
import contextlib
import fractions
import itertools
import random
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import aioice.ice
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, MediaStreamError, MediaStreamTrack, VideoStreamTrack
from av import AudioFrame, VideoFrame
from headwater_api.nodev1 import node_pb2
from headwater_gateway.sdp import (
    Candidate,
    LocalTransport,
    PublisherNegotiation,
    SendTrack,
    SubscriberNegotiation,
)
from headwater_sfu._native import Engine
from support.deadline import until

_ssrcs = itertools.count(0x1000)
LOOPBACK = "127.0.0.1"


@contextlib.contextmanager
def loopback_only(addresses: tuple[str, ...] = (LOOPBACK,)) -> Iterator[None]:
    """aioice leaves the loopback out of its host candidates; here it is the only network."""
    before = aioice.ice.get_host_addresses
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: list(addresses)
    try:
        yield
    finally:
        aioice.ice.get_host_addresses = before


class Node:
    """One engine, its events, and short forms of the commands."""

    def __init__(
        self,
        name: str = "node",
        room: str = "room",
        bind: str = f"{LOOPBACK}:0",
        advertise: list[str] | None = None,
    ) -> None:
        self.engine = Engine(bind=[bind], advertise=advertise, node_id=name, region="eu", max_connections=100)
        self.info = node_pb2.NodeInfo.FromString(self.engine.info())
        self.room = room
        self.epoch = 1
        self.events: list[node_pb2.Event] = []
        asyncio.get_running_loop().add_reader(self.engine.fileno(), self._drain)

    def _drain(self) -> None:
        for controller, response in self.engine.drain(256):
            assert controller == "test"
            self.events += node_pb2.WatchResponse.FromString(response).events

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.engine.fileno())
        self.engine.close()

    @property
    def address(self) -> str:
        return str(self.info.media_addresses[0])

    def apply(self, *commands: node_pb2.Command, room: str = "") -> list[str]:
        """The commands' errors ("" for done)."""
        request = node_pb2.ApplyRequest(
            room_id=room or self.room, epoch=self.epoch, controller_id="test", commands=commands
        )
        response = node_pb2.ApplyResponse.FromString(self.engine.apply(request.SerializeToString()))
        return [r.error for r in response.results]

    def do(self, **command: Any) -> None:
        """One command that must work."""
        assert self.apply(node_pb2.Command(**command)) == [""]

    def report(self) -> node_pb2.NodeReport:
        return node_pb2.NodeReport.FromString(self.engine.report())

    def local(self) -> LocalTransport:
        """Fresh ICE credentials on this node."""
        return LocalTransport(
            ufrag=secrets.token_hex(4),
            pwd=secrets.token_hex(12),
            fingerprint=self.info.dtls_fingerprint,
            candidates=tuple(Candidate.parse(a) for a in self.info.media_addresses),
        )

    def create(self, transport_id: str, local: LocalTransport, fingerprint: str = "", **more: Any) -> None:
        self.do(
            create_transport=node_pb2.CreateTransport(
                transport_id=transport_id,
                participant_id=transport_id.split("/", maxsplit=1)[0],
                local_ufrag=local.ufrag,
                local_pwd=local.pwd,
                remote_fingerprint=fingerprint,
                **more,
            )
        )

    def last_state(self, transport_id: str) -> int | None:
        states = [e.transport.state for e in self.events if e.transport.transport_id == transport_id]
        return states[-1] if states else None

    def live(self, track_id: str) -> list[int]:
        seen = [list(e.track.live_spatial) for e in self.events if e.track.track_id == track_id]
        return seen[-1] if seen else []

    def flowing(self, transport_id: str, track_id: str) -> int:
        seen = [
            e.subscription.current_spatial
            for e in self.events
            if e.subscription.transport_id == transport_id and e.subscription.track_id == track_id
        ]
        return seen[-1] if seen else -1

    async def connected(self, transport_id: str) -> None:
        await until(
            lambda: self.last_state(transport_id) == node_pb2.TRANSPORT_CONNECTED,
            10,
            f"{transport_id} connected",
        )


class Picture(VideoStreamTrack):
    """A picture of one brightness, 320x240."""

    def __init__(self, luma: int) -> None:
        super().__init__()
        self._luma = luma

    async def recv(self) -> VideoFrame:
        pts, time_base = await self.next_timestamp()
        plane = np.full((360, 320), 128, dtype=np.uint8)
        plane[:240] = self._luma
        # Something that moves: the encoder would send next to nothing otherwise.
        plane[(pts // 3000) % 200 : (pts // 3000) % 200 + 40, 40:80] = 255 - self._luma
        frame = VideoFrame.from_ndarray(plane, format="yuv420p")
        frame.pts, frame.time_base = pts, time_base
        return frame


class Tone(AudioStreamTrack):
    """A sine of 440 Hz, mono, 48 kHz."""

    def __init__(self) -> None:
        super().__init__()
        self._at = 0
        self._begin: float | None = None

    async def recv(self) -> AudioFrame:
        loop = asyncio.get_running_loop()
        if self._begin is None:
            self._begin = loop.time()
        await asyncio.sleep(max(0.0, self._begin + self._at / 48000 - loop.time()))
        wave = np.sin(2 * np.pi * 440 * (self._at + np.arange(960)) / 48000) * 10000
        frame = AudioFrame.from_ndarray(wave.astype(np.int16).reshape(1, -1), format="s16", layout="mono")
        frame.pts, frame.sample_rate, frame.time_base = self._at, 48000, fractions.Fraction(1, 48000)
        self._at += 960
        return frame


class Publisher:
    """An aiortc peer that publishes tracks to a node."""

    def __init__(self, node: Node, name: str) -> None:
        self.node, self.transport = node, f"{name}/pub"
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.negotiation = PublisherNegotiation()
        self.codecs: dict[str, node_pb2.CodecMap] = {}
        self.sections: list[node_pb2.ReceiveSection] = []

    async def publish(self, tracks: dict[str, MediaStreamTrack]) -> None:
        """Offer, configure, connect. `tracks`: by track id."""
        for track in tracks.values():
            self.pc.addTrack(track)
        await self.pc.setLocalDescription(await self.pc.createOffer())
        local = self.node.local()
        answer = self.negotiation.answer(self.pc.localDescription.sdp, local)
        ids = {track.kind: track_id for track_id, track in tracks.items()}
        self.node.create(self.transport, local, answer.remote_fingerprint)
        kinds = {node_pb2.KIND_AUDIO: "audio", node_pb2.KIND_VIDEO: "video"}
        self.sections = [s.receive_section(ids[kinds[s.kind]]) for s in answer.sections]
        self.codecs = {s.track_id: s.codecs[0] for s in self.sections}
        self.configure()
        await self.pc.setRemoteDescription(RTCSessionDescription(answer.sdp, "answer"))

    def configure(self) -> None:
        self.node.do(
            configure_receive=node_pb2.ConfigureReceive(transport_id=self.transport, sections=self.sections)
        )


class Subscriber:
    """An aiortc peer that receives tracks from a node and decodes them."""

    def __init__(self, node: Node, name: str) -> None:
        self.node, self.name, self.transport = node, name, f"{name}/sub"
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.negotiation = SubscriberNegotiation()
        self.local = node.local()
        self.frames: dict[str, list[Any]] = {}
        self.tasks: list[asyncio.Task[None]] = []
        self.created = False
        self.pc.on("track", self._on_track)

    def _on_track(self, track: MediaStreamTrack) -> None:
        frames: list[Any] = []
        self.frames[track.kind] = frames

        async def read() -> None:
            with contextlib.suppress(MediaStreamError):
                while True:
                    frames.append(await track.recv())

        self.tasks.append(asyncio.ensure_future(read()))

    async def subscribe(
        self,
        tracks: dict[str, node_pb2.CodecMap],
        rtx: bool = True,
        change: Callable[[node_pb2.SendSection], None] = lambda section: None,
        data_channels: list[node_pb2.DataChannel] | None = None,
    ) -> None:
        """Offer the tracks, take the answer, configure."""
        for track_id, codec in tracks.items():
            video = codec.codec == node_pb2.CODEC_VP8
            self.negotiation.add_track(
                SendTrack(
                    track_sid=track_id,
                    participant_sid="PA_publisher",
                    kind=node_pb2.KIND_VIDEO if video else node_pb2.KIND_AUDIO,
                    codec=codec,
                    ssrc=next(_ssrcs),
                    rtx_ssrc=next(_ssrcs) if video and rtx else 0,
                )
            )
        if not self.created:
            self.node.create(self.transport, self.local, data_channels=data_channels or [])
            self.created = True
        offer_id, offer = self.negotiation.offer(self.local)
        await self.pc.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await self.pc.setLocalDescription(await self.pc.createAnswer())
        answer = self.negotiation.apply_answer(self.pc.localDescription.sdp, offer_id)
        assert not answer.refused
        self.node.do(
            set_remote=node_pb2.SetRemote(
                transport_id=self.transport, remote_fingerprint=answer.remote_fingerprint
            )
        )
        for section in answer.sections:
            section.max_spatial = 2
            change(section)
        self.node.do(
            configure_send=node_pb2.ConfigureSend(transport_id=self.transport, sections=answer.sections)
        )

    def brightness(self) -> float:
        """Mean luma of the last picture, its moving part included."""
        frame = self.frames["video"][-1]
        return float(np.asarray(frame.to_ndarray(format="yuv420p"))[:240].mean())

    async def close(self) -> None:
        await self.pc.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def closing(*parts: Any, addresses: tuple[str, ...] = (LOOPBACK,)) -> AsyncIterator[None]:
    """Close peers before nodes, whatever happened."""
    with loopback_only(addresses):
        try:
            yield
        finally:
            for part in parts:
                if isinstance(part, Publisher):
                    await part.pc.close()
                elif isinstance(part, Subscriber):
                    await part.close()
            for part in parts:
                if isinstance(part, Node | LossyWire | LossyDoor):
                    part.close()


class LossyWire:
    """Two UDP sockets between two nodes that pass datagrams on and lose every `lose_every`-th (0: none)."""

    def __init__(self, lose_every: int = 0) -> None:
        self.lose_every = lose_every
        self.passed, self.lost = 0, 0
        self._sides: list[asyncio.DatagramTransport] = []

    async def open(self, first: str, second: str) -> tuple[str, str]:
        """The addresses at which `first` finds `second`, and `second` finds `first`."""
        loop = asyncio.get_running_loop()
        for target in (second, first):
            host, _, port = target.rpartition(":")
            other = 1 - len(self._sides)
            transport, _ = await loop.create_datagram_endpoint(
                lambda other=other, to=(host, int(port)): _Side(self, other, to),  # type: ignore[misc]
                local_addr=(LOOPBACK, 0),
            )
            self._sides.append(transport)
        return tuple("{}:{}".format(*side.get_extra_info("sockname")[:2]) for side in self._sides)  # type: ignore[return-value]

    def pass_on(self, data: bytes, from_side: int, to: tuple[str, int]) -> None:
        self.passed += 1
        if self.lose_every and self.passed % self.lose_every == 0:
            self.lost += 1
            return
        self._sides[from_side].sendto(data, to)

    def close(self) -> None:
        for side in self._sides:
            side.close()


class _Side(asyncio.DatagramProtocol):
    def __init__(self, wire: LossyWire, other: int, to: tuple[str, int]) -> None:
        self._wire, self._other, self._to = wire, other, to

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._wire.pass_on(data, self._other, self._to)


class LossyDoor:
    """A NAT in front of a node with bad paths to its clients.

    It loses every `lose_every`-th SRTP packet, or the share `lose_share` at random, and lets `bps` bit/s
    through to each client, with a queue of `queue_s`. 0: no loss, no limit.
    """

    def __init__(self, lose_every: int = 0, lose_share: float = 0.0, seed: int = 1) -> None:
        self.lose_every, self.lose_share = lose_every, lose_share
        self.bps, self.queue_s = 0, 0.3
        self.passed, self.lost, self.overflowed = 0, 0, 0
        self._rng = random.Random(seed)
        self._free: dict[tuple[str, int], float] = {}
        self._node = ("", 0)
        self._front: asyncio.DatagramTransport | None = None
        self._backs: dict[tuple[str, int], asyncio.DatagramTransport] = {}
        self._opening: set[asyncio.Task[None]] = set()

    async def open(self, node_port: int) -> str:
        """The address to advertise for a node on this port of the loopback."""
        self._node = (LOOPBACK, node_port)
        self._front, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Front(self), local_addr=(LOOPBACK, 0)
        )
        return "{}:{}".format(*self._front.get_extra_info("sockname")[:2])

    def from_client(self, data: bytes, client: tuple[str, int]) -> None:
        if client in self._backs:
            self._backs[client].sendto(data, self._node)
            return
        task = asyncio.ensure_future(self._add(client, data))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _add(self, client: tuple[str, int], data: bytes) -> None:
        back, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Back(self, client), local_addr=(LOOPBACK, 0)
        )
        self._backs[client] = back
        back.sendto(data, self._node)

    def to_client(self, data: bytes, client: tuple[str, int]) -> None:
        media = data[0] >= 128 and not 192 <= data[1] <= 223
        self.passed += media
        regular = self.lose_every and self.passed % self.lose_every == 0
        if media and (regular or self._rng.random() < self.lose_share):
            self.lost += 1
        elif self.bps:
            self._queue(data, client)
        else:
            self._send(data, client)

    def _queue(self, data: bytes, client: tuple[str, int]) -> None:
        loop = asyncio.get_running_loop()
        start = max(self._free.get(client, 0.0), loop.time())
        if start - loop.time() > self.queue_s:
            self.overflowed += 1
            return
        self._free[client] = start + len(data) * 8 / self.bps
        loop.call_at(self._free[client], self._send, data, client)

    def _send(self, data: bytes, client: tuple[str, int]) -> None:
        if self._front is not None and not self._front.is_closing():
            self._front.sendto(data, client)

    def close(self) -> None:
        for transport in (self._front, *self._backs.values()):
            if transport is not None:
                transport.close()


class _Front(asyncio.DatagramProtocol):
    def __init__(self, door: LossyDoor) -> None:
        self._door = door

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._door.from_client(data, addr)


class _Back(asyncio.DatagramProtocol):
    def __init__(self, door: LossyDoor, client: tuple[str, int]) -> None:
        self._door, self._client = door, client

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._door.to_client(data, self._client)


def free_port() -> int:
    """A UDP port of the loopback that was free a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def link(a: Node, b: Node, link_id: str = "RL_1", a_to_b: str = "", b_to_a: str = "") -> None:
    """Open a relay link at both ends, with keys swapped."""
    keys = secrets.token_bytes(32), secrets.token_bytes(32)
    token = secrets.randbits(31)
    for node, peer, address, (tx, rx) in (
        (a, b, a_to_b or b.address, keys),
        (b, a, b_to_a or a.address, keys[::-1]),
    ):
        node.do(
            open_relay=node_pb2.OpenRelay(
                link_id=link_id,
                peer_node_id=peer.info.node_id,
                peer_address=address,
                tx_key=tx,
                rx_key=rx,
                link_token=token,
            )
        )


def remote_track(node: Node, section: node_pb2.ReceiveSection, link_id: str = "RL_1") -> None:
    """Make a track that another node publishes available here."""
    node.do(
        add_remote_track=node_pb2.AddRemoteTrack(
            track_id=section.track_id, kind=section.kind, link_id=link_id, layers=section.layers
        )
    )
