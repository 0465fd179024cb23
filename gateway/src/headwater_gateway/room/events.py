"""What nodes report about the room's transports, tracks and links."""

from headwater_api.ids import LinkId, NodeId, ParticipantSid, TrackSid
from headwater_api.nodev1 import node_pb2
from livekit.protocol import models, rtc

from headwater_gateway.room import (
    crossings,
    links,
    migration,
    quality,
    roster,
    subscriptions,
    tracks,
)
from headwater_gateway.room.data import route_data
from headwater_gateway.room.effects import EndSession
from headwater_gateway.room.model import subscriber_transport, transport_owner
from headwater_gateway.room.relayed import note_path
from headwater_gateway.room.state import RoomState


def handle_event(room: RoomState, node_id: NodeId, event: node_pb2.Event, now: float) -> str:
    """Take in one event. Returns a remark for the log, or an empty string."""
    if node_id not in room.nodes:
        return ""  # a farewell of a node that the room has left
    match event.WhichOneof("event"):
        case "transport":
            return _on_transport(room, node_id, event.transport, now)
        case "track":
            _on_track(room, node_id, event.track)
        case "sources":
            sender = room.participants.get(transport_owner(event.sources.transport_id))
            if sender is not None:
                tracks.note_sources(sender, event.sources)
        case "audio_levels":
            _on_levels(room, node_id, event.audio_levels, now)
        case "data":
            return route_data(room, event.data, now)
        case "quality":
            _on_quality(room, event.quality, now)
        case "subscription":
            _on_subscription(room, node_id, event.subscription)
        case "relay":
            return _on_relay(room, event.relay, now)
        case _:
            pass
    return ""


def handle_refusal(room: RoomState, command: node_pb2.Command, error: str, now: float) -> None:
    """A node would not carry this command out."""
    match command.WhichOneof("command"):
        case "open_relay":
            links.reopen_link(room, LinkId(command.open_relay.link_id))
        case "create_transport":
            sid = transport_owner(command.create_transport.transport_id)
            roster.send_away(room, sid, f"its node refused it: {error}", now)
        case _:
            pass


def _on_transport(room: RoomState, node_id: NodeId, event: node_pb2.TransportEvent, now: float) -> str:
    participant = room.participants.get(transport_owner(event.transport_id))
    if participant is None or participant.node_id != node_id:
        return ""  # the node that it leaves: its transports there end when the client lets go of them
    note_path(participant, event)
    connected = event.state == node_pb2.TRANSPORT_CONNECTED
    primary = participant.is_http or event.transport_id == subscriber_transport(participant.sid)
    if connected and primary and participant.state == models.ParticipantInfo.JOINED:
        participant.state = models.ParticipantInfo.ACTIVE
        room.announce(participant, now)
        participant.detached_at = None if participant.is_http else participant.detached_at
        room.happened("participant_joined", participant)
    if primary and event.state in (node_pb2.TRANSPORT_CONNECTED, node_pb2.TRANSPORT_CLOSED):
        participant.has_hung_up = not connected
    if event.state in (node_pb2.TRANSPORT_FAILED, node_pb2.TRANSPORT_CLOSED) and participant.is_http:
        room.effects.append(EndSession(participant.sid, None, f"its transport is over: {event.reason}"))
        roster.remove(room, participant.sid, models.DisconnectReason.CONNECTION_TIMEOUT, now)
    elif event.state == node_pb2.TRANSPORT_FAILED:
        if participant.migration is not None:
            roster.send_away(room, participant.sid, f"it could not connect: {event.reason}", now)
        return f"{event.transport_id} failed: {event.reason}"
    return migration.connected(room, participant, event.transport_id) if connected else ""


def _on_track(room: RoomState, node_id: NodeId, event: node_pb2.TrackEvent) -> None:
    tracks.note_codec(room, event.track_id, event.codec)
    track = room.tracks.get(TrackSid(event.track_id))
    if track is not None and event.live_spatial and room.node_of_track(track) == node_id:
        subscriptions.settle(room, track)


def _on_levels(room: RoomState, node_id: NodeId, levels: node_pb2.AudioLevels, now: float) -> None:
    for row in levels.levels:
        track = room.tracks.get(TrackSid(row.track_id))
        # The publisher's own node speaks for the track; others may see it over a link, later.
        if track is None or room.node_of_track(track) != node_id:
            continue
        room.speakers.hear(track.publisher, track.sid, row.level, now)


def _on_quality(room: RoomState, event: node_pb2.QualityEvent, now: float) -> None:
    sid = ParticipantSid(event.participant_id)
    if sid in room.participants:
        verdict = quality.rate(event.uplink_loss, event.downlink_loss, event.rtt_ms)
        room.quality.hear(sid, verdict, now)


def _on_subscription(room: RoomState, node_id: NodeId, event: node_pb2.SubscriptionEvent) -> None:
    """A stream that stops although it is wanted and not paused was stopped by the network."""
    participant = room.participants.get(transport_owner(event.transport_id))
    track = room.tracks.get(TrackSid(event.track_id))
    if participant is None or participant.node_id != node_id:
        return
    if track is None or track.info.type != models.TrackType.VIDEO:
        return
    wanted = participant.wanted.get(track.sid)
    if wanted is None or wanted.paused:
        return
    paused = event.current_spatial < 0 and not track.info.muted
    state = rtc.StreamStateInfo(
        participant_sid=track.publisher,
        track_sid=track.sid,
        state=rtc.StreamState.PAUSED if paused else rtc.StreamState.ACTIVE,
    )
    update = rtc.StreamStateUpdate(stream_states=[state])
    room.tell(participant.sid, rtc.SignalResponse(stream_state_update=update))


def _on_relay(room: RoomState, event: node_pb2.RelayEvent, now: float) -> str:
    link_id = LinkId(event.link_id)
    known = next((k for k in room.cascade.open.values() if k.link_id == link_id), None)
    if known is None:
        crossings.mark(room, link_id, now, is_up=event.up)
        return ""
    links.mark_link(room, link_id, now, is_up=event.up)
    return f"link {link_id} is {'up' if event.up else 'down: ' + event.reason}"
