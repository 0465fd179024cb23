"""A gateway's HTTP edge on free loopback ports, with a room plane made for the test."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt
from headwater_api.ids import GatewayId, NodeId, ParticipantSid, RegionName, RoomId
from headwater_api.reasons import Reason
from headwater_gateway.app import run
from headwater_gateway.meetings import Meetings
from headwater_gateway.metrics import Metrics
from headwater_gateway.passwords import Passwords
from headwater_gateway.room.directory import DirectoryOptions, RoomDirectory
from headwater_gateway.settings import Settings, from_environment
from headwater_gateway.signal.types import ClientHello, GatewayPeer, JoinRefused, SignalChannel
from headwater_planner.geo_distance import Coordinates
from livekit.protocol import models, rtc
from support.deadline import until

if TYPE_CHECKING:
    from headwater_gateway.join_traces import JoinTraces

API_KEY = "devkey"
API_SECRET = "a-secret-of-at-least-thirty-two-characters"
NODE_TOKEN = "node-token"
REGIONS = {
    RegionName("eu"): Coordinates(50.0, 8.0),
    RegionName("us"): Coordinates(39.0, -77.0),
    RegionName("ap"): Coordinates(1.0, 104.0),
}


def token(secret: str = API_SECRET, key: str = API_KEY, **claims: Any) -> str:
    """An access token for room `demo` and identity `alice`; claims override, None leaves one out."""
    payload: dict[str, Any] = {
        "iss": key,
        "sub": "alice",
        "name": "Alice",
        "nbf": int(time.time()) - 5,
        "exp": int(time.time()) + 86_400,  # tests may run long after they were collected
        "video": {"roomJoin": True, "room": "demo"},
    }
    payload.update(claims)
    # Not jwt.encode: it refuses claims of the wrong type, which the tests need.
    body = json.dumps({k: v for k, v in payload.items() if v is not None}).encode()
    return jwt.PyJWS().encode(body, secret, algorithm="HS256", headers={"typ": "JWT"})


async def echo_session(hello: ClientHello, channel: SignalChannel) -> None:
    """Joins, answers each ping_req with pong_resp, ends on leave."""
    join = rtc.JoinResponse(
        room=models.Room(sid="RM_1", name=hello.room),
        participant=models.ParticipantInfo(sid="PA_1", identity=hello.identity, name=hello.name),
    )
    await channel.send(rtc.SignalResponse(join=join))
    while (request := await channel.recv()) is not None:
        if request.WhichOneof("message") == "leave":
            return
        if request.WhichOneof("message") == "ping_req":
            pong = rtc.Pong(last_ping_timestamp=request.ping_req.timestamp, timestamp=1)
            await channel.send(rtc.SignalResponse(pong_resp=pong))


@dataclass
class FakePlane:
    """Admits every room but those in `refused`; remembers the hellos."""

    session: Callable[[ClientHello, SignalChannel], Awaitable[None]] = echo_session
    refused: dict[str, JoinRefused] = field(default_factory=dict)
    owners: dict[str, GatewayPeer] = field(default_factory=dict)
    hellos: list[ClientHello] = field(default_factory=list)
    asked: list[tuple[str, int, bool]] = field(default_factory=list)
    doubted: list[str] = field(default_factory=list)
    not_ready: str = ""
    running: set[asyncio.Task[Any]] = field(default_factory=set)
    closed: bool = False
    passwords: Passwords = field(default_factory=Passwords)
    meetings: Meetings = field(default_factory=Meetings)
    others: tuple[GatewayPeer, ...] = ()
    directory: RoomDirectory = field(
        default_factory=lambda: RoomDirectory(GatewayId("gateway"), NODE_TOKEN, DirectoryOptions())
    )

    async def admit(self, hello: ClientHello) -> ClientHello:
        if hello.room in self.refused:
            raise self.refused[hello.room]
        return hello

    async def run_session(self, hello: ClientHello, channel: SignalChannel) -> None:
        self.hellos.append(hello)
        await self.session(hello, channel)

    def regions(self) -> Mapping[RegionName, Coordinates | None]:
        return REGIONS

    async def owner(self, room: RoomId, *, hops: int, resumes: bool) -> GatewayPeer | None:
        self.asked.append((room, hops, resumes))
        return self.owners.get(room) if not hops else None

    def unreachable(self, gateway: GatewayId) -> None:
        self.doubted.append(gateway)

    def peers(self) -> tuple[GatewayPeer, ...]:
        return self.others

    def ice_servers(self, region: RegionName, sid: ParticipantSid, node: NodeId) -> list[rtc.ICEServer]:
        return []

    def placements(self, room: str, identity: str, node: str) -> Iterator[dict[str, Any]]:
        return iter([{"room": room, "identity": identity, "node": node}])

    def unready(self) -> str:
        return self.not_ready

    async def close(self, deadline: float) -> None:
        self.closed = True
        await self.directory.aclose(deadline / 3)


@dataclass(frozen=True)
class Edge:
    """A running gateway without rooms."""

    url: str
    admin_url: str
    plane: FakePlane
    metrics: Metrics
    stop: asyncio.Event
    host: str
    port: int
    tls_port: int = 0  # for other gateways; 0: none


def full() -> JoinRefused:
    return JoinRefused(503, Reason.NO_CAPACITY, "no node has room: try again")


def edge_settings(folder: Path, **changes: Any) -> Settings:
    """Settings as the environment gives them, on ports that the system chooses."""
    keys = folder / "keys"
    keys.mkdir(exist_ok=True)
    (keys / API_KEY).write_text(API_SECRET + "\n")
    base = from_environment({"HEADWATER_API_KEYS_DIR": str(keys), "HEADWATER_NODE_TOKEN": NODE_TOKEN})
    return replace(base, **{"signal_port": 0, "admin_port": 0, "gateway_tls_port": 0, **changes})


@asynccontextmanager
async def running_edge(
    folder: Path, plane: FakePlane | None = None, traces: "JoinTraces | None" = None, **changes: Any
) -> AsyncIterator[Edge]:
    """Run the whole composition root around `plane`."""
    plane = plane or FakePlane()
    settings = edge_settings(folder, **changes)
    stop = asyncio.Event()
    ports: dict[str, int] = {}
    seen: list[Metrics] = []

    @asynccontextmanager
    async def open_plane(_: Settings, metrics: Metrics) -> AsyncIterator[FakePlane]:
        seen.append(metrics)
        yield plane

    task = asyncio.create_task(
        run(settings, open_plane, stop, lambda name, port: ports.update({name: port}), traces)
    )
    try:
        listening = {"admin", "signal"} | ({"gateways"} if settings.gateway_tls_dir else set())
        await until(lambda: task.done() or ports.keys() >= listening, 10, "gateway listens")
        if task.done():
            await task
        host = settings.bind_address
        yield Edge(
            url=f"http://{host}:{ports['signal']}",
            admin_url=f"http://{host}:{ports['admin']}",
            plane=plane,
            metrics=seen[0],
            stop=stop,
            host=host,
            port=ports["signal"],
            tls_port=ports.get("gateways", 0),
        )
    finally:
        stop.set()
        await asyncio.wait_for(task, 15)
