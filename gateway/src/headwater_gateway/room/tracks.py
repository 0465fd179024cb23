"""What participants publish: add_track, its m-line, mute, unpublish."""

import re
from collections.abc import Iterable
from typing import Final

from headwater_api.ids import TrackSid
from headwater_api.nodev1 import node_pb2
from livekit.protocol import models, rtc

from headwater_gateway.room.links import sync_cascade
from headwater_gateway.room.model import Participant, PublishedTrack, publisher_transport
from headwater_gateway.room.state import RoomState
from headwater_gateway.room.subscriptions import sync_tracks
from headwater_gateway.sdp.types import OfferedSection

MAX_TRACKS: Final = 32
_SID: Final = re.compile(r"TR_[A-Za-z0-9]{1,32}\Z")
MAX_NAME: Final = 256
MAX_LAYERS: Final = 4

CODEC_OF_MIME: Final = {
    "opus": node_pb2.CODEC_OPUS,
    "vp8": node_pb2.CODEC_VP8,
    "h264": node_pb2.CODEC_H264,
    "vp9": node_pb2.CODEC_VP9,
    "av1": node_pb2.CODEC_AV1,
    "h265": node_pb2.CODEC_H265,
}
MIME_OF_CODEC: Final = {
    node_pb2.CODEC_OPUS: "audio/opus",
    node_pb2.CODEC_PCMU: "audio/PCMU",
    node_pb2.CODEC_PCMA: "audio/PCMA",
    node_pb2.CODEC_VP8: "video/VP8",
    node_pb2.CODEC_H264: "video/H264",
    node_pb2.CODEC_VP9: "video/VP9",
    node_pb2.CODEC_AV1: "video/AV1",
    node_pb2.CODEC_H265: "video/H265",
}
REDUNDANT_MIME: Final = "audio/red"


def codec_named(request: rtc.AddTrackRequest) -> node_pb2.Codec.ValueType:
    """The codec that add_track asks for, as the node's enum; 0: none named, or none that we know."""
    if not request.simulcast_codecs:
        return node_pb2.CODEC_UNSPECIFIED
    name = request.simulcast_codecs[0].codec.rpartition("/")[2].lower()
    return CODEC_OF_MIME.get(name, node_pb2.CODEC_UNSPECIFIED)


def may_be_redundant(request: rtc.AddTrackRequest) -> bool:
    """Whether the track may be sent with copies of earlier frames (RFC 2198).

    Of frames that are encrypted end to end nobody on the way could tell the copies.
    """
    is_audio = request.type == models.TrackType.AUDIO
    return is_audio and not request.disable_red and request.encryption == models.Encryption.NONE


def add_track(room: RoomState, participant: Participant, request: rtc.AddTrackRequest, now: float) -> None:
    """`add_track`: answered by `track_published`, or by the reason why not. Repeats get the same answer."""
    for track in participant.tracks.values():
        if track.cid == request.cid and not request.sid:
            _tell_published(room, track)
            return
    refusal = _refusal(room, participant, request)
    if refusal is not None:
        reason, message = refusal
        response = rtc.RequestResponse(reason=reason, message=message, add_track=request)
        room.tell(participant.sid, rtc.SignalResponse(request_response=response))
        return
    sid = TrackSid(room.ids.sid("TR_"))
    track = PublishedTrack(sid, participant.sid, request.cid, _track_info(sid, request))
    participant.tracks[sid] = track
    room.tracks[sid] = track
    if room.config.mute_on_entry and not participant.role.moderates:
        track.info.muted = track.is_silenced = True  # its client is told once it has the publication
    _tell_published(room, track)
    bind(room, participant, now)


def _refusal(
    room: RoomState, participant: Participant, request: rtc.AddTrackRequest
) -> "tuple[rtc.RequestResponse.Reason, str] | None":
    reasons = rtc.RequestResponse
    permission = participant.permission
    allowed = permission.can_publish_sources
    if not permission.can_publish or (allowed and request.source not in allowed):
        return reasons.NOT_ALLOWED, "the token's grants do not allow this source to be published"
    if room.config.e2ee_required and request.encryption == models.Encryption.NONE:
        return reasons.NOT_ALLOWED, "the meeting asks for end-to-end encryption: turn it on in the client"
    return _oversize(participant, request)


