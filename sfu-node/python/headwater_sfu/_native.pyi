"""The media engine of an SFU node, in Rust: ICE-lite, DTLS, SRTP, forwarding, data channels, relay links.

Messages are serialised protobufs of ``headwater.node.v1``. All methods may be called from any thread; those
that
wait for the media thread release the GIL and answer within microseconds, at most 5 s (then ``TimeoutError``).
"""

from collections.abc import Sequence

class StaleEpoch(Exception):
    """The room was commanded with a newer epoch before: this controller has been replaced."""

class EngineError(RuntimeError):
    """The engine could not start (the text names the address and the reason), or it is closed."""

class Engine:
    """One node's media engine with its own thread and UDP sockets."""

    def __init__(
        self,
        *,
        bind: Sequence[str],
        advertise: Sequence[str] | None,
        node_id: str,
        region: str,
        max_connections: int,
    ) -> None:
        """Bind and start.

        ``bind``: exact local addresses as ``ip:port`` or ``[ip6]:port``; port 0 lets the kernel choose;
        0.0.0.0 and [::] are refused, because replies would leave from another address than the candidate's.
        ``advertise``: what :meth:`info` names instead of the bound addresses (NAT).
        ``max_connections``: client transports that the node takes.

        Raises ``ValueError`` for an unreadable address, :class:`EngineError` when it cannot bind.
        """

    def info(self) -> bytes:
        """``NodeInfo``; the same for the life of the object."""

    def apply(self, request: bytes) -> bytes:
        """``ApplyRequest`` → ``ApplyResponse`` with one result per command.

        Raises :class:`StaleEpoch`, ``ValueError`` (not an ApplyRequest), :class:`EngineError`,
        ``TimeoutError``.
        """

    def rooms(self, request: bytes) -> bytes:
        """``RoomsRequest`` → ``RoomsResponse``: epoch, controller, snapshot and lease of rooms that are here.

        Raises ``ValueError`` (not a RoomsRequest), :class:`EngineError`, ``TimeoutError``.
        """

    def fileno(self) -> int:
        """An ``eventfd``, readable while events wait; for ``loop.add_reader``. Belongs to the engine."""

    def drain(self, limit: int) -> list[tuple[str, bytes]]:
        """At most ``limit`` events, oldest first, as (controller_id, ``WatchResponse`` with those events).

        Bounded on purpose: call again while :meth:`fileno` is readable. Up to 65 536 undrained events, or
        64 MiB of them, are kept; beyond that data messages are refused first (``drops["events_overflow"]``).
        """

    def resync(self, controller_id: str) -> None:
        """Emit the present state of every transport, subscription, link and track of a controller's rooms."""

    def report(self) -> bytes:
        """``NodeReport``; rates since the last call (at least 0.5 s). CPU and RSS are left 0."""

    def set_draining(self, draining: bool) -> None:
        """Refuse new transports, or take them again. What is connected goes on."""

    def close(self) -> None:
        """End the media thread and close its sockets. Idempotent."""
