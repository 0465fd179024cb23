"""The seam between the HTTP edge and the sessions: who joins, over what, and how a join is refused."""

import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from headwater_api.ids import GatewayId, NodeId, ParticipantIdentity, ParticipantSid, RegionName, RoomId
from headwater_api.reasons import Reason
from headwater_api.wellknown import GATEWAY_TLS_NAME
from headwater_planner.geo_distance import Coordinates
from livekit.protocol import rtc

from headwater_gateway.meetings import Meetings
from headwater_gateway.passwords import Passwords
from headwater_gateway.room.directory import RoomDirectory

# Close codes of RFC 6455 §7.4.1 that a session gives to SignalChannel.close.
CLOSE_NORMAL = 1000
CLOSE_GOING_AWAY = 1001
CLOSE_POLICY = 1008
CLOSE_TOO_BIG = 1009
CLOSE_INTERNAL = 1011
CLOSE_SERVICE_RESTART = 1012  # of IANA's registry: clients come back with a resume
CLOSE_TRY_AGAIN = 1013

IceServers = Callable[[ParticipantSid, NodeId], Sequence[rtc.ICEServer]]


def no_ice_servers(sid: ParticipantSid, node: NodeId) -> Sequence[rtc.ICEServer]:
    """Where there is no TURN: the node's own address is all that a client needs."""
    return ()


