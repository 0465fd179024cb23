"""Offers to a subscriber."""

from collections.abc import Collection
from typing import TypeAlias

from headwater_api.nodev1 import node_pb2

from headwater_gateway.sdp import maps, render, rtp
from headwater_gateway.sdp.parse import MEDIA, Description, Section, is_token, parse, speaks_for_all, words_of
from headwater_gateway.sdp.slots import Slot, accept, slot_lines
from headwater_gateway.sdp.types import LocalTransport, SdpError, SendTrack, StaleAnswer, SubscriberAnswer

DATA_MID = "0"
MAX_TRACKS = 500
_MAX_SLOTS = 2 * MAX_TRACKS  # a client that rejects m-lines uses them up
_MAX_ANSWER_BYTES = 2 * 1024 * 1024
_MAX_VERSION = 1_000_000_000
# 96–127 first (RFC 3551 §6), then the free part below 64 that RFC 5761 §4 leaves when RTCP is multiplexed.
_PAYLOAD_TYPES = (*range(96, 128), *range(35, 64))
_Key: TypeAlias = tuple[int, int, int, frozenset[tuple[str, str]]]


def _key(codec: int, clock_rate: int, channels: int, fmtp: str) -> _Key:
    """A codec variant, in whatever order its parameters are written."""
    return codec, clock_rate, channels, frozenset(rtp.fmtp_parameters(fmtp).items())


class _NoPayloadType(SdpError):
    """All numbers are taken by codec variants of other tracks."""


