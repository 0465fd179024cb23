"""What a client is told first: the server, and what it offers."""

from collections.abc import Sequence
from typing import Final

from livekit.protocol import models, rtc

from headwater_gateway.nodes.facts import NodeFacts
from headwater_gateway.room.wire import ENABLED_CODECS

PING_INTERVAL_S: Final = 5  # 0 would stop some clients
PING_TIMEOUT_S: Final = 15
# Clients judge features by this: 1.8 and above, and not 0.15.1, which turns dynacast off in browsers.
SERVER_VERSION: Final = "1.9.0"
SERVER_PROTOCOL: Final = 15


def server_info(facts: NodeFacts) -> models.ServerInfo:
    """The server as the node that the client is on."""
    return models.ServerInfo(
        edition=models.ServerInfo.Standard,
        version=SERVER_VERSION,
        protocol=SERVER_PROTOCOL,
        region=facts.region,
        node_id=facts.node_id,
    )


def complete(response: rtc.JoinResponse, facts: NodeFacts, servers: Sequence[rtc.ICEServer]) -> None:
    """Add to the room's answer what the session knows better."""
    response.server_version = SERVER_VERSION
    response.server_info.CopyFrom(server_info(facts))
    response.ice_servers.extend(servers)
    response.ping_interval, response.ping_timeout = PING_INTERVAL_S, PING_TIMEOUT_S
    response.subscriber_primary = True
    response.enabled_publish_codecs.extend(ENABLED_CODECS)
    # The publisher connects at once; and Rust clients leave their debounced negotiation, which can lose
    # the offer of a track that is published while the one before is being offered.
    response.fast_publish = response.participant.permission.can_publish