class JoinRefused(Exception):
    """A join answered with an HTTP error before the WebSocket upgrade.

    `status` is the HTTP status (400 bad request, 401 token, 403 grant, 404 no such room, 429 and 503 limits);
    `message` goes to the client and must name the fix and no secret.
    """

    def __init__(self, status: int, reason: Reason, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class RegionSource(StrEnum):
    """How the participant's region was found."""

    OVERRIDE = "override"  # ?region= of the request
    GEOIP = "geoip"  # the client's address
    DEFAULT = "default"  # no location known: the gateway's default


@dataclass(frozen=True, slots=True)
class VideoGrant:
    """The `video` claim of a LiveKit access token. `None` stands for a claim that is absent."""

    room_join: bool = False
    room: str = ""
    room_create: bool = False
    room_list: bool = False
    room_admin: bool = False
    room_record: bool = False
    can_publish: bool | None = None
    can_subscribe: bool | None = None
    can_publish_data: bool | None = None
    can_publish_sources: tuple[str, ...] = ()  # camera, microphone, screen_share, screen_share_audio
    can_update_own_metadata: bool | None = None
    can_subscribe_metrics: bool | None = None
    hidden: bool = False
    recorder: bool = False
    agent: bool = False
    destination_room: str = ""  # where MoveParticipant may send somebody

    @property
    def may_publish(self) -> bool:
        """Absent means yes, as LiveKit has it."""
        return self.can_publish is not False

    @property
    def may_subscribe(self) -> bool:
        """Absent means yes."""
        return self.can_subscribe is not False

    @property
    def may_publish_data(self) -> bool:
        """Absent means as `may_publish`."""
        return self.may_publish if self.can_publish_data is None else self.can_publish_data

    @property
    def may_update_own_metadata(self) -> bool:
        """Absent means no."""
        return bool(self.can_update_own_metadata)


@dataclass(frozen=True, slots=True)
class MeetingClaim:
    """The `headwater` claim: what the token's bearer has shown when it asked for the token."""

    meeting: str = ""  # the Meeting that it is good for; empty: any room
    role: str = ""
    password: str = ""  # fingerprint of the hash that the password was proved against
    consents_to_recording: bool = False


@dataclass(frozen=True, slots=True)
class Claims:
    """A verified access token."""

    api_key: str
    identity: ParticipantIdentity
    name: str
    video: VideoGrant
    metadata: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    kind: str = "standard"  # standard, ingress, egress, sip, agent
    expires_at: int = 0  # Unix seconds
    payload: Mapping[str, Any] = field(default_factory=dict, repr=False)  # as signed, for its renewal
    issued_at: int = 0  # Unix seconds, by `iat` or `nbf`; 0: not said
    # Headwater's own claim, written by POST /v1/meetings/{id}/join.
    meeting: MeetingClaim = field(default_factory=MeetingClaim)
    is_join_link: bool = False  # of a meeting's join link: good for asking to join, for nothing else


@dataclass(frozen=True, slots=True)
class ClientHello:
    """All that the edge knows about a client that asks to join, verified and resolved."""

    room: RoomId
    identity: ParticipantIdentity
    claims: Claims
    # Where the participant is. `region` is empty when no region is known yet (no cluster has been seen).
    region: RegionName
    region_source: RegionSource
    client_address: str = ""  # the client's own, behind trusted proxies too
    # Round-trip times that the client has measured, ms by region.
    rtts_ms: Mapping[RegionName, float] = field(default_factory=dict)
    country: str = ""  # ISO 3166 alpha-2, empty: unknown
    # What the client said of itself in the query.
    protocol: int = 0
    client_protocol: int = 0
    sdk: str = ""
    version: str = ""
    os: str = ""
    browser: str = ""
    device_model: str = ""
    network: str = ""
    auto_subscribe: bool = True
    adaptive_stream: bool = False
    password: str = field(default="", repr=False)  # of the query, as typed
    proved: str = ""  # fingerprint of the hash that the password matched
    consents_to_recording: bool = False
    publish_only: str = ""  # legacy `publish=` of the query: this session only publishes
    # A resume: the client had this participant and lost its WebSocket.
    reconnect: bool = False
    reconnect_sid: ParticipantSid | None = None
    reconnect_reason: int = 0  # livekit ReconnectReason

    @property
    def name(self) -> str:
        return self.claims.name

    @property
    def grants(self) -> VideoGrant:
        return self.claims.video

    @property
    def metadata(self) -> str:
        return self.claims.metadata

    @property
    def attributes(self) -> Mapping[str, str]:
        return self.claims.attributes


class SignalChannel(Protocol):
    """One client's signalling connection. The session owns it; the edge only adds renewed tokens, later."""

    async def send(self, response: rtc.SignalResponse) -> None:
        """Queue one message, in order. Never waits for the network and never raises for a client that left.

        A client that does not read fills its bounded queue: the channel closes itself, `recv` gives None.
        """

    async def send_encoded(self, binary: bytes, message: rtc.SignalResponse) -> None:
        """As `send`, with `message.SerializeToString()` already made: for fan-out of one message to many."""

    def send_at_once(self, binary: bytes) -> bool:
        """As `send_encoded`, without a task's turn. False: not sent, since the client reads another form."""

    async def recv(self) -> rtc.SignalRequest | None:
        """The next message; None once the client is gone. Malformed frames never come up here."""

    async def close(self, code: int = CLOSE_NORMAL, reason: str = "") -> None:
        """Flush what is queued (bounded by a short deadline) and close. Safe to repeat."""


class SessionRunner(Protocol):
    """Runs one session from the join to its end. Returns when the client is gone or was sent away."""

    async def __call__(self, hello: ClientHello, channel: SignalChannel) -> None: ...


class RoomPolicy(Protocol):
    """The admission hook that `GET /rtc` and `GET /rtc/validate` both ask, before the upgrade."""

    async def admit(self, hello: ClientHello) -> ClientHello:
        """The hello, with what was proved of it, if the client may join now; raise JoinRefused if not.

        Leaves no trace behind but a knock at the waiting room's door.
        """


@dataclass(frozen=True, slots=True)
class GatewayPeer:
    """Another gateway Pod, where a room lives."""

    gateway: GatewayId
    url: str  # http://podIP:port, or https://
    # What its certificate is checked by; None: it is reached without TLS.
    tls: ssl.SSLContext | None = field(default=None, compare=False, repr=False)
    # Where its beats come from: without TLS, so that a bad certificate looks like no death. Empty: the same.
    beats: str = ""

    @property
    def checked(self) -> Mapping[str, Any]:
        """aiohttp's options for requests to it."""
        return {"ssl": self.tls, "server_hostname": GATEWAY_TLS_NAME} if self.tls is not None else {}


class RoomPlane(RoomPolicy, Protocol):
    """All that stands behind the HTTP edge: rooms, nodes, watches. Made by the composition root."""

    async def run_session(self, hello: ClientHello, channel: SignalChannel) -> None:
        """A SessionRunner."""

    def regions(self) -> Mapping[RegionName, Coordinates | None]:
        """Regions that clusters offer now; empty before the first cluster was seen."""

    async def owner(self, room: RoomId, *, hops: int, resumes: bool) -> GatewayPeer | None:
        """The gateway that owns the room; None: this one. JoinRefused: it cannot be reached.

        `hops`: gateways that have passed the client on so far. `resumes`: it says that the room exists.
        """

    def unreachable(self, gateway: GatewayId) -> None:
        """That gateway did not answer just now."""

    def ice_servers(self, region: RegionName, sid: ParticipantSid, node: NodeId) -> Sequence[rtc.ICEServer]:
        """TURN servers near a client of that region, for a participant on that node."""

    @property
    def passwords(self) -> Passwords:
        """Of the Meetings."""

    @property
    def meetings(self) -> Meetings:
        """That this gateway knows."""

    def peers(self) -> tuple[GatewayPeer, ...]:
        """The other gateways that serve."""

    @property
    def directory(self) -> RoomDirectory:
        """The rooms of this gateway, for the API."""

    def placements(self, room: str, identity: str, node: str) -> Iterator[dict[str, Any]]:
        """Why participants are where they are, newest first; only those of what is named."""

    def unready(self) -> str:
        """Why no join can be served now, in one sentence; empty when joins can be served."""

    async def close(self, deadline: float) -> None:
        """Send every session away so that it comes back elsewhere; return within `deadline` seconds."""
