"""Traces of a join over real HTTP and gRPC: one gateway, one agent, each with its own OpenTelemetry."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import aiohttp
import grpc
import pytest
from headwater_api.exporting import LAST_EXPORT_S
from headwater_api.ids import GatewayId, NodeId, ParticipantSid, RegionName, RoomId
from headwater_api.nodev1 import node_pb2
from headwater_api.reasons import Reason
from headwater_api.traces import APPLY, ENV_ENDPOINT, HEADER, NODE, OUTCOME, REASON, ROOM, room_hash
from headwater_api.wellknown import PORT_NODE_GRPC
from headwater_gateway import app, plane
from headwater_gateway.join_traces import GIVEN_UP_S, JoinTraces
from headwater_gateway.signal.types import GatewayPeer
from headwater_gateway.tracing import opened
from headwater_sfu.agent import Agent
from headwater_sfu.config import NodeConfig
from headwater_sfu.engine import EngineModule
from headwater_sfu.traces import NodeTraces
from livekit.protocol import rtc
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from support.deadline import until
from support.fake_channel import publisher_offer
from support.fake_engine import FakeEngine, StaleEpoch
from support.gateway_edge import NODE_TOKEN, FakePlane, edge_settings, running_edge, token
from support.processes import loopback_address

LEAVE = rtc.SignalRequest(leave=rtc.LeaveRequest()).SerializeToString()
ROOM_NAME, IDENTITY, NAME = "board-meeting", "alice@example.com", "Alice Liddell"


class Memory:
    """A provider, and the spans that have ended."""

    def __init__(self) -> None:
        self.provider = TracerProvider(shutdown_on_exit=False)
        self._exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]


@dataclass
class World:
    url: str
    engine: FakeEngine
    sid: str = ""

    @asynccontextmanager
    async def joined(self, query: str = "", **headers: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A client that has its JoinResponse and the first offer."""
        video = {"roomJoin": True, "room": ROOM_NAME}
        bearer = token(sub=IDENTITY, name=NAME, video=video)
        headers = {"Authorization": f"Bearer {bearer}", **headers}
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{self.url}/rtc?{query}", headers=headers) as client,
        ):
            frame = await asyncio.wait_for(client.receive_bytes(), 5)
            self.sid = rtc.SignalResponse.FromString(frame).join.participant.sid
            yield client

    async def connected(self) -> None:
        """The client's two transports are up, by the word of the engine."""
        for transport in (f"{self.sid}/pub", f"{self.sid}/sub"):
            await until(lambda t=transport: t in self.engine.transports, 5, f"{transport} is made")
            self.engine.transport_is("gateway", ROOM_NAME, transport, node_pb2.TRANSPORT_CONNECTED)


@asynccontextmanager
async def running(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    gateway: JoinTraces | None,
    node: NodeTraces | None,
) -> AsyncIterator[World]:
    """A gateway with one node, both in this process."""
    engines: list[FakeEngine] = []

    def factory(**kwargs: object) -> FakeEngine:
        engines.append(FakeEngine(**kwargs))  # type: ignore[arg-type]
        return engines[-1]

    host = loopback_address()
    config = NodeConfig("eu-1", "eu", "demo", ip_address(host), NODE_TOKEN, 50, drain_grace_s=0.0)
    agent = asyncio.create_task(Agent(config, EngineModule(factory, StaleEpoch), node).run())
    monkeypatch.setenv("HEADWATER_STATIC_NODES", f"eu-1=eu@{host}:{PORT_NODE_GRPC}")
    stop, ports = asyncio.Event(), dict[str, int]()
    settings = edge_settings(folder, region_override=True)
    serving = asyncio.create_task(
        app.run(settings, plane.open_plane, stop, lambda n, p: ports.update({n: p}), gateway)
    )
    try:
        await until(lambda: serving.done() or len(ports) == 2, 10, "the gateway listens")
        world = World(f"http://127.0.0.1:{ports['signal']}", engines[0])
        await until(lambda: _is_ready(ports["signal"]), 10, "the node is known")
        yield world
    finally:
        stop.set()
        await asyncio.wait_for(serving, 15)
        agent.cancel()
        await asyncio.gather(agent, return_exceptions=True)


