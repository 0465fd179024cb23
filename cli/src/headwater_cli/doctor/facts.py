"""What the doctor knows of an installation. Values of secrets are never among it, only their lengths."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from headwater_api.sfucluster import SFUCluster


class Level(StrEnum):
    ERROR = "error"  # it does not work
    WARNING = "warning"  # it will not work for some, or not for long
    OK = "ok"


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence on what was seen, and one on what to do where something is to be done."""

    level: Level
    subject: str
    sentence: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class KubeNode:
    name: str
    labels: Mapping[str, str]
    ready: bool
    schedulable: bool


@dataclass(frozen=True, slots=True)
class SecretUse:
    """An environment variable or a mount that a container fills from a Secret."""

    secret: str
    key: str  # empty: all keys, as files


@dataclass(frozen=True, slots=True)
class PodFacts:
    name: str
    component: str
    region: str
    ready: bool
    phase: str
    waiting: str  # the container's waiting reason, such as ImagePullBackOff
    message: str  # of the container's or the scheduler's state
    restarts: int
    image: str
    env: Mapping[str, str]  # plain values only
    secrets: tuple[SecretUse, ...]
    ip: str = ""
    external: tuple[str, ...] = ()  # where clients reach an SFU node beside its own address


@dataclass(frozen=True, slots=True)
class Certificate:
    """The certificate that a TLS endpoint shows. `error`: why there is none."""

    endpoint: str
    not_after: datetime | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The answer of a gateway's public address."""

    url: str
    status: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class LeaseFacts:
    holder: str
    renewed: datetime | None
    duration_s: int


@dataclass(frozen=True, slots=True)
class Report:
    """A node's own report. `error`: why there is none."""

    error: str = ""
    at: datetime | None = None
    media_addresses: tuple[str, ...] = ()
    receive_buffer_bytes: int = 0  # 0: not reported


@dataclass(frozen=True, slots=True)
class Facts:
    """One look at an installation in one namespace."""

    namespace: str
    now: datetime
    api_error: str = ""
    server_time: datetime | None = None
    missing_crds: tuple[str, ...] = ()
    clusters: tuple[SFUCluster, ...] = ()
    bad_clusters: Mapping[str, str] = field(default_factory=dict)  # name → why it cannot be read
    nodes: tuple[KubeNode, ...] = ()
    pods: tuple[PodFacts, ...] = ()
    # Secret → key → length of its value. None: there is no such Secret, or it may not be read.
    secrets: Mapping[str, Mapping[str, int] | None] = field(default_factory=dict)
    lease: LeaseFacts | None = None
    reports: Mapping[str, Report] = field(default_factory=dict)
    endpoint: Endpoint | None = None
    certificates: tuple[Certificate, ...] = ()


Object = dict[str, Any]