def _oversize(
    participant: Participant, request: rtc.AddTrackRequest
) -> "tuple[rtc.RequestResponse.Reason, str] | None":
    reasons = rtc.RequestResponse
    if request.sid or request.type not in (models.TrackType.AUDIO, models.TrackType.VIDEO):
        return reasons.UNSUPPORTED_TYPE, "add_track takes AUDIO and VIDEO, and one codec for each track"
    if not request.cid or len(request.cid) > MAX_NAME or len(request.name) > MAX_NAME:
        return reasons.LIMIT_EXCEEDED, f"add_track.cid and name must have 1 to {MAX_NAME} characters"
    if len(request.layers) > MAX_LAYERS or len(request.simulcast_codecs) > MAX_LAYERS:
        return reasons.LIMIT_EXCEEDED, f"add_track may have at most {MAX_LAYERS} layers and codecs"
    if len(participant.tracks) >= MAX_TRACKS:
        return reasons.LIMIT_EXCEEDED, f"a participant may publish at most {MAX_TRACKS} tracks"
    return None


def _track_info(sid: TrackSid, request: rtc.AddTrackRequest) -> models.TrackInfo:
    codec = request.simulcast_codecs[0] if request.simulcast_codecs else None
    layers = list(codec.layers if codec is not None and codec.layers else request.layers)
    prefix = "audio" if request.type == models.TrackType.AUDIO else "video"
    info = models.TrackInfo(
        sid=sid,
        type=request.type,
        name=request.name,
        muted=request.muted,
        width=request.width,
        height=request.height,
        simulcast=len(layers) > 1,
        disable_dtx=request.disable_dtx,
        source=request.source,
        layers=layers,
        stereo=request.stereo,
        disable_red=request.disable_red,
        encryption=request.encryption,
        stream=request.stream,
        audio_features=request.audio_features,
    )
    if codec is not None and codec.codec:
        name = codec.codec if "/" in codec.codec else f"{prefix}/{codec.codec}"
        info.codecs.add(mime_type=name, cid=codec.cid or request.cid, layers=layers)
        info.mime_type = name
    return info


def republish(
    room: RoomState, participant: Participant, known: rtc.TrackPublishedResponse, now: float
) -> None:
    """A track that the room's last owner granted after its last snapshot. Repeats do nothing."""
    info, sid = known.track, TrackSid(known.track.sid)
    if sid in room.tracks or not _SID.match(sid):
        return
    request = rtc.AddTrackRequest(
        cid=known.cid,
        name=info.name,
        type=info.type,
        width=info.width,
        height=info.height,
        muted=info.muted,
        disable_dtx=info.disable_dtx,
        source=info.source,
        layers=info.layers,
        stereo=info.stereo,
        disable_red=info.disable_red,
        encryption=info.encryption,
        stream=info.stream,
        audio_features=info.audio_features,
        simulcast_codecs=[
            rtc.SimulcastCodec(codec=codec.mime_type, cid=codec.cid, layers=codec.layers)
            for codec in info.codecs[:MAX_LAYERS]
        ],
    )
    if _refusal(room, participant, request) is not None:
        return
    track = PublishedTrack(sid, participant.sid, known.cid, _track_info(sid, request))
    participant.tracks[sid] = track
    room.tracks[sid] = track
    bind(room, participant, now)


def _tell_published(room: RoomState, track: PublishedTrack) -> None:
    published = rtc.TrackPublishedResponse(cid=track.cid, track=track.info)
    room.tell(track.publisher, rtc.SignalResponse(track_published=published))