async def _is_ready(port: int) -> bool:
    """Joins would be let in."""
    video = {"roomJoin": True, "room": "probe"}
    headers = {"Authorization": f"Bearer {token(video=video)}"}
    url = f"http://127.0.0.1:{port}/rtc/validate"
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        return answer.status == 200


def tree(spans: list[ReadableSpan], parent: int | None = None) -> set[tuple[str, ...]]:
    """The paths of names from the root to each span."""
    paths = set()
    for span in spans:
        if (span.parent.span_id if span.parent else None) == parent:
            assert span.context is not None
            paths |= {(span.name,), *((span.name, *path) for path in tree(spans, span.context.span_id))}
    return paths


async def one_join(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Memory, Memory, str]:
    """What gateway and node tell of a join until its client is connected, and the participant's id."""
    ours, its = Memory(), Memory()
    traces = JoinTraces(ours.provider), NodeTraces(its.provider)
    async with running(folder, monkeypatch, *traces) as world, world.joined():
        await world.connected()
        await until(lambda: ours.named("join") and len(its.named("connect")) == 2, 5, "the join's end")
        return ours, its, world.sid


async def test_a_join_is_one_trace_over_gateway_and_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, its, _ = await one_join(tmp_path, monkeypatch)
    (root,) = ours.named("join")
    spans = [span for span in (*ours.spans, *its.spans) if span.context.trace_id == root.context.trace_id]
    assert tree(spans) >= {
        ("join",),
        ("join", "validate token"),
        ("join", "find owner"),
        ("join", "check"),
        ("join", "room", "place"),
        ("join", "answer"),
        ("join", APPLY, APPLY),
        ("join", APPLY, APPLY, "connect"),
    }
    assert len(spans) == len(ours.spans) + len(its.spans), "nothing outside of it"
    assert root.attributes[OUTCOME] == "connected" and root.attributes[ROOM] == room_hash(ROOM_NAME)
    assert root.attributes["http.route"] == "/rtc" and root.status.status_code is StatusCode.UNSET
    (place,) = ours.named("place")
    assert place.attributes[NODE] == "eu-1"
    assert {span.attributes["headwater.data_channels"] for span in its.named("connect")} == {0, 2}
    for span in spans:
        assert root.start_time <= span.start_time <= span.end_time
    assert {span.attributes[ROOM] for span in its.named(APPLY)} == {room_hash(ROOM_NAME)}


async def test_spans_say_nothing_of_people_tokens_and_descriptions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, its, sid = await one_join(tmp_path, monkeypatch)
    told = "".join(span.to_json() for span in (*ours.spans, *its.spans))
    assert "place" in told and "eu-1" in told
    for secret in (ROOM_NAME, IDENTITY, NAME, sid, NODE_TOKEN, "eyJ", "ufrag", "fingerprint", "127.0.0.1"):
        assert secret not in told, secret


async def test_who_leaves_before_media_and_who_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = Memory()
    async with running(tmp_path, monkeypatch, JoinTraces(ours.provider), None) as world:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            async with world.joined(Authorization="Bearer nonsense"):
                pass
        (refused,) = ours.named("join")
        assert refused.attributes[OUTCOME] == "refused" and refused.attributes[REASON] == "TokenMalformed"
        assert refused.status.status_code is StatusCode.UNSET, "the client's fault"
        async with world.joined() as client:
            await client.send_bytes(LEAVE)
            await until(lambda: len(ours.named("join")) == 2, 5, "the join's end")
    gone = ours.named("join")[1]
    assert (gone.attributes[OUTCOME], gone.status.status_code) == ("left", StatusCode.ERROR)


