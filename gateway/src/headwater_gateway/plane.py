"""What stands behind the HTTP edge: watches, nodes, rooms and sessions, put together."""

import asyncio
import os
import random
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import structlog
from headwater_api.ids import ClusterName, GatewayId, NodeId, ParticipantSid, RegionName, RoomId
from headwater_api.nodev1 import node_pb2
from headwater_api.reasons import Reason
from headwater_dial.api_server import credentials, open_api
from headwater_dial.nodes import Dialer
from headwater_planner.cluster_policy import ClusterPolicy
from headwater_planner.geo_distance import Coordinates
from headwater_planner.place import RegionView
from livekit.protocol import rtc

from headwater_gateway.directory.archive import NoArchive
from headwater_gateway.directory.liveness import Verdict
from headwater_gateway.directory.peers import Peers
from headwater_gateway.fleet import Fleet, Watches
from headwater_gateway.http.peer import peer_headers
from headwater_gateway.kube.meeting_secrets import MeetingSecrets, secret_reader
from headwater_gateway.kube.meetings_writer import KubernetesMeetings
from headwater_gateway.meetings import Meetings
from headwater_gateway.metrics import Metrics, PlaneCollector, RoomFigures
from headwater_gateway.nodes.facts import NodePod
from headwater_gateway.owners import Owners
from headwater_gateway.passwords import Passwords, TooManyAttempts
from headwater_gateway.peer_tls import checking
from headwater_gateway.room.actor import RoomActor
from headwater_gateway.room.directory import DirectoryOptions, RoomDirectory
from headwater_gateway.room.ids import SystemIds
from headwater_gateway.room.keeper import SnapshotKeeper
from headwater_gateway.room.model import RoomConfig
from headwater_gateway.room.succession import Succession
from headwater_gateway.settings import Settings, SettingsError
from headwater_gateway.signal.session_runner import SessionRunner
from headwater_gateway.signal.types import ClientHello, GatewayPeer, JoinRefused, SignalChannel
from headwater_gateway.tasks import report
from headwater_gateway.turn.servers import TurnServers, static_turn

if TYPE_CHECKING:
    from headwater_gateway.directory.store import Store

log = structlog.get_logger(__name__)

# Nodes and gateways by hand, for gateways without Kubernetes: "name=region@ip:port,…", "name=http://ip:port,…".
ENV_STATIC_NODES: Final = "HEADWATER_STATIC_NODES"
ENV_STATIC_GATEWAYS: Final = "HEADWATER_STATIC_GATEWAYS"


def unix_ms() -> int:
    """Now, Unix milliseconds."""
    return time.time_ns() // 1_000_000


def parse_static_nodes(text: str) -> tuple[NodePod, ...]:
    """Nodes of HEADWATER_STATIC_NODES. SettingsError shows the entry that is wrong."""
    nodes = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, rest = entry.partition("=")
        region, _, address = rest.partition("@")
        if not name or not region or not address.rpartition(":")[2].isdigit():
            raise SettingsError(f"{ENV_STATIC_NODES}: {entry!r} is not name=region@ip:port")
        nodes.append(NodePod(NodeId(name), RegionName(region), address))
    return tuple(nodes)


def parse_static_gateways(text: str) -> tuple[GatewayPeer, ...]:
    """Gateways of HEADWATER_STATIC_GATEWAYS. SettingsError shows the entry that is wrong."""
    peers = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, url = entry.partition("=")
        if not name or not re.fullmatch(r"http://[^/]+:\d+", url):
            raise SettingsError(f"{ENV_STATIC_GATEWAYS}: {entry!r} is not name=http://ip:port")
        peers.append(GatewayPeer(GatewayId(name), url))
    return tuple(peers)


class Plane:
    """The RoomPlane of a running gateway."""

    def __init__(
        self,
        directory: RoomDirectory,
        runner: SessionRunner,
        fleet: Fleet,
        owners: Owners,
        static: tuple[NodePod, ...],
        *,
        passwords: Passwords,
        meetings: Meetings,
        turn: TurnServers,
    ) -> None:
        self._turn = turn
        self.passwords, self.meetings = passwords, meetings
        self.directory, self._runner, self.fleet, self._owners = directory, runner, fleet, owners
        self._static = static
        self.watches: Watches | None = None
        self._closed = False

    async def admit(self, hello: ClientHello) -> ClientHello:
        missing = self.watches.missing() if self.watches is not None else []
        if missing:  # the room's Meeting may forbid the join
            message = f"the gateway starts ({', '.join(missing)} not read yet): connect again"
            raise JoinRefused(503, Reason.GATEWAY_STARTING, message)
        if hello.password and not hello.reconnect:
            try:
                proved = await self.passwords.prove(hello.room, hello.password, hello.client_address)
            except TooManyAttempts as error:
                raise JoinRefused(429, Reason.RATE_LIMITED, str(error)) from None
            hello = replace(hello, proved=proved)
        await self._runner.admit(hello)
        return hello

    async def run_session(self, hello: ClientHello, channel: SignalChannel) -> None:
        await self._runner(hello, channel)

    def regions(self) -> Mapping[RegionName, Coordinates | None]:
        known = self.fleet.regions()
        return known or {node.region: None for node in self._static}

    async def owner(self, room: RoomId, *, hops: int, resumes: bool) -> GatewayPeer | None:
        return await self._owners.find(room, hops=hops, resumes=resumes)

    def unreachable(self, gateway: GatewayId) -> None:
        self._owners.doubt(gateway)

    def is_settled(self) -> bool:
        """Nodes and gateways are known, so that a room that nobody seems to have is really nobody's."""
        return not self._closed and (self.watches is None or not self.watches.missing())

    def peers(self) -> tuple[GatewayPeer, ...]:
        others = self.fleet.gateways.values()
        return tuple(peer for peer in others if peer.gateway != self.directory.controller_id)

    def ice_servers(self, region: RegionName, sid: ParticipantSid, node: NodeId) -> list[rtc.ICEServer]:
        return self._turn.for_client(region, sid, node)

    def placements(self, room: str, identity: str, node: str) -> Iterator[dict[str, Any]]:
        return self.directory.pool.decisions.about(room, identity, node)

    def unready(self) -> str:
        if self._closed:
            return "shutting down"
        if self.watches is None:
            return ""
        missing = self.watches.missing() + self.watches.dead()
        return f"not read yet from the API server: {', '.join(missing)}" if missing else ""

    async def close(self, deadline: float) -> None:
        if self._closed:
            return
        self._closed = True
        await self.directory.aclose(deadline / 3)
        await self._runner.aclose(deadline / 3)


