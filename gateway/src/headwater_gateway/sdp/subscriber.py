"""Offers to a subscriber."""

from headwater_gateway.sdp.types import LocalTransport, SendTrack, SubscriberAnswer


class SubscriberNegotiation:
    """One subscriber peer connection: m-lines are added, reused after removal, never moved."""

    def add_track(self, track: SendTrack) -> None:
        """Ask for an m-line for this track in the next offer. A track that is there already is left alone."""
        raise NotImplementedError

    def remove_track(self, track_sid: str) -> bool:
        """Free the track's m-line for reuse. True if there was one (so that a new offer is due)."""
        raise NotImplementedError

    def offer(self, local: LocalTransport) -> tuple[int, str]:
        """The next offer and its id. New ufrag and pwd in `local` make it an ICE restart."""
        raise NotImplementedError

    @property
    def pending(self) -> bool:
        """An offer is out and unanswered: collect changes, offer again after the answer."""
        raise NotImplementedError

    @property
    def dirty(self) -> bool:
        """Tracks changed since the last offer."""
        raise NotImplementedError

    def apply_answer(self, answer_sdp: str, offer_id: int = 0) -> SubscriberAnswer:
        """Take the client's answer. `offer_id` 0 means the client does not echo ids. SdpError if refused,
        StaleAnswer if it answers an offer that a newer one replaced."""
        raise NotImplementedError
