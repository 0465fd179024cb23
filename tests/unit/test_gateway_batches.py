"""Several rooms' commands to one node: one call, and each room its own answer."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from headwater_api.ids import GatewayId, NodeId, RegionName, RoomId
from headwater_api.nodev1 import node_pb2
from headwater_gateway.nodes import batches, call_pace
from headwater_gateway.nodes.commands import CommandQueue
from headwater_gateway.nodes.facts import NodeFacts, NodePod
from headwater_gateway.nodes.pool import NodePool
from support.deadline import until
from support.fake_node import FakeNode, serving


class Nobody:
    """Listens to no node."""

    def on_node_up(self, facts: NodeFacts) -> None: ...
    def on_node_lost(self, node_id: NodeId, why: str) -> None: ...
    def on_node_event(self, node_id: NodeId, event: node_pb2.Event) -> None: ...


class Rooms:
    """Command queues of several rooms to one node, and what became of them."""

    def __init__(self, pool: NodePool, node: FakeNode) -> None:
        self.pool, self.node = pool, node
        self.ended: list[str] = []
        self.refused: list[str] = []

    def open(self, room: str, epoch: int = 7) -> CommandQueue:
        def ends(how: str) -> None:
            self.ended.append(f"{room}: {how.partition(':')[0]}")

        return self.pool.open_queue(
            NodeId(self.node.node_id),
            RoomId(room),
            epoch,
            audio_top_n=lambda: 0,
            on_failed=ends,
            on_refused=lambda command, error: self.refused.append(f"{room}: {error}"),
            on_stale=ends,
            on_stored=lambda version: None,
        )

    def applied(self) -> list[str]:
        """Which room was told what, in order."""
        return [f"{r.room_id}{c.request_key_frame.track_id}" for r in self.node.applied for c in r.commands]


def key_frame(of: object) -> list[node_pb2.Command]:
    return [node_pb2.Command(request_key_frame=node_pb2.RequestKeyFrame(track_id=str(of)))]


@pytest.fixture
async def rooms() -> AsyncIterator[Rooms]:
    node = FakeNode("eu-1", with_token="token")
    pool = NodePool("token", GatewayId("gw"), Nobody())
    async with serving(node):
        pool.pod_seen(NodePod(NodeId("eu-1"), RegionName("eu"), node.address))
        await until(pool.views, 15, "the node is up", 0.01)
        try:
            yield Rooms(pool, node)
        finally:
            await pool.aclose(0.5)


async def _told(*queues: CommandQueue) -> None:
    await asyncio.wait_for(asyncio.gather(*(queue.carried_out() for queue in queues)), 5)


async def test_rooms_that_speak_at_once_share_a_call(rooms: Rooms) -> None:
    queues = [rooms.open(name) for name in "abc"]
    for number in range(2):
        for queue in queues:
            queue.send(key_frame(number))
        await _told(*queues)
    applied = rooms.applied()
    assert (sorted(applied[:3]), sorted(applied[3:])) == (["a0", "b0", "c0"], ["a1", "b1", "c1"])
    assert rooms.node.calls == 2


async def test_a_room_that_rests_goes_with_anothers_call(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_pace, "SUSTAINED_S", 60.0)
    busy, other = rooms.open("a"), rooms.open("b")
    for number in range(call_pace.IN_A_ROW):
        busy.send(key_frame(number))
        await until(lambda: rooms.node.calls == number + 1, 5, "at once", 0.005)  # noqa: B023
    busy.send(key_frame("rests"))
    await until(lambda: busy._rest is not None, 5, "the node has been called often", 0.005)
    other.send(key_frame("awaited"))
    await _told(other)
    assert sorted(rooms.applied()[-2:]) == ["arests", "bawaited"]
    assert rooms.node.calls == call_pace.IN_A_ROW + 1


async def test_one_rooms_fault_is_not_anothers(rooms: Rooms) -> None:
    rooms.node.held["b"] = node_pb2.RoomHeld(room_id="b", epoch=9, controller_id="gw-2")
    rooms.node.respond = lambda request: node_pb2.ApplyResponse(
        results=[
            node_pb2.CommandResult(error="no such track" if request.room_id == "c" else "")
            for _ in request.commands
        ]
    )
    queues = [rooms.open(name) for name in "abc"]
    for queue in queues:
        queue.send(key_frame(1))
    await _told(*queues)
    assert rooms.node.calls == 1
    assert rooms.ended == ["b: FAILED_PRECONDITION"], "the node obeys another gateway there"
    assert rooms.refused == ["c: no such track"]
    queues[0].send(key_frame(2))
    await _told(queues[0])
    assert rooms.applied()[-1] == "a2"


async def test_a_node_that_knows_no_batches_is_called_for_each_room(rooms: Rooms) -> None:
    rooms.node.is_old = True
    queues = [rooms.open(name) for name in "abc"]
    for number in range(2):
        for queue in queues:
            queue.send(key_frame(number))
        await _told(*queues)
    assert sorted(rooms.applied()) == ["a0", "a1", "b0", "b1", "c0", "c1"]
    assert rooms.node.calls == 1 + 6, "it is asked once whether it knows them"
    assert rooms.ended == []


async def test_a_call_carries_no_more_than_so_many_rooms_and_bytes(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "MAX_ROOMS", 2)
    queues = [rooms.open(name) for name in "abcde"]
    for queue in queues:
        queue.send(key_frame(0))
    await _told(*queues)
    assert (rooms.node.calls, len(rooms.applied())) == (3, 5)
    monkeypatch.setattr(batches, "MAX_ROOMS", 64)
    monkeypatch.setattr(batches, "MAX_BYTES", 1500)
    for queue in queues:
        queue.send(key_frame("x" * 600))
    await _told(*queues)
    assert rooms.node.calls == 3 + 3


async def test_a_node_that_takes_no_call_fails_every_room_of_it(rooms: Rooms) -> None:
    rooms.node.refuse_with = grpc.StatusCode.UNAVAILABLE
    queues = [rooms.open(name) for name in "ab"]
    for queue in queues:
        queue.send(key_frame(0))
    await _told(*queues)
    assert sorted(rooms.ended) == ["a: UNAVAILABLE", "b: UNAVAILABLE"]
