"""kopf's settings, each away from a default that hurts."""

from typing import Final

import kopf
from headwater_api import wellknown

PREFIX: Final = "op.headwater.dev"


def kopf_settings(*, namespaced: bool) -> kopf.OperatorSettings:
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
    # Each object has a task that holds its body so long: after a start that is all of them.
    out.queueing.idle_timeout = 0.5
    out.queueing.exit_timeout = 10.0
    out.queueing.error_delays = (1, 2, 5, 10, 30, 60)
    out.execution.default_backoff = 10
    out.execution.max_workers = 4
    out.posting.enabled = False  # our own recorder posts, on transitions only
    out.posting.loggers = False
    out.peering.standalone = True
    out.process.ultimate_exiting_timeout = None  # the process's end is ours to decide
    # With a Role and no ClusterRole kopf would retry forbidden lists of CRDs and namespaces for a minute.
    out.scanning.disabled = namespaced
    return out