def set_sections(
    room: RoomState, participant: Participant, sections: Iterable[OfferedSection], now: float
) -> None:
    """An offer was answered with these m-lines. Tracks whose m-line is gone are unpublished."""
    participant.sections = tuple(s for s in sections if not s.inactive)
    participant.has_uplink = True
    for mid in participant.sources.keys() - {section.mid for section in participant.sections}:
        del participant.sources[mid]
    by_mid = {s.mid: s for s in participant.sections}
    for track in list(participant.tracks.values()):
        if track.section is None:
            continue
        current = by_mid.get(track.section.mid)
        if current is None or current.cid != track.section.cid:
            drop(room, participant, track)
            room.announce(participant, now, at_once=True)
            sync_tracks(room, [track.sid])
        else:
            track.section, track.codec = current, current.codecs[0] if current.codecs else None
    bind(room, participant, now, changed=True)


def bind(room: RoomState, participant: Participant, now: float, *, changed: bool = False) -> None:
    """Match tracks and m-lines, whichever came first, and publish what has both."""
    taken = {t.section.mid for t in participant.tracks.values() if t.section is not None}
    fresh = False
    for track in participant.tracks.values():
        if track.section is not None:
            continue
        section = _section_for(track, [s for s in participant.sections if s.mid not in taken])
        if section is not None:
            _attach(track, section)
            track.bound_at = now
            room.happened("track_published", participant, track)
            taken.add(section.mid)
            fresh = True
    if fresh or changed:
        configure(room, participant)
    if fresh:
        room.announce(participant, now, at_once=True)
    if fresh or changed:
        sync_cascade(room)
        sync_tracks(room, participant.tracks)


def _section_for(track: PublishedTrack, free: list[OfferedSection]) -> OfferedSection | None:
    """By the cid; an m-line without any id goes to the first track of its kind."""
    cids = {track.cid, *(codec.cid for codec in track.info.codecs if codec.cid)}
    same_kind = [s for s in free if s.kind == track.kind]
    for section in same_kind:
        if section.cid in cids:
            return section
    return next((s for s in same_kind if not s.cid), None)


def _attach(track: PublishedTrack, section: OfferedSection) -> None:
    track.section = section
    track.codec = section.codecs[0] if section.codecs else None
    track.info.mid = section.mid
    if track.codec is not None:
        track.info.mime_type = MIME_OF_CODEC.get(track.codec.codec, track.info.mime_type)
    if section.is_redundant:
        track.info.mime_type = REDUNDANT_MIME
    track.info.simulcast = track.info.simulcast or len(section.layers) > 1
    for codec in track.info.codecs[:1]:
        codec.mid = section.mid
        codec.mime_type = track.info.mime_type


def configure(room: RoomState, participant: Participant) -> None:
    """Tell the participant's node what it receives: on a new node, tracks without names until it is there."""
    if participant.forwarded is not None:  # it sends to no node of this room
        return
    here = participant.uplink_node == participant.node_id
    track_of = {t.section.mid: t for t in participant.tracks.values() if t.section is not None and here}
    rows = [
        _with_sources(_section(section, track_of.get(section.mid)), participant.sources.get(section.mid, ()))
        for section in participant.sections
    ]
    command = node_pb2.ConfigureReceive(transport_id=publisher_transport(participant.sid), sections=rows)
    room.command(participant.node_id, [node_pb2.Command(configure_receive=command)])


def _section(section: OfferedSection, track: PublishedTrack | None) -> node_pb2.ReceiveSection:
    if track is None:
        return section.receive_section("")
    # Who is silenced but still sends must not keep others from being heard.
    return section.receive_section(track.sid, voice=track.is_voice and not track.is_silenced)


def _with_sources(
    section: node_pb2.ReceiveSection, learnt: tuple[node_pb2.Layer, ...]
) -> node_pb2.ReceiveSection:
    """The m-line with SSRCs that were learnt, not signalled: a node that is new to it could not."""
    for layer in section.layers:
        known = next((x for x in learnt if (x.rid, x.spatial) == (layer.rid, layer.spatial)), None)
        if known is not None:
            layer.ssrc = layer.ssrc or known.ssrc
            layer.rtx_ssrc = layer.rtx_ssrc or known.rtx_ssrc
    return section


