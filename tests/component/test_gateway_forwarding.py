"""ForwardParticipant: a participant of one room is shown in another, whichever gateways keep the two."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from headwater_api.ids import RoomId, TrackSid
from headwater_api.nodev1 import node_pb2
from headwater_gateway.room import moderation, snapshot, timers
from headwater_gateway.room.state import RoomState
from livekit import api
from livekit.protocol import models
from support.deadline import until
from support.gateway_edge import API_KEY, API_SECRET
from support.gateways import Gateways, SignalClient, running_gateways

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateways]:
    async with running_gateways(tmp_path, monkeypatch, 2) as gateways:
        yield gateways


@pytest.fixture
async def call(pair: Gateways) -> AsyncIterator[api.LiveKitAPI]:
    client = api.LiveKitAPI(pair.urls[0], API_KEY, API_SECRET)
    try:
        yield client
    finally:
        await client.aclose()  # type: ignore[no-untyped-call]


def elsewhere(pair: Gateways, *, near: bool) -> str:
    """A room of the gateway that has `demo`, or of the other one."""
    home = pair.owner("demo")
    return next(f"other-{n}" for n in range(50) if (pair.owner(f"other-{n}") == home) is near)


def forward(identity: str, room: str) -> api.ForwardParticipantRequest:
    return api.ForwardParticipantRequest(room="demo", identity=identity, destination_room=room)


def opened(pair: Gateways, room: str) -> dict[str, Any]:
    """The links that nodes were told to open for that room and not to close again: by node and id."""
    found: dict[str, Any] = {}
    for node in pair.nodes:
        for request in node.applied:
            for command in request.commands if request.room_id == room else ():
                if command.HasField("open_relay"):
                    found[f"{node.node_id}/{command.open_relay.link_id}"] = command.open_relay
                if command.HasField("close_relay"):
                    found.pop(f"{node.node_id}/{command.close_relay.link_id}", None)
                if command.HasField("close_room"):
                    found = {key: link for key, link in found.items() if not key.startswith(node.node_id)}
    return found


async def seen(client: SignalClient, identity: str, **row: Any) -> models.ParticipantInfo:
    """That participant's newest row as the client has it, once it looks like this."""

    def newest() -> models.ParticipantInfo | None:
        rows = [p for m in client.received if m.HasField("join") for p in m.join.other_participants]
        rows += [p for m in client.received if m.HasField("update") for p in m.update.participants]
        mine = [p for p in rows if p.identity == identity]
        last = max(mine, key=lambda p: p.version, default=None)
        state = {} if last is None else {"tracks": len(last.tracks), "state": last.state}
        return last if last is not None and row.items() <= state.items() else None

    return await until(newest, 15, f"{identity} with {row}")


@pytest.mark.parametrize("near", [True, False], ids=["one gateway", "two gateways"])
async def test_who_is_forwarded_is_seen_in_both_rooms(
    pair: Gateways, call: api.LiveKitAPI, near: bool
) -> None:
    there = elsewhere(pair, near=near)
    async with SignalClient(pair.urls[0], "ann") as ann, SignalClient(pair.urls[1], "bob", there) as bob:
        microphone = await ann.publish("audio", "mic")
        await call.room.forward_participant(forward("ann", there))
        row = await seen(bob, "ann", tracks=1)
        assert (row.tracks[0].sid, row.attributes["headwater.room"]) == (microphone.sid, "demo")
        assert (row.state, row.name) == (models.ParticipantInfo.ACTIVE, "Ann")
        assert row.sid != ann.me.sid
        await bob.wait("offer", match=lambda offer: microphone.sid in offer.sdp)

        def ends() -> tuple[Any, Any] | None:
            mine, theirs = list(opened(pair, "demo").values()), list(opened(pair, there).values())
            crossing = [(a, b) for a in mine for b in theirs if a.link_id == b.link_id]
            return crossing[0] if crossing else None

        far, shown = await until(ends, 15, "both ends of a link are open")
        assert (far.tx_key, far.rx_key) == (shown.rx_key, shown.tx_key)
        assert (far.link_token, far.peer_token) == (shown.peer_token, shown.link_token)
        assert far.link_token != shown.link_token, "both ends may be on one node"
        remote = [
            command.add_remote_track
            for node in pair.nodes
            for request in node.applied
            for command in request.commands
            if request.room_id == there and command.HasField("add_remote_track")
        ]
        assert (microphone.sid, shown.link_id) in {(track.track_id, track.link_id) for track in remote}
        await ann.wait("track_subscribed", match=lambda told: told.track_sid == microphone.sid)

        await ann.say(mute={"sid": microphone.sid, "muted": True})
        await until(lambda: _muted(bob, "ann"), 15, "bob sees that she is muted")
        await call.room.forward_participant(forward("ann", there))  # once more changes nothing
        listed = await call.room.list_participants(api.ListParticipantsRequest(room=there))
        assert sorted(p.identity for p in listed.participants) == ["ann", "bob"]

        await ann.say(leave={})
        await seen(bob, "ann", state=models.ParticipantInfo.DISCONNECTED)
        await until(lambda: not opened(pair, there) and not opened(pair, "demo"), 15, "the link is closed")


