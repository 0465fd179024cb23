"""Which gateway a client is led to, and how a room that two gateways have becomes one again."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from headwater_api.ids import GatewayId, NodeId, ParticipantIdentity, RegionName, RoomId
from headwater_gateway import owners as owners_module
from headwater_gateway.directory.archive import NoArchive
from headwater_gateway.directory.hashing import choose
from headwater_gateway.directory.liveness import SILENCE_S, Liveness, Verdict
from headwater_gateway.nodes.facts import NodePod
from headwater_gateway.own_time import OWN_BEAT_S, OWN_STALL_S, OwnTime
from headwater_gateway.owners import MAX_HOPS, Owners
from headwater_gateway.room import moderation
from headwater_gateway.room.directory import DirectoryOptions, RoomDirectory
from headwater_gateway.room.ids import SystemIds
from headwater_gateway.room.succession import Succession
from headwater_gateway.signal.session_runner import SessionRunner
from headwater_gateway.signal.types import GatewayPeer, JoinRefused
from livekit.protocol import rtc
from support.deadline import until
from support.fake_channel import FakeClient, hello
from support.fake_node import FakeNode, serving
from support.two_gateways import PATIENCE

A, B, C = GatewayId("gw-a"), GatewayId("gw-b"), GatewayId("gw-c")


@dataclass
class FakeLinks:
    """What one gateway believes of the others."""

    dead: set[str] = field(default_factory=set)

    def verdict(self, gateway: GatewayId) -> Verdict:
        return Verdict.DEAD if gateway in self.dead else Verdict.ALIVE

    async def settled(self, gateway: GatewayId) -> Verdict:
        return self.verdict(gateway)


@dataclass
class FakeFleet:
    gateways: dict[str, GatewayPeer] = field(default_factory=dict)

    @property
    def peers(self) -> dict[str, GatewayPeer]:
        return self.gateways


@dataclass
class Gateway:
    name: GatewayId
    directory: RoomDirectory
    succession: Succession
    runner: SessionRunner
    owners: Owners
    links: FakeLinks
    care: asyncio.Task[None]
    clients: list[FakeClient] = field(default_factory=list)

    async def join(self, room: str, identity: str, region: str) -> FakeClient:
        client = FakeClient()
        client.task = asyncio.create_task(self.runner(hello(identity, room=room, region=region), client))
        self.clients.append(client)
        await client.wait("join")
        return client

    async def find(self, room: str, hops: int = 0, resumes: bool = False) -> str:
        peer = await self.owners.find(RoomId(room), hops=hops, resumes=resumes)
        return str(self.name if peer is None else peer.gateway)


@dataclass
class World:
    nodes: dict[str, FakeNode]
    gateways: dict[str, Gateway]

    def kill(self, name: str) -> None:
        """As far as the others can tell: its links are dead, and it commands nothing any more."""
        for other in self.gateways.values():
            other.links.dead.add(name)

    async def reported(self, room: str, by: str = "") -> None:
        """Every gateway has heard of the room from a node."""

        def known() -> bool:
            found = [g.directory.pool.room_reports(RoomId(room)) for g in self.gateways.values()]
            return all(rows and all(by in ("", r.controller_id) for r in rows.values()) for rows in found)

        await until(known, 15, f"{room} is reported", 0.01)


def named() -> str:
    """A room that hashing gives to gw-a, and to gw-b once gw-a is gone."""
    rooms = (RoomId(f"room-{number}") for number in range(1000))
    return next(r for r in rooms if choose(r, [A, B, C]) == A and choose(r, [B, C]) == B)


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(owners_module, "LOOK_S", 0.05)
    monkeypatch.setattr(owners_module, "MOURN_S", 0.2)
    monkeypatch.setattr(owners_module, "STRANGE_S", 0.3)
    for module, name, seconds in PATIENCE:
        monkeypatch.setattr(module, name, seconds)
    async with AsyncExitStack() as stack:
        nodes = {}
        for number, (name, region) in enumerate((("eu-1", "eu"), ("us-1", "us"))):
            nodes[name] = FakeNode(name, region, media_address=f"127.0.0.1:{7000 + number}", interval_s=0.05)
            await stack.enter_async_context(serving(nodes[name]))
        made = World(nodes, {})
        everybody = {name: GatewayPeer(name, f"http://{name}") for name in (A, B, C)}
        for name in (A, B, C):
            ids, links = SystemIds(), FakeLinks()
            directory = RoomDirectory(name, "token", DirectoryOptions(), ids=ids)
            succession = Succession(
                directory,
                ids,
                time.monotonic,
                NoArchive(),
                lambda g, links=links: g in links.dead,  # type: ignore[misc]
            )
            fleet = FakeFleet({k: v for k, v in everybody.items() if k != name})
            owners = Owners(
                name,
                cast(Any, fleet),
                cast(Any, links),
                directory,
                succession,
                registrar=NoArchive(),
                rng=random.Random(1),
            )
            runner = SessionRunner(directory, ids, lambda: 1)
            care = asyncio.create_task(owners.run(lambda: True))
            made.gateways[name] = Gateway(name, directory, succession, runner, owners, links, care)
            for node in nodes.values():
                directory.pool.pod_seen(NodePod(NodeId(node.node_id), RegionName(node.region), node.address))
        for gateway in made.gateways.values():
            await until(lambda g=gateway: len(g.directory.pool.reports()) == 2, 15, "nodes are up", 0.01)  # type: ignore[misc]
        try:
            yield made
        finally:
            for gateway in made.gateways.values():
                gateway.care.cancel()
                await asyncio.gather(gateway.care, return_exceptions=True)
                await gateway.succession.aclose()
                await gateway.directory.aclose(1.0)
                await gateway.runner.aclose(1.0)
                for client in gateway.clients:
                    await client.close()
                await asyncio.gather(*(c.task for c in gateway.clients if c.task), return_exceptions=True)


async def test_hashing_places_what_nobody_has_and_nodes_tell_of_what_somebody_has(world: World) -> None:
    room = named()
    assert {await g.find(room) for g in world.gateways.values()} == {A}
    await world.gateways[B].join(room, "ann", "eu")  # though hashing says otherwise: a moment of disagreement
    await world.reported(room)
    assert {await g.find(room) for g in world.gateways.values()} == {B}
    assert await world.gateways[C].find(room, hops=1) == B, "a client may be passed on twice"
    with pytest.raises(JoinRefused) as refused:
        await world.gateways[C].find(room, hops=MAX_HOPS)
    assert refused.value.status == 503


async def test_a_dead_gateways_room_goes_to_its_successor_and_to_no_other(world: World) -> None:
    room = named()
    await world.gateways[A].join(room, "ann", "eu")
    await world.reported(room)
    world.kill(A)
    assert await world.gateways[C].find(room) == B
    assert await world.gateways[B].find(room) == B
    actor = world.gateways[B].directory.room(RoomId(room))
    assert actor is not None and actor.state.by_identity.keys() == {"ann"}
    assert world.gateways[C].directory.room(RoomId(room)) is None
    await world.reported(room, by=B)
    assert await world.gateways[C].find(room) == B


async def test_old_reports_do_not_take_a_room_back(world: World) -> None:
    room = named()
    first, second = world.gateways[A], world.gateways[B]
    await first.join(room, "ann", "eu")
    await world.reported(room)
    for node in world.nodes.values():
        node.silent = True  # no more reports: the first gateway's view is from before
    second.links.dead.add(A)
    taken = await second.succession.take_over(RoomId(room))
    assert taken is not None
    actor = first.directory.room(RoomId(room))
    assert actor is not None
    actor.hand_over("refused by a node", is_superseded=True)
    await until(lambda: first.directory.room(RoomId(room)) is None, 15, "given up", 0.01)
    assert await first.find(room) == B
    assert first.directory.room(RoomId(room)) is None and second.directory.room(RoomId(room)) is taken


async def test_a_room_that_nobody_asks_for_is_taken_over_too(world: World) -> None:
    room = named()
    await world.gateways[A].join(room, "ann", "eu")
    await world.reported(room)
    world.kill(A)
    await until(lambda: world.gateways[B].directory.room(RoomId(room)), 15, "its successor has it")
    assert world.gateways[C].directory.room(RoomId(room)) is None


async def test_a_room_that_has_ended_is_not_taken_for_one_that_was_left(world: World) -> None:
    room, gateway = named(), world.gateways[A]
    ann = await gateway.join(room, "ann", "eu")
    first = gateway.directory.room(RoomId(room))
    assert first is not None
    await world.reported(room)
    gateway.directory.meeting_seen(RoomId(room), first.state.config)
    gateway.directory.meeting_gone(RoomId(room))
    await until(lambda: ann.closed, 15, "the room ends")
    assert await gateway.find(room) == A
    again = await gateway.join(room, "ann", "eu")
    second = gateway.directory.room(RoomId(room))
    assert second is not None and second is not first and again.sid != ann.sid
    assert second.keeper.claim > first.keeper.claim


async def test_a_split_room_becomes_one_with_the_stricter_rules(world: World) -> None:
    room = named()
    one, other = world.gateways[A], world.gateways[B]
    for gateway in (one, other):  # two regions that do not hear of each other's nodes
        away = "us-1" if gateway is one else "eu-1"
        gateway.directory.pool.pod_gone(NodeId(away))
    ann = await one.join(room, "ann", "eu")
    await one.join(room, "eve", "eu")
    bob = await other.join(room, "bob", "us")
    eve = await other.join(room, "eve", "us")
    here, there = (g.directory.room(RoomId(room)) for g in (one, other))
    assert here is not None and there is not None and here.keeper.claim < there.keeper.claim
    await here.ask(lambda state, now: moderation.remove(state, "eve", now, ban=True))
    await here.ask(lambda state, _: setattr(state.access, "locked", True))
    for gateway in (one, other):
        for node in world.nodes.values():
            gateway.directory.pool.pod_seen(
                NodePod(NodeId(node.node_id), RegionName(node.region), node.address)
            )
    await until(lambda: one.directory.room(RoomId(room)) is None, 8, "the lesser claim is given up")
    assert there.state.access.locked and ParticipantIdentity("eve") in there.state.access.banned
    await until(
        lambda: there.state.by_identity.keys() == {"ann", "bob"}, 15, "one roster, without the banned"
    )
    leave = await eve.wait("leave")
    assert leave.action == rtc.LeaveRequest.DISCONNECT
    assert ann.closed is not None and not ann.all("leave") and not bob.all("leave")
    await until(lambda: {n.held[room].controller_id for n in world.nodes.values()} == {B}, 15, "one owner")
    links = [
        c for n in world.nodes.values() for r in n.applied for c in r.commands if c.HasField("open_relay")
    ]
    assert len(links) == 2, "the halves are linked"
    await until(lambda: "ann" in bob.roster(), 15, "bob sees ann")


def test_a_gateway_is_dead_by_proof_at_once_and_by_silence_after_a_while() -> None:
    fresh = Liveness(since=10.0)
    fresh.lose(refused=True)
    assert fresh.verdict(10.1) is Verdict.UNKNOWN, "it may still be starting"
    assert fresh.verdict(10.0 + SILENCE_S) is Verdict.DEAD
    known = Liveness(since=10.0)
    known.hear(20.0)
    assert known.verdict(20.5) is Verdict.ALIVE
    known.lose(refused=False)
    assert known.verdict(20.5) is Verdict.ALIVE, "a broken link alone says nothing"
    known.lose(refused=True)
    assert known.verdict(20.5) is Verdict.DEAD
    known.hear(21.0)
    assert known.verdict(21.0 + SILENCE_S) is Verdict.DEAD, "frozen"


def test_a_gateway_that_stood_itself_takes_nobody_for_dead() -> None:
    at = [100.0]
    own = OwnTime(lambda: at[0])
    known = Liveness(since=own.now())
    known.hear(own.now())
    at[0] += 60.0  # no beat of its own: its process was stopped, or had no processor
    assert known.verdict(own.now()) is Verdict.ALIVE, "asked before the late beat"
    own.beat()
    assert known.verdict(own.now()) is Verdict.ALIVE, "and after it"
    before = own.now()
    beats = int(SILENCE_S / OWN_BEAT_S) + 1
    for _ in range(beats):
        at[0] += OWN_BEAT_S
        own.beat()
    assert own.now() - before == pytest.approx(beats * OWN_BEAT_S), "a loop that turns loses no time"
    assert known.verdict(own.now()) is Verdict.DEAD, "the other is silent still"
    late = OWN_BEAT_S + OWN_STALL_S
    at[0] += late
    assert own.now() - before == pytest.approx(beats * OWN_BEAT_S + late), "a little late is no stall"