def note_sources(participant: Participant, event: node_pb2.SourcesEvent) -> None:
    """The node has learnt which SSRC carries which layer."""
    if any(section.mid == event.mid for section in participant.sections):
        participant.sources[event.mid] = tuple(event.layers[:MAX_LAYERS])


def mute(room: RoomState, participant: Participant, request: rtc.MuteTrackRequest, now: float) -> None:
    """`mute` by the owner. Dropping its media at the node could cost the first key frame afterwards."""
    track = participant.tracks.get(TrackSid(request.sid))
    if track is not None and track.info.muted != request.muted:
        track.info.muted = request.muted
        room.announce(participant, now, at_once=True)
    if track is not None and track.is_silenced and not request.muted:
        track.is_silenced = False
        _reconfigure_voice(room, participant, track)
        sync_tracks(room, [track.sid])


def unsilence(room: RoomState, participant: Participant, track: PublishedTrack, now: float) -> None:
    """Its owner turns it on again, from elsewhere than its client."""
    _set_silenced(room, participant, track, now, False)


def silence(room: RoomState, participant: Participant, track: PublishedTrack, now: float) -> None:
    """Mute somebody's track: its client is told; what it still sends goes nowhere until it unmutes."""
    _set_silenced(room, participant, track, now, True)


def _set_silenced(
    room: RoomState, participant: Participant, track: PublishedTrack, now: float, muted: bool
) -> None:
    track.info.muted = track.is_silenced = muted
    room.tell(participant.sid, rtc.SignalResponse(mute=rtc.MuteTrackRequest(sid=track.sid, muted=muted)))
    room.announce(participant, now, at_once=True)
    _reconfigure_voice(room, participant, track)
    sync_tracks(room, [track.sid])


def _reconfigure_voice(room: RoomState, participant: Participant, track: PublishedTrack) -> None:
    if track.is_voice and track.is_live:
        configure(room, participant)


def unpublish(room: RoomState, participant: Participant, sid: TrackSid, now: float) -> None:
    """Take a track away from its owner, who is told."""
    track = participant.tracks.get(sid)
    if track is None:
        return
    drop(room, participant, track)
    configure(room, participant)
    message = rtc.TrackUnpublishedResponse(track_sid=sid)
    room.tell(participant.sid, rtc.SignalResponse(track_unpublished=message))
    room.announce(participant, now, at_once=True)
    sync_cascade(room)
    sync_tracks(room, [sid])


def drop(room: RoomState, participant: Participant, track: PublishedTrack) -> None:
    """The track is no more; subscribers are not told yet."""
    if track.is_live:
        room.happened("track_unpublished", participant, track)
    participant.tracks.pop(track.sid, None)
    room.tracks.pop(track.sid, None)
    forget_tracks(room, [track.sid])


def forget_tracks(room: RoomState, gone: Iterable[TrackSid]) -> None:
    """Nobody needs to remember choices about tracks that are gone."""
    for track in gone:
        for participant in room.participants.values():
            participant.choices.pop(track, None)
            participant.settings.pop(track, None)


def note_codec(room: RoomState, track_id: str, codec: node_pb2.Codec.ValueType) -> None:
    """The node saw which codec the publisher really sends: subscribers must get that one."""
    track = room.tracks.get(TrackSid(track_id))
    if track is None or track.section is None or codec in (0, node_pb2.CODEC_RTX, node_pb2.CODEC_RED):
        return
    if track.codec is not None and track.codec.codec == codec:
        return
    for candidate in track.section.codecs:
        if candidate.codec == codec:
            track.codec = candidate
            track.info.mime_type = MIME_OF_CODEC.get(codec, track.info.mime_type)
            sync_tracks(room, [track.sid])
            return


def note_subscribed(room: RoomState, taken: Iterable[str]) -> None:
    """Tell a publisher that somebody has subscribed to its track, once."""
    for sid in taken:
        track = room.tracks.get(TrackSid(sid))
        if track is not None and not track.was_subscribed:
            track.was_subscribed = True
            message = rtc.TrackSubscribed(track_sid=track.sid)
            room.tell(track.publisher, rtc.SignalResponse(track_subscribed=message))
