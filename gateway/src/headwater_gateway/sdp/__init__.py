"""SDP of the dual peer connection (RFC 8829, 8866): answers to publishers, offers to subscribers. Pure."""

from headwater_gateway.sdp.publisher import PublisherNegotiation
from headwater_gateway.sdp.subscriber import SubscriberNegotiation
from headwater_gateway.sdp.types import (
    Candidate,
    LocalTransport,
    OfferedSection,
    PublisherAnswer,
    SdpError,
    SendTrack,
    StaleAnswer,
    SubscriberAnswer,
)

__all__ = [
    "Candidate",
    "LocalTransport",
    "OfferedSection",
    "PublisherAnswer",
    "PublisherNegotiation",
    "SdpError",
    "SendTrack",
    "StaleAnswer",
    "SubscriberAnswer",
    "SubscriberNegotiation",
]
