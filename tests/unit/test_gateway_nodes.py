"""The node pool (coming up, dying, freezing, false alarms) and the command queue (order, patience)."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import grpc
import pytest
from headwater_api.ids import GatewayId, NodeId, RegionName, RoomId
from headwater_api.nodev1 import node_pb2
from headwater_gateway.backoff import Backoff
from headwater_gateway.nodes import call_pace, commands
from headwater_gateway.nodes.call_pace import CallPace
from headwater_gateway.nodes.commands import ATTEMPTS, MAX_PENDING, CommandQueue
from headwater_gateway.nodes.facts import NodeFacts, NodePod, Promises, node_view
from headwater_gateway.nodes.pool import NodePool
from headwater_gateway.nodes.turns import Turns
from support.deadline import until
from support.fake_node import FakeNode, serving


class Listener:
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.up: list[str] = []
        self.lost: list[tuple[str, str]] = []
        self.events: list[tuple[str, node_pb2.Event]] = []

    def on_node_up(self, facts: NodeFacts) -> None:
        self.up.append(f"{facts.node_id}/{facts.incarnation}")

    def on_node_lost(self, node_id: NodeId, why: str) -> None:
        self.lost.append((node_id, why))

    def on_node_event(self, node_id: NodeId, event: node_pb2.Event) -> None:
        self.events.append((node_id, event))


class Setup:
    """A pool and its listener."""

    def __init__(self) -> None:
        self.heard = Listener()
        self.pool = NodePool("token", GatewayId("gw"), self.heard)

    def see(self, node: FakeNode, *external: str) -> None:
        self.pool.pod_seen(
            NodePod(NodeId(node.node_id), RegionName(node.region), node.address, external=external)
        )


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    made = Setup()
    try:
        yield made
    finally:
        await made.pool.aclose(0.5)


async def test_a_node_comes_up_and_its_events_are_heard(setup: Setup) -> None:
    node = FakeNode("eu-1", with_token="token", max_connections=50)
    async with serving(node):
        setup.see(node)
        await until(lambda: setup.heard.up, 15, "the node is up", 0.01)
        await until(lambda: node.watchers == ["gw"], 15, "it is watched", 0.01)
        node.set_rooms({"demo": 3})
        await until(lambda: setup.pool.views()[0].connections == 6, 15, "its load is known", 0.01)
        assert setup.pool.views()[0].max_connections == 50
        node.emit(node_pb2.Event(room_id="demo", room_closed=node_pb2.RoomClosed(reason="x")))
        await until(lambda: setup.heard.events, 15, "its event is heard", 0.01)


async def test_a_wrong_token_never_counts_as_up(setup: Setup) -> None:
    node = FakeNode("eu-1", with_token="another")
    async with serving(node):
        setup.see(node)
        await until(lambda: node.refused >= 2, 15, "it is asked again", 0.01)
        assert setup.heard.up == [] and setup.pool.views() == ()


async def test_who_stood_itself_finds_no_node_silent() -> None:
    stood_s, heard = 0.0, Listener()
    pool = NodePool("token", GatewayId("gw"), heard, clock=lambda: time.monotonic() + stood_s)
    node = FakeNode("eu-1", with_token="token")
    try:
        async with serving(node):
            pool.pod_seen(NodePod(NodeId("eu-1"), RegionName("eu"), node.address))
            await until(pool.reports, 15, "the node speaks", 0.01)
            stood_s = 60.0  # as if this process had been stopped for a minute
            assert pool.views()[0].report_age_s < 5, "nobody could hear it meanwhile"
            node.emit(node_pb2.Event(room_id="demo", room_closed=node_pb2.RoomClosed(reason="x")))
            await until(lambda: heard.events, 15, "its event is heard", 0.01)
            assert (node.opened, heard.lost) == (1, []), "its stream is the same"
    finally:
        await pool.aclose(0.5)


async def test_a_dead_process_is_lost_at_once_and_comes_back_anew(setup: Setup) -> None:
    node = FakeNode("eu-1", with_token="token")
    async with serving(node):
        setup.see(node)
        await until(lambda: node.watchers, 15, "watched", 0.01)
        port = int(node.address.rpartition(":")[2])
        died = asyncio.get_running_loop().time()
    await until(lambda: setup.heard.lost, 15, "lost", 0.01)
    assert asyncio.get_running_loop().time() - died < 1.5
    assert setup.pool.views() == () and setup.pool.facts(NodeId("eu-1")) is None
    again = FakeNode("eu-1", with_token="token", incarnation="2")
    async with serving(again, port=port):
        await until(lambda: "eu-1/2" in setup.heard.up, 15, "up again", 0.01)


async def test_a_restart_between_two_looks_is_a_death(setup: Setup) -> None:
    node = FakeNode("eu-1", with_token="token")
    async with serving(node):
        setup.see(node)
        await until(lambda: node.watchers, 15, "watched", 0.01)
        node.incarnation = "2"
        node.silent = True
        await until(lambda: setup.heard.lost, 6, "lost", 0.01)
        await until(lambda: len(setup.heard.up) == 2, 15, "up as another incarnation", 0.01)


async def test_pod_gone_is_the_nodes_end(setup: Setup) -> None:
    node = FakeNode("eu-1", with_token="token")
    async with serving(node):
        setup.see(node)
        await until(lambda: setup.heard.up, 15, "up", 0.01)
        setup.pool.pod_gone(NodeId("eu-1"))
        assert setup.heard.lost == [("eu-1", "its Pod is gone")]
        await until(lambda: not node.watchers, 15, "no longer watched", 0.01)


async def test_promises_count_until_the_node_reports_them(setup: Setup) -> None:
    node = FakeNode("eu-1", with_token="token")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(serving(node))
        setup.see(node)
        await until(setup.pool.views, 15, "up", 0.01)
        setup.pool.promise(NodeId("eu-1"))
        assert setup.pool.views()[0].connections == 2


def test_promises_lapse() -> None:
    facts = NodeFacts(NodeId("n"), RegionName("eu"), "1", ("127.0.0.1:1",), "sha-256 AB", 100)
    report = node_pb2.NodeReport(connections=10, draining=True)
    promises = Promises()
    for at in (100.0, 103.0):
        promises.add(at)
    assert promises.count(103.0) == 2
    view = node_view(facts, report, 0.5, promises.count(105.0))
    assert (view.connections, view.max_connections, view.draining) == (12, 100, True)


async def test_an_external_address_that_comes_later_is_told_and_nothing_else_changes(setup: Setup) -> None:
    node = FakeNode("eu-1", with_token="token", media_address="10.244.0.5:7882")
    async with serving(node):
        setup.see(node)
        facts = await until(lambda: setup.pool.facts(NodeId("eu-1")), 15, "up", 0.01)
        assert facts.client_addresses == ("10.244.0.5:7882",)
        setup.see(node, "203.0.113.7:30123")
        told = setup.pool.facts(NodeId("eu-1"))
        assert told is not None
        assert told.client_addresses == ("203.0.113.7:30123", "10.244.0.5:7882")
        assert told.media_addresses == facts.media_addresses, "relay links stay inside"
        assert not setup.heard.lost


def test_node_info_that_cannot_be_used_names_the_field() -> None:
    info = node_pb2.NodeInfo(node_id="n", region="eu", incarnation="1", dtls_fingerprint="sha-256 AB")
    with pytest.raises(ValueError, match="media_addresses"):
        NodeFacts.of(info)


def test_backoff_grows_stays_bounded_and_never_is_zero() -> None:
    backoff = Backoff(random.Random(1), first=0.1, cap=2.0)
    delays = [backoff.next() for _ in range(20)]
    assert all(0.05 <= d <= 2.0 for d in delays) and delays[-1] >= 1.0
    backoff.reset()
    assert backoff.next() <= 0.1


class Stub:
    """An Applier that can be held up and can fail."""

    def __init__(self) -> None:
        self.requests: list[node_pb2.ApplyRequest] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failures: list[grpc.StatusCode] = []
        self.error = ""

    async def apply(self, request: node_pb2.ApplyRequest, deadline_s: float) -> node_pb2.ApplyResponse:
        await self.gate.wait()
        self.requests.append(request)
        if self.failures:
            empty = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(self.failures.pop(0), empty, empty, "scripted")
        return node_pb2.ApplyResponse(
            results=[node_pb2.CommandResult(error=self.error) for _ in request.commands]
        )


class Queue:
    """A command queue over the stub, and what it reported."""

    def __init__(self) -> None:
        self.stub = Stub()
        self.audio_top_n = 3
        self.failed: list[str] = []
        self.refused: list[str] = []
        self.stale: list[str] = []
        self.stored: list[int] = []
        self.queue = CommandQueue(
            NodeId("n"),
            room_id=RoomId("demo"),
            epoch=7,
            controller_id=GatewayId("gw"),
            applier=self.stub,
            turns=Turns(),
            audio_top_n=lambda: self.audio_top_n,
            on_failed=self.failed.append,
            on_refused=lambda command, error: self.refused.append(error),
            on_stale=self.stale.append,
            on_stored=self.stored.append,
            rng=random.Random(1),
        )

    def send(self, *numbers: int) -> None:
        self.queue.send(
            node_pb2.Command(request_key_frame=node_pb2.RequestKeyFrame(track_id=str(n))) for n in numbers
        )

    def applied(self) -> list[int]:
        return [int(c.request_key_frame.track_id) for r in self.stub.requests for c in r.commands]


async def test_commands_keep_their_order_and_are_batched() -> None:
    made = Queue()
    made.stub.gate.clear()
    run = asyncio.create_task(made.queue.run())
    made.send(1)
    await asyncio.sleep(0)
    made.send(2)
    made.send(3, 4)
    made.stub.gate.set()
    made.queue.close()
    await asyncio.wait_for(run, 2)
    assert made.applied() == [1, 2, 3, 4]
    assert len(made.stub.requests) == 2
    assert {(r.room_id, r.epoch, r.controller_id) for r in made.stub.requests} == {("demo", 7, "gw")}


async def test_each_call_tells_how_many_are_heard_now() -> None:
    made = Queue()
    run = asyncio.create_task(made.queue.run())
    made.send(1)
    await asyncio.wait_for(made.queue.carried_out(), 2)
    made.audio_top_n = 0
    made.send(2)
    made.queue.close()
    await asyncio.wait_for(run, 2)
    assert [r.audio_top_n for r in made.stub.requests] == [3, 0]


async def test_what_follows_a_rooms_end_goes_in_a_call_of_its_own() -> None:
    """Nodes refuse what comes after it in the same one."""
    made = Queue()
    made.queue.store(node_pb2.PutSnapshot(version=1))  # of the room that ends
    made.queue.send([node_pb2.Command(close_room=node_pb2.CloseRoom())])
    made.send(1)
    made.queue.store(node_pb2.PutSnapshot(version=2))
    made.queue.close()
    await asyncio.wait_for(made.queue.run(), 2)
    kinds = [[c.WhichOneof("command") for c in r.commands] for r in made.stub.requests]
    assert kinds == [["close_room"], ["request_key_frame", "put_snapshot"]]
    assert made.stored == [2]


async def test_what_follows_on_the_heels_of_a_call_is_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_pace, "BETWEEN_S", 0.2)
    made = Queue()
    run = asyncio.create_task(made.queue.run())
    made.send(1)
    await made.queue.carried_out()
    for number in (2, 3, 4):
        made.send(number)
        for _ in range(5):
            await asyncio.sleep(0)
    await asyncio.wait_for(made.queue.carried_out(), 2)
    made.queue.close()
    await asyncio.wait_for(run, 2)
    assert [len(r.commands) for r in made.stub.requests] == [1, 3]


async def test_whoever_waits_for_a_nodes_commands_need_not_wait_for_the_pace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(call_pace, "SUSTAINED_S", 60.0)
    made = Queue()
    run = asyncio.create_task(made.queue.run())
    for number in range(call_pace.IN_A_ROW):
        made.send(number)
        await until(lambda: len(made.stub.requests) == number + 1, 5, "at once", 0.005)  # noqa: B023
    made.send(98)
    await until(lambda: made.queue._rest is not None, 15, "the next one rests", 0.005)
    made.send(99)
    await asyncio.wait_for(made.queue.carried_out(), 2)
    made.queue.close()
    await asyncio.wait_for(run, 2)
    assert made.applied() == [*range(call_pace.IN_A_ROW), 98, 99]
    assert len(made.stub.requests) == call_pace.IN_A_ROW + 1


def test_a_busy_room_calls_its_node_at_a_steady_pace() -> None:
    pace, calls, now = CallPace(), list[float](), 100.0
    while now < 101.0:  # always something to say
        now += pace.wait(now, is_awaited=False)
        calls.append(now)
        pace.called(now)
    assert calls[: call_pace.IN_A_ROW] == pytest.approx([100.0, 100.01, 100.02, 100.03])
    assert len(calls) == pytest.approx(call_pace.IN_A_ROW + 1.0 / call_pace.SUSTAINED_S, abs=1)
    assert pace.wait(now, is_awaited=True) == pytest.approx(call_pace.BETWEEN_S)


async def test_the_end_of_transports_waits_for_the_next_call_but_not_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commands, "LAZY_S", 30.0)
    made = Queue()
    run = asyncio.create_task(made.queue.run())
    ends = [node_pb2.Command(close_transport=node_pb2.CloseTransport(transport_id=t)) for t in "abc"]
    made.queue.send(ends[:1])
    for _ in range(20):
        await asyncio.sleep(0)
    assert not made.stub.requests, "nobody waits for it"
    made.send(1)
    await until(lambda: [len(r.commands) for r in made.stub.requests] == [2], 15, "both, in order", 0.01)
    assert made.stub.requests[0].commands[0].HasField("close_transport")
    made.queue.send(ends[1:2])
    await asyncio.wait_for(made.queue.carried_out(), 2)
    monkeypatch.setattr(commands, "LAZY_S", 0.01)
    made.queue.send(ends[2:])
    await until(lambda: len(made.stub.requests) == 3, 5, "by itself", 0.01)
    made.queue.send(ends[:1])
    made.queue.close()
    await asyncio.wait_for(run, 2)
    assert [len(r.commands) for r in made.stub.requests] == [2, 1, 1, 1]


async def test_a_hiccup_is_retried_and_a_standing_fault_reported_once() -> None:
    made = Queue()
    made.stub.failures = [grpc.StatusCode.UNAVAILABLE]
    run = asyncio.create_task(made.queue.run())
    made.send(1)
    await until(lambda: made.stub.requests[1:], 15, "a second attempt", 0.01)
    made.stub.failures = [grpc.StatusCode.DEADLINE_EXCEEDED] * ATTEMPTS
    made.send(2)
    await asyncio.wait_for(run, 5)
    assert len(made.failed) == 1 and "DEADLINE_EXCEEDED" in made.failed[0]
    made.send(3)
    assert len(made.failed) == 1


async def test_an_old_epoch_is_not_retried() -> None:
    made = Queue()
    made.stub.failures = [grpc.StatusCode.FAILED_PRECONDITION]
    run = asyncio.create_task(made.queue.run())
    made.send(1)
    await asyncio.wait_for(run, 2)
    assert len(made.stub.requests) == 1
    assert (made.failed, len(made.stale)) == ([], 1)


async def test_refused_commands_are_told_and_overflow_gives_up() -> None:
    made = Queue()
    made.stub.error = "no such transport"
    run = asyncio.create_task(made.queue.run())
    made.send(1)
    await until(lambda: made.refused == ["no such transport"], 15, "the refusal is told", 0.01)
    made.stub.gate.clear()
    made.send(*range(MAX_PENDING + 2))
    assert len(made.failed) == 1
    made.stub.gate.set()
    await asyncio.wait_for(run, 2)


async def test_who_asks_is_told_when_the_node_has_its_commands() -> None:
    made = Queue()
    made.stub.gate.clear()
    run = asyncio.create_task(made.queue.run())
    assert made.queue.carried_out().done(), "nothing was waiting"
    made.send(1, 2)
    first = made.queue.carried_out()
    await until(lambda: not made.queue._pending, 15, "they are on their way", 0.01)
    assert not first.done()
    made.send(3)
    second = made.queue.carried_out()
    made.stub.gate.set()
    await asyncio.wait_for(asyncio.gather(first, second), 3)
    assert made.applied() == [1, 2, 3]
    made.stub.gate.clear()
    made.send(4)
    third = made.queue.carried_out()
    made.queue.abandon()
    await asyncio.wait_for(third, 3)
    made.stub.gate.set()
    await asyncio.wait_for(run, 3)