class SubscriberNegotiation:
    """One subscriber peer connection: m-lines are added, reused after removal, never moved.

    What publishers send must not end a subscriber's connection: a track that finds no place is left out.

    `add_track` and `remove_track` only note what is wanted; `offer` puts it into m-lines and `apply_answer`
    tells what the client took. At most one offer is out: a newer one makes the older answer stale.
    """

    def __init__(self, session_id: int = 2) -> None:
        self._session_id = session_id
        self._offer_id = 0
        self._answered_id = 0
        self._wanted: dict[str, SendTrack] = {}
        self._refused: set[str] = set()
        self.left_out: set[str] = set()  # tracks for which this connection has no place
        self._slots: list[Slot] = []
        self._payload_types: dict[_Key, int] = {}
        self._dirty = self._is_awaited = True  # the first offer opens the data channels

    @classmethod
    def resumed(cls, offer_sdp: str, session_id: int = 2) -> "SubscriberNegotiation":
        """The negotiation of another gateway, from the last offer that the client has taken. SdpError.

        What is then added under the same track sid keeps its m-line; the rest is freed by the next offer.
        """
        offer = parse(offer_sdp, _MAX_ANSWER_BYTES, _MAX_SLOTS + 1)
        made = cls(session_id)
        made._offer_id = made._answered_id = min(offer.version, _MAX_VERSION)
        for section in offer.sections:
            if section.kind not in ("audio", "video"):
                continue
            if section.mid != str(len(made._slots) + 1):
                raise SdpError(f"a=mid:{section.mid} is not an m-line of an offer of ours")
            made._slots.append(made._slot_of(section))
        return made

    def _slot_of(self, section: Section) -> Slot:
        kind, formats = rtp.kind_of(section), rtp.formats(section)
        for known in formats:
            audio = kind == node_pb2.KIND_AUDIO
            self._payload_types[
                _key(known.codec, known.clock_rate, known.channels if audio else 0, known.fmtp)
            ] = known.payload_type
        stream, track_sid = rtp.track_ids(section)
        dead = section.rejected or not formats
        media = next((f for f in formats if f.codec != node_pb2.CODEC_RED), None)
        codecs: tuple[node_pb2.CodecMap, ...] = ()
        copies = None
        if media is not None:
            copies = maps.redundant_of(media, formats)
            codecs = maps.codec_maps(media, rtp.rtx_of(media, formats), copies)
        if dead or not codecs or not track_sid or section.direction != "sendonly":
            return Slot(section.mid, kind, None, codecs, stream, dead=dead, free=not dead)
        ssrc, rtx_ssrc = rtp.own_ssrcs(section)
        track = SendTrack(track_sid, "", kind, codecs[0], ssrc, rtx_ssrc, is_redundant=copies is not None)
        return Slot(section.mid, kind, track, codecs, stream)

    def ssrcs(self) -> dict[str, tuple[int, int]]:
        """Media and RTX SSRC of each track that has an m-line."""
        return {
            s.track.track_sid: (s.track.ssrc, s.track.rtx_ssrc) for s in self._slots if s.track is not None
        }

    @property
    def pending(self) -> bool:
        """An offer is out and unanswered: collect changes, offer again after the answer."""
        return self._offer_id > self._answered_id

    @property
    def dirty(self) -> bool:
        """Something changed since the last offer (true before the first one)."""
        return self._dirty

    @property
    def is_opened(self) -> bool:
        """The client has been made an offer."""
        return self._offer_id > 0

    @property
    def only_ends(self) -> bool:
        """All that changed since the last offer are tracks that are carried no more."""
        return self._dirty and not self._is_awaited

    def add_track(self, track: SendTrack) -> None:
        """Ask for an m-line for this track in the next offer. Adding again replaces it (a new SSRC, say)."""
        if track.track_sid not in self._wanted and len(self._wanted) >= MAX_TRACKS:
            self.left_out.add(track.track_sid)
            return
        if self._wanted.get(track.track_sid) == track:
            return
        self._wanted[track.track_sid] = track
        self._refused.discard(track.track_sid)
        self.left_out.discard(track.track_sid)
        self._dirty = self._is_awaited = True

    def remove_track(self, track_sid: str) -> bool:
        """Free the track's m-line for reuse. True if the track was there (so that a new offer is due)."""
        self.left_out.discard(track_sid)
        if self._wanted.pop(track_sid, None) is None:
            return False
        self._refused.discard(track_sid)
        self._dirty = True
        return True

    def restart(self) -> None:
        """The transport behind the connection is another: an offer is due, and one that is out is void."""
        self._dirty = self._is_awaited = True
        self._answered_id = self._offer_id

    def offer(self, local: LocalTransport) -> tuple[int, str]:
        """The next offer and its id. New ufrag and pwd in `local` make it an ICE restart.

        SdpError: the connection is used up, the client must reconnect.
        """
        self._place()
        self._offer_id += 1
        self._dirty = self._is_awaited = False
        bundle = [DATA_MID, *(s.mid for s in self._slots if not s.dead)]
        lines = render.session_lines(self._session_id, self._offer_id, bundle, is_mixed=True)
        lines += render.data_lines(DATA_MID, local, "actpass", True, "UDP/DTLS/SCTP")
        transport = render.transport_lines(local, "actpass", False)
        for slot in self._slots:
            lines += slot_lines(slot, transport)
        return self._offer_id, render.join_lines(lines)

    def apply_answer(self, answer_sdp: str, offer_id: int = 0) -> SubscriberAnswer:
        """Take the client's answer. `offer_id` 0: the client does not echo ids.

        SdpError: refused. StaleAnswer: it answers an offer that a newer one replaced, or none.
        """
        if offer_id and offer_id != self._offer_id:
            raise StaleAnswer(f"answers offer {offer_id}, the current one is {self._offer_id}")
        if not self.pending:
            raise StaleAnswer("no offer is waiting for an answer")
        words = words_of(answer_sdp)
        answer, still = self._parse_new(answer_sdp, words)
        by_mid = self._match(answer, still)
        accepted: list[node_pb2.SendSection] = []
        refused: list[str] = []
        outcomes = [
            (slot, still[slot.mid] if slot.mid in still else accept(slot, by_mid[slot.mid], answer.is_mixed))
            for slot in self._slots
        ]
        result_parts = (answer.fingerprint, answer.ufrag)
        for place, (slot, section) in enumerate(outcomes, start=1):
            if slot.mid not in still:
                slot.dead = slot.dead or by_mid[slot.mid].rejected
                slot.taken = (words[place], slot.track, slot.codecs, section) if section is not None else None
            slot.free = slot.track is None and not slot.dead
            if section is not None:
                accepted.append(section)
            elif slot.track is not None:
                refused.append(slot.track.track_sid)
        self._refused.update(refused)
        self._answered_id = self._offer_id
        return SubscriberAnswer(*result_parts, tuple(accepted), tuple(refused))

    def _parse_new(
        self, answer_sdp: str, words: list[int]
    ) -> tuple[Description, dict[str, node_pb2.SendSection]]:
        """The answer without the m-lines that are answered as before, and what these led to, by mid.

        A room's every new track has each client answer for all the tracks that it has.
        """
        if len(words) == len(self._slots) + 1 and len(answer_sdp) <= _MAX_ANSWER_BYTES:
            known = [slot.still(word) for slot, word in zip(self._slots, words[1:], strict=True)]
            head, data, *rest = answer_sdp.split(MEDIA)
            new = [text for text, section in zip(rest, known, strict=True) if section is None]
            if len(new) < len(rest):
                answer = parse(MEDIA.join([head, data, *new]), _MAX_ANSWER_BYTES, _MAX_SLOTS + 1)
                if speaks_for_all(answer.sections[0]):
                    return answer, {
                        s.mid: k for s, k in zip(self._slots, known, strict=True) if k is not None
                    }
        return parse(answer_sdp, _MAX_ANSWER_BYTES, _MAX_SLOTS + 1), {}

    def _match(self, answer: Description, still: Collection[str]) -> dict[str, Section]:
        by_mid = {section.mid: section for section in answer.sections}
        wanted = [mid for mid in (DATA_MID, *(s.mid for s in self._slots)) if mid not in still]
        missing = [mid for mid in wanted if mid not in by_mid]
        if missing:
            raise SdpError(f"the answer lacks the offer's m-line with a=mid:{missing[0]}")
        if len(by_mid) != len(wanted):
            raise SdpError(f"the answer has {len(by_mid)} m-lines, the offer {len(wanted)}")
        if answer.setup != "active":
            raise SdpError(f"a=setup:{answer.setup[:20]} in the answer: the client must be active")
        return by_mid

    def _place(self) -> None:
        """Give every wanted track an m-line; take it from those no longer wanted."""
        placed: set[str] = set()
        for slot in self._slots:
            if slot.track is None:
                continue
            wanted = self._wanted.get(slot.track.track_sid)
            if wanted is None or slot.dead or wanted.track_sid in self._refused:
                slot.track, slot.free = None, False
            else:
                placed.add(wanted.track_sid)
                if wanted != slot.track:
                    self._change(slot, wanted)
        for sid, track in self._wanted.items():
            if sid not in placed and sid not in self._refused and sid not in self.left_out:
                self._try_assign(track)

    def _change(self, slot: Slot, track: SendTrack) -> None:
        try:
            slot.track, slot.codecs = track, self._codecs(track)
        except _NoPayloadType:
            slot.track, slot.free = None, False
            self.left_out.add(track.track_sid)

    def _try_assign(self, track: SendTrack) -> None:
        try:
            self._assign(track)
        except _NoPayloadType:
            self.left_out.add(track.track_sid)

    def _assign(self, track: SendTrack) -> None:
        codecs = self._codecs(track)
        for slot in self._slots:
            if slot.free and not slot.dead and slot.track is None and slot.kind == track.kind:
                # The receiver keeps the track id of its first use, so the stream id must name the track.
                slot.track, slot.codecs, slot.free = track, codecs, False
                slot.stream = f"{track.participant_sid}|{track.track_sid}"
                return
        if len(self._slots) >= _MAX_SLOTS:
            raise SdpError(f"this connection has used up its {_MAX_SLOTS} m-lines: reconnect")
        # The publisher's own words go into everybody's offer: only as one token (RFC 8830).
        named = track.stream_id if is_token(track.stream_id) else track.track_sid
        stream = f"{track.participant_sid}|{named}"
        self._slots.append(Slot(str(len(self._slots) + 1), track.kind, track, codecs, stream))

    def _codecs(self, track: SendTrack) -> tuple[node_pb2.CodecMap, ...]:
        video = track.kind == node_pb2.KIND_VIDEO
        media = node_pb2.CodecMap()
        media.CopyFrom(track.codec)
        media.payload_type = self._payload_type(media, media.fmtp)
        media.nack, media.pli, media.transport_cc = True, video, True
        if track.is_redundant:
            copies = node_pb2.CodecMap(
                codec=node_pb2.CODEC_RED,
                clock_rate=media.clock_rate,
                channels=media.channels,
                apt=media.payload_type,
                fmtp=f"{media.payload_type}/{media.payload_type}",
            )
            copies.payload_type = self._payload_type(copies, copies.fmtp)
            return (media, copies)
        if not track.rtx_ssrc:
            return (media,)
        rtx = node_pb2.CodecMap(codec=node_pb2.CODEC_RTX, clock_rate=media.clock_rate, apt=media.payload_type)
        rtx.payload_type = self._payload_type(rtx, f"apt={media.payload_type}")
        return (media, rtx)

    def _payload_type(self, codec: node_pb2.CodecMap, fmtp: str) -> int:
        """The same number for the same codec and parameters, for the whole connection."""
        key = _key(codec.codec, codec.clock_rate, codec.channels, fmtp)
        if key not in self._payload_types:
            taken = set(self._payload_types.values())
            free = next((pt for pt in _PAYLOAD_TYPES if pt not in taken), None)
            if free is None:
                raise _NoPayloadType("no payload type is left for another codec variant on this connection")
            self._payload_types[key] = free
        return self._payload_types[key]
