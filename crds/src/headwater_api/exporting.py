"""Where traces go. OpenTelemetry (the extra `traces`) is loaded only where its variables ask for traces."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from headwater_api.traces import CannotTrace, wants_traces

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

LAST_EXPORT_S: Final = 2.0


class Closes(Protocol):
    """A program's own part: it ends its spans."""

    def close(self) -> None: ...


T = TypeVar("T", bound=Closes)


@contextmanager
def exporting(
    env: Mapping[str, str],
    about: Mapping[str, str],
    make: Callable[["TracerProvider"], T],
    on_off: Callable[[str], None],
) -> Iterator[T | None]:
    """What `make` makes: a thread sends its spans where the OTEL_* variables say. What it cannot is dropped.

    `about`: the resource's attributes. None: nobody asks for traces, or they cannot be made; `on_off` is told
    why, and a program does its work without. The end waits LAST_EXPORT_S at most for what is left to be sent.
    """
    provider = _provider(env, about, on_off)
    if provider is None:
        yield None
        return
    traces = make(provider)
    try:
        yield traces
    finally:
        traces.close()
        last = threading.Thread(target=provider.shutdown, name="last traces", daemon=True)
        last.start()
        last.join(LAST_EXPORT_S)


def _provider(
    env: Mapping[str, str], about: Mapping[str, str], on_off: Callable[[str], None]
) -> "TracerProvider | None":
    try:
        if not wants_traces(env):
            return None
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except (CannotTrace, ImportError) as error:
        on_off(str(error))
        return None
    resource = Resource.create().merge(Resource(dict(about))).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
