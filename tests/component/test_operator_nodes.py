"""Report streams to SFU nodes: what is heard, what is held, and what a broken node costs."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from random import Random

import pytest
from headwater_api.nodev1 import node_pb2
from headwater_operator.metrics import Metrics
from headwater_operator.nodes import watch
from headwater_operator.nodes.inbox import Change, Inbox, NodeKey, load_of
from headwater_operator.nodes.watch import NodeStreams, NodeUnreachable, Target
from support.deadline import until
from support.fake_node import FakeNode, serving

KEY: NodeKey = ("ns", "n1")
TOKEN = "t0ken"


def report(rooms: dict[str, int], **figures: object) -> node_pb2.NodeReport:
    message = node_pb2.NodeReport(node_id="n1", region="eu", **figures)  # type: ignore[arg-type]
    message.rooms.extend(node_pb2.RoomReport(room_id=name, participants=n) for name, n in rooms.items())
    return message


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class TestInbox:
    def setup_method(self) -> None:
        self.clock, self.changes = Clock(), list[Change]()
        self.inbox = Inbox(monotonic=self.clock, on_change=self.changes.append)

    def put(self, rooms: dict[str, int], uid: str = "u1", **figures: object) -> None:
        self.inbox.put(KEY, uid, load_of(report(rooms, **figures)))

    def test_a_report_ages_and_is_not_forgotten(self) -> None:
        self.put({"r": 2}, forward_p95_us=1500.0)
        self.clock.now += 3600
        load = self.inbox.get(KEY, "u1")
        assert load is not None
        assert (load.age_s, load.fresh, load.rooms[0].participants, load.p95_ms) == (3600, False, 2, 1.5)

    def test_a_successor_of_the_same_name_does_not_inherit(self) -> None:
        self.put({"r": 2})
        assert self.inbox.get(KEY, "u2") is None

    def test_only_news_about_rooms_wake_at_once(self) -> None:
        self.put({"a": 1, "b": 2})
        self.put({"a": 1, "b": 2}, cpu_percent=55.0)
        self.put({"a": 1, "b": 3})
        assert [change.rooms for change in self.changes] == [{"a", "b"}, {"b"}]

    def test_a_room_that_vanished_is_news(self) -> None:
        self.put({"a": 1})
        self.put({})
        assert self.changes[-1].rooms == {"a"}

    def test_a_node_that_speaks_again_is_news(self) -> None:
        self.put({"a": 1})
        self.clock.now += 60
        self.put({"a": 1})
        assert len(self.changes) == 2

    def test_a_node_that_is_gone_takes_its_rooms_with_it(self) -> None:
        self.put({"a": 1})
        self.inbox.forget(KEY)
        assert self.inbox.get(KEY, "u1") is None
        assert self.changes[-1] == Change(KEY, frozenset({"a"}))


@pytest.fixture
async def node() -> AsyncIterator[FakeNode]:
    async with serving(FakeNode("n1", with_token=TOKEN)) as served:
        yield served


@pytest.fixture
async def inbox() -> Inbox:
    return Inbox(monotonic=time.monotonic, on_change=lambda change: None)


@pytest.fixture
async def streams(inbox: Inbox) -> AsyncIterator[NodeStreams]:
    opened = NodeStreams(inbox, token=TOKEN, rng=Random(1), metrics=Metrics())
    yield opened
    await opened.close()


async def test_reports_arrive_and_the_cordon_goes_back(
    node: FakeNode, inbox: Inbox, streams: NodeStreams
) -> None:
    node.set_rooms({"r": 2})
    await streams.sync("fleet", {KEY: Target("u1", node.address)})
    load = await until(lambda: inbox.get(KEY, "u1"), 10, "a report")
    assert (load.participants, load.connections, load.draining) == (2, 4, False)
    assert node.watchers == [""], "reports only, no room's events"
    await streams.drain(KEY, "going away", datetime.now(UTC), 5.0)
    await until(
        lambda: (found := inbox.get(KEY, "u1")) and found.draining, 10, "the node says that it drains"
    )


async def test_a_pod_that_is_gone_is_not_listened_to(
    node: FakeNode, inbox: Inbox, streams: NodeStreams
) -> None:
    await streams.sync("fleet", {KEY: Target("u1", node.address)})
    await until(lambda: inbox.get(KEY, "u1"), 10, "a report")
    await streams.sync("other fleet", {})
    assert inbox.get(KEY, "u1") is not None, "another fleet's Pods are none of its business"
    await streams.sync("fleet", {})
    assert inbox.get(KEY, "u1") is None
    await until(lambda: not node.watchers, 10, "the stream ends")
    with pytest.raises(NodeUnreachable):
        await streams.drain(KEY, "x", datetime.now(UTC), 5.0)


async def test_a_node_that_restarts_is_heard_again(inbox: Inbox, streams: NodeStreams) -> None:
    async with serving(FakeNode("n1")) as first:
        port = int(first.address.rpartition(":")[2])
        await streams.sync("fleet", {KEY: Target("u1", first.address)})
        await until(lambda: inbox.get(KEY, "u1"), 10, "a report")
    again = FakeNode("n1")
    again.set_rooms({"after": 1})
    async with serving(again, port=port):
        await until(lambda: (found := inbox.get(KEY, "u1")) and found.rooms, 15, "the new one's report")


async def test_a_silent_node_is_dialled_again(
    node: FakeNode, inbox: Inbox, streams: NodeStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SILENCE_S", 0.3)
    node.silent = True
    await streams.sync("fleet", {KEY: Target("u1", node.address)})
    await until(lambda: node.opened > 1, 10, "a second stream")
    assert inbox.get(KEY, "u1") is None
    node.silent = False
    await until(lambda: inbox.get(KEY, "u1"), 15, "a report at last")


async def test_a_wrong_token_is_refused_and_shows_in_the_metrics(node: FakeNode, inbox: Inbox) -> None:
    metrics = Metrics()
    streams = NodeStreams(inbox, token="wrong", rng=Random(1), metrics=metrics)
    try:
        await streams.sync("fleet", {KEY: Target("u1", node.address)})
        await until(lambda: node.refused, 10, "a refusal")
        counted = {"outcome": "unauthenticated"}
        name = "headwater_operator_node_reports_total"
        await until(lambda: metrics.registry.get_sample_value(name, counted), 10, "it is counted")
        assert inbox.get(KEY, "u1") is None
    finally:
        await streams.close()


async def test_a_report_of_another_node_is_not_taken(inbox: Inbox) -> None:
    metrics = Metrics()
    streams = NodeStreams(inbox, token="", rng=Random(1), metrics=metrics)
    async with serving(FakeNode("somebody-else")) as other:
        await streams.sync("fleet", {KEY: Target("u1", other.address)})
        name = "headwater_operator_node_reports_total"
        await until(
            lambda: metrics.registry.get_sample_value(name, {"outcome": "wrong_node"}), 10, "it is counted"
        )
        assert inbox.get(KEY, "u1") is None
        await streams.close()
