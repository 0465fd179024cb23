"""Which tracks a subscriber gets, at which layer."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from headwater_api.ids import TrackSid
from headwater_api.nodev1 import node_pb2
from livekit.protocol import models, rtc

from headwater_gateway.room.effects import ChangeWanted
from headwater_gateway.room.model import (
    HIGHEST_SPATIAL,
    Audience,
    Participant,
    PublishedTrack,
    TrackSetting,
    WantedTrack,
)
from headwater_gateway.room.state import RoomState

MAX_TRACKS_NAMED: Final = 2000
VIDEO: Final = models.TrackType.VIDEO
SCREEN: Final = models.TrackSource.SCREEN_SHARE
SETTLE_S: Final = 2.0  # a track without media so far (muted, say) counts as settled then


def sync_tracks(room: RoomState, tracks: Iterable[TrackSid]) -> None:
    """These tracks came, changed or went: tell the sessions of those who get or got them."""
    changed = tuple(tracks)
    for participant in room.participants.values():
        _sync(room, participant, changed)
    sync_dynacast(room, changed)


def sync_subscriber(
    room: RoomState, subscriber: Participant, tracks: Iterable[TrackSid] | None = None
) -> None:
    """The subscriber, or what it asked of these tracks (all, if None), has changed."""
    changed = tuple(room.tracks if tracks is None else tracks)
    _sync(room, subscriber, changed)
    sync_dynacast(room, changed)


def _sync(room: RoomState, subscriber: Participant, tracks: tuple[TrackSid, ...]) -> None:
    """Participant updates go before what comes: a client must know a track before its media arrives."""
    if subscriber.moving_at is not None:
        return
    changed: list[WantedTrack] = []
    dropped: list[TrackSid] = []
    for sid in tracks:
        track = room.tracks.get(sid)
        wanted = wanted_track(room, subscriber, track) if track is not None else None
        before = subscriber.wanted.get(sid)
        if wanted is None:
            if before is not None:
                del subscriber.wanted[sid]
                dropped.append(sid)
        elif wanted is not before and wanted != before:
            subscriber.wanted[sid] = wanted
            changed.append(wanted)
    if changed:
        room.flush_updates()
    if changed or dropped:
        room.effects.append(ChangeWanted(subscriber.sid, tuple(changed), tuple(dropped)))


def wanted_track(room: RoomState, subscriber: Participant, track: PublishedTrack) -> WantedTrack | None:
    """How much of the track the subscriber is to get; None: nothing."""
    if not is_subscribed(room, subscriber, track) or track.codec is None:
        return None
    setting = subscriber.settings.get(track.sid)
    usual = _usual(track, track.codec, room.config.max_spatial)
    if setting is None:
        return usual
    return replace(
        usual,
        max_spatial=min(wanted_spatial(track.info.layers, setting), room.config.max_spatial),
        paused=track.is_silenced or setting.disabled,
        priority=setting.priority,
    )


def _usual(track: PublishedTrack, codec: node_pb2.CodecMap, max_spatial: int) -> WantedTrack:
    spatial, known = min(HIGHEST_SPATIAL, max_spatial), track.usual
    is_fresh = known is not None and known.codec is codec and known.max_spatial == spatial
    if known is None or not is_fresh or known.paused != track.is_silenced:
        known = track.usual = WantedTrack(
            track.sid,
            track.publisher,
            track.info.stream,
            track.kind,
            codec,
            spatial,
            track.is_silenced,
            track.info.source == SCREEN,
            is_redundant=track.section is not None and track.section.is_redundant,
        )
    return known


def is_subscribed(room: RoomState, subscriber: Participant, track: PublishedTrack) -> bool:
    """Chosen (or automatic), live, of somebody else, and permitted by its publisher."""
    if not track.is_live or track.publisher == subscriber.sid or not subscriber.permission.can_subscribe:
        return False
    if not subscriber.choices.get(track.sid, subscriber.auto_subscribe):
        return False
    publisher = room.participants.get(track.publisher)
    return publisher is not None and publisher.audience.admits(subscriber.sid, subscriber.identity, track.sid)


def wanted_spatial(layers: Sequence[models.VideoLayer], setting: TrackSetting | None) -> int:
    """The layer that a setting asks for: by picture size where given, else by quality.

    By size it is the smallest layer at least as large as asked, whichever way the picture is turned.
    """
    if setting is None:
        return HIGHEST_SPATIAL
    ordered = sorted((layer for layer in layers if layer.width and layer.height), key=_area)
    if setting.width and setting.height and ordered:
        long_side, short_side = _sides(setting.width, setting.height)
        for spatial, layer in enumerate(ordered):
            have_long, have_short = _sides(layer.width, layer.height)
            if have_long >= long_side and have_short >= short_side:
                return spatial
        return len(ordered) - 1
    if setting.quality == models.VideoQuality.LOW:
        return 0
    return 1 if setting.quality == models.VideoQuality.MEDIUM else HIGHEST_SPATIAL


def _area(layer: models.VideoLayer) -> int:
    return int(layer.width * layer.height)


def _sides(width: int, height: int) -> tuple[int, int]:
    return max(width, height), min(width, height)


def choose(room: RoomState, participant: Participant, request: rtc.UpdateSubscription) -> None:
    """`subscription`: explicit yes or no for tracks, which need not exist yet."""
    named = [*request.track_sids, *(t for group in request.participant_tracks for t in group.track_sids)]
    tracks = [TrackSid(track) for track in named[:MAX_TRACKS_NAMED]]
    for track in tracks:
        participant.choices[track] = request.subscribe
    _bound(participant.choices, room)
    sync_subscriber(room, participant, tracks)


def set_tracks(room: RoomState, participant: Participant, request: rtc.UpdateTrackSettings) -> None:
    """`track_setting`: pause, quality or size of tracks."""
    setting = TrackSetting(request.disabled, request.quality, request.width, request.height, request.priority)
    tracks = [TrackSid(track) for track in request.track_sids[:MAX_TRACKS_NAMED]]
    for track in tracks:
        participant.settings[track] = setting
    _bound(participant.settings, room)
    sync_subscriber(room, participant, tracks)


def _bound(table: dict[TrackSid, Any], room: RoomState) -> None:
    """A client that names tracks without end must not fill the memory."""
    if len(table) > MAX_TRACKS_NAMED:
        for track in [t for t in table if t not in room.tracks]:
            del table[track]


def set_audience(room: RoomState, participant: Participant, request: rtc.SubscriptionPermission) -> None:
    """`subscription_permission`: whom the publisher lets subscribe. Losers and winners are told."""
    before = {p.sid: _admitted(participant, p) for p in room.participants.values()}
    participant.audience = _audience(request)
    for other in room.participants.values():
        after = _admitted(participant, other)
        if other.sid == participant.sid or other.moving_at is not None:
            continue
        for track in sorted(before[other.sid] ^ after):
            update = rtc.SubscriptionPermissionUpdate(
                participant_sid=participant.sid, track_sid=track, allowed=track in after
            )
            room.tell(other.sid, rtc.SignalResponse(subscription_permission_update=update))
    sync_tracks(room, participant.tracks)


def _admitted(publisher: Participant, subscriber: Participant) -> frozenset[TrackSid]:
    admits = publisher.audience.admits
    return frozenset(t for t in publisher.tracks if admits(subscriber.sid, subscriber.identity, t))


def _audience(request: rtc.SubscriptionPermission) -> Audience:
    by_identity: dict[str, frozenset[str] | None] = {}
    by_sid: dict[str, frozenset[str] | None] = {}
    for row in request.track_permissions:
        tracks = None if row.all_tracks else frozenset(row.track_sids)
        if row.participant_identity:
            by_identity[row.participant_identity] = tracks
        elif row.participant_sid:
            by_sid[row.participant_sid] = tracks
    return Audience(request.all_participants, by_identity, by_sid)


def sync_dynacast(room: RoomState, tracks: Iterable[TrackSid]) -> None:
    """Tell publishers which layers of these tracks somebody wants, where that has changed."""
    for sid in tracks:
        track = room.tracks.get(sid)
        if track is None or track.info.type != VIDEO:
            continue
        if not track.is_live or not track.is_settled:
            continue
        highest = -1
        for participant in room.participants.values():
            wanted = participant.wanted.get(sid)
            if wanted is not None and not wanted.paused:
                highest = max(highest, wanted.max_spatial)
        for shown in room.shown.values():
            highest = max(highest, shown.layers.get(sid, -1))
        layers = tuple(spatial <= highest for spatial in range(HIGHEST_SPATIAL + 1))
        if layers != track.dynacast:
            track.dynacast = layers
            room.tell(track.publisher, _quality_update(track, layers))


def settle(room: RoomState, track: PublishedTrack) -> None:
    """From now on its publisher is told which layers somebody wants."""
    if not track.is_settled:
        track.is_settled = True
        if track.is_silenced:
            mute = rtc.MuteTrackRequest(sid=track.sid, muted=True)
            room.tell(track.publisher, rtc.SignalResponse(mute=mute))
        sync_dynacast(room, [track.sid])


def settle_due(room: RoomState, now: float) -> None:
    """Settle tracks whose media does not come."""
    for track in room.tracks.values():
        if not track.is_settled and track.bound_at is not None and now - track.bound_at >= SETTLE_S:
            settle(room, track)


def _quality_update(track: PublishedTrack, layers: tuple[bool, ...]) -> rtc.SignalResponse:
    names = (models.VideoQuality.LOW, models.VideoQuality.MEDIUM, models.VideoQuality.HIGH)
    qualities = [
        rtc.SubscribedQuality(quality=quality, enabled=enabled)
        for quality, enabled in zip(names, layers, strict=True)
    ]
    codec = track.info.mime_type.partition("/")[2].lower()
    update = rtc.SubscribedQualityUpdate(
        track_sid=track.sid,
        subscribed_qualities=qualities,
        subscribed_codecs=[rtc.SubscribedCodec(codec=codec, qualities=qualities)],
    )
    return rtc.SignalResponse(subscribed_quality_update=update)
