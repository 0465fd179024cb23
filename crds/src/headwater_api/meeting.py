"""Meeting, declared demand and policy for one room: spec and status. crds/meetings.yaml says the same.

The room bears the Meeting's name. An ad-hoc room needs no Meeting.
"""

from datetime import timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from headwater_api.conditions import Condition
from headwater_api.fields import Count, ObjectName, Region, ShortText
from headwater_api.model import ApiModel, ObjectMeta, SecretKeyRef
from headwater_api.units import Duration, Time, ZonedTime
from headwater_api.wellknown import GROUP, VERSION

KIND: Final = "Meeting"
PLURAL: Final = "meetings"

SCHEDULED: Final = "Scheduled"
PROVISIONED: Final = "Provisioned"
ACTIVE: Final = "Active"
ENDED: Final = "Ended"

Participants = Annotated[int, Field(ge=0, le=100_000)]
Identity = Annotated[str, Field(min_length=1, max_length=256)]


class ClusterRef(ApiModel):
    """An SFUCluster of the same namespace."""

    name: ObjectName


class Schedule(ApiModel):
    """When the meeting is. Nodes for the expected participants are there `lead_time` before the start."""

    start: ZonedTime
    # After it the meeting ends once nobody is in the room; None: by emptyTimeout alone.
    duration: Duration | None = None
    lead_time: Duration = timedelta(minutes=5)


class ExpectedParticipants(ApiModel):
    """How many are expected, for nodes ahead of time; the total's rest is spread over the allowed regions."""

    total: Participants | None = None
    by_region: Annotated[dict[Region, Participants], Field(max_length=32)] = Field(default_factory=dict)


class Access(ApiModel):
    """Who may come in and what they may do there, beside the token's grants."""

    # An argon2 hash (of the form $argon2id$…), or the password itself.
    password_secret_ref: SecretKeyRef | None = None
    # The key that makes its bearer a host; an argon2 hash, or the key itself.
    host_key_secret_ref: SecretKeyRef | None = None
    # Identities of the hosts, beside tokens with the grant roomAdmin.
    hosts: Annotated[tuple[Identity, ...], Field(max_length=100)] = ()
    waiting_room: bool = False
    locked: bool = False
    # Participant identities; empty: everybody with a token.
    invited: Annotated[tuple[Identity, ...], Field(max_length=1000)] = ()
    join_before_host: bool = True
    mute_on_entry: bool = False
    allow_screen_share: bool = True
    # While the room is recorded only those come in who have agreed to it.
    recording_consent: bool = False


class Media(ApiModel):
    """What the room carries. `codecs` and `simulcast` are reserved."""

    # So many microphones are forwarded, the loudest; 0: all.
    audio_top_n: Annotated[int, Field(ge=0, le=50)] = 0
    # 0 is the smallest picture of a simulcast track.
    max_video_layer: Annotated[int, Field(ge=0, le=2)] = 2
    e2ee: Annotated[Literal["Disabled", "Optional", "Required"], Field(alias="e2ee")] = "Optional"
    # Empty: every codec that Headwater forwards.
    codecs: Annotated[tuple[Literal["Opus", "VP8", "H264", "VP9", "AV1"], ...], Field(max_length=8)] = ()
    simulcast: Literal["Enabled", "Disabled"] = "Enabled"


class MeetingPlacement(ApiModel):
    """Regions by name. With `pin` only these are used; else those of `allow` (empty: all) without `deny`."""

    allow: Annotated[tuple[Region, ...], Field(max_length=32)] = ()
    deny: Annotated[tuple[Region, ...], Field(max_length=32)] = ()
    pin: Annotated[tuple[Region, ...], Field(max_length=32)] = ()

    def permits(self, region: str) -> bool:
        """Whether participants may be placed in the region."""
        if self.pin:
            return region in self.pin
        return region not in self.deny and (not self.allow or region in self.allow)


class Recording(ApiModel):
    """Record the room to an object store. Reserved."""

    layout: Literal["Composite", "Tracks"] = "Composite"
    object_store: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^(s3|gs|az|file)://.+$")]
    secret_ref: SecretKeyRef | None = None


class MeetingSpec(ApiModel):
    """What the meeting should be."""

    cluster_ref: ClusterRef
    title: ShortText = ""
    schedule: Schedule | None = None
    expected_participants: ExpectedParticipants = ExpectedParticipants()
    # None: no limit but the fleet's.
    max_participants: Annotated[int, Field(ge=1, le=100_000)] | None = None
    access: Access = Access()
    media: Media = Media()
    placement: MeetingPlacement = MeetingPlacement()
    recording: Recording | None = None
    empty_timeout: Duration = timedelta(minutes=5)
    # None: an ended Meeting stays until somebody deletes it.
    ttl_after_ended: Duration | None = None


class MeetingNode(ApiModel):
    """A node that serves the room. The hub carries its region's links to other regions."""

    name: ObjectName
    region: Region
    role: Literal["Hub", "Leaf"] = "Leaf"
    participants: Count = 0


class MeetingLink(ApiModel):
    """A relay link between two of the room's nodes, listed once for both directions."""

    source: Annotated[ObjectName, Field(alias="from")]
    target: Annotated[ObjectName, Field(alias="to")]
    state: Literal["Up", "Down"]


class MeetingRecording(ApiModel):
    """A recording and where it lies. Reserved."""

    url: Annotated[str, Field(min_length=1, max_length=1024)]
    state: Literal["Recording", "Finished", "Failed"]


class MeetingStatus(ApiModel):
    """What the meeting is. Written by the operator only."""

    observed_generation: Count = 0
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16)] = ()
    join_url: Annotated[str, Field(alias="joinURL", max_length=1024)] = ""
    participants: Count = 0
    nodes: Annotated[tuple[MeetingNode, ...], Field(max_length=256)] = ()
    links: Annotated[tuple[MeetingLink, ...], Field(max_length=1024)] = ()
    # Their numbers, for printer columns (which cannot count a list).
    node_count: Count = 0
    link_count: Count = 0
    recordings: Annotated[tuple[MeetingRecording, ...], Field(max_length=64)] = ()
    # First and last participant's times.
    started_at: Time | None = None
    empty_since: Time | None = None
    ended_at: Time | None = None


class Meeting(ApiModel):
    """The whole object."""

    metadata: ObjectMeta
    spec: MeetingSpec
    status: MeetingStatus = MeetingStatus()

    def to_kubernetes(self) -> dict[str, Any]:
        """The object with apiVersion and kind."""
        return {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, **super().to_kubernetes()}
