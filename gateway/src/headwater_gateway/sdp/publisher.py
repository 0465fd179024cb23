"""Answers to a publisher's offers."""

from collections.abc import Mapping

from headwater_api.nodev1 import node_pb2
from headwater_gateway.sdp.types import LocalTransport, PublisherAnswer


class PublisherNegotiation:
    """One publisher peer connection's answers, over all its renegotiations."""

    def answer(
        self, offer_sdp: str, local: LocalTransport, preferred: Mapping[str, node_pb2.Codec] | None = None
    ) -> PublisherAnswer:
        """Answer an offer. `preferred` gives the codec of each cid that add_track named. SdpError if refused."""
        raise NotImplementedError
