"""The gateway's watches against a scripted API server: gaps, 410, silence, odd objects."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from headwater_api.ids import GatewayId, ParticipantIdentity, RegionName, RoomId
from headwater_api.reasons import Reason
from headwater_gateway import fleet_views as views
from headwater_gateway.directory.peers import Peers
from headwater_gateway.fleet import Fleet
from headwater_gateway.kube.meeting_secrets import MeetingSecrets
from headwater_gateway.kube.reflector import CallbackSink, Reflector
from headwater_gateway.meetings import Meetings
from headwater_gateway.passwords import Passwords
from headwater_gateway.plane import parse_static_gateways, parse_static_nodes
from headwater_gateway.room.access import Role
from headwater_gateway.room.directory import DirectoryOptions, RoomDirectory
from headwater_gateway.room.model import JoinRequest, RoomConfig
from headwater_gateway.room.ports import JoinRefusal
from headwater_gateway.settings import SettingsError
from headwater_gateway.turn.servers import TurnServers
from kubernetes.aio.client import ApiClient, Configuration
from support.deadline import until


class ApiServer:
    """One resource: lists what `items` holds, streams what is pushed, refuses when told to."""

    def __init__(self) -> None:
        self.items: dict[str, int] = {}
        self.version = 1
        self.lists = 0
        self.queries: list[dict[str, str]] = []
        self.streams: list[asyncio.Queue[dict[str, Any] | None]] = []
        self.fail_next = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.queries.append(dict(request.query))
        if self.fail_next:
            self.fail_next -= 1
            return web.Response(status=500, text="no")
        if "watch" not in request.query:
            self.lists += 1
            items = [self.body(name, n) for name, n in self.items.items()]
            return web.json_response({"metadata": {"resourceVersion": str(self.version)}, "items": items})
        response = web.StreamResponse()
        await response.prepare(request)
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.streams.append(queue)
        while (event := await queue.get()) is not None:
            text = json.dumps(event).encode() + b"\n"
            await response.write(text[:7])
            await response.write(text[7:])
        self.streams.remove(queue)
        return response

    def body(self, name: str, n: int) -> dict[str, Any]:
        return {"metadata": {"name": name, "resourceVersion": str(self.version)}, "n": n}

    def push(self, kind: str, name: str, n: int = 0) -> None:
        self.version += 1
        for stream in self.streams:
            stream.put_nowait({"type": kind, "object": self.body(name, n)})

    def expire(self) -> None:
        status = {"kind": "Status", "code": 410, "metadata": {}}
        for stream in self.streams:
            stream.put_nowait({"type": "ERROR", "object": status})

    def hang_up(self) -> None:
        for stream in self.streams:
            stream.put_nowait(None)


@pytest.fixture
async def server() -> AsyncIterator[tuple[ApiServer, dict[str, int], Reflector]]:
    scripted = ApiServer()
    app = web.Application()
    app.router.add_get("/things", scripted.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    api = ApiClient(configuration=Configuration(host=f"http://127.0.0.1:{port}"))
    seen: dict[str, int] = {}
    sink = CallbackSink(lambda name, body: seen.__setitem__(name, body["n"]), seen.__delitem__)
    reflector = Reflector(api, "/things", sink, random.Random(1), labels="a=b")
    scripted.items = {"one": 1, "two": 2}
    task = asyncio.create_task(reflector.run())
    try:
        yield scripted, seen, reflector
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await api.close()  # type: ignore[no-untyped-call]
        scripted.hang_up()
        await runner.cleanup()


Scene = tuple[ApiServer, dict[str, int], Reflector]


async def test_lists_then_follows(server: Scene) -> None:
    scripted, seen, reflector = server
    await asyncio.wait_for(reflector.synced.wait(), 5)
    assert seen == {"one": 1, "two": 2}
    await until(lambda: scripted.streams, 3, "a watch is open", 0.01)
    assert scripted.queries[-1]["labelSelector"] == "a=b"
    assert scripted.queries[-1]["resourceVersion"] == "1"
    scripted.push("MODIFIED", "one", 10)
    scripted.push("ADDED", "three", 3)
    scripted.push("DELETED", "two")
    scripted.push("BOOKMARK", "")
    await until(lambda: seen == {"one": 10, "three": 3}, 3, "all changes are seen", 0.01)


async def test_an_ended_stream_goes_on_from_the_last_version(server: Scene) -> None:
    scripted, seen, _ = server
    await until(lambda: scripted.streams, 3, "a watch is open", 0.01)
    scripted.push("MODIFIED", "one", 5)
    await until(lambda: seen["one"] == 5, 3, "the change is seen", 0.01)
    scripted.hang_up()
    await until(lambda: scripted.queries[-1].get("resourceVersion") == "2", 5, "watched anew", 0.01)
    assert scripted.lists == 1


async def test_what_vanished_in_a_gap_is_told_as_gone(server: Scene) -> None:
    scripted, seen, _ = server
    await until(lambda: scripted.streams, 3, "a watch is open", 0.01)
    del scripted.items["two"]
    scripted.items["four"] = 4
    scripted.expire()
    await until(lambda: seen == {"one": 1, "four": 4}, 5, "the new list holds", 0.01)


async def test_errors_of_the_server_are_outlived(server: Scene) -> None:
    scripted, seen, _ = server
    await until(lambda: scripted.streams, 3, "a watch is open", 0.01)
    scripted.fail_next = 3
    scripted.hang_up()
    await until(lambda: scripted.fail_next == 0 and scripted.streams, 15, "watched anew", 0.01)
    scripted.push("MODIFIED", "one", 7)
    await until(lambda: seen["one"] == 7, 3, "changes are seen again", 0.01)


def pod(name: str, **changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "metadata": {"name": name, "labels": {"headwater.dev/region": "eu"}},
        "status": {
            "phase": "Running",
            "podIP": "127.1.0.2",
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    body["status"].update(changes)
    return body


def test_pods_become_nodes_once_they_have_an_address() -> None:
    node = views.node_pod(pod("sfu-1"))
    assert node is not None and (node.region, node.address) == ("eu", "127.1.0.2:7900")
    assert node.cluster is None
    labelled = pod("sfu-1")
    labelled["metadata"]["labels"]["headwater.dev/cluster"] = "demo"
    assert views.node_pod(labelled).cluster == "demo"  # type: ignore[union-attr]
    assert views.node_pod(pod("sfu-1", podIP="")) is None
    assert views.node_pod(pod("sfu-1", phase="Failed")) is None
    outside = pod("sfu-1")
    outside["metadata"]["annotations"] = {"headwater.dev/exposure": "NodePort"}
    assert views.node_pod(outside) is None, "nobody is placed where clients have no address"
    outside["metadata"]["annotations"]["headwater.dev/external-addresses"] = "203.0.113.7:30123,[::7]:9"
    assert views.node_pod(outside).external == ("203.0.113.7:30123", "[::7]:9")  # type: ignore[union-attr]
    six = views.node_pod(pod("sfu-1", podIP="fd00::1"))
    assert six is not None and six.address == "[fd00::1]:7900"


def test_a_turn_node_is_reached_by_what_its_pod_says() -> None:
    body = pod("turn-1")
    told = [views.turn_pod(body).external]  # type: ignore[union-attr]
    for said in ("203.0.113.7", "turn.example.com"):
        body["metadata"]["annotations"] = {"headwater.dev/external-addresses": said}
        told.append(views.turn_pod(body).external)  # type: ignore[union-attr]
    assert told == ["", "203.0.113.7", ""]


def meeting(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "headwater.dev/v1alpha1",
        "kind": "Meeting",
        "metadata": {"name": "standup", "namespace": "headwater"},
        "spec": {"clusterRef": {"name": "demo"}, **spec},
    }


def test_meetings_become_policy() -> None:
    body = meeting(
        maxParticipants=5,
        placement={"allow": ["eu", "us"], "deny": ["us"]},
        access={"locked": True},
        media={"maxVideoLayer": 1},
        emptyTimeout="90s",
    )
    config = views.meeting_config(body, RoomConfig())
    assert (config.max_participants, config.locked, config.max_spatial) == (5, True, 1)
    assert (config.allowed_regions, config.denied_regions) == ({"eu", "us"}, {"us"})
    assert (config.departure_timeout_s, config.cluster) == (90, "demo")
    pinned = views.meeting_config(meeting(placement={"pin": ["ap"], "deny": ["ap"]}), RoomConfig())
    assert (pinned.allowed_regions, pinned.denied_regions) == ({"ap"}, frozenset())


async def test_a_meeting_that_cannot_be_read_lets_nobody_in_until_it_can() -> None:
    directory = RoomDirectory(GatewayId("gw-a"), "t", DirectoryOptions())
    links = Peers(dict)
    turn = TurnServers("token", None, dict, lambda _: None, lambda _: None)
    secrets = MeetingSecrets(Passwords(), random.Random(1))
    fleet = Fleet(directory, RoomConfig(), secrets, turn=turn, links=links, meetings=Meetings())

    def refused() -> Reason:
        with pytest.raises(JoinRefusal) as caught:
            directory.check(RoomId("standup"), JoinRequest(ParticipantIdentity("ann"), role=Role.HOST))
        assert caught.value.reason is not Reason.MEETING_UNREADABLE or "maxParticipants" in str(caught.value)
        return caught.value.reason

    broken = meeting(maxParticipants="many", access={"passwordSecretRef": {"name": "p", "key": "p"}})
    try:
        fleet.meeting_seen("standup", broken)
        assert refused() is Reason.MEETING_UNREADABLE, "it is no ad-hoc room"
        fleet.meeting_seen("standup", meeting(maxParticipants=3))
        assert refused() is not Reason.MEETING_UNREADABLE, "mended: now there is only no node"
        fleet.meeting_seen("standup", broken)
        assert refused() is Reason.MEETING_UNREADABLE
        known = directory.meeting(RoomId("standup"))
        assert known is not None and known.max_participants == 3, "who is in keeps the rules that were read"
    finally:
        await links.aclose()
        await turn.aclose()
        await secrets.aclose()
        await directory.aclose(0.1)


async def test_the_fleet_knows_regions_and_room_owners() -> None:
    directory = RoomDirectory(GatewayId("gw-a"), "t", DirectoryOptions())
    links = Peers(dict)
    turn = TurnServers("token", None, dict, lambda _: None, lambda _: None)
    secrets = MeetingSecrets(Passwords(), random.Random(1))
    fleet = Fleet(directory, RoomConfig(), secrets, turn=turn, links=links, meetings=Meetings())
    cluster = {
        "metadata": {"name": "demo"},
        "spec": {
            "regions": [
                {
                    "name": "eu",
                    "coordinates": {"latitude": 50.1, "longitude": 8.7},
                    "minNodes": 1,
                    "maxNodes": 2,
                },
                {"name": "us", "minNodes": 1, "maxNodes": 2},
            ]
        },
    }
    fleet.cluster_seen("demo", cluster)
    assert fleet.allowed_regions() == {"demo": frozenset()}
    cluster["spec"]["placement"] = {"allowedRegions": ["us"]}  # type: ignore[index]
    fleet.cluster_seen("demo", cluster)
    assert fleet.allowed_regions() == {"demo": {"us"}}
    assert set(fleet.regions()) == {"eu", "us"} and fleet.regions()[RegionName("us")] is None
    for name in ("gw-a", "gw-b", "gw-c"):
        fleet.gateway_seen(name, pod(name))
    assert set(fleet.gateways) == {"gw-a", "gw-b", "gw-c"}
    assert set(fleet.peers) == {"gw-b", "gw-c"}, "a gateway has no link to itself"
    fleet.gateway_seen("gw-c", pod("gw-c", conditions=[]))
    assert set(fleet.gateways) == {"gw-a", "gw-b"}
    assert set(fleet.peers) == {"gw-b", "gw-c"}, "one that is not ready may still have rooms"
    fleet.gateway_gone("gw-c")
    assert set(fleet.peers) == {"gw-b"}
    fleet.cluster_gone("demo")
    assert fleet.regions() == {}
    await links.aclose()
    await turn.aclose()
    await directory.aclose(0.1)


def test_static_nodes() -> None:
    one, two = parse_static_nodes("eu-1=eu@127.0.0.1:7900, us-1=us@[::1]:7901")
    assert (one.node_id, one.region, one.address) == ("eu-1", "eu", "127.0.0.1:7900")
    assert two.address == "[::1]:7901"
    with pytest.raises(SettingsError, match="nonsense"):
        parse_static_nodes("nonsense")


def test_static_gateways() -> None:
    one, two = parse_static_gateways("gw-0=http://127.0.0.1:7880, gw-1=http://[::1]:7880")
    assert (one.gateway, one.url, two.url) == ("gw-0", "http://127.0.0.1:7880", "http://[::1]:7880")
    for bad in ("gw-0", "gw-0=127.0.0.1:7880", "gw-0=http://127.0.0.1:7880/x"):
        with pytest.raises(SettingsError, match="is not name=http"):
            parse_static_gateways(bad)