async def test_a_whip_client_is_traced_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, its = Memory(), Memory()
    traces = JoinTraces(ours.provider), NodeTraces(its.provider)
    async with running(tmp_path, monkeypatch, *traces) as world:
        bearer = token(sub=IDENTITY, video={"roomJoin": True, "room": ROOM_NAME})
        headers = {"Authorization": f"Bearer {bearer}", "Content-Type": "application/sdp"}
        offer = publisher_offer(("audio", "mic"))
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{world.url}/whip/{ROOM_NAME}", data=offer, headers=headers) as answer,
        ):
            assert answer.status == 201, await answer.text()
            world.sid = answer.headers["Location"].rpartition("/")[2]
        transport = f"{world.sid}/pub"
        await until(lambda: transport in world.engine.transports, 5, "its transport is made")
        world.engine.transport_is("gateway", ROOM_NAME, transport, node_pb2.TRANSPORT_CONNECTED)
        await until(lambda: ours.named("join") and its.named("connect"), 5, "the join's end")
    (root,) = ours.named("join")
    assert (root.attributes["http.route"], root.attributes[OUTCOME]) == ("/whip", "connected")
    assert tree([*ours.spans, *its.spans]) >= {
        ("join", "validate token"),
        ("join", "room", "place"),
        ("join", "answer"),
        ("join", APPLY, APPLY, "connect"),
    }


async def test_what_a_client_says_of_traces_is_not_believed_and_a_resume_is_no_join(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = Memory()
    theirs = f"00-{'ab' * 16}-{'cd' * 8}-01"
    async with running(tmp_path, monkeypatch, JoinTraces(ours.provider), None) as world:
        async with world.joined(traceparent=theirs):
            await world.connected()
            await until(lambda: ours.named("join"), 5, "the join's end")
        async with world.joined(f"reconnect=1&sid={world.sid}x"):
            assert not world.sid, "a farewell"
    (root,) = ours.named("join")
    assert root.parent is None and root.context.trace_id != int("ab" * 16, 16)


async def test_a_join_that_another_gateway_passes_on_goes_on_in_its_trace(tmp_path: Path) -> None:
    first, second = Memory(), Memory()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    async with running_edge(tmp_path / "b", traces=JoinTraces(second.provider)) as owner:
        others = {"demo": GatewayPeer(GatewayId("b"), owner.url)}
        edge_plane = FakePlane(owners=others)
        async with (
            running_edge(tmp_path / "a", edge_plane, traces=JoinTraces(first.provider)) as edge,
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{edge.url}/rtc", headers={"Authorization": f"Bearer {token()}"}) as client,
        ):
            await asyncio.wait_for(client.receive_bytes(), 5)
            assert [span.attributes[OUTCOME] for span in first.named("join")] == ["passed on"]
        await until(lambda: second.named("join"), 5, "its part has ended")
    (passed,), (root,) = first.named("pass on"), second.named("join")
    assert root.parent is not None and root.parent.span_id == passed.context.span_id
    assert tree([*first.spans, *second.spans]) >= {("join", "pass on", "join", "validate token")}


async def test_a_node_that_refuses_commands_is_in_the_trace() -> None:
    ours = Memory()
    traces = JoinTraces(ours.provider)
    join = traces.begin("/rtc", None)
    assert join is not None
    join.about(RoomId("r"), RegionName("eu"), "geoip")
    join.placed(ParticipantSid("PA_1"), NodeId("n"), RegionName("eu"), Reason.PLACED_IN_REGION)
    given: list[dict[str, str]] = []

    async def refuse(
        request: node_pb2.ApplyRequest, deadline_s: float, more: tuple[tuple[str, str], ...]
    ) -> node_pb2.ApplyResponse:
        given.append(dict(more))
        raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())

    create = node_pb2.CreateTransport(transport_id="t", participant_id="PA_1")
    request = node_pb2.ApplyRequest(room_id="r", commands=[node_pb2.Command(create_transport=create)])
    node = traces.commands(NodeId("n"), refuse)
    with pytest.raises(grpc.aio.AioRpcError):
        await node.apply(request, 1.0)
    (call,) = ours.named(APPLY)
    assert (call.attributes["error.type"], call.status.status_code) == ("UNAVAILABLE", StatusCode.ERROR)
    assert given[0][HEADER].startswith(f"00-{call.context.trace_id:032x}-{call.context.span_id:016x}-")
    # A lease is renewed, and somebody else's transport is made: no part of the join.
    other = node_pb2.CreateTransport(transport_id="u", participant_id="PA_2")
    for commands in ([], [node_pb2.Command(create_transport=other)]):
        with pytest.raises(grpc.aio.AioRpcError):
            await node.apply(node_pb2.ApplyRequest(room_id="r", commands=commands), 1.0)
    assert given[1:] == [{}, {}] and len(ours.named(APPLY)) == 1
    # The link that the participant's node needs is.
    relay = node_pb2.Command(open_relay=node_pb2.OpenRelay(link_id="l"))
    with pytest.raises(grpc.aio.AioRpcError):
        await node.apply(node_pb2.ApplyRequest(room_id="r", commands=[relay]), 1.0)
    assert len(ours.named(APPLY)) == 2


