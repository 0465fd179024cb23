"""The agent over real gRPC and HTTP, with an engine that has no media."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import ip_address

import aiohttp
import grpc
import grpc.aio
import pytest
from headwater_api import wellknown
from headwater_api.nodev1 import node_pb2, node_pb2_grpc
from headwater_sfu import agent as agent_module
from headwater_sfu.agent import Agent
from headwater_sfu.config import NodeConfig
from headwater_sfu.engine import EngineModule
from support.deadline import until
from support.fake_engine import FakeEngine, StaleEpoch
from support.processes import loopback_address

TOKEN = "t" * 32


@dataclass
class Node:
    """A running agent, its engine, and how to reach both."""

    engine: FakeEngine
    host: str
    task: asyncio.Task[None]
    channel: grpc.aio.Channel

    @property
    def stub(self) -> "node_pb2_grpc.NodeAsyncStub":
        return node_pb2_grpc.NodeStub(self.channel)  # type: ignore[return-value]

    async def get(self, path: str) -> tuple[int, str]:
        url = f"http://{self.host}:{wellknown.PORT_ADMIN}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status, await response.text()


def bearer(token: str = TOKEN) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    engines: list[FakeEngine] = []

    def factory(**kwargs: object) -> FakeEngine:
        engines.append(FakeEngine(**kwargs))  # type: ignore[arg-type]
        return engines[-1]

    host = loopback_address()
    config = NodeConfig("node-1", "eu", "demo", ip_address(host), TOKEN, 50, drain_grace_s=5.0)
    task = asyncio.create_task(Agent(config, EngineModule(factory, StaleEpoch)).run())
    channel = grpc.aio.insecure_channel(f"{host}:{wellknown.PORT_NODE_GRPC}")
    await asyncio.wait_for(channel.channel_ready(), 10)
    yield Node(engines[0], host, task, channel)
    await channel.close()
    if not task.done():
        engines[0].connections = 0
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(task, 10)


async def test_a_call_without_the_token_is_refused_and_with_it_answered(node: Node) -> None:
    for metadata in ([], bearer("wrong"), [("authorization", TOKEN)]):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await node.stub.Info(node_pb2.InfoRequest(), metadata=metadata, timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    info = await node.stub.Info(node_pb2.InfoRequest(), metadata=bearer(), timeout=5)
    assert (info.node_id, info.region, info.max_connections) == ("node-1", "eu", 50)
    assert node.engine.bind == [f"{node.host}:{wellknown.PORT_MEDIA}"]


async def test_a_stream_without_the_token_is_refused(node: Node) -> None:
    call = node.stub.Watch(node_pb2.WatchRequest(), timeout=5)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_an_older_epoch_is_a_failed_precondition(node: Node) -> None:
    command = node_pb2.Command(close_room=node_pb2.CloseRoom())
    answer = await node.stub.Apply(
        node_pb2.ApplyRequest(room_id="r", epoch=2, commands=[command]), metadata=bearer(), timeout=5
    )
    assert len(answer.results) == 1
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await node.stub.Apply(node_pb2.ApplyRequest(room_id="r", epoch=1), metadata=bearer(), timeout=5)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "epoch 2" in (caught.value.details() or "")


def _for_rooms(*rooms: tuple[str, int]) -> node_pb2.ApplyBatchRequest:
    command = node_pb2.Command(close_room=node_pb2.CloseRoom())
    requests = [node_pb2.ApplyRequest(room_id=room, epoch=epoch, commands=[command]) for room, epoch in rooms]
    return node_pb2.ApplyBatchRequest(requests=requests)


async def test_rooms_of_one_call_are_answered_each_by_itself(node: Node) -> None:
    node.engine.epochs["b"] = 2
    batch = _for_rooms(("a", 1), ("b", 1), ("c", 1))
    answer = await node.stub.ApplyBatch(batch, metadata=bearer(), timeout=5)
    stale = grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert [outcome.code for outcome in answer.outcomes] == [0, stale, 0]
    assert "epoch 2" in answer.outcomes[1].details
    assert [len(outcome.response.results) for outcome in answer.outcomes] == [1, 0, 1]
    assert node.engine.epochs == {"a": 1, "b": 2, "c": 1}


async def test_where_the_engine_is_gone_no_room_of_a_call_waits_for_it(node: Node) -> None:
    node.engine.broken = True
    batch = _for_rooms(("a", 1), ("b", 1), ("c", 1))
    answer = await node.stub.ApplyBatch(batch, metadata=bearer(), timeout=5)
    gone = grpc.StatusCode.UNAVAILABLE.value[0]
    assert [outcome.code for outcome in answer.outcomes] == [gone, gone, gone]
    assert node.engine.asked == 1


async def test_garbage_is_an_invalid_argument_and_the_node_goes_on(node: Node) -> None:
    for method in ("Apply", "ApplyBatch", "SetDraining"):
        raw = node.channel.unary_unary(f"/headwater.node.v1.Node/{method}")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await raw(b"\xff\xff\xff", metadata=bearer(), timeout=5)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    await node.stub.Info(node_pb2.InfoRequest(), metadata=bearer(), timeout=5)


async def test_watch_gives_a_report_the_resync_and_only_its_own_events(node: Node) -> None:
    call = node.stub.Watch(node_pb2.WatchRequest(controller_id="gw-a"), metadata=bearer(), timeout=10)
    rooms: list[str] = []
    reports = 0
    first = await call.read()
    node.engine.emit("gw-b", "not-ours")
    node.engine.emit("gw-a", "ours")
    message = first
    while reports < 2 or "ours" not in rooms:
        rooms += [event.room_id for event in message.events]
        reports += message.HasField("report")
        message = await call.read()
    assert rooms == ["resync", "ours"]
    assert node.engine.resynced == ["gw-a"]
    call.cancel()


async def test_a_thousand_events_at_once_all_arrive_in_batches(node: Node) -> None:
    call = node.stub.Watch(node_pb2.WatchRequest(controller_id="gw-a"), metadata=bearer(), timeout=10)
    await call.read()
    node.engine.emit("gw-a", "burst", count=1000)
    seen = 0
    while seen < 1000:
        message = await call.read()
        seen += sum(event.room_id == "burst" for event in message.events)
    assert seen == 1000
    call.cancel()


async def test_a_slow_watcher_is_dropped_and_another_sees_everything(node: Node) -> None:
    slow = node.stub.Watch(node_pb2.WatchRequest(controller_id="slow"), metadata=bearer(), timeout=30)
    await slow.read()
    quick = node.stub.Watch(node_pb2.WatchRequest(controller_id="quick"), metadata=bearer(), timeout=30)
    await quick.read()
    # More than the transport's window and the watcher's queue take together, and nobody reads.
    node.engine.emit("slow", "x" * 400, count=20_000)
    node.engine.emit("quick", "mark")
    while not any(event.room_id == "mark" for event in (await quick.read()).events):
        pass
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        while await slow.read() is not grpc.aio.EOF:
            pass
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    quick.cancel()


async def test_draining_fails_readiness_and_can_be_undone(node: Node) -> None:
    assert (await node.get("/readyz"))[0] == 200
    await node.stub.SetDraining(
        node_pb2.SetDrainingRequest(draining=True, reason="test"), metadata=bearer(), timeout=5
    )
    assert node.engine.draining
    assert (await node.get("/readyz"))[0] == 503
    assert (await node.get("/healthz"))[0] == 200
    assert json.loads((await node.get("/status.json"))[1])["draining"] is True
    await node.stub.SetDraining(node_pb2.SetDrainingRequest(), metadata=bearer(), timeout=5)
    assert (await node.get("/readyz"))[0] == 200


async def test_the_report_says_on_which_terms_the_node_drains(node: Node) -> None:
    order = node_pb2.SetDrainingRequest(draining=True, reason="scale-down", move_rate=7, deadline_ms=123)
    for _ in range(2):  # an order may come again, after a restart of the operator
        await node.stub.SetDraining(order, metadata=bearer(), timeout=5)
    call = node.stub.Watch(node_pb2.WatchRequest(), metadata=bearer(), timeout=10)
    report = (await call.read()).report
    assert report.draining
    assert (report.drain.reason, report.drain.move_rate, report.drain.deadline_ms) == ("scale-down", 7, 123)
    await node.stub.SetDraining(node_pb2.SetDrainingRequest(), metadata=bearer(), timeout=5)
    report = (await call.read()).report
    assert not report.draining and not report.HasField("drain")
    call.cancel()


async def test_standing_media_fails_readiness_not_health(node: Node) -> None:
    node.engine.stalled_ms = 60_000

    async def unready() -> bool:
        return (await node.get("/readyz"))[0] == 503

    await until(unready, 10, "readiness fails while the media thread stands still")
    assert (await node.get("/healthz"))[0] == 200


async def test_status_and_metrics_show_the_report(node: Node) -> None:
    status = json.loads((await node.get("/status.json"))[1])
    assert status["pid"] == os.getpid()
    assert status["links"][0]["tx_tracks"] == 3
    assert int(status["rss_bytes"]) > 1_000_000
    code, text = await node.get("/metrics")
    assert code == 200
    assert 'headwater_sfu_link_transmit_tracks{peer="peer"} 3.0' in text
    assert 'headwater_sfu_drops_total{reason="unknown_ssrc"} 7.0' in text


async def test_the_admin_port_answers_bad_requests_plainly(node: Node) -> None:
    assert (await node.get("/nothing"))[0] == 404
    for request, status in (
        (b"POST /healthz HTTP/1.1\r\n\r\n", b"405"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /" + b"x" * 20_000, b"431"),
    ):
        reader, writer = await asyncio.open_connection(node.host, wellknown.PORT_ADMIN)
        writer.write(request)
        assert (await asyncio.wait_for(reader.readline(), 5)).split()[1] == status
        writer.close()
    assert (await node.get("/healthz"))[0] == 200


async def test_a_silent_engine_fails_readiness_not_health(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_module, "REPORT_STALE_S", 1.5)
    node.engine.broken = True

    async def unready() -> bool:
        return (await node.get("/readyz"))[0] == 503

    await until(unready, 10, "readiness fails once reports stop")
    assert (await node.get("/healthz"))[0] == 200
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await node.stub.Apply(node_pb2.ApplyRequest(room_id="r", epoch=1), metadata=bearer(), timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    node.engine.broken = False


async def test_sigterm_drains_then_stops_when_the_last_connection_goes(node: Node) -> None:
    node.engine.connections = 1
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: node.engine.draining, 5, "the engine drains")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await node.stub.SetDraining(node_pb2.SetDrainingRequest(), metadata=bearer(), timeout=5)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION, "its Pod ends: no way back"
    assert (await node.get("/readyz"))[0] == 503
    assert (await node.get("/healthz"))[0] == 200
    assert not node.task.done()
    node.engine.connections = 0
    node.engine.linked = True
    call = node.stub.Watch(node_pb2.WatchRequest(), metadata=bearer(), timeout=10)
    drain = (await call.read()).report.drain
    assert drain.reason and drain.deadline_ms > drain.since_ms and drain.move_rate >= 10
    call.cancel()
    assert not node.task.done(), "media of others passes through it"
    node.engine.linked = False
    await asyncio.wait_for(node.task, 5)
    assert node.engine.closed


async def test_rooms_tells_a_successor_who_had_them_and_the_newest_snapshot(node: Node) -> None:
    for version, blob in ((2, b"two"), (1, b"one")):
        put = node_pb2.Command(put_snapshot=node_pb2.PutSnapshot(version=version, blob=blob))
        await node.stub.Apply(
            node_pb2.ApplyRequest(room_id="r", epoch=5, controller_id="gw-a", lease_ms=9000, commands=[put]),
            metadata=bearer(),
            timeout=5,
        )
    request = node_pb2.RoomsRequest(room_ids=["r", "unknown"], with_blobs=True)
    answer = await node.stub.Rooms(request, metadata=bearer(), timeout=5)
    assert len(answer.rooms) == 1
    held = answer.rooms[0]
    assert (held.epoch, held.controller_id, held.snapshot_version) == (5, "gw-a", 2)
    assert held.snapshot == b"two" and held.lease_left_ms > 0
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await node.channel.unary_unary("/headwater.node.v1.Node/Rooms")(b"\xff", metadata=bearer(), timeout=5)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_data_that_a_rooms_gateway_may_not_have_read_goes_to_the_next_first_and_in_order(
    node: Node,
) -> None:
    async def apply(controller: str, epoch: int) -> None:
        request = node_pb2.ApplyRequest(room_id="r", epoch=epoch, controller_id=controller)
        await node.stub.Apply(request, metadata=bearer(), timeout=5)

    async def watch(controller: str) -> AsyncIterator[tuple[str, bool]]:
        request = node_pb2.WatchRequest(controller_id=controller)
        async for response in node.stub.Watch(request, metadata=bearer(), timeout=20):
            for event in response.events:
                if event.HasField("data"):
                    yield event.data.payload.decode(), event.data.replayed

    await apply("gw-a", 1)
    old, new = watch("gw-a"), watch("gw-b")
    first = asyncio.ensure_future(anext(old))
    await until(lambda: "gw-a" in node.engine.resynced, 5, "the old gateway watches")
    node.engine.say("gw-a", "r", "heard")
    assert await asyncio.wait_for(first, 5) == ("heard", False)
    heard = [asyncio.ensure_future(anext(new))]
    await until(lambda: "gw-b" in node.engine.resynced, 5, "the new gateway watches")
    node.engine.say("gw-a", "r", "on its way")  # the old gateway hangs: its stream still stands
    await apply("gw-b", 2)
    node.engine.say("gw-b", "r", "new")
    found = [await asyncio.wait_for(heard[0], 5)]
    found += [await asyncio.wait_for(anext(new), 5) for _ in range(2)]
    assert found == [("heard", True), ("on its way", True), ("new", False)]
    await apply("gw-b", 2)
    node.engine.say("gw-b", "r", "once each")
    assert await asyncio.wait_for(anext(new), 5) == ("once each", False)
    await old.aclose()
    await new.aclose()
