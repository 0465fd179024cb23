"""Sessions over fake channels, rooms over fake nodes: the LiveKit protocol end to end, without media."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from headwater_api.ids import NodeId, ParticipantIdentity, RegionName, RoomId
from headwater_api.nodev1 import node_pb2
from headwater_gateway.room.model import RoomConfig
from headwater_gateway.signal.session import Session
from headwater_gateway.signal.session_media import SessionMedia
from headwater_gateway.signal.types import JoinRefused, VideoGrant
from livekit.protocol import models, rtc
from support.counting_ids import CountingIds
from support.deadline import until
from support.fake_channel import FakeClient, hello, publisher_offer
from support.gateway_world import World, gateway_world

RECONNECT, DISCONNECT = rtc.LeaveRequest.RECONNECT, rtc.LeaveRequest.DISCONNECT


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with gateway_world() as world:
        yield world


async def test_join_is_the_first_frame_and_complete(world: World) -> None:
    ann = await world.join(hello("ann", region="eu"))
    join = ann.received[0].join
    assert ann.received[0].WhichOneof("message") == "join"
    assert join.participant.sid.startswith("PA_") and join.room.sid.startswith("RM_")
    assert (join.ping_interval, join.ping_timeout, join.subscriber_primary) == (5, 15, True)
    assert join.fast_publish
    assert tuple(map(int, join.server_info.version.split("."))) >= (1, 8, 0)
    assert dict(join.participant.attributes) == {"headwater.region": "eu", "headwater.node": "eu-1"}
    await ann.wait("offer")
    await world.command("eu-1", "create_transport", 2)
    created = {c.transport_id: c for c in world.commands("eu-1", "create_transport")}
    assert set(created) == {f"{ann.sid}/pub", f"{ann.sid}/sub"}
    channels = {c.label: (c.ordered, c.max_retransmits) for c in created[f"{ann.sid}/sub"].data_channels}
    assert channels == {"_reliable": (True, -1), "_lossy": (False, 0)}


async def test_a_message_goes_at_once_but_never_before_what_waits() -> None:
    client = FakeClient()
    session = Session(RoomId("demo"), ParticipantIdentity("ann"), CountingIds(), lambda: 0)
    session._channel = client
    muted, unmuted = (
        rtc.SignalResponse(mute=rtc.MuteTrackRequest(sid="TR_1", muted=m)) for m in (True, False)
    )
    session.deliver(muted, muted.SerializeToString())
    assert client.kinds() == ["mute"]
    session.drop("its room goes on elsewhere")
    session.deliver(unmuted, unmuted.SerializeToString())
    assert client.kinds() == ["mute"]
    await asyncio.wait_for(session.run(), 2)
    assert client.kinds() == ["mute"] and client.closed is not None


async def publish(client: FakeClient, *tracks: tuple[str, str]) -> list[str]:
    for kind, cid in tracks:
        client.add_track(kind, cid)
    client.offer(*tracks)
    await client.wait("answer")
    published = [await client.wait("track_published", n + 1) for n in range(len(tracks))]
    by_cid = {p.cid: p.track.sid for p in published}
    return [by_cid[cid] for _, cid in tracks]


async def test_publish_and_subscribe_across_two_nodes(world: World) -> None:
    ann = await world.join(hello("ann", region="eu"))
    bob = await world.join(hello("bob", region="us"))
    audio, video = await publish(ann, ("audio", "mic"), ("video", "cam"))
    receive = await world.command("eu-1", "configure_receive", match=lambda c: len(c.sections) == 2)
    assert [s.track_id for s in receive.sections] == [audio, video]
    assert [layer.rid for layer in receive.sections[1].layers] != []
    us_node = bob.all("join")[0].participant.attributes["headwater.node"]
    here, there = await world.command("eu-1", "open_relay"), await world.command(us_node, "open_relay")
    assert (here.tx_key, here.rx_key) == (there.rx_key, there.tx_key)
    assert len(here.tx_key) == 32 and here.tx_key != here.rx_key
    assert (here.link_id, here.link_token) == (there.link_id, there.link_token)
    assert here.peer_node_id == us_node and there.peer_address == world.nodes["eu-1"].media_address
    await world.command(us_node, "add_remote_track", 2)
    remote = {c.track_id: c for c in world.commands(us_node, "add_remote_track")}
    assert set(remote) == {audio, video}
    assert len(world.commands(us_node, "add_remote_track")) == 2
    assert {c.link_id for c in remote.values()} == {here.link_id}
    assert len(remote[video].layers) == 3
    assert len(world.commands("eu-1", "open_relay")) == len(world.commands(us_node, "open_relay")) == 1
    send = await world.command(us_node, "configure_send", match=lambda c: len(c.sections) == 2)
    assert {s.track_id for s in send.sections} == {audio, video}
    assert send.transport_id == f"{bob.sid}/sub"
    assert world.commands("eu-1", "add_remote_track") == []


async def test_an_update_with_the_track_comes_before_its_media(world: World) -> None:
    ann = await world.join(hello("ann", region="eu"))
    bob = await world.join(hello("bob", region="us"))
    (audio,) = await publish(ann, ("audio", "mic"))
    await bob.wait("offer", 2)
    kinds = []
    for message in bob.received:
        if message.HasField("update"):
            kinds += [t.sid for p in message.update.participants for t in p.tracks]
        if message.HasField("offer") and audio in message.offer.sdp:
            kinds.append("media")
    assert kinds.index(audio) < kinds.index("media")


async def test_offer_before_add_track(world: World) -> None:
    ann = await world.join(hello("ann", region="eu"))
    bob = await world.join(hello("bob", region="eu"))
    ann.offer(("audio", "mic"))
    await ann.wait("answer")
    ann.add_track("audio", "mic")
    sid = (await ann.wait("track_published")).track.sid
    await world.command(
        "eu-1", "configure_receive", match=lambda c: [s.track_id for s in c.sections] == [sid]
    )
    await until(lambda: sid in [t.sid for t in bob.roster()["ann"].tracks], 15, "bob knows the track")


async def test_answer_echoes_the_offers_id(world: World) -> None:
    ann = await world.join(hello("ann"))
    ann.offer(("audio", "mic"), id=7)
    assert (await ann.wait("answer")).id == 7


async def test_one_subscriber_offer_at_a_time(world: World) -> None:
    bob = await world.join(hello("bob", region="eu"), auto_answer=False)
    ann = await world.join(hello("ann", region="eu"))
    await publish(ann, ("audio", "mic"), ("video", "cam"))
    await until(lambda: len(bob.roster()["ann"].tracks) == 2, 15, "bob knows both tracks")
    assert len(bob.all("offer")) == 1
    bob.answer(bob.all("offer")[0])
    second = await bob.wait("offer", 2)
    assert second.sdp.count("\r\nm=") == 3
    assert len(bob.all("offer")) == 2


async def test_who_comes_later_is_offered_the_connection_and_then_all_tracks_at_once(world: World) -> None:
    """aiortc (and Chromium, with tracks of the Rust SDK) connects to nothing where both come in one offer."""
    ann = await world.join(hello("ann", region="eu"))
    audio, video = await publish(ann, ("audio", "mic"), ("video", "cam"))
    bob = await world.join(hello("bob", region="eu"), auto_answer=False)
    first = await bob.wait("offer")
    assert "m=application" in first.sdp and audio not in first.sdp and video not in first.sdp
    bob.answer(first)
    second = await bob.wait("offer", 2)
    assert audio in second.sdp and video in second.sdp
    bob.answer(second)
    is_theirs = lambda c: c.transport_id == f"{bob.sid}/sub" and len(c.sections) == 2  # noqa: E731
    send = await world.command("eu-1", "configure_send", match=is_theirs)
    assert {s.track_id for s in send.sections} == {audio, video}
    assert len(bob.all("offer")) == 2


async def test_who_leaves_costs_one_offer_with_whoever_leaves_next(world: World) -> None:
    bob = await world.join(hello("bob", region="eu"))
    ann, eve = [await world.join(hello(name, region="eu")) for name in ("ann", "eve")]
    sids = [sid for one in (ann, eve) for sid in await publish(one, ("audio", "mic"))]
    both = lambda c: c.transport_id == f"{bob.sid}/sub" and len(c.sections) == 2  # noqa: E731
    await world.command("eu-1", "configure_send", match=both)
    before = len(bob.all("offer"))
    for one in (ann, eve):
        one.say(leave=rtc.LeaveRequest())
    none = lambda c: c.transport_id == f"{bob.sid}/sub" and not c.sections  # noqa: E731
    ended = len([c for c in world.commands("eu-1", "configure_send") if none(c)])
    await world.command("eu-1", "configure_send", ended + 1, match=none)
    assert len(bob.all("offer")) == before + 1
    assert not [sid for sid in sids if sid in bob.all("offer")[-1].sdp]


async def test_leave_cleans_up_nodes_links_and_roster(world: World) -> None:
    ann = await world.join(hello("ann", region="eu"))
    bob = await world.join(hello("bob", region="us"))
    us_node = bob.all("join")[0].participant.attributes["headwater.node"]
    await publish(ann, ("audio", "mic"))
    link = (await world.command(us_node, "open_relay")).link_id
    ann.say(leave=rtc.LeaveRequest())
    await world.command("eu-1", "close_room")
    assert (await world.command(us_node, "close_relay")).link_id == link
    await until(lambda: "ann" not in bob.roster(), 15, "bob sees ann leave")
    closed = {c.transport_id for c in world.commands("eu-1", "close_transport")}
    assert closed == {f"{ann.sid}/pub", f"{ann.sid}/sub"}
    await until(lambda: ann.closed, 15, "ann's channel is closed")
    bob.say(leave=rtc.LeaveRequest())
    await until(lambda: not world.directory.rooms(), 15, "the empty room ends")


async def test_node_death_moves_only_its_participants_at_once(world: World) -> None:
    ann = await world.join(hello("ann", region="eu"))
    bob = await world.join(hello("bob", region="us", protocol=12))
    dead = bob.all("join")[0].participant.attributes["headwater.node"]
    other = "us-2" if dead == "us-1" else "us-1"
    await publish(ann, ("audio", "mic"))
    await world.command(dead, "add_remote_track")
    loop = asyncio.get_running_loop()
    started = loop.time()
    await world.kill(dead)
    leave = await bob.wait("leave")
    assert loop.time() - started < 1.5
    assert leave.action == RECONNECT and leave.can_reconnect
    await world.command("eu-1", "close_relay")
    assert ann.all("leave") == []
    again = await world.join(hello("bob", region="us"))
    assert again.all("join")[0].participant.attributes["headwater.node"] == other
    await world.command(other, "open_relay")
    await world.command(other, "add_remote_track")
    await until(lambda: ann.roster()["bob"].sid == again.sid, 15, "ann sees bob's new session")
    assert again.all("leave") == []


async def test_duplicate_identity_sends_the_older_away(world: World) -> None:
    older = await world.join(hello("ann"))
    watcher = await world.join(hello("bob"))
    newer = await world.join(hello("ann"))
    leave = await older.wait("leave")
    assert (leave.reason, leave.action) == (models.DisconnectReason.DUPLICATE_IDENTITY, DISCONNECT)
    await until(lambda: older.closed, 15, "the older channel is closed")
    await until(lambda: watcher.roster()["ann"].sid == newer.sid, 15, "bob sees the newer ann")
    assert newer.all("leave") == []


async def test_resume_keeps_the_participant_and_restarts_ice(world: World) -> None:
    ann = await world.join(hello("ann", region="eu"))
    bob = await world.join(hello("bob", region="eu"))
    await publish(ann, ("audio", "mic"))
    await world.command("eu-1", "configure_send", match=lambda c: len(c.sections) == 1)
    ann.drop()
    assert ann.task is not None
    await ann.task
    back = world.connect(hello("ann", region="eu", reconnect=True, reconnect_sid=ann.sid))
    await back.wait("reconnect")
    assert back.received[0].WhichOneof("message") == "reconnect"
    restart = await world.command("eu-1", "restart_ice", match=lambda c: c.transport_id == f"{ann.sid}/sub")
    offer = await back.wait("offer")
    assert f"a=ice-ufrag:{restart.local_ufrag}" in offer.sdp
    back.offer(("audio", "mic"), ufrag="new1")
    answer = await back.wait("answer")
    again = await world.command("eu-1", "restart_ice", match=lambda c: c.transport_id == f"{ann.sid}/pub")
    assert f"a=ice-ufrag:{again.local_ufrag}" in answer.sdp
    await until(
        lambda: "bob" in {p.identity for u in back.all("update") for p in u.participants}, 15, "roster"
    )
    assert bob.roster()["ann"].sid == ann.sid


async def test_unknown_resume_asks_for_a_full_reconnect(world: World) -> None:
    lost = world.connect(hello("ann", reconnect=True, reconnect_sid="PA_gone"))
    leave = await lost.wait("leave")
    assert (leave.reason, leave.action) == (models.DisconnectReason.STATE_MISMATCH, RECONNECT)


async def test_resume_by_somebody_else_is_refused(world: World) -> None:
    ann = await world.join(hello("ann"))
    thief = world.connect(hello("eve", reconnect=True, reconnect_sid=ann.sid))
    assert (await thief.wait("leave")).action == RECONNECT
    assert ann.closed is None


async def test_a_client_that_does_not_come_back_is_taken_off(world: World) -> None:
    ann = await world.join(hello("ann"))
    bob = await world.join(hello("bob"))
    await until(lambda: "ann" in bob.roster(), 15, "bob sees ann")
    ann.drop()
    await until(lambda: "ann" not in bob.roster(), 15, "bob sees ann go")
    await until(lambda: len(world.runner) == 1, 15, "ann's session is forgotten")


async def test_data_goes_to_others_with_the_senders_name(world: World) -> None:
    ann = await world.join(hello("ann", region="eu"))
    bob = await world.join(hello("bob", region="us"))
    cas = await world.join(hello("cas", region="us"))
    node = bob.all("join")[0].participant.attributes["headwater.node"]
    await world.command(node, "create_transport", 4)
    packet = models.DataPacket(
        user=models.UserPacket(payload=b"hi", topic="chat"), sequence=3, participant_identity="not ann"
    )
    for target in ([], ["cas"]):
        packet.destination_identities[:] = target
        data = node_pb2.DataEvent(
            transport_id=f"{ann.sid}/pub", label="_reliable", payload=packet.SerializeToString(), binary=True
        )
        world.emit("eu-1", node_pb2.Event(data=data))
    broadcast, targeted = [await world.command(node, "send_data", n) for n in (1, 2)]
    assert set(broadcast.transport_ids) == {f"{bob.sid}/sub", f"{cas.sid}/sub"}
    assert list(targeted.transport_ids) == [f"{cas.sid}/sub"]
    got = models.DataPacket.FromString(broadcast.payload)
    assert (got.participant_identity, got.participant_sid) == ("ann", ann.sid)
    assert (got.user.payload, got.user.topic, got.sequence) == (b"hi", "chat", 3)
    assert broadcast.label == "_reliable"
    assert world.commands("eu-1", "send_data") == []


async def test_mute_and_metadata_reach_the_others(world: World) -> None:
    grant = VideoGrant(room_join=True, room="demo", can_update_own_metadata=True)
    ann = await world.join(hello("ann", grant=grant))
    bob = await world.join(hello("bob"))
    (audio,) = await publish(ann, ("audio", "mic"))
    ann.say(mute=rtc.MuteTrackRequest(sid=audio, muted=True))
    await until(lambda: [t.muted for t in bob.roster()["ann"].tracks] == [True], 15, "bob sees the mute")
    change = rtc.UpdateParticipantMetadata(metadata="m", attributes={"hand": "up"}, request_id=5)
    ann.say(update_metadata=change)
    await until(lambda: bob.roster()["ann"].attributes.get("hand") == "up", 15, "bob sees the attribute")
    assert (await ann.wait("request_response")).request_id == 5
    assert bob.roster()["ann"].attributes["headwater.region"] in {"eu", "us"}
    bob.say(update_metadata=change)
    refusal = await bob.wait("request_response")
    assert refusal.reason == rtc.RequestResponse.NOT_ALLOWED


async def test_explicit_subscription_and_layer_settings(world: World) -> None:
    ann = await world.join(hello("ann", region="eu"))
    bob = await world.join(hello("bob", region="eu", auto_subscribe=False))
    (video,) = await publish(ann, ("video", "cam"))
    await until(lambda: bob.roster()["ann"].tracks, 15, "bob knows the track")
    assert len(bob.all("offer")) == 1
    bob.say(subscription=rtc.UpdateSubscription(track_sids=[video], subscribe=True))
    section = (await world.command("eu-1", "configure_send", match=lambda c: len(c.sections) == 1)).sections[
        0
    ]
    assert (section.max_spatial, section.paused) == (2, False)
    bob.say(track_setting=rtc.UpdateTrackSettings(track_sids=[video], width=300, height=170))
    update = await world.command("eu-1", "update_subscription")
    assert (update.track_id, update.max_spatial, update.paused) == (video, 0, False)
    bob.say(track_setting=rtc.UpdateTrackSettings(track_sids=[video], disabled=True))
    assert (await world.command("eu-1", "update_subscription", 2)).paused
    assert (await ann.wait("track_subscribed")).track_sid == video


async def test_hostile_input_hurts_nobody_else(world: World) -> None:
    eve = await world.join(hello("eve"))
    bob = await world.join(hello("bob"))
    eve.say(offer=rtc.SessionDescription(type="offer", sdp="v=0\r\nm=absurd"))
    assert "session description" in (await eve.wait("request_response")).message
    eve.say(answer=rtc.SessionDescription(type="answer", sdp="x" * 100_000, id=99))
    eve.say(update_metadata=rtc.UpdateParticipantMetadata(metadata="x" * 70_000))
    eve.say(add_track=rtc.AddTrackRequest(cid="", type=models.TrackType.DATA))
    eve.say(mute=rtc.MuteTrackRequest(sid="TR_nobody", muted=True))
    eve.say(
        track_setting=rtc.UpdateTrackSettings(track_sids=["TR_x"] * 5000, quality=models.VideoQuality.OFF)
    )
    eve.say(subscription=rtc.UpdateSubscription(track_sids=[f"TR_{i}" for i in range(5000)], subscribe=True))
    eve.say(store_data_blob_request={})
    eve.say(ping_req=rtc.Ping(timestamp=1))
    await eve.wait("pong_resp")
    bob.say(ping_req=rtc.Ping(timestamp=2))
    assert (await bob.wait("pong_resp")).last_ping_timestamp == 2
    assert bob.closed is None and bob.all("leave") == []


async def test_a_client_with_useless_descriptions_is_sent_away(world: World) -> None:
    eve = await world.join(hello("eve"))
    for _ in range(5):
        eve.say(offer=rtc.SessionDescription(type="offer", sdp="nonsense"))
    assert (await eve.wait("leave")).action == DISCONNECT


async def test_meeting_policy_and_deletion(world: World) -> None:
    denied = RoomConfig(max_participants=1, denied_regions=frozenset({RegionName("eu")}))
    world.directory.meeting_seen("demo", denied)  # type: ignore[arg-type]
    ann = await world.join(hello("ann", region="eu"))
    assert ann.all("join")[0].participant.attributes["headwater.region"] == "us"
    with pytest.raises(JoinRefused) as refusal:
        await world.runner.admit(hello("bob"))
    assert (refusal.value.status, refusal.value.reason) == (503, "RoomFull")
    late = world.connect(hello("bob"))
    assert (await late.wait("leave")).reason == models.DisconnectReason.JOIN_FAILURE
    world.directory.meeting_gone("demo")  # type: ignore[arg-type]
    assert (await ann.wait("leave")).reason == models.DisconnectReason.ROOM_DELETED


async def test_speakers_and_quality_are_told(world: World) -> None:
    ann = await world.join(hello("ann", region="eu"))
    bob = await world.join(hello("bob", region="us"))
    (audio,) = await publish(ann, ("audio", "mic"))
    await world.command("eu-1", "configure_receive", match=lambda c: c.sections[0].track_id == audio)
    levels = node_pb2.AudioLevels(levels=[node_pb2.AudioLevel(track_id=audio, level=10)])
    world.emit("eu-1", node_pb2.Event(audio_levels=levels))
    (speaker,) = (await bob.wait("speakers_changed")).speakers
    assert (speaker.sid, speaker.active) == (ann.sid, True)
    silent = await bob.wait("speakers_changed", 2, 5)
    assert [s.active for s in silent.speakers] == [False]
    world.emit("eu-1", node_pb2.Event(quality=node_pb2.QualityEvent(participant_id=ann.sid, rtt_ms=20)))
    (quality,) = (await bob.wait("connection_quality")).updates
    assert quality.quality == models.ConnectionQuality.EXCELLENT


async def test_active_once_the_subscriber_transport_is_connected(world: World) -> None:
    ann = await world.join(hello("ann", region="eu"))
    bob = await world.join(hello("bob"))
    event = node_pb2.TransportEvent(transport_id=f"{ann.sid}/sub", state=node_pb2.TRANSPORT_CONNECTED)
    await world.command("eu-1", "create_transport", match=lambda c: c.transport_id == event.transport_id)
    world.emit("eu-1", node_pb2.Event(transport=event))
    await until(lambda: bob.roster()["ann"].state == models.ParticipantInfo.ACTIVE, 15, "ann is active")


async def test_the_node_closing_the_room_is_as_good_as_dying(world: World) -> None:
    ann = await world.join(hello("ann", region="eu", protocol=12))
    await world.command("eu-1", "create_transport")
    world.emit("eu-1", node_pb2.Event(room_closed=node_pb2.RoomClosed(reason="lease lapsed")))
    assert (await ann.wait("leave")).action == RECONNECT


async def test_unpublish_by_renegotiation(world: World) -> None:
    ann = await world.join(hello("ann", region="eu"))
    bob = await world.join(hello("bob", region="us"))
    (audio,) = await publish(ann, ("audio", "mic"))
    node = bob.all("join")[0].participant.attributes["headwater.node"]
    await world.command(node, "add_remote_track")
    gone = publisher_offer(("audio", "mic")).replace("a=sendonly", "a=inactive")
    ann.say(offer=rtc.SessionDescription(type="offer", sdp=gone))
    assert (await world.command(node, "remove_remote_track")).track_id == audio
    await until(lambda: not bob.roster()["ann"].tracks, 15, "bob sees it unpublished")


async def test_a_node_that_refuses_a_transport_loses_the_participant(world: World) -> None:
    def refuse(request: node_pb2.ApplyRequest) -> node_pb2.ApplyResponse:
        results = [
            node_pb2.CommandResult(error="node is full" if c.HasField("create_transport") else "")
            for c in request.commands
        ]
        return node_pb2.ApplyResponse(results=results)

    world.nodes["eu-1"].respond = refuse
    ann = await world.join(hello("ann", region="eu"))
    leave = await ann.wait("leave")
    assert (leave.reason, leave.action) == (models.DisconnectReason.MIGRATION, RECONNECT)


async def test_a_draining_node_is_left_and_takes_nobody(world: World) -> None:
    ann = await world.join(hello("ann", region="eu", protocol=12))
    bob = await world.join(hello("bob", region="us"))
    world.nodes["eu-1"].report.draining = True
    world.nodes["eu-1"].push()
    assert (await ann.wait("leave", within_s=5)).action == RECONNECT
    await world.command("eu-1", "close_transport", 2)
    again = await world.join(hello("ann", region="eu"))
    assert again.all("join")[0].participant.attributes["headwater.region"] == "us"
    assert bob.all("leave") == []


async def test_no_node_means_an_http_error_before_the_upgrade(world: World) -> None:
    for name in ("eu-1", "us-1", "us-2"):
        world.directory.pool.pod_gone(NodeId(name))
    with pytest.raises(JoinRefused) as refusal:
        await world.runner.admit(hello("ann"))
    assert (refusal.value.status, refusal.value.reason) == (503, "NoNode")


async def test_a_resume_does_not_wait_for_the_old_network(world: World) -> None:
    ann = await world.join(hello("ann", region="eu"))
    gone = asyncio.Event()

    async def hang(code: int = 1000, reason: str = "") -> None:
        await gone.wait()
        await FakeClient.close(ann, code, reason)

    ann.close = hang  # type: ignore[method-assign]
    back = world.connect(hello("ann", region="eu", reconnect=True, reconnect_sid=ann.sid))
    await back.wait("offer")
    assert ann.closed is None
    gone.set()
    await until(lambda: ann.closed, 15, "the old WebSocket is closed too")
    back.say(ping_req=rtc.Ping(timestamp=1))
    await back.wait("pong_resp")


async def test_a_session_that_cannot_start_leaves_nobody_behind(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = await world.join(hello("bob"))

    async def broken(*_: object) -> None:
        raise RuntimeError("boom")

    with monkeypatch.context() as patch:
        patch.setattr(Session, "start", broken)
        ann = world.connect(hello("ann"))
        assert ann.task is not None
        with pytest.raises(RuntimeError, match="boom"):
            await ann.task
    room = world.directory.room(RoomId("demo"))
    assert room is not None
    await until(lambda: list(room.state.by_identity) == ["bob"], 15, "ann is off the roster", 0.01)
    assert len(world.runner) == 1 and bob.closed is None


async def test_a_reader_that_fails_gives_the_client_its_grace(world: World) -> None:
    bob = await world.join(hello("bob"))
    ann = await world.join(hello("ann"))
    await until(lambda: "ann" in bob.roster(), 15, "bob sees ann")

    async def broken() -> rtc.SignalRequest | None:
        raise RuntimeError("boom")

    ann.recv = broken  # type: ignore[method-assign]
    ann.say(ping_req=rtc.Ping(timestamp=1))
    assert ann.task is not None
    with pytest.raises(RuntimeError, match="boom"):
        await ann.task
    await until(lambda: "ann" not in bob.roster(), 15, "ann is taken off after her grace")


async def test_a_fault_in_noting_what_one_subscriber_wants_ends_that_session_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await world.join(hello("ann", region="eu"))
    bob = await world.join(hello("bob", region="eu"))
    eve = await world.join(hello("eve", region="eu"))
    for client in (ann, bob, eve):
        await client.wait("offer")
    want = SessionMedia.want

    def broken(media: SessionMedia, *change: Any) -> tuple[node_pb2.Command, ...]:
        if media._sid == bob.sid:
            raise RuntimeError("a fault of ours")
        return want(media, *change)

    monkeypatch.setattr(SessionMedia, "want", broken)
    await publish(ann, ("audio", "mic"))
    assert (await bob.wait("leave")).action == DISCONNECT
    await world.command(
        "eu-1", "configure_send", match=lambda c: c.transport_id == f"{eve.sid}/sub" and c.sections
    )
    await until(lambda: "bob" not in ann.roster() and "eve" in ann.roster(), 15, "bob alone has left")
