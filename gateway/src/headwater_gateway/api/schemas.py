"""What goes in and out of /v1, as models: they check requests and make the OpenAPI description."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _whole(value: object) -> object:
    """JSON does not tell 3.0 from 3 (JSON Schema 2020-12 §4.2.3)."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = BeforeValidator(_whole)

# No control characters: they would spoil logs, headers and calendars.
Text = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]
UserId = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]
Password = Annotated[str, Field(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]
DeviceFact = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
RegionText = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]


class Body(BaseModel):
    """A request's body: no field that we do not know, no value of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class MeetingSettings(Body):
    """The meeting's rules."""

    waiting_room: bool = False
    mute_on_entry: bool = False
    allow_screen_share: bool = True
    join_before_host: bool = True
    recording_consent: bool = False
    e2ee_required: bool = False
    max_participants: Annotated[int, Field(ge=1, le=100_000), Whole] | None = None
    invited: Annotated[list[UserId], Field(max_length=1000)] = []
    regions: Annotated[list[RegionText], Field(max_length=32)] = []


class CreateMeeting(Body):
    """POST /v1/meetings. Without `password` one is made up; an empty one stands for none."""

    host_id: UserId
    title: Text | None = None
    scheduled_time: Annotated[AwareDatetime, Field(strict=False)] | None = None
    duration: Annotated[int, Field(ge=1, le=24 * 60), Whole] | None = None  # minutes
    password: Password | None = None
    settings: MeetingSettings = MeetingSettings()
    cluster: Annotated[str, Field(min_length=1, max_length=63)] | None = None


class JoinMeeting(Body):
    """POST /v1/meetings/{meeting_id}/join. Of `device_info` each entry becomes an attribute `device.NAME`."""

    user_id: UserId
    name: Text | None = None
    password: Password | None = None
    host_key: Annotated[str, Field(max_length=128)] | None = None
    recording_consent: bool = False
    device_info: Annotated[
        dict[DeviceFact, Text], Field(max_length=16, json_schema_extra={"additionalProperties": False})
    ] = {}


class LeaveMeeting(Body):
    participant_id: UserId


class MediaState(Body):
    """Only what is given changes."""

    audio_enabled: bool | None = None
    video_enabled: bool | None = None
    screen_sharing: bool | None = None


class SendChat(Body):
    """Without `recipient_id` everybody gets it."""

    sender_id: UserId
    message: Annotated[str, Field(min_length=1, max_length=4000)]
    recipient_id: UserId | None = None
    kind: Literal["message", "reaction"] = "message"


class Lock(Body):
    locked: bool


class Admission(Body):
    admit: bool


class RoleChange(Body):
    role: Literal["co-host", "participant"]


class NodeChange(Body):
    """To `node_id`, or to the best node of `region`; without either to the best other node."""

    node_id: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    region: RegionText | None = None

    @model_validator(mode="after")
    def _has_one_destination(self) -> Self:
        if self.node_id is not None and self.region is not None:
            raise ValueError("give node_id or region, not both")
        return self


class MuteAll(Body):
    """The microphones of all but hosts; with `video` their cameras and screens."""

    video: bool = False


class RecordingState(Body):
    """Whether somebody records the meeting now."""

    recording: bool


class Problem(BaseModel):
    """Why a call was not carried out."""

    reason: str
    message: str


class ProblemAnswer(BaseModel):
    error: Problem


class RegionView(BaseModel):
    """A region. Time a second GET of `probe_url`: the first one also opens the connection."""

    region: str
    probe_url: str


class RegionList(BaseModel):
    """Join with `rtt=region:milliseconds,…` of what was measured."""

    regions: list[RegionView]


class MeetingView(BaseModel):
    """A meeting as everybody sees it who may."""

    meeting_id: str
    title: str
    status: Literal["scheduled", "active", "ended"]
    scheduled_time: datetime | None
    duration: int | None  # minutes
    participants: int
    cluster: str


class MeetingList(BaseModel):
    meetings: list[MeetingView]


class MeetingCreated(MeetingView):
    """The only time that password and host key are told."""

    host_id: str
    host_key: str
    password: str
    join_url: str
    invite_url: str


class IceServer(BaseModel):
    urls: list[str]
    username: str = ""
    credential: str = ""


class ParticipantView(BaseModel):
    participant_id: str
    name: str
    role: str
    audio_enabled: bool
    video_enabled: bool
    screen_sharing: bool


class ParticipantNode(BaseModel):
    """Where a participant is. While it is `moving` there, its media goes on at the old node."""

    participant_id: str
    node_id: str
    region: str
    moving: bool


class ParticipantList(BaseModel):
    participants: list[ParticipantView]


class MeetingStateView(BaseModel):
    meeting_id: str
    title: str
    locked: bool
    recording: bool
    participants: list[ParticipantView]


class Joined(BaseModel):
    status: Literal["admitted"] = "admitted"
    participant_id: str
    role: str
    signaling_server_url: str
    ice_servers: list[IceServer]
    token: str
    meeting_state: MeetingStateView


class Waiting(BaseModel):
    """In the waiting room: ask again after that many seconds."""

    status: Literal["waiting"] = "waiting"
    participant_id: str
    retry_after: int


class WaitingPerson(BaseModel):
    participant_id: str
    name: str
    since: datetime


class WaitingList(BaseModel):
    waiting: list[WaitingPerson]


class ChatMessageView(BaseModel):
    message_id: str
    sender_id: str
    recipient_id: str | None
    kind: Literal["message", "reaction"]
    message: str
    sent_at: datetime


class ChatPage(BaseModel):
    """Newest last. `next`: give it as `after` for what comes later."""

    messages: list[ChatMessageView]
    next: str


class Done(BaseModel):
    done: bool = True


class Muted(BaseModel):
    muted: int
