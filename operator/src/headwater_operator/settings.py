"""The operator's settings: one frozen value from the environment."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headwater_api import wellknown

from headwater_operator.kube.lease import LeaseSettings

DEFAULT_TOKEN_SECRET: Final = "headwater-node-token"
LOG_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")
DEFAULT_IMAGE: Final = "headwater-sfu:latest"
DEFAULT_TURN_IMAGE: Final = "headwater-turn:latest"


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
    node_tls_dir: Path | None = None  # with ca.crt
    node_tls_secret: str = ""  # empty: nodes are made without TLS
    turn_tls_dir: Path | None = None  # with ca.crt
    turn_tls_secret: str = ""  # empty: TURN nodes are commanded without TLS
    node_traces: str = ""  # where they send traces; empty: nowhere
    sfu_image: str = DEFAULT_IMAGE
    turn_image: str = DEFAULT_TURN_IMAGE
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
            node_tls_dir=Path(tls) if (tls := environ.get(wellknown.ENV_NODE_TLS_DIR)) else None,
            node_tls_secret=environ.get(wellknown.ENV_NODE_TLS_SECRET, ""),
            turn_tls_dir=Path(tls) if (tls := environ.get(wellknown.ENV_TURN_ADMIN_TLS_DIR)) else None,
            turn_tls_secret=environ.get(wellknown.ENV_TURN_ADMIN_TLS_SECRET, ""),
            node_traces=environ.get(wellknown.ENV_NODE_TRACES, ""),
            sfu_image=environ.get("HEADWATER_SFU_IMAGE") or DEFAULT_IMAGE,
            turn_image=environ.get("HEADWATER_TURN_IMAGE") or DEFAULT_TURN_IMAGE,
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