def _muted(client: SignalClient, identity: str) -> bool:
    rows = [p for m in client.received if m.HasField("update") for p in m.update.participants]
    mine = [p for p in rows if p.identity == identity and p.tracks]
    return bool(mine) and max(mine, key=lambda p: p.version).tracks[0].muted


async def test_removed_there_it_stays_in_its_room_and_the_link_goes(
    pair: Gateways, call: api.LiveKitAPI
) -> None:
    there = elsewhere(pair, near=False)
    async with SignalClient(pair.urls[0], "ann") as ann, SignalClient(pair.urls[1], "bob", there) as bob:
        await ann.publish("video", "cam")
        await call.room.forward_participant(forward("ann", there))
        await seen(bob, "ann", tracks=1)
        await until(lambda: opened(pair, "demo"), 15, "the link is open in her room")
        await call.room.remove_participant(api.RoomParticipantIdentity(room=there, identity="ann"))
        await seen(bob, "ann", state=models.ParticipantInfo.DISCONNECTED)
        await until(lambda: not opened(pair, "demo"), 15, "her room has closed its end")
        assert not any(m.HasField("leave") for m in ann.received)
        listed = await call.room.list_participants(api.ListParticipantsRequest(room="demo"))
        assert [p.identity for p in listed.participants] == ["ann"]


async def test_tracks_come_and_go_with_hers_and_layers_are_those_wanted_there(
    pair: Gateways, call: api.LiveKitAPI
) -> None:
    there = elsewhere(pair, near=False)
    async with SignalClient(pair.urls[0], "ann") as ann, SignalClient(pair.urls[1], "bob", there) as bob:
        await call.room.forward_participant(forward("ann", there))
        await seen(bob, "ann", tracks=0)
        camera = await ann.publish("video", "cam")
        await seen(bob, "ann", tracks=1)
        high = models.VideoQuality.HIGH
        await ann.wait("subscribed_quality_update", match=lambda u: _wants(u, camera.sid, high, enabled=True))
        await bob.say(track_setting={"track_sids": [camera.sid], "quality": models.VideoQuality.LOW})
        await ann.wait(
            "subscribed_quality_update", match=lambda u: _wants(u, camera.sid, high, enabled=False)
        )


async def test_what_it_may_publish_later_is_shown_too(pair: Gateways, call: api.LiveKitAPI) -> None:
    there = elsewhere(pair, near=False)
    listens = {"video": {"canPublish": False}}
    async with (
        SignalClient(pair.urls[0], "ann", claims=listens) as ann,
        SignalClient(pair.urls[1], "bob", there) as bob,
    ):
        await call.room.forward_participant(forward("ann", there))
        await seen(bob, "ann", tracks=0)
        speaks = models.ParticipantPermission(can_publish=True, can_subscribe=True)
        promoted = api.UpdateParticipantRequest(room="demo", identity="ann", permission=speaks)
        await call.room.update_participant(promoted)
        await ann.publish("audio", "mic")
        await seen(bob, "ann", tracks=1)


def _wants(update: Any, track: str, quality: int, *, enabled: bool) -> bool:
    return update.track_sid == track and any(
        row.quality == quality and row.enabled is enabled for row in update.subscribed_qualities
    )


def up(pair: Gateways, room: str, transport: str) -> None:
    """That transport is connected, says every node."""
    event = node_pb2.Event(room_id=room)
    event.transport.transport_id, event.transport.state = transport, node_pb2.TRANSPORT_CONNECTED
    for node in pair.nodes:
        node.emit(event)


async def test_the_link_follows_both_of_its_ends(pair: Gateways, call: api.LiveKitAPI) -> None:
    there = elsewhere(pair, near=False)
    async with (
        SignalClient(pair.urls[0], "ann", region="eu") as ann,
        SignalClient(pair.urls[1], "bob", there, region="us") as bob,
    ):
        await ann.publish("audio", "mic")
        await call.room.forward_participant(forward("ann", there))
        await seen(bob, "ann", tracks=1)

        def crosses(far: str, near: str) -> bool:
            """One link, between these nodes and no others."""
            mine = {key.partition("/")[::2] for key in opened(pair, "demo")}
            theirs = {key.partition("/")[::2] for key in opened(pair, there)}
            shared = {link for _, link in mine} & {link for _, link in theirs}
            ends = [{node for node, link in rows if link in shared} for rows in (mine, theirs)]
            return len(shared) == 1 and ends == [{far}, {near}]

        await until(lambda: crosses("eu-1", "eu-1"), 15, "both ends are on her node")
        request = api.MoveParticipantRequest(room="demo", identity="ann", destination_room="demo")
        await call.room.move_participant(request)
        up(pair, "demo", f"{ann.me.sid}/pub")
        await until(lambda: crosses("us-1", "eu-1"), 15, "it starts at her new node")
        pair.nodes[0].report.draining = True
        pair.nodes[0].push()
        await until(lambda: crosses("us-1", "us-1"), 15, "it ends at the node that does not drain")

        async def is_told() -> bool:
            return (await seen(bob, "ann", tracks=1)).attributes["headwater.node"] == "us-1"

        await until(is_told, 15, "bob is told where it enters now")


