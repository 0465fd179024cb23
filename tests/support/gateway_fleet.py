"""Gateways and SFU nodes as processes, behind a balancer as a Service is: for tests that kill gateways."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from headwater_api import wellknown
from headwater_api.ids import GatewayId, RoomId
from headwater_api.nodev1 import node_pb2, node_pb2_grpc
from headwater_gateway.directory.hashing import choose
from headwater_gateway.room import snapshot
from headwater_sandbox.demo.spec import BotSpec
from headwater_sandbox.demo.tokens import make_token, signal_url
from support.deadline import until
from support.processes import Program, all_running, loopback_address, running
from support.static_fleet import API_KEY, API_SECRET, NODE_TOKEN, knows_nodes, node_running, region_of

CONNECT_S = 0.5
ANSWER_S = 10.0


class Balancer:
    """Passes connections on to the backends in turn; to the next one if a backend ends without an answer.

    A process that is killed may still take connections for a moment: ingresses try again then, so does this.
    """

    def __init__(self, backends: list[tuple[str, int]], host: str = "127.0.0.1", port: int = 0) -> None:
        self._backends, self.host, self._port = backends, host, port
        self._next = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    async def __aenter__(self) -> "Balancer":
        self._server = await asyncio.start_server(self._serve, self.host, self._port)
        self.url = f"ws://{self.host}:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            request = await reader.read(65536)
            first = self._next % len(self._backends)
            self._next += 1
            for backend in (*self._backends[first:], *self._backends[:first]) if request else ():
                with contextlib.suppress(OSError, TimeoutError):
                    async with asyncio.timeout(CONNECT_S):
                        there, back = await asyncio.open_connection(*backend)
                    back.write(request)
                    async with asyncio.timeout(ANSWER_S):
                        answer = await there.read(65536)
                    if not answer:
                        back.close()
                        continue
                    writer.write(answer)
                    await _both_ways(reader, back, there, writer)
                    return
        except asyncio.CancelledError:
            pass  # by __aexit__; asyncio's streams would log it as a fault
        finally:
            writer.close()


async def _both_ways(
    reader: asyncio.StreamReader,
    back: asyncio.StreamWriter,
    there: asyncio.StreamReader,
    to: asyncio.StreamWriter,
) -> None:
    """Until either side ends: then neither goes on."""
    pumps = [asyncio.create_task(_pump(reader, back)), asyncio.create_task(_pump(there, to))]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        back.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()


@dataclass
class GatewayFleet:
    """Gateways `gw-0` … over these nodes; a node's region is its name up to the dash."""

    folder: Path
    env: dict[str, str]
    addresses: list[str]
    nodes: dict[str, Program]
    balancer: Balancer
    gateways: list[Program | None] = field(default_factory=list)
    _stacks: list[AsyncExitStack] = field(default_factory=list)

    def token(self, room: str, identity: str, **options: object) -> str:
        return make_token(API_KEY, API_SECRET, room, identity, time.time(), **options)  # type: ignore[arg-type]

    def url(self, region: str) -> str:
        """Through the balancer."""
        return signal_url(self.balancer.url, region)

    def bot(self, identity: str, source: int, region: str, room: str, **options: int) -> BotSpec:
        return BotSpec(identity, source, self.url(region), self.token(room, identity), **options)  # type: ignore[arg-type]

    def owner(self, room: str) -> int:
        """The gateway that a new room is given to, of those that live."""
        alive = [GatewayId(f"gw-{n}") for n, g in enumerate(self.gateways) if g is not None]
        return int(choose(RoomId(room), alive).removeprefix("gw-"))

    async def kept(self, node: str, room: str) -> node_pb2.RoomHeld | None:
        """What a node holds of a room, with the snapshot."""
        address = f"{self.nodes[node].address}:{wellknown.PORT_NODE_GRPC}"
        metadata = (("authorization", f"Bearer {NODE_TOKEN}"),)
        async with grpc.aio.insecure_channel(address) as channel:
            request = node_pb2.RoomsRequest(room_ids=[room], with_blobs=True)
            answer = await node_pb2_grpc.NodeStub(channel).Rooms(request, timeout=5, metadata=metadata)
        return answer.rooms[0] if answer.rooms else None

    async def sids(self, room: str) -> dict[str, str]:
        """Participants' sids by identity, as a node's snapshot has them: a new join has a new one."""
        held = await self.kept(next(iter(self.nodes)), room)
        assert held is not None
        rows = snapshot.decode(held.snapshot).packed.get("participants", {})
        return {row["identity"]: sid for sid, row in rows.items()}

    async def has_kept(self, room: str, participants: int, tracks: int) -> bool:
        """Whether every node's snapshot of the room shows so many."""
        for node in self.nodes:
            held = await self.kept(node, room)
            if held is None or not held.snapshot:
                return False
            rows = snapshot.decode(held.snapshot).packed.get("participants", {}).values()
            published = sum(len(row.get("tracks", {})) for row in rows)
            if (len(rows), published) != (participants, tracks):
                return False
        return True

    async def start(self, number: int) -> None:
        """Start a gateway, or start it again."""
        env = {**self.env, wellknown.ENV_POD_NAME: f"gw-{number}"}
        log = self.folder / f"gw-{number}-{time.monotonic_ns()}.log"
        program = running("headwater_gateway", env, self.addresses[number], log)
        self.gateways[number] = await self._stacks[number].enter_async_context(program)

    async def is_whole(self) -> bool:
        """Whether every gateway knows all nodes, and has heard all others: else not hashing has the rooms."""
        alive = [gateway for gateway in self.gateways if gateway is not None]
        known = [await knows_nodes(gateway, len(self.nodes)) for gateway in alive]
        return all(known) and all(g.printed().count("gateway.heard") >= len(alive) - 1 for g in alive)

    async def kill(self, number: int, how: signal.Signals = signal.SIGKILL) -> float:
        """End a gateway. The time of it (monotonic seconds)."""
        program = self.gateways[number]
        assert program is not None and program.process.returncode is None
        os.kill(program.process.pid, how)
        at = time.monotonic()
        await program.process.wait()
        if how == signal.SIGKILL:
            assert program.process.returncode == -how, "the fault was injected"
        self.gateways[number] = None
        await self._stacks[number].aclose()
        return at

    def printed(self) -> str:
        """The end of every gateway's log."""
        logs = sorted(self.folder.glob("gw-*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs)


@asynccontextmanager
async def gateway_fleet(
    folder: Path,
    gateways: int = 2,
    nodes: tuple[str, ...] = ("eu-1", "us-1"),
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[GatewayFleet]:
    """Run them for the block; logs go to the folder."""
    keys = folder / "keys"
    keys.mkdir()
    (keys / API_KEY).write_text(API_SECRET)
    addresses = [loopback_address() for _ in range(gateways)]
    node_addresses = {name: loopback_address() for name in nodes}
    listed = (f"{n}={region_of(n)}@{a}:{wellknown.PORT_NODE_GRPC}" for n, a in node_addresses.items())
    peers = (f"gw-{n}=http://{a}:{wellknown.PORT_SIGNAL}" for n, a in enumerate(addresses))
    settings = {
        wellknown.ENV_NODE_TOKEN: NODE_TOKEN,
        wellknown.ENV_API_KEYS_DIR: str(keys),
        "HEADWATER_REGION_OVERRIDE": "true",
        "HEADWATER_STATIC_NODES": ",".join(listed),
        "HEADWATER_STATIC_GATEWAYS": ",".join(peers),
        **(env or {}),
    }
    async with AsyncExitStack() as stack:
        started = (node_running(name, address, folder) for name, address in node_addresses.items())
        running_nodes = dict(zip(nodes, await all_running(stack, started), strict=True))
        backends = [(address, wellknown.PORT_SIGNAL) for address in addresses]
        balancer = await stack.enter_async_context(Balancer(backends))
        fleet = GatewayFleet(folder, settings, addresses, running_nodes, balancer, [None] * gateways)
        for _ in range(gateways):
            inner = AsyncExitStack()
            stack.push_async_callback(inner.aclose)
            fleet._stacks.append(inner)
        await asyncio.gather(*(fleet.start(n) for n in range(gateways)))
        await until(fleet.is_whole, 20, "the gateways know the nodes and each other")
        yield fleet
