"""The client's own address behind trusted proxies."""

import ipaddress
from collections.abc import Iterable, Sequence

_MAX_HOPS = 32

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_trusted(address: str, trusted: Iterable[_Network]) -> bool:
    """Whether the address lies in one of the networks (an IPv4-mapped one counts as IPv4)."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in trusted)


def client_address(peer: str, forwarded_for: Sequence[str], trusted: Sequence[_Network]) -> str:
    """The nearest hop that is not a trusted proxy.

    `peer` is the TCP (or PROXY header) source, `forwarded_for` the X-Forwarded-For header lines in order.
    Walks the list from the right, since each proxy appends what it saw; anything left of an untrusted or
    malformed hop may be the client's own invention.
    """
    address = _plain(peer) or peer
    if not is_trusted(address, trusted):
        return address
    hops = [hop for line in forwarded_for for hop in line.split(",")]
    for hop in reversed(hops[-_MAX_HOPS:]):
        parsed = _plain(hop)
        if parsed is None:
            return address
        address = parsed
        if not is_trusted(address, trusted):
            return address
    return address


def _plain(hop: str) -> str | None:
    """An address without port, brackets or zone, in canonical form; None if it is none."""
    text = hop.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        parsed = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(parsed)
