"""Whether this node takes part in traces of joins. Nothing here needs OpenTelemetry."""

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from headwater_api.exporting import exporting
from headwater_api.traces import REGION

from headwater_sfu.config import NodeConfig

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from headwater_sfu.traces import NodeTraces

log = logging.getLogger(__name__)


def opened(env: Mapping[str, str], config: NodeConfig) -> AbstractContextManager["NodeTraces | None"]:
    """None where the environment asks for no traces, or where they cannot be made, which is logged.

    Media goes on without traces, so nothing about them keeps a node from its work.
    """
    about = {
        "service.name": "headwater-sfu",
        "service.instance.id": config.node_id,
        REGION: config.region,
    }
    return exporting(env, about, _node_traces, _say_off)


def _node_traces(provider: "TracerProvider") -> "NodeTraces":
    from headwater_sfu.traces import NodeTraces

    return NodeTraces(provider)


def _say_off(reason: str) -> None:
    log.warning("no traces: %s; see docs/traces.md: headwater-sfu[traces]", reason)