def test_two_joins_in_one_call_are_linked() -> None:
    ours = Memory()
    traces = JoinTraces(ours.provider)
    request = node_pb2.ApplyRequest(room_id="r")
    for sid in ("PA_1", "PA_2"):
        join = traces.begin("/rtc", None)
        assert join is not None
        join.placed(ParticipantSid(sid), NodeId("n"), RegionName("eu"), Reason.PLACED_IN_REGION)
        create = node_pb2.CreateTransport(transport_id=sid, participant_id=sid)
        request.commands.add(create_transport=create)
    first, second = traces.calls(request, NodeId("n"))
    for span in (first, second):
        span.end()
    spans = {span.context.span_id: span for span in ours.named(APPLY)}
    linked = spans[second.get_span_context().span_id]
    assert [link.context.span_id for link in linked.links] == [first.get_span_context().span_id]
    assert first.get_span_context().trace_id != second.get_span_context().trace_id


def test_joins_that_nobody_ends_are_given_up() -> None:
    ours, now = Memory(), [0.0]
    traces = JoinTraces(ours.provider, clock=lambda: now[0])
    for number in range(2):
        join = traces.begin("/rtc", None)
        assert join is not None
        join.placed(ParticipantSid(f"PA_{number}"), NodeId("n"), RegionName("eu"), Reason.PLACED_IN_REGION)
        now[0] += GIVEN_UP_S / 2
    traces.begin("/rtc", None)
    assert [span.attributes[OUTCOME] for span in ours.named("join")] == ["no media"]
    traces.close()
    assert [span.attributes[OUTCOME] for span in ours.named("join")] == ["no media", "gateway stopped"]


@contextmanager
def hanging_collector() -> Iterator[tuple[str, list[socket.socket]]]:
    """An endpoint that takes connections and never answers."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        stop = threading.Event()

        def accept() -> None:
            while not stop.is_set():
                with suppress(TimeoutError):
                    taken.append(server.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", taken
        finally:
            stop.set()
            thread.join()
            for connection in taken:
                connection.close()


async def test_a_collector_that_hangs_touches_no_join(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hanging_collector() as (endpoint, taken):
        env = {
            ENV_ENDPOINT: endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "20",
            "OTEL_BSP_MAX_QUEUE_SIZE": "8",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4",
            "OTEL_EXPORTER_OTLP_TIMEOUT": f"{2 * LAST_EXPORT_S:g}",
        }
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        with opened(env, GatewayId("gateway")) as traces:
            assert traces is not None
            async with running(tmp_path, monkeypatch, traces, None) as world:
                for _ in range(3):  # the queue of spans overflows
                    async with world.joined() as client:
                        await world.connected()
                        await client.send_bytes(LEAVE)
                await until(lambda: taken, 5, "the collector was asked")
            began = time.monotonic()
        assert time.monotonic() - began < LAST_EXPORT_S + 5, "nor the gateway's end"
