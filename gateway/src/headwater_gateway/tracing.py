"""The join that a task serves, for the places on its way that tell how long they took.

Nothing here needs OpenTelemetry: that is loaded only where traces are asked for (`opened`).
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, TypeVar

import structlog
from headwater_api.exporting import exporting
from headwater_api.ids import GatewayId

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from headwater_gateway.join_traces import JoinTrace, JoinTraces

log = structlog.get_logger(__name__)

T = TypeVar("T")

# None: joins are not traced, or not this one.
JOIN: ContextVar["JoinTrace | None"] = ContextVar("join", default=None)
_NOTHING: Final = nullcontext()


def stage(name: str) -> AbstractContextManager[None]:
    """A part of the join, as a span of its own."""
    trace = JOIN.get()
    return trace.stage(name) if trace is not None else _NOTHING


def carried(name: str, decide: Callable[[float], T]) -> Callable[[float], T]:
    """`decide`, for another task to call: a part of the join that this task serves."""
    trace = JOIN.get()
    return trace.carried(name, decide) if trace is not None else decide


def headers() -> Mapping[str, str]:
    """What a request to another gateway says, so that what it does is in the same trace."""
    trace = JOIN.get()
    return trace.headers() if trace is not None else {}


def opened(env: Mapping[str, str], gateway: GatewayId) -> AbstractContextManager["JoinTraces | None"]:
    """Traces as the environment asks for them; None: it does not. What keeps them away is logged.

    Without traces calls go through all the same, so nothing about them ends the program.
    """
    about = {"service.name": "headwater-gateway", "service.instance.id": gateway}
    return exporting(env, about, _join_traces, _say_off)


def _join_traces(provider: "TracerProvider") -> "JoinTraces":
    from headwater_gateway.join_traces import JoinTraces

    log.info("traces.on")
    return JoinTraces(provider)


def _say_off(reason: str) -> None:
    log.warning("traces.off", reason=reason, fix="see docs/traces.md: headwater-gateway[traces]")
