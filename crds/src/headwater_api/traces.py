"""Traces of joins: when a program makes them, and the names that its spans use beside OpenTelemetry's own.

A span names regions, nodes and reasons, and a room by a hash; no participant, token or session description.
"""

import hashlib
from collections.abc import Mapping
from typing import Final

# https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
ENV_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
ENV_TRACES_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
ENV_EXPORTER: Final = "OTEL_TRACES_EXPORTER"
ENV_PROTOCOL: Final = "OTEL_EXPORTER_OTLP_PROTOCOL"
ENV_TRACES_PROTOCOL: Final = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
ENV_DISABLED: Final = "OTEL_SDK_DISABLED"
PROTOCOL: Final = "http/protobuf"

HEADER: Final = "traceparent"  # of HTTP and gRPC: https://www.w3.org/TR/trace-context/
APPLY: Final = "headwater.node.v1.Node/Apply"  # the span of a room's commands, at both ends

ROOM: Final = "headwater.room"  # `room_hash`
REGION: Final = "headwater.region"
NODE: Final = "headwater.node"
REASON: Final = "headwater.reason"
OUTCOME: Final = "headwater.outcome"


class CannotTrace(ValueError):
    """Traces are asked for in a way that is not known here; the text names the variable and the fix."""


def wants_traces(env: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's variables name an endpoint for traces, and nothing turns them off.

    Raises CannotTrace.
    """
    said = {name: value.strip() for name, value in env.items() if name.startswith("OTEL_")}
    exporter = said.get(ENV_EXPORTER) or "otlp"
    endpoint = said.get(ENV_TRACES_ENDPOINT) or said.get(ENV_ENDPOINT)
    if not endpoint or exporter == "none" or said.get(ENV_DISABLED, "").lower() == "true":
        return False
    if exporter != "otlp":
        raise CannotTrace(f"{ENV_EXPORTER}={exporter!r}: write otlp or none")
    name = ENV_TRACES_PROTOCOL if said.get(ENV_TRACES_PROTOCOL) else ENV_PROTOCOL
    if (protocol := said.get(name) or PROTOCOL) != PROTOCOL:
        raise CannotTrace(f"{name}={protocol!r}: write {PROTOCOL}, to port 4318 of most collectors")
    return True


def room_hash(room_id: str) -> str:
    """What spans call a room: the first 16 hexadecimal digits of the SHA-256 of its name."""
    return hashlib.sha256(room_id.encode()).hexdigest()[:16]
