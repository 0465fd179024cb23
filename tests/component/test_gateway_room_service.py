"""RoomService by the unmodified livekit-api package: against one gateway, and across two."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from headwater_api.ids import RoomId
from headwater_gateway.room import moderation
from livekit import api
from livekit.protocol import models, rtc
from support.deadline import until
from support.gateway_edge import API_KEY, API_SECRET, Edge, running_edge, token
from support.gateways import Gateways, SignalClient, running_gateways


@pytest.fixture
async def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateways]:
    async with running_gateways(tmp_path, monkeypatch, 2) as gateways:
        yield gateways


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    async with running_edge(tmp_path) as running:
        yield running


@pytest.fixture
async def calls(pair: Gateways) -> AsyncIterator[list[api.LiveKitAPI]]:
    """An API client for each gateway."""
    clients = [api.LiveKitAPI(url, API_KEY, API_SECRET) for url in pair.urls]
    try:
        yield clients
    finally:
        for client in clients:
            await client.aclose()  # type: ignore[no-untyped-call]


def _far(pair: Gateways, room: str) -> int:
    """A gateway that does not keep the room."""
    return 1 - pair.owner(room)


async def test_rooms_are_made_listed_changed_and_deleted_at_any_gateway(
    pair: Gateways, calls: list[api.LiveKitAPI]
) -> None:
    names = [f"room-{n}" for n in range(6)]
    for n, name in enumerate(names):
        made = await calls[n % 2].room.create_room(
            api.CreateRoomRequest(name=name, empty_timeout=77, max_participants=9, metadata="m1")
        )
        assert (made.name, made.empty_timeout, made.max_participants, made.metadata) == (name, 77, 9, "m1")
        assert made.sid.startswith("RM_")
    assert {pair.owner(name) for name in names} == {0, 1}, "both gateways keep some"
    for client in calls:
        listed = await client.room.list_rooms(api.ListRoomsRequest())
        assert [row.name for row in listed.rooms] == names
    some = await calls[0].room.list_rooms(api.ListRoomsRequest(names=["room-4", "none"]))
    assert [row.name for row in some.rooms] == ["room-4"]
    again = await calls[1].room.create_room(api.CreateRoomRequest(name="room-0"))
    assert (again.empty_timeout, again.metadata) == (77, "m1"), "an existing room is given as it is"
    changed = await calls[_far(pair, "room-1")].room.update_room_metadata(
        api.UpdateRoomMetadataRequest(room="room-1", metadata="m2")
    )
    assert changed.metadata == "m2"
    await calls[_far(pair, "room-1")].room.delete_room(api.DeleteRoomRequest(room="room-1"))

    async def gone() -> bool:
        left = await calls[0].room.list_rooms(api.ListRoomsRequest())
        return "room-1" not in [row.name for row in left.rooms]

    async with asyncio.timeout(5):
        while not await gone():
            await asyncio.sleep(0.01)
    with pytest.raises(api.TwirpError) as error:
        await calls[0].room.delete_room(api.DeleteRoomRequest(room="room-1"))
    assert (error.value.code, error.value.status) == ("not_found", 404)


async def test_a_long_answer_of_another_gateway_comes_whole(
    pair: Gateways, calls: list[api.LiveKitAPI]
) -> None:
    names = [f"room-{n}" for n in range(100)]
    for name in names:
        moderation.set_metadata(pair.planes[0].directory.open(RoomId(name)).state, "x" * 50_000)
    listed = await calls[1].room.list_rooms(api.ListRoomsRequest())
    assert [row.name for row in listed.rooms] == sorted(names)


async def test_participants_are_listed_changed_muted_and_removed(
    pair: Gateways, calls: list[api.LiveKitAPI]
) -> None:
    service = calls[_far(pair, "demo")].room
    async with SignalClient(pair.urls[0], "ann") as ann, SignalClient(pair.urls[1], "bob") as bob:
        track = await ann.publish("audio", "mic")
        rows = (await service.list_participants(api.ListParticipantsRequest(room="demo"))).participants
        assert {row.identity for row in rows} == {"ann", "bob"}

        muted = await service.mute_published_track(
            api.MuteRoomTrackRequest(room="demo", identity="ann", track_sid=track.sid, muted=True)
        )
        assert muted.track.muted
        assert (await ann.wait("mute")).sid == track.sid
        await bob.wait("update", match=lambda u: any(t.muted for p in u.participants for t in p.tracks))
        with pytest.raises(api.TwirpError, match="remote unmute"):
            await service.mute_published_track(
                api.MuteRoomTrackRequest(room="demo", identity="ann", track_sid=track.sid, muted=False)
            )

        changed = await service.update_participant(
            api.UpdateParticipantRequest(
                room="demo",
                identity="ann",
                name="Anna",
                metadata="about",
                attributes={"hand": "up"},
                permission=models.ParticipantPermission(can_subscribe=True, can_publish=False),
            )
        )
        assert (changed.name, changed.metadata, changed.attributes["hand"]) == ("Anna", "about", "up")
        assert (await ann.wait("track_unpublished")).track_sid == track.sid
        await ann.say(add_track=rtc.AddTrackRequest(cid="again", type=models.TrackType.AUDIO))
        refused = await ann.wait("request_response")
        assert refused.reason == rtc.RequestResponse.NOT_ALLOWED

        got = await service.get_participant(api.RoomParticipantIdentity(room="demo", identity="bob"))
        assert got.sid == bob.me.sid
        await service.remove_participant(api.RoomParticipantIdentity(room="demo", identity="bob"))
        farewell = await bob.wait("leave")
        assert farewell.reason == models.DisconnectReason.PARTICIPANT_REMOVED
        assert farewell.action == rtc.LeaveRequest.DISCONNECT
        with pytest.raises(api.TwirpError) as error:
            await service.get_participant(api.RoomParticipantIdentity(room="demo", identity="bob"))
        assert error.value.code == "not_found"


async def test_a_revoked_permission_holds_after_a_rejoin_with_the_old_token(
    pair: Gateways, calls: list[api.LiveKitAPI]
) -> None:
    async with SignalClient(pair.urls[0], "ann"), SignalClient(pair.urls[0], "bob") as bob:
        await calls[0].room.update_participant(
            api.UpdateParticipantRequest(
                room="demo", identity="bob", permission=models.ParticipantPermission(can_subscribe=True)
            )
        )
        async with SignalClient(pair.urls[1], "bob") as again:
            assert (await bob.wait("leave")).reason == models.DisconnectReason.DUPLICATE_IDENTITY
            assert not again.me.permission.can_publish


async def test_revoked_tokens_come_in_no_more(pair: Gateways, calls: list[api.LiveKitAPI]) -> None:
    async with SignalClient(pair.urls[0], "ann"), SignalClient(pair.urls[0], "bob"):
        request = api.RoomParticipantIdentity(room="demo", identity="bob", revoke_token_ts=2**33)
        await calls[0].room.remove_participant(request)
        for url in pair.urls:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with SignalClient(url, "bob"):
                    pass
            assert refused.value.status == 401


async def test_data_subscriptions_and_calls_reach_the_participant(
    pair: Gateways, calls: list[api.LiveKitAPI]
) -> None:
    service = calls[_far(pair, "demo")].room
    async with (
        SignalClient(pair.urls[0], "ann") as ann,
        SignalClient(pair.urls[0], "bob", auto_subscribe="0"),
    ):
        track = await ann.publish("audio", "mic")
        await service.send_data(
            api.SendDataRequest(room="demo", data=b"hello", topic="t", destination_identities=["bob"])
        )
        packet = await until(lambda: _packet(pair, "user"), 15, "data is sent")
        assert (packet.user.payload, packet.user.topic) == (b"hello", "t")
        await service.update_subscriptions(
            api.UpdateSubscriptionsRequest(
                room="demo", identity="bob", track_sids=[track.sid], subscribe=True
            )
        )
        plane = pair.planes[pair.owner("demo")]
        state = plane.directory.rooms()[0].state
        await until(lambda: track.sid in state.of_identity("bob").wanted, 15, "bob gets the track")

        headers = {"Authorization": f"Bearer {token(video={'roomAdmin': True, 'room': 'demo'})}"}
        body = {"room": "demo", "destination_identity": "bob", "method": "ping", "payload": "?"}
        async with aiohttp.ClientSession() as http:
            url = f"{pair.urls[_far(pair, 'demo')]}/twirp/livekit.RoomService/PerformRpc"
            asking = asyncio.create_task(http.post(url, json=body, headers=headers))
            request = await until(lambda: _packet(pair, "rpc_request"), 15, "the call is sent")
            answer = models.DataPacket(
                destination_identities=[request.participant_identity],
                rpc_response=models.RpcResponse(request_id=request.rpc_request.id, payload="!"),
            )
            pair.nodes[0].emit(_data_event(state.of_identity("bob").sid, answer))
            pair.nodes[1].emit(_data_event(state.of_identity("bob").sid, answer))
            response = await asking
            assert (response.status, await response.json()) == (200, {"payload": "!"})


def _data_event(sid: str, packet: models.DataPacket) -> "object":
    from headwater_api.nodev1 import node_pb2

    event = node_pb2.Event(room_id="demo")
    event.data.transport_id = f"{sid}/pub"
    event.data.label = "_reliable"
    event.data.payload = packet.SerializeToString()
    return event


def _packet(pair: Gateways, kind: str) -> models.DataPacket | None:
    for node in pair.nodes:
        for request in node.applied:
            for command in request.commands:
                if command.HasField("send_data"):
                    packet = models.DataPacket.FromString(command.send_data.payload)
                    if packet.WhichOneof("value") == kind:
                        return packet
    return None


async def test_moving_to_another_room_hands_out_its_token_and_a_reconnect(
    pair: Gateways, calls: list[api.LiveKitAPI]
) -> None:
    other = next(f"other-{n}" for n in range(50) if pair.owner(f"other-{n}") != pair.owner("demo"))
    async with SignalClient(pair.urls[0], "ann") as ann, SignalClient(pair.urls[0], "bob"):
        await calls[0].room.move_participant(
            api.MoveParticipantRequest(room="demo", identity="ann", destination_room=other)
        )
        moved = await ann.wait("room_moved")
        assert (moved.room.name, moved.room.sid[:3]) == (other, "RM_")
        assert (await ann.wait("leave")).action == rtc.LeaveRequest.RECONNECT
        client = SignalClient(pair.urls[0], "ann", other)
        client.token = moved.token
        async with client as there:
            assert next(m.join.room.name for m in there.received if m.HasField("join")) == other
            assert there.me.permission.can_publish
        rows = (await calls[1].room.list_participants(api.ListParticipantsRequest(room="demo"))).participants
        assert [row.identity for row in rows] == ["bob"]


async def test_moving_within_the_room_leads_to_another_node_without_a_new_join(
    pair: Gateways, calls: list[api.LiveKitAPI]
) -> None:
    async with SignalClient(pair.urls[0], "ann") as ann:

        async def row() -> models.ParticipantInfo:
            request = api.RoomParticipantIdentity(room="demo", identity="ann")
            return await calls[1].room.get_participant(request)

        before = await row()
        request = api.MoveParticipantRequest(room="demo", identity="ann", destination_room="demo")
        await calls[_far(pair, "demo")].room.move_participant(request)
        after = await row()
        nodes = [r.attributes["headwater.node"] for r in (before, after)]
        assert set(nodes) == {"eu-1", "us-1"} and after.sid == before.sid
        with pytest.raises(api.TwirpError) as refused:
            await calls[0].room.move_participant(request)
        assert (refused.value.status, refused.value.code) == (412, "failed_precondition")
        assert not any(m.HasField("leave") for m in ann.received)


@pytest.mark.parametrize(
    "case",
    [
        ("CreateRoom", {}, {"name": "x"}, 401, "unauthenticated"),
        ("ListRooms", {"roomCreate": True}, {}, 401, "unauthenticated"),
        ("ListParticipants", {"roomAdmin": True, "room": "y"}, {"room": "x"}, 401, "unauthenticated"),
        ("RemoveParticipant", {"room": "x"}, {"room": "x"}, 401, "unauthenticated"),
        ("MoveParticipant", {"roomAdmin": True, "room": "x"}, {"room": "x"}, 401, "unauthenticated"),
        (
            "ForwardParticipant",
            {"roomAdmin": True, "room": "x", "destinationRoom": "y"},
            {"room": "x", "destination_room": "y"},
            404,
            "not_found",
        ),
        ("GetParticipant", {"roomAdmin": True, "room": "x"}, {"room": "x"}, 404, "not_found"),
        ("CreateRoom", {"roomCreate": True}, {}, 400, "invalid_argument"),
        ("CreateRoom", {"roomCreate": True}, {"name": "n" * 300}, 404, "not_found"),
        ("CreateRoom", {"roomCreate": True}, {"name": 3}, 400, "malformed"),
        ("Nonsense", {}, {}, 404, "bad_route"),
    ],
)
async def test_refusals_are_twirp_errors(
    edge: Edge, case: tuple[str, dict[str, object], dict[str, object], int, str]
) -> None:
    method, grant, body, status, code = case
    headers = {"Authorization": f"Bearer {token(video=grant)}"}
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{edge.url}/twirp/livekit.RoomService/{method}", json=body, headers=headers) as answer,
    ):
        told = await answer.json()
        assert (answer.status, told["code"]) == (status, code), told
        assert told["msg"]