def _named(state: RoomState, identity: str) -> str:
    found = state.of_identity(identity)
    return found.name if found is not None else ""


async def test_either_rooms_host_mutes(pair: Gateways, call: api.LiveKitAPI) -> None:
    there = elsewhere(pair, near=False)

    def paused() -> bool:
        track = other.state.tracks[TrackSid(microphone.sid)]
        return track.is_silenced and track.info.muted

    async with SignalClient(pair.urls[0], "ann") as ann, SignalClient(pair.urls[1], "bob", there) as bob:
        microphone = await ann.publish("audio", "mic")
        await call.room.forward_participant(forward("ann", there))
        await seen(bob, "ann", tracks=1)
        other = pair.planes[pair.owner(there)].directory.room(RoomId(there))
        assert other is not None and not paused()
        mute = api.MuteRoomTrackRequest(room="demo", identity="ann", track_sid=microphone.sid, muted=True)
        await call.room.mute_published_track(mute)
        await until(paused, 15, "silenced in her room, silent in the other")
        await ann.say(mute={"sid": microphone.sid, "muted": False})
        await until(lambda: not paused(), 15, "she has turned it on again")
        mute.room = there
        await call.room.mute_published_track(mute)
        await until(paused, 15, "silenced in the other room")
        assert not any(m.HasField("mute") and m.mute.muted for m in ann.received[-2:])
        renamed = api.UpdateParticipantRequest(room="demo", identity="ann", name="Anna")
        await call.room.update_participant(renamed)
        await until(lambda: _named(other.state, "ann") == "Anna", 15, "later news has arrived")
        assert paused(), "what the other room's host did holds"


async def test_the_rules_of_the_other_room_hold(pair: Gateways, call: api.LiveKitAPI) -> None:
    there = elsewhere(pair, near=False)
    rooms = pair.planes[pair.owner(there)].directory

    async def refusal(identity: str = "ann") -> str:
        with pytest.raises(api.TwirpError) as caught:
            await call.room.forward_participant(forward(identity, there))
        return f"{caught.value.code}: {caught.value.message}"

    async with SignalClient(pair.urls[0], "ann"), SignalClient(pair.urls[1], "bob", there):
        assert "participant does not exist" in await refusal("carl")
        actor = rooms.room(RoomId(there))
        assert actor is not None
        await actor.ask(lambda state, _: moderation.set_lock(state, True))
        assert "the room is locked" in await refusal()
        await actor.ask(lambda state, _: moderation.set_lock(state, False))
        await actor.ask(lambda state, _: moderation.set_room(state, moderation.RoomSettings(0, 0, 1, "")))
        assert "1 participants" in await refusal()
        await actor.ask(lambda state, _: moderation.set_room(state, moderation.RoomSettings(0, 0, 9, "")))
        await actor.ask(lambda state, now: moderation.remove(state, "ann", now, ban=True))
        assert "you were removed" in await refusal()
        async with SignalClient(pair.urls[0], "bob"):
            assert "has a participant of that identity" in await refusal("bob")


async def test_either_room_may_change_gateways(pair: Gateways, call: api.LiveKitAPI) -> None:
    """What follows from the snapshot: the taker asks on; a room that forgot is told all of it anew."""
    there = elsewhere(pair, near=False)
    async with SignalClient(pair.urls[0], "ann") as ann, SignalClient(pair.urls[1], "bob", there) as bob:
        await ann.publish("audio", "mic")
        await call.room.forward_participant(forward("ann", there))
        await seen(bob, "ann", tracks=1)
        home = pair.planes[pair.owner("demo")].directory.room(RoomId("demo"))
        other = pair.planes[pair.owner(there)].directory.room(RoomId(there))
        assert home is not None and other is not None
        await until(lambda: any(s.crossing for s in home.state.shown.values()), 15, "her room has the link")
        before = next(iter(home.state.shown.values()))

        def forgotten(state: Any, _: float) -> None:
            state.shown.clear()

        await home.ask(forgotten)
        await until(lambda: any(s.crossing for s in home.state.shown.values()), 15, "it has it again")
        assert next(iter(home.state.shown.values())).crossing == before.crossing
        blob = snapshot.encode(other.state, other.keeper.claim, 1, {}, 0.0)
        again = snapshot.restore(snapshot.decode(blob), other.state.ids, 0.0)
        shown = again.of_identity("ann")
        assert shown is not None and shown.forwarded is not None
        assert shown.forwarded.crossing == before.crossing
        timers.run_due(again, 1.0)
        assert again.of_identity("ann") is not None
