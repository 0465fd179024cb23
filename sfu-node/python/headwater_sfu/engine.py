"""The native engine as the agent sees it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


class Engine(Protocol):
    """One media engine: sockets, transports, tracks and links live behind it.

    Every method returns at once (well under a millisecond) and is called from one thread.
    """

    def info(self) -> bytes:
        """A serialised `NodeInfo`."""
        ...

    def apply(self, request: bytes) -> bytes:
        """Carries out a serialised `ApplyRequest`, gives a serialised `ApplyResponse`.

        Raises the module's `StaleEpoch` for an older epoch, ValueError for bytes that are no
        `ApplyRequest`, RuntimeError or TimeoutError where its thread is gone or stuck.
        """
        ...

    def rooms(self, request: bytes) -> bytes:
        """What it holds of rooms: a serialised `RoomsRequest` in, a `RoomsResponse` out.

        Raises ValueError for bytes that are no `RoomsRequest`, RuntimeError or TimeoutError as `apply`.
        """
        ...

    def fileno(self) -> int:
        """An eventfd, readable while events wait."""
        ...

    def drain(self, limit: int) -> list[tuple[str, bytes]]:
        """At most `limit` pairs of controller id and serialised `WatchResponse`."""
        ...

    def resync(self, controller_id: str) -> None:
        """Queues the state of every transport and link of the controller's rooms as events."""
        ...

    def report(self) -> bytes:
        """A serialised `NodeReport` for the last second."""
        ...

    def set_draining(self, draining: bool) -> None:
        """While draining, new transports are refused; what is there goes on."""
        ...

    def close(self) -> None:
        """Stops the engine's threads and frees its port. May be called twice."""
        ...


class EngineFactory(Protocol):
    """The constructor of an engine."""

    def __call__(
        self,
        *,
        bind: Sequence[str],
        advertise: Sequence[str] | None,
        node_id: str,
        region: str,
        max_connections: int,
    ) -> Engine: ...


@dataclass(frozen=True, slots=True)
class EngineModule:
    """How to make an engine, and what it raises for a commander that was replaced."""

    factory: EngineFactory | Callable[..., Engine]
    stale_epoch: type[Exception]


def load_native() -> EngineModule:
    """The compiled engine. Raises ImportError where the extension was not built."""
    from headwater_sfu._native import Engine as NativeEngine
    from headwater_sfu._native import StaleEpoch

    return EngineModule(NativeEngine, StaleEpoch)
