"""The one vocabulary of reasons: conditions, events, metrics labels, log fields, refusals sent to clients.

A reason is stable and public: dashboards and alerts match on it. Add one with its first user, never rename
or reuse one. The value follows the pattern Kubernetes sets for condition reasons (CamelCase, no spaces).
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why something is so, or was done, or was refused."""

    # -- the fleet (SFUCluster conditions and events)
    ALL_NODES_READY = "AllNodesReady"
    AS_EXPECTED = "AsExpected"  # Degraded=False
    UP_TO_DATE = "UpToDate"  # Progressing=False
    NODES_STARTING = "NodesStarting"
    NODES_MISSING = "NodesMissing"  # fewer ready nodes than wanted
    NODES_UNREADY = "NodesUnready"
    NODES_REPLACING = "NodesReplacing"
    NODE_REPORTS_MISSING = "NodeReportsMissing"  # Pods are up but do not report: load unknown
    NO_NODE_MATCHES_REGION = "NoNodeMatchesRegion"  # no Kubernetes node carries the region's labels
    PODS_UNSCHEDULABLE = "PodsUnschedulable"
    POD_CREATE_REFUSED = "PodCreateRefused"  # quota, admission, Pod Security
    IMAGE_UNAVAILABLE = "ImageUnavailable"
    NODE_TOKEN_MISSING = "NodeTokenMissing"  # the Secret with the nodes' token is absent or lacks the key
    INVALID_SPEC = "InvalidSpec"
    OBSERVE_FAILED = "ObserveFailed"  # the API server could not be read
    APPLY_FAILED = "ApplyFailed"
    FIXED_SIZE = "FixedSize"  # the fleet is held at minNodes (or replicas): nothing scales it
    SCALING_ENABLED = "ScalingEnabled"
    SCALING_DISABLED = "ScalingDisabled"  # selectPolicy Disabled in that direction
    METRICS_MISSING = "MetricsMissing"  # or stale, or not to be believed: numbers are only raised
    WITHIN_BOUNDS = "WithinBounds"
    AT_MAX_NODES = "AtMaxNodes"
    ABOVE_MAX_NODES = "AboveMaxNodes"  # maxNodes was lowered
    SPILLED_OVER = "SpilledOver"  # another region's demand that does not fit there
    STABILIZING = "Stabilizing"  # held by a stabilisation window
    POLICY_LIMITED = "PolicyLimited"  # held by the policies of scaleUp or scaleDown
    CPU_ABOVE_TARGET = "CpuAboveTarget"
    CONNECTIONS_ABOVE_TARGET = "ConnectionsAboveTarget"
    LATENCY_ABOVE_TARGET = "LatencyAboveTarget"
    EGRESS_ABOVE_CAPACITY = "EgressAboveCapacity"
    PACKETS_ABOVE_CAPACITY = "PacketsAboveCapacity"
    QUEUES_ABOVE_TARGET = "QueuesAboveTarget"
    LOAD_BELOW_TARGET = "LoadBelowTarget"
    MEETING_EXPECTED = "MeetingExpected"  # announced participants need the nodes
    SCHEDULE_ACTIVE = "ScheduleActive"
    SCHEDULE_INVALID = "ScheduleInvalid"
    FORECAST_HIGHER = "ForecastHigher"
    REPLICAS_REQUESTED = "ReplicasRequested"
    CAPACITY_FREE = "CapacityFree"
    CAPACITY_EXHAUSTED = "CapacityExhausted"
    CAPACITY_UNKNOWN = "CapacityUnknown"
    NODE_REPLACED = "NodeReplaced"
    NODE_UNHEALTHY = "NodeUnhealthy"
    NODE_FAILED = "NodeFailed"  # its Pod ended or its container crashed
    NODE_ORPHANED = "NodeOrphaned"  # its region or cluster is gone from the spec
    SCALED_UP = "ScaledUp"
    SCALED_DOWN = "ScaledDown"
    BELOW_MIN_NODES = "BelowMinNodes"
    ABOVE_DESIRED_NODES = "AboveDesiredNodes"
    DRAIN_STARTED = "DrainStarted"
    DRAIN_FINISHED = "DrainFinished"
    DRAIN_CANCELLED = "DrainCancelled"
    DRAIN_TIMEOUT = "DrainTimeout"
    DRAIN_REQUESTED = "DrainRequested"  # by an annotation on the Pod
    KUBERNETES_NODE_CORDONED = "KubernetesNodeCordoned"
    TERMINATION_NOTICE = "TerminationNotice"  # the machine is about to go
    NODE_GUARDED = "NodeGuarded"  # its protection from eviction follows whether it serves
    NODE_EXPOSED = "NodeExposed"  # a Service of its own leads to it
    NODE_NOT_EXPOSED = "NodeNotExposed"  # it is ready, and clients have no address for it
    CLIENTS_CONNECT = "ClientsConnect"
    CLIENTS_DO_NOT_CONNECT = "ClientsDoNotConnect"  # to a node, at the address that they are told
    NO_CLIENT_YET = "NoClientYet"
    UPGRADING = "Upgrading"
    UPGRADE_HALTED = "UpgradeHalted"
    UPGRADE_INCOMPATIBLE = "UpgradeIncompatible"  # the new nodes do not understand the old ones
    MASS_FAILURE_SUSPECTED = "MassFailureSuspected"  # too many at once to be believed without proof

    # -- meetings (Meeting conditions and events)
    NOT_SCHEDULED = "NotScheduled"  # no schedule: the meeting is open from its creation
    BEFORE_START = "BeforeStart"
    STARTED = "Started"
    CAPACITY_READY = "CapacityReady"
    WAITING_FOR_CAPACITY = "WaitingForCapacity"
    WAITING_FOR_LEAD_TIME = "WaitingForLeadTime"
    CLUSTER_NOT_FOUND = "ClusterNotFound"
    REGION_UNKNOWN = "RegionUnknown"  # a region named here is not one of the cluster's
    NO_REGION_ALLOWED = "NoRegionAllowed"  # allow, deny and pin leave no region
    PARTICIPANTS_PRESENT = "ParticipantsPresent"
    ROOM_EMPTY = "RoomEmpty"
    NOT_ENDED = "NotEnded"
    DURATION_ELAPSED = "DurationElapsed"
    EMPTY_TIMEOUT_ELAPSED = "EmptyTimeoutElapsed"
    MEETING_EXPIRED = "MeetingExpired"  # ttlAfterEnded passed: the Meeting is deleted

    # -- placement (planner): choices, then why a node was passed over, then refusals
    PLACED_IN_REGION = "PlacedInRegion"
    PLACED_NEAREST = "PlacedNearest"
    PLACED_WITH_ROOM = "PlacedWithRoom"  # a node of the region that already serves the room
    PLACED_ELSEWHERE = "PlacedElsewhere"  # the wanted region had no room
    REGION_NOT_ALLOWED = "RegionNotAllowed"
    NO_NODE = "NoNode"  # no node known
    NO_CAPACITY = "NoCapacity"  # nodes known, none with room

    # -- joins refused, sessions ended (gateway)
    TOKEN_MISSING = "TokenMissing"
    TOKEN_MALFORMED = "TokenMalformed"
    TOKEN_SIGNATURE_INVALID = "TokenSignatureInvalid"
    TOKEN_EXPIRED = "TokenExpired"
    TOKEN_NOT_YET_VALID = "TokenNotYetValid"
    API_KEY_UNKNOWN = "ApiKeyUnknown"
    GRANT_MISSING = "GrantMissing"
    ROOM_NAME_MISSING = "RoomNameMissing"
    ROOM_NAME_INVALID = "RoomNameInvalid"
    IDENTITY_MISSING = "IdentityMissing"
    IDENTITY_INVALID = "IdentityInvalid"
    PARAMETER_INVALID = "ParameterInvalid"
    PROTOCOL_UNSUPPORTED = "ProtocolUnsupported"
    REQUEST_MALFORMED = "RequestMalformed"  # no HTTP
    NOT_A_WEBSOCKET = "NotAWebSocket"
    ROOM_NOT_FOUND = "RoomNotFound"
    ROOM_FULL = "RoomFull"
    ROOM_LOCKED = "RoomLocked"
    ROOM_CLOSED = "RoomClosed"
    MEETING_NOT_STARTED = "MeetingNotStarted"
    MEETING_ENDED = "MeetingEnded"
    MEETING_UNREADABLE = "MeetingUnreadable"  # its object says what this gateway does not understand
    NOT_INVITED = "NotInvited"
    PASSWORD_REQUIRED = "PasswordRequired"
    BANNED = "Banned"
    IN_WAITING_ROOM = "InWaitingRoom"  # a host has to admit it
    WAITING_FOR_HOST = "WaitingForHost"  # nobody comes in before a host
    ADMISSION_DENIED = "AdmissionDenied"  # a host has refused it
    CONSENT_REQUIRED = "ConsentRequired"  # to being recorded
    TOKEN_REVOKED = "TokenRevoked"
    TOKEN_AUDIENCE_WRONG = "TokenAudienceWrong"
    ORIGIN_NOT_ALLOWED = "OriginNotAllowed"
    PARTICIPANT_NOT_FOUND = "ParticipantNotFound"
    PARTICIPANT_NOT_MOVABLE = "ParticipantNotMovable"  # its client cannot be led to another node
    CLIENT_TOO_SLOW = "ClientTooSlow"  # its send queue is full
    JOIN_TIMEOUT = "JoinTimeout"
    SERVER_SHUTDOWN = "ServerShutdown"
    GATEWAY_STARTING = "GatewayStarting"  # policy or nodes have not been read once yet
    OWNER_UNREACHABLE = "OwnerUnreachable"  # the gateway that owns the room does not answer
    TOO_MANY_SESSIONS = "TooManySessions"
    RATE_LIMITED = "RateLimited"
    FRAME_MALFORMED = "FrameMalformed"
    FRAME_TOO_LARGE = "FrameTooLarge"
    MESSAGE_UNKNOWN = "MessageUnknown"
    SDP_INVALID = "SdpInvalid"
    SDP_TOO_LARGE = "SdpTooLarge"
    TRACK_NOT_FOUND = "TrackNotFound"
    TOO_MANY_TRACKS = "TooManyTracks"
    PUBLISH_NOT_ALLOWED = "PublishNotAllowed"
    METADATA_NOT_ALLOWED = "MetadataNotAllowed"
    METADATA_TOO_LARGE = "MetadataTooLarge"
    INTERNAL_ERROR = "InternalError"

    # -- what a gateway asks of others
    NODE_UNREACHABLE = "NodeUnreachable"
    COMMAND_TIMEOUT = "CommandTimeout"
    STALE_EPOCH = "StaleEpoch"
    QUEUE_FULL = "QueueFull"
