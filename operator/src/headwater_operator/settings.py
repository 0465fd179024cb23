"""The operator's settings: one frozen value from the environment, and kopf's settings derived from it."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import kopf
from headwater_api import wellknown

from headwater_operator.kube.lease import LeaseSettings

PREFIX: Final = "op.headwater.dev"
DEFAULT_TOKEN_SECRET: Final = "headwater-node-token"
LOG_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")
DEFAULT_IMAGE: Final = "headwater-sfu:latest"


class InvalidSettings(ValueError):
    """An environment variable that cannot be used; the text names it and says what to write."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Times in seconds. `namespaces` empty: the whole cluster."""

    lease: LeaseSettings
    namespaces: tuple[str, ...] = ()
    admin_host: str = "127.0.0.1"
    admin_port: int = wellknown.PORT_ADMIN
    node_token: str = ""
    node_token_secret: str = DEFAULT_TOKEN_SECRET
    sfu_image: str = DEFAULT_IMAGE
    public_url: str = ""
    resync_s: float = 30.0
    json_logs: bool = True
    log_level: str = "INFO"

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """Raises InvalidSettings."""
        identity = environ.get(wellknown.ENV_POD_NAME) or f"{socket.gethostname()}-{os.getpid()}"
        duration = _number(environ, "HEADWATER_LEASE_DURATION", 15.0)
        try:
            lease = LeaseSettings(
                namespace=environ.get(wellknown.ENV_POD_NAMESPACE) or "default",
                name=environ.get("HEADWATER_LEASE_NAME") or "headwater-operator",
                identity=identity,
                duration_s=duration,
                renew_deadline_s=duration * 2 / 3,
                retry_s=duration / 8,
            )
        except ValueError as error:
            raise InvalidSettings(f"HEADWATER_LEASE_DURATION: {error}") from None
        return cls(
            lease=lease,
            namespaces=tuple(name for name in environ.get("HEADWATER_NAMESPACES", "").split(",") if name),
            admin_host=environ.get(wellknown.ENV_POD_IP) or "127.0.0.1",
            admin_port=int(_number(environ, "HEADWATER_ADMIN_PORT", wellknown.PORT_ADMIN)),
            node_token=environ.get(wellknown.ENV_NODE_TOKEN, ""),
            node_token_secret=environ.get(wellknown.ENV_NODE_TOKEN_SECRET) or DEFAULT_TOKEN_SECRET,
            sfu_image=environ.get("HEADWATER_SFU_IMAGE") or DEFAULT_IMAGE,
            public_url=environ.get("HEADWATER_PUBLIC_URL", "").rstrip("/"),
            resync_s=_number(environ, "HEADWATER_RESYNC", 30.0),
            json_logs=environ.get("HEADWATER_LOG_FORMAT", "json") == "json",
            log_level=_level(environ.get("HEADWATER_LOG_LEVEL", "info")),
        )


def _level(text: str) -> str:
    if text.upper() not in LOG_LEVELS:
        raise InvalidSettings(f"HEADWATER_LOG_LEVEL={text!r}: write one of {', '.join(LOG_LEVELS).lower()}")
    return text.upper()


def _number(environ: Mapping[str, str], name: str, default: float) -> float:
    """Seconds or a count from the environment; negative and non-numbers are refused."""
    text = environ.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        raise InvalidSettings(f"{name}={text!r} is not a number: write one such as {default:g}") from None
    if not 0 <= value <= 86_400:
        raise InvalidSettings(f"{name}={text!r} is out of range: write a number such as {default:g}")
    return value


def kopf_settings(settings: Settings) -> kopf.OperatorSettings:
    """Why each value: kopf's defaults post every log line as an Event, stall 54 s without cluster-wide
    rights, back off for ten minutes, and share their annotations with every other kopf operator."""
    out = kopf.OperatorSettings()
    out.persistence.finalizer = f"{wellknown.GROUP}/operator"
    out.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=PREFIX, v1=False)
    out.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=PREFIX, key="last", v1=False)
    out.persistence.consistency_timeout = 5.0
    out.watching.inactivity_timeout = 70.0
    out.watching.connect_timeout = 5.0
    out.watching.server_timeout = None
    out.watching.reconnect_backoff = 1.0
    out.watching.chunk_size = 500
    out.watching.label_selectors["pods"] = f"{wellknown.LABEL_COMPONENT}={wellknown.COMPONENT_SFU}"
    out.networking.request_timeout = 15.0
    out.networking.connect_timeout = 5.0
    out.networking.error_backoffs = (0.5, 1, 2, 4, 8)
    out.queueing.worker_limit = None
    out.queueing.idle_timeout = 5.0
    out.queueing.exit_timeout = 10.0
    out.queueing.error_delays = (1, 2, 5, 10, 30, 60)
    out.execution.default_backoff = 10
    out.execution.max_workers = 4
    out.posting.enabled = False  # our own recorder posts, on transitions only
    out.posting.loggers = False
    out.peering.standalone = True
    out.process.ultimate_exiting_timeout = None  # the process's end is ours to decide
    # With a Role and no ClusterRole kopf would retry forbidden lists of CRDs and namespaces for a minute.
    out.scanning.disabled = bool(settings.namespaces)
    return out
