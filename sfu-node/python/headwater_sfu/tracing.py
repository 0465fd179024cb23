"""Whether this node takes part in traces of joins. Nothing here needs OpenTelemetry."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from headwater_api.traces import CannotTrace, wants_traces

from headwater_sfu.config import NodeConfig

if TYPE_CHECKING:
    from headwater_sfu.traces import Exporting

log = logging.getLogger(__name__)


def open_traces(env: Mapping[str, str], config: NodeConfig) -> "Exporting | None":
    """None where the environment asks for no traces, or where they cannot be made, which is logged.

    Media goes on without traces, so nothing about them keeps a node from its work.
    """
    try:
        if not wants_traces(env):
            return None
        from headwater_sfu.traces import Exporting
    except (CannotTrace, ImportError) as error:
        log.warning("no traces: %s; see docs/traces.md: headwater-sfu[traces]", error)
        return None
    return Exporting(config)
