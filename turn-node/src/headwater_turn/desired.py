"""What the operator wants of a TURN node, and what the node answers. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

from headwater_turn.render import Address

MAX_PEERS: Final = 10_000
MAX_SECRETS: Final = 4
# A Secret's name and a key of it; no path.
_REFERENCE: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/(?!\.\.?$)[A-Za-z0-9._-]{1,253}")


class BadRequest(ValueError):
    """The text names the field and says what it must be."""


@dataclass(frozen=True, slots=True)
class Desired:
    """The whole wish, each time. `secrets`: "<Secret>/<key>", all accepted. Draining is never taken back.

    `deadline_s`: seconds from the start of the drain after which allocations are given up.
    """

    peers: frozenset[Address] = frozenset()
    secrets: tuple[str, ...] = ()
    draining: bool = False
    deadline_s: float = 3600.0


def parse_desired(body: Any) -> Desired:
    """The wish in a decoded JSON body. Raises BadRequest."""
    if not isinstance(body, Mapping):
        raise BadRequest("the body must be an object with peers, secrets, draining, deadlineSeconds")
    deadline = body.get("deadlineSeconds", 3600.0)
    if isinstance(deadline, bool) or not isinstance(deadline, int | float) or not 0 <= deadline <= 604_800:
        raise BadRequest("deadlineSeconds must be a number from 0 to 604800")
    draining = body.get("draining", False)
    if not isinstance(draining, bool):
        raise BadRequest("draining must be true or false")
    return Desired(_peers(body.get("peers")), _secrets(body.get("secrets")), draining, float(deadline))


def _peers(value: Any) -> frozenset[Address]:
    if not isinstance(value, list) or len(value) > MAX_PEERS:
        raise BadRequest(f"peers must be a list of at most {MAX_PEERS} addresses")
    try:
        peers = frozenset(ip_address(text) for text in value if isinstance(text, str))
    except ValueError as error:
        raise BadRequest(f"peers: {error}") from None
    if len(peers) != len(set(map(str, value))):
        raise BadRequest("peers must hold addresses as strings, each once")
    for peer in peers:
        if peer.is_unspecified or peer.is_multicast or peer.is_link_local:
            raise BadRequest(f"peers: {peer} can be no SFU node")
    return peers


def _secrets(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_SECRETS:
        raise BadRequest(f"secrets must be a list of at most {MAX_SECRETS} references")
    for reference in value:
        if not isinstance(reference, str) or not _REFERENCE.fullmatch(reference):
            raise BadRequest("secrets must hold references such as turn-secret/current")
    return tuple(value)


@dataclass(frozen=True, slots=True)
class Status:
    """The node's own account. `accepted`: references whose secret is in use; no value ever leaves the node.

    `closing`: the deadline has passed, clients should go now. `drained`: the Pod may be deleted.
    """

    node: str
    region: str
    version: str
    ready: bool
    why: str
    draining: bool
    closing: bool
    drained: bool
    allocations: int
    allocations_total: int
    mbps: float
    peers: int
    accepted: tuple[str, ...]
    packet_filter: bool
    tls_port: int  # 0: no TLS
    certificate_expires: float | None  # Unix seconds

    def to_json(self) -> dict[str, Any]:
        """The wire form."""
        return {
            "node": self.node,
            "region": self.region,
            "version": self.version,
            "ready": self.ready,
            "why": self.why,
            "draining": self.draining,
            "closing": self.closing,
            "drained": self.drained,
            "allocations": self.allocations,
            "allocationsTotal": self.allocations_total,
            "mbps": round(self.mbps, 3),
            "peers": self.peers,
            "accepted": list(self.accepted),
            "packetFilter": self.packet_filter,
            "tlsPort": self.tls_port,
            "certificateExpires": self.certificate_expires,
        }
