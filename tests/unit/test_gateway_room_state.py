"""A room's decisions, as pure state: no loop, no clock, no network."""

import pytest
from headwater_api.ids import (
    GatewayId,
    NodeId,
    ParticipantIdentity,
    ParticipantSid,
    RegionName,
    RoomId,
    TrackSid,
)
from headwater_api.nodev1 import node_pb2
from headwater_gateway.nodes.facts import NodeFacts
from headwater_gateway.room import (
    codec,
    data,
    effects,
    events,
    links,
    moderation,
    quality,
    roster,
    snapshot,
    speakers,
    subscriptions,
    tracks,
)
from headwater_gateway.room.crossing import Forwarded
from headwater_gateway.room.model import JoinRequest, Participant, RoomConfig, TrackSetting
from headwater_gateway.room.policy import check_join
from headwater_gateway.room.ports import JoinRefusal, RoomError
from headwater_gateway.room.requests import handle_request
from headwater_gateway.room.state import RoomState
from headwater_gateway.room.timers import next_deadline, run_due
from headwater_gateway.room.wire import participant_info
from headwater_gateway.sdp.types import OfferedSection
from livekit.protocol import models, rtc
from support.counting_ids import CountingIds

OPUS = node_pb2.CodecMap(payload_type=111, codec=node_pb2.CODEC_OPUS, clock_rate=48000, channels=2)
VP8 = node_pb2.CodecMap(payload_type=96, codec=node_pb2.CODEC_VP8, clock_rate=90000)
H264 = node_pb2.CodecMap(payload_type=102, codec=node_pb2.CODEC_H264, clock_rate=90000)
LAYERS = [models.VideoLayer(width=w, height=w * 9 // 16) for w in (320, 640, 1280)]


@pytest.fixture
def room() -> RoomState:
    return RoomState(RoomId("demo"), "RM_1", RoomConfig(), 1000, 0.0, CountingIds())


def facts(name: str, region: str) -> NodeFacts:
    return NodeFacts(
        NodeId(name), RegionName(region), "1", (f"127.0.0.1:{7000 + ord(name[-1])}",), "sha-256 AB", 1000
    )


def permission(**changes: object) -> models.ParticipantPermission:
    return models.ParticipantPermission(
        **{"can_subscribe": True, "can_publish": True, "can_publish_data": True, **changes}  # type: ignore[arg-type]
    )


def join(room: RoomState, who: str, node: str = "eu-1", now: float = 0.0, **changes: object) -> Participant:
    grants = changes.pop("permission", permission())
    request = JoinRequest(ParticipantIdentity(who), permission=grants, **changes)  # type: ignore[arg-type]
    return roster.join(room, request, facts(node, node[:2]), now=now, unix_ms=5000)


def publish(room: RoomState, who: Participant, kind: str = "audio", cid: str = "c") -> TrackSid:
    audio = kind == "audio"
    request = rtc.AddTrackRequest(
        cid=cid,
        type=models.TrackType.AUDIO if audio else models.TrackType.VIDEO,
        source=models.TrackSource.MICROPHONE if audio else models.TrackSource.CAMERA,
        layers=[] if audio else LAYERS,
    )
    tracks.add_track(room, who, request, 0.0)
    section = OfferedSection(
        mid=cid,
        kind=node_pb2.KIND_AUDIO if audio else node_pb2.KIND_VIDEO,
        cid=cid,
        stream_id="",
        codecs=(OPUS,) if audio else (VP8, H264),
        layers=() if audio else tuple(node_pb2.Layer(rid=r, spatial=i) for i, r in enumerate("qhf")),
    )
    tracks.set_sections(room, who, [*who.sections, section], 0.0)
    return next(t.sid for t in who.tracks.values() if t.cid == cid)


def told(room: RoomState, sid: str, kind: str) -> list[object]:
    """The messages of a kind to one client, among the effects so far."""
    return [
        getattr(e.message, kind)
        for e in room.effects
        if isinstance(e, effects.ToClients) and sid in e.sids and e.message.WhichOneof("message") == kind
    ]


def commands(room: RoomState, node: str, kind: str) -> list[object]:
    return [
        getattr(c, kind)
        for e in room.effects
        if isinstance(e, effects.ToNode) and e.node_id == node
        for c in e.commands
        if c.WhichOneof("command") == kind
    ]


def leaves(room: RoomState) -> dict[str, int]:
    return {e.sid: e.leave.action for e in room.effects if isinstance(e, effects.EndSession) and e.leave}


def test_server_attributes_cannot_be_claimed_or_changed(room: RoomState) -> None:
    ann = join(
        room,
        "ann",
        attributes={"headwater.node": "mine", "mood": "good"},
        permission=permission(can_update_metadata=True),
    )
    assert ann.attributes == {"mood": "good", "headwater.region": "eu", "headwater.node": "eu-1"}
    change = rtc.UpdateParticipantMetadata(attributes={"headwater.region": "us"})
    handle_request(room, ann.sid, rtc.SignalRequest(update_metadata=change), 0.0)
    assert ann.attributes["headwater.region"] == "eu"
    whole = rtc.UpdateParticipantMetadata(attributes={**ann.attributes, "mood": ""})
    handle_request(room, ann.sid, rtc.SignalRequest(update_metadata=whole), 0.0)
    assert "mood" not in ann.attributes


def test_updates_are_coalesced_and_carry_the_latest_row(room: RoomState) -> None:
    ann, bob = join(room, "ann"), join(room, "bob")
    room.flush_updates()
    room.take_effects()
    room.housekeeping_due = 11.0
    for name in ("one", "two"):
        ann.name = name
        room.announce(ann, 10.0)
    assert told(room, bob.sid, "update") == []
    assert 0.09 <= next_deadline(room, 10.0) <= 0.3
    run_due(room, 10.3)
    (update,) = told(room, bob.sid, "update")
    assert [p.name for p in update.participants] == ["two"]  # type: ignore[attr-defined]


def test_versions_only_grow(room: RoomState) -> None:
    ann = join(room, "ann")
    before = ann.version
    publish(room, ann)
    tracks.mute(room, ann, rtc.MuteTrackRequest(sid=next(iter(ann.tracks)), muted=True), 0.0)
    assert ann.version == before + 2


def test_hidden_participants_are_seen_by_nobody(room: RoomState) -> None:
    spy, bob = join(room, "spy", permission=permission(hidden=True)), join(room, "bob")
    assert roster.others(room, bob.sid) == []
    room.flush_updates()
    for update in told(room, bob.sid, "update"):
        assert all(p.identity != "spy" for p in update.participants)  # type: ignore[attr-defined]
    assert [p.identity for u in told(room, spy.sid, "update") for p in u.participants if p.identity == "spy"]  # type: ignore[attr-defined]
    roster.remove(room, spy.sid, models.DisconnectReason.CLIENT_INITIATED, 1.0)
    room.flush_updates()
    for update in told(room, bob.sid, "update"):
        assert all(p.identity != "spy" for p in update.participants)  # type: ignore[attr-defined]


def test_sources_outside_the_grant_are_refused(room: RoomState) -> None:
    only_mic = permission(can_publish_sources=[models.TrackSource.MICROPHONE])
    ann = join(room, "ann", permission=only_mic)
    request = rtc.AddTrackRequest(cid="x", type=models.TrackType.VIDEO, source=models.TrackSource.CAMERA)
    tracks.add_track(room, ann, request, 0.0)
    (answer,) = told(room, ann.sid, "request_response")
    assert answer.reason == rtc.RequestResponse.NOT_ALLOWED  # type: ignore[attr-defined]
    assert answer.add_track.cid == "x" and not ann.tracks  # type: ignore[attr-defined]


def test_add_track_twice_gives_one_track(room: RoomState) -> None:
    ann = join(room, "ann")
    request = rtc.AddTrackRequest(cid="x", type=models.TrackType.AUDIO)
    tracks.add_track(room, ann, request, 0.0)
    tracks.add_track(room, ann, request, 0.0)
    first, second = told(room, ann.sid, "track_published")
    assert first.track.sid == second.track.sid and len(ann.tracks) == 1  # type: ignore[attr-defined]


def test_tracks_are_bounded(room: RoomState) -> None:
    ann = join(room, "ann")
    for n in range(tracks.MAX_TRACKS + 5):
        tracks.add_track(room, ann, rtc.AddTrackRequest(cid=str(n), type=models.TrackType.AUDIO), 0.0)
    assert len(ann.tracks) == tracks.MAX_TRACKS


def test_the_codec_that_is_really_sent_wins(room: RoomState) -> None:
    ann, bob = join(room, "ann"), join(room, "bob")
    video = publish(room, ann, "video")
    assert bob.wanted[video].codec == VP8
    event = node_pb2.Event(track=node_pb2.TrackEvent(track_id=video, codec=node_pb2.CODEC_H264))
    events.handle_event(room, NodeId("eu-1"), event, 0.0)
    assert bob.wanted[video].codec == H264


@pytest.mark.parametrize(
    ("setting", "spatial"),
    [
        (TrackSetting(), 2),
        (TrackSetting(quality=models.VideoQuality.LOW), 0),
        (TrackSetting(quality=models.VideoQuality.MEDIUM), 1),
        (TrackSetting(width=320, height=180), 0),
        (TrackSetting(width=321, height=180), 1),
        (TrackSetting(width=180, height=320), 0),
        (TrackSetting(width=4000, height=3000), 2),
    ],
)
def test_settings_select_a_layer(setting: TrackSetting, spatial: int) -> None:
    assert subscriptions.wanted_spatial(LAYERS, setting) == spatial


def test_layer_zero_widths_fall_back_to_quality() -> None:
    empty = [models.VideoLayer()] * 3
    assert subscriptions.wanted_spatial(empty, TrackSetting(width=10, height=10)) == 2


def test_subscription_permission_is_kept_and_told(room: RoomState) -> None:
    ann, bob, cas = join(room, "ann"), join(room, "bob"), join(room, "cas")
    audio, video = publish(room, ann, "audio", "a"), publish(room, ann, "video", "v")
    room.take_effects()
    rule = rtc.TrackPermission(participant_identity="bob", track_sids=[audio])
    request = rtc.SubscriptionPermission(all_participants=False, track_permissions=[rule])
    handle_request(room, ann.sid, rtc.SignalRequest(subscription_permission=request), 0.0)
    assert list(bob.wanted) == [audio] and not cas.wanted
    lost = {(u.track_sid, u.allowed) for u in told(room, cas.sid, "subscription_permission_update")}  # type: ignore[attr-defined]
    assert lost == {(audio, False), (video, False)}
    everyone = rtc.SubscriptionPermission(all_participants=True)
    handle_request(room, ann.sid, rtc.SignalRequest(subscription_permission=everyone), 0.0)
    assert len(cas.wanted) == 2


def test_nobody_without_the_grant_subscribes(room: RoomState) -> None:
    ann, deaf = join(room, "ann"), join(room, "deaf", permission=permission(can_subscribe=False))
    publish(room, ann)
    assert not deaf.wanted


def test_publishers_hear_which_layers_are_wanted(room: RoomState) -> None:
    ann, bob = join(room, "ann"), join(room, "bob")
    video = publish(room, ann, "video")
    subscriptions.settle(room, room.tracks[video])
    room.take_effects()
    bob.settings[video] = TrackSetting(quality=models.VideoQuality.MEDIUM)
    subscriptions.sync_subscriber(room, bob)
    (update,) = told(room, ann.sid, "subscribed_quality_update")
    assert [q.enabled for q in update.subscribed_codecs[0].qualities] == [True, True, False]  # type: ignore[attr-defined]
    subscriptions.sync_subscriber(room, bob)
    assert len(told(room, ann.sid, "subscribed_quality_update")) == 1


def live(track: TrackSid) -> node_pb2.Event:
    return node_pb2.Event(
        track=node_pb2.TrackEvent(track_id=track, live_spatial=[0], codec=node_pb2.CODEC_VP8)
    )


def test_publishers_hear_of_layers_once_they_have_the_publication(room: RoomState) -> None:
    ann, bob = join(room, "ann"), join(room, "bob", "us-1")
    video = publish(room, ann, "video")
    subscriptions.sync_subscriber(room, bob)
    assert told(room, ann.sid, "track_published") and not told(room, ann.sid, "subscribed_quality_update")
    events.handle_event(room, NodeId("us-1"), live(video), 0.1)  # over a link: says nothing of the client
    assert not told(room, ann.sid, "subscribed_quality_update")
    events.handle_event(room, NodeId("eu-1"), live(video), 0.1)
    events.handle_event(room, NodeId("eu-1"), live(video), 0.2)
    (update,) = told(room, ann.sid, "subscribed_quality_update")
    assert update.track_sid == video  # type: ignore[attr-defined]
    kinds = [e.message.WhichOneof("message") for e in room.effects if isinstance(e, effects.ToClients)]
    assert kinds.index("track_published") < kinds.index("subscribed_quality_update")


def test_a_muted_track_settles_by_the_clock(room: RoomState) -> None:
    ann, _ = join(room, "ann"), join(room, "bob")
    publish(room, ann, "video")
    run_due(room, subscriptions.SETTLE_S - 0.1)
    assert not told(room, ann.sid, "subscribed_quality_update")
    run_due(room, subscriptions.SETTLE_S + 1.0)
    assert len(told(room, ann.sid, "subscribed_quality_update")) == 1


def test_meetings_cap_the_layer(room: RoomState) -> None:
    room.config = RoomConfig(max_spatial=1)
    ann, bob = join(room, "ann"), join(room, "bob")
    video = publish(room, ann, "video")
    assert bob.wanted[video].max_spatial == 1


def test_node_loss_moves_its_own_and_rejoining_is_no_duplicate(room: RoomState) -> None:
    ann, bob = join(room, "ann", "eu-1"), join(room, "bob", "us-1")
    audio = publish(room, bob)
    assert list(ann.wanted) == [audio]
    room.take_effects()
    assert roster.lose_node(room, NodeId("us-1"), "killed", 1.0) == 1
    assert leaves(room) == {bob.sid: rtc.LeaveRequest.RECONNECT}
    assert effects.ReleaseNode(NodeId("us-1"), dead=True) in room.effects
    assert commands(room, "eu-1", "remove_remote_track") and commands(room, "eu-1", "close_relay")
    assert commands(room, "us-1", "close_relay") == []
    room.take_effects()
    again = join(room, "bob", "us-2", 2.0)
    assert leaves(room) == {}
    assert room.of_identity("bob") is again and bob.sid not in room.participants
    room.flush_updates()
    rows = [p for u in told(room, ann.sid, "update") for p in u.participants if p.identity == "bob"]  # type: ignore[attr-defined]
    assert [(p.sid, p.state) for p in rows] == [
        (bob.sid, models.ParticipantInfo.DISCONNECTED),
        (again.sid, models.ParticipantInfo.JOINED),
    ]


def test_those_who_do_not_come_back_are_taken_off(room: RoomState) -> None:
    ann, bob = join(room, "ann", "eu-1"), join(room, "bob", "us-1")
    ann.detached_at = 0.0
    roster.lose_node(room, NodeId("us-1"), "killed", 0.0)
    roster.expire(room, 9.9)
    assert len(room.participants) == 2
    roster.expire(room, 10.0)
    assert list(room.participants) == [bob.sid]
    roster.expire(room, 20.0)
    assert not room.participants


@pytest.mark.parametrize(
    "case",
    [
        ("eu-1", "sub", node_pb2.TRANSPORT_CLOSED, 1.0),
        ("eu-1", "pub", node_pb2.TRANSPORT_CLOSED, 10.0),
        ("us-1", "sub", node_pb2.TRANSPORT_CLOSED, 10.0),  # a node that it has left
        ("eu-1", "sub", node_pb2.TRANSPORT_FAILED, 10.0),
    ],
)
def test_who_hangs_up_without_a_word_is_not_waited_for(
    room: RoomState, case: tuple[str, str, node_pb2.TransportState.ValueType, float]
) -> None:
    node, role, state, grace = case
    ann = join(room, "ann", "eu-1")
    event = node_pb2.TransportEvent(transport_id=f"{ann.sid}/{role}", state=state)
    events.handle_event(room, NodeId(node), node_pb2.Event(transport=event), 0.0)
    roster.expire(room, 5.0)
    assert ann.sid in room.participants, "its WebSocket is there"
    ann.detached_at = 5.0
    roster.expire(room, 4.9 + grace)
    assert ann.sid in room.participants
    roster.expire(room, 5.0 + grace)
    assert not room.participants


def test_who_connects_again_has_not_hung_up(room: RoomState) -> None:
    ann = join(room, "ann", "eu-1")
    for state in (node_pb2.TRANSPORT_CLOSED, node_pb2.TRANSPORT_CONNECTED):
        event = node_pb2.TransportEvent(transport_id=f"{ann.sid}/sub", state=state)
        events.handle_event(room, NodeId("eu-1"), node_pb2.Event(transport=event), 0.0)
    ann.detached_at = 0.0
    roster.expire(room, 9.9)
    assert ann.sid in room.participants


def test_an_empty_room_ends_after_its_timeout(room: RoomState) -> None:
    roster.end_if_empty(room, 299.0)
    assert not room.ended
    ann = join(room, "ann", now=299.0)
    roster.remove(room, ann.sid, models.DisconnectReason.CLIENT_INITIATED, 300.0)
    roster.end_if_empty(room, 319.0)
    assert not room.ended
    roster.end_if_empty(room, 320.0)
    assert room.ended and isinstance(room.effects[-1], effects.RoomEnded)


def test_full_and_locked_rooms_let_only_those_back_who_are_in(room: RoomState) -> None:
    join(room, "ann")
    for config, reason in (
        (RoomConfig(max_participants=1), "RoomFull"),
        (RoomConfig(locked=True), "RoomLocked"),
    ):
        room.config = config
        with pytest.raises(JoinRefusal) as refusal:
            check_join(room, JoinRequest(ParticipantIdentity("bob")), 0)
        assert refusal.value.reason == reason
        check_join(room, JoinRequest(ParticipantIdentity("ann")), 0)


def test_a_refused_link_is_opened_anew_with_other_keys(room: RoomState) -> None:
    ann, bob = join(room, "ann", "eu-1"), join(room, "bob", "us-1")
    publish(room, ann)
    (first,) = commands(room, "eu-1", "open_relay")
    room.take_effects()
    links.reopen_link(room, first.link_id)  # type: ignore[attr-defined]
    (second,) = commands(room, "us-1", "open_relay")
    assert second.link_id != first.link_id and second.rx_key != first.tx_key  # type: ignore[attr-defined]
    (moved,) = commands(room, "us-1", "add_remote_track")
    assert moved.link_id == second.link_id  # type: ignore[attr-defined]
    assert bob.wanted


def test_data_that_breaks_the_rules_is_dropped_with_a_reason(room: RoomState) -> None:
    ann = join(room, "ann", permission=permission(can_publish_data=False))
    bob = join(room, "bob")

    def drop(sender: ParticipantSid, label: str, payload: bytes) -> str:
        event = node_pb2.DataEvent(transport_id=f"{sender}/pub", label=label, payload=payload)
        return data.route_data(room, event, 0.0)

    good = models.DataPacket(user=models.UserPacket(payload=b"x")).SerializeToString()
    assert "may not" in drop(ann.sid, "_reliable", good)
    assert "label" in drop(bob.sid, "evil", good)
    assert "DataPacket" in drop(bob.sid, "_lossy", b"\xff\xff\xff")
    assert "larger" in drop(bob.sid, "_lossy", b"x" * 70_000)
    assert "not in the room" in drop(ParticipantSid("PA_x"), "_lossy", good)
    assert drop(bob.sid, "_lossy", good) == ""


def test_who_is_shown_from_another_room_gets_no_data_and_is_not_moved(room: RoomState) -> None:
    ann, bob, eve = join(room, "ann"), join(room, "bob"), join(room, "eve")
    eve.forwarded = Forwarded(RoomId("elsewhere"), 0.0)
    packet = models.DataPacket(user=models.UserPacket(payload=b"x")).SerializeToString()
    event = node_pb2.DataEvent(transport_id=f"{ann.sid}/pub", label="_reliable", payload=packet)
    room.take_effects()
    assert data.route_data(room, event, 0.0) == ""
    (sent,) = commands(room, "eu-1", "send_data")
    assert list(sent.transport_ids) == [f"{bob.sid}/sub"]  # type: ignore[attr-defined]
    with pytest.raises(RoomError):
        moderation.move(room, "eve", models.Room(name="third"), "token", 0.0)
    assert eve.sid in room.participants


def test_what_a_dead_owner_may_not_have_passed_on_is_passed_on_by_the_next(room: RoomState) -> None:
    ann, bob = join(room, "ann"), join(room, "bob", "us-1")

    def say(state: RoomState, number: int, *, replayed: bool) -> list[object]:
        packet = models.DataPacket(sequence=number, user=models.UserPacket(payload=b"x")).SerializeToString()
        event = node_pb2.DataEvent(
            transport_id=f"{ann.sid}/pub", label="_reliable", payload=packet, replayed=replayed
        )
        state.take_effects()
        assert data.route_data(state, event, 0.0) == ""
        return commands(state, "us-1", "send_data")

    assert say(room, 7, replayed=False)
    blob = snapshot.encode(room, snapshot.Claim(1, GatewayId("gw-a")), 1, {}, 0.0)
    # The command of the seventh was still waiting when its gateway died.
    successor = snapshot.restore(snapshot.decode(blob), CountingIds(), 0.0)
    successor.nodes.update(room.nodes)
    assert successor.participants[ann.sid].data_sequence == 7
    assert say(successor, 7, replayed=True)
    assert not say(successor, 7, replayed=True), "once is enough"
    assert not say(successor, 0, replayed=True), "nobody would know it for a repeat"
    assert say(successor, 8, replayed=False) and bob.sid in successor.participants


def test_speakers_change_in_steps_and_fall_silent() -> None:
    board = speakers.SpeakerBoard()
    ann = ParticipantSid("PA_1")
    board.hear(ann, "TR_1", 20, 0.0)
    (first,) = board.changes(0.3)
    assert first.active and 0 < first.level <= 1
    board.hear(ann, "TR_1", 20, 0.4)
    assert board.changes(0.6) == []
    (last,) = board.changes(5.0)
    assert not last.active and board.due is None
    board.hear(ann, "TR_1", 127, 6.0)
    assert board.due is None


@pytest.mark.parametrize(
    ("loss", "rtt", "verdict"),
    [
        (0.0, 20, models.ConnectionQuality.EXCELLENT),
        (0.06, 80, models.ConnectionQuality.GOOD),
        (0.3, 200, models.ConnectionQuality.POOR),
    ],
)
def test_quality_from_loss_and_delay(loss: float, rtt: float, verdict: int) -> None:
    rated, score = quality.rate(loss, 0.0, rtt)
    assert rated == verdict and 1.0 <= score <= 4.5


def test_a_stopped_stream_is_told_to_its_subscriber(room: RoomState) -> None:
    ann, bob = join(room, "ann"), join(room, "bob")
    video = publish(room, ann, "video")
    event = node_pb2.SubscriptionEvent(transport_id=f"{bob.sid}/sub", track_id=video, current_spatial=-1)
    events.handle_event(room, NodeId("eu-1"), node_pb2.Event(subscription=event), 0.0)
    (update,) = told(room, bob.sid, "stream_state_update")
    assert update.stream_states[0].state == rtc.StreamState.PAUSED  # type: ignore[attr-defined]


def test_events_of_strange_nodes_are_ignored(room: RoomState) -> None:
    ann = join(room, "ann")
    event = node_pb2.Event(room_closed=node_pb2.RoomClosed(reason="x"))
    assert events.handle_event(room, NodeId("us-9"), event, 0.0) == ""
    assert ann.moving_at is None


def test_a_link_that_stays_down_is_opened_anew(room: RoomState) -> None:
    join(room, "ann", "eu-1")
    join(room, "bob", "us-1")
    (first,) = commands(room, "eu-1", "open_relay")
    for at in (1.0, 2.0):
        event = node_pb2.Event(relay=node_pb2.RelayEvent(link_id=first.link_id, reason="silent"))  # type: ignore[attr-defined]
        events.handle_event(room, NodeId("us-1"), event, at)
    assert links.mend_links(room, 5.9) == []
    assert links.mend_links(room, 6.0) == [first.link_id]  # type: ignore[attr-defined]
    assert len(commands(room, "eu-1", "open_relay")) == 2
    assert links.mend_links(room, 60.0) == []


def test_levels_of_tracks_that_are_gone_are_forgotten() -> None:
    board = speakers.SpeakerBoard()
    for n in range(100):
        board.hear(ParticipantSid("PA_1"), f"TR_{n}", 10, now=float(n))
        board.changes(float(n))
    assert len(board._levels[ParticipantSid("PA_1")]) <= 2
    (silent,) = board.changes(200.0)
    assert not silent.active


def test_a_microphone_competes_to_be_heard_unless_a_host_has_muted_it(room: RoomState) -> None:
    ann = join(room, "ann")
    join(room, "cho", "us-1")
    sid, _ = publish(room, ann), publish(room, ann, "video", "cam")
    links.sync_cascade(room)

    def voices() -> list[bool]:
        return [s.voice for s in commands(room, "eu-1", "configure_receive")[-1].sections]  # type: ignore[attr-defined]

    assert voices() == [True, False]
    added = {c.track_id: c.voice for c in commands(room, "us-1", "add_remote_track")}  # type: ignore[attr-defined]
    assert added == {track: track == sid for track in ann.tracks}
    tracks.silence(room, ann, ann.tracks[sid], 0.0)
    assert voices() == [False, False]
    tracks.mute(room, ann, rtc.MuteTrackRequest(sid=sid, muted=False), 0.0)
    assert voices() == [True, False]
    ann.tracks[sid].info.source = models.TrackSource.SCREEN_SHARE_AUDIO
    tracks.configure(room, ann)
    assert voices() == [False, False]


def test_a_row_shows_every_change_of_its_participant(room: RoomState) -> None:
    """Its lasting part is copied from the row before: that must not outlive a change."""
    ann = join(room, "ann", name="Ann")
    before = participant_info(ann)
    track = publish(room, ann)
    ann.state, ann.version = models.ParticipantInfo.ACTIVE, 9
    row = participant_info(ann)
    assert (row.state, row.version, row.is_publisher) == (models.ParticipantInfo.ACTIVE, 9, True)
    assert [t.sid for t in row.tracks] == [track] and not before.tracks
    ann.name, ann.metadata, ann.region = "Anna", "m", RegionName("us")
    ann.attributes["mood"] = "good"
    ann.permission.can_publish = False
    row = participant_info(ann)
    assert (row.name, row.metadata, row.region, row.attributes["mood"]) == ("Anna", "m", "us", "good")
    assert not row.permission.can_publish
    assert before.name == "Ann" and "mood" not in before.attributes


def test_a_snapshot_grows_with_the_room_not_with_its_square(room: RoomState) -> None:
    """Who asked for nothing particular gets the same of a track: it is one value, packed once."""
    people = [join(room, who) for who in ("ann", "bob", "eve")]
    track = publish(room, people[0], "video")
    packed = codec.pack(room, 0.0)["participants"]
    assert packed[people[1].sid]["wanted"][track] is packed[people[2].sid]["wanted"][track]
    handle_request(
        room,
        people[1].sid,
        rtc.SignalRequest(track_setting=rtc.UpdateTrackSettings(track_sids=[track], disabled=True)),
        1.0,
    )
    packed = codec.pack(room, 1.0)["participants"]
    assert packed[people[1].sid]["wanted"][track]["paused"]
    assert "paused" not in packed[people[2].sid]["wanted"][track]