@asynccontextmanager
async def open_plane(settings: Settings, metrics: Metrics) -> AsyncIterator[Plane]:
    """Start following nodes and the API server; end all of it with the block."""
    ids, defaults, fleet_box = SystemIds(), RoomConfig(), list[Fleet]()

    def regions() -> tuple[RegionView, ...]:
        known = fleet_box[0].regions() if fleet_box else {}
        return tuple(RegionView(name, place) for name, place in known.items())

    def cluster_regions() -> Mapping[ClusterName, frozenset[RegionName]]:
        return fleet_box[0].allowed_regions() if fleet_box else {}

    def policies() -> Mapping[ClusterName, ClusterPolicy]:
        return fleet_box[0].policies() if fleet_box else {}

    options = DirectoryOptions(settings.auto_create_rooms, defaults, regions, cluster_regions, policies)
    directory = RoomDirectory(
        settings.gateway, settings.node_token, options, ids=ids, dialer=Dialer(settings.node_tls_dir)
    )
    passwords = Passwords()
    secrets = MeetingSecrets(passwords, random.Random())
    turn = _turn_servers(settings, directory, fleet_box)
    peers = Peers(lambda: peer_headers(settings.node_token, settings.gateway))
    meetings = Meetings()
    tls = checking(settings.gateway_tls_dir)
    fleet = Fleet(directory, defaults, secrets, turn=turn, links=peers, meetings=meetings, tls=tls)
    fleet_box.append(fleet)
    archive = _open_archive(settings, options)
    succession = Succession(
        directory, ids, time.monotonic, archive, lambda gateway: peers.verdict(gateway) is Verdict.DEAD
    )
    owners = Owners(settings.gateway, fleet, peers, directory, succession, registrar=archive)
    metrics.registry.register(PlaneCollector(directory, turn))
    directory.figures = RoomFigures(metrics, unix_ms)
    runner = SessionRunner(directory, ids, unix_ms, turn)
    static = parse_static_nodes(os.environ.get(ENV_STATIC_NODES, ""))
    plane = Plane(directory, runner, fleet, owners, static, passwords=passwords, meetings=meetings, turn=turn)
    for node in static:
        directory.pool.pod_seen(node)
    for peer in parse_static_gateways(os.environ.get(ENV_STATIC_GATEWAYS, "")):
        fleet.gateways[peer.gateway] = peer
        fleet.gateway_reachable(peer)
    if not static:
        api = open_api(await credentials(os.environ))
        secrets.start(secret_reader(api, settings.namespace))
        meetings.writer = KubernetesMeetings(api, settings.namespace)
        plane.watches = Watches(api, settings.namespace, fleet, random.Random())
        plane.watches.start()
    caretaker = asyncio.create_task(owners.run(plane.is_settled), name="caretaker")
    report(caretaker, "rooms.caretaker_died")
    try:
        yield plane
    finally:
        caretaker.cancel()
        await asyncio.gather(caretaker, return_exceptions=True)
        await secrets.aclose()
        if plane.watches is not None:
            await plane.watches.aclose()
        await turn.aclose()
        async with asyncio.timeout(10):
            await succession.aclose()
            await plane.close(3.0)
            await peers.aclose()
            await archive.aclose()


def _open_archive(settings: Settings, options: DirectoryOptions) -> "Store | NoArchive":
    if not settings.redis_url:
        return NoArchive()
    # Only here: its client would be a fifth of what a gateway loads.
    from headwater_gateway.directory.store import Kept, Store

    store = Store(settings.redis_url, settings.redis_password, settings.gateway)

    def on_snapshot(room_id: RoomId, keeper: SnapshotKeeper, put: node_pb2.PutSnapshot) -> None:
        store.keep(room_id, Kept(keeper.claim.epoch, put.version, put.blob, keeper.stored))

    def on_room_gone(actor: RoomActor) -> None:
        epoch, handed_over = actor.keeper.claim.epoch, actor.is_handed_over
        store.forget(actor.state.room_id, epoch, is_handed_over=handed_over)

    options.on_snapshot, options.on_room_gone = on_snapshot, on_room_gone
    store.start()
    return store


def _turn_servers(settings: Settings, directory: RoomDirectory, fleet_box: list[Fleet]) -> TurnServers:
    def cluster_of(node_id: NodeId) -> ClusterName | None:
        return next((v.cluster for v in directory.pool.views() if v.node_id == node_id), None)

    turn = TurnServers(
        settings.node_token,
        settings.turn_secrets_dir,
        lambda: fleet_box[0].regions() if fleet_box else {},
        cluster_of,
        directory.on_turn_lost,
    )
    pods, policy = static_turn()
    if pods:
        turn.policy_seen(None, policy)
    for pod in pods:
        turn.pod_seen(pod)
    return turn
