"""What coturn and the kernel's packet filter are told. Pure: values in, text out.

No secret is in either text: shared secrets and allowed peers go through coturn's user database, which it
reads while it runs.
"""

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final

from headwater_api import wellknown

Address = IPv4Address | IPv6Address
TABLE: Final = "headwater_turn"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files, as a kubernetes.io/tls Secret has them."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """One coturn process. Ports are of `address`, quotas count allocations."""

    address: Address
    realm: str
    database: Path
    pid_file: Path
    port: int = wellknown.PORT_TURN
    tls_port: int = wellknown.PORT_TURN_TLS
    relay_ports: tuple[int, int] = (wellknown.PORT_RELAY_FIRST, wellknown.PORT_RELAY_LAST)
    user_quota: int = 12
    total_quota: int = 4000
    tls: TlsFiles | None = None


def render_config(options: ServerOptions) -> str:
    """turnserver.conf: every peer is denied but those of the database's allowed_peer_ip."""
    lines = [
        f"listening-ip={options.address}",
        f"relay-ip={options.address}",
        f"listening-port={options.port}",
        f"min-port={options.relay_ports[0]}",
        f"max-port={options.relay_ports[1]}",
        f"realm={options.realm}",
        f"userdb={options.database}",
        f"pidfile={options.pid_file}",
        "use-auth-secret",
        "fingerprint",
        # Peers: nothing, but what the database allows; the ranges are tried after those.
        "denied-peer-ip=0.0.0.0-255.255.255.255",
        "denied-peer-ip=::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "no-multicast-peers",
        "no-tcp-relay",
        "no-cli",
        f"user-quota={options.user_quota}",
        f"total-quota={options.total_quota}",
        # Answers to strangers stay short: they are what a reflected flood is made of.
        "no-software-attribute",
        "no-rfc5780",
        "no-stun-backward-compatibility",
        "response-origin-only-with-rfc5780",
        "stale-nonce=600",
        "no-tlsv1",
        "no-tlsv1_1",
        "no-dtls",
        # The agent reads allocations and traffic from here.
        "verbose",
        "log-file=stdout",
        "simple-log",
    ]
    if options.tls is None:
        lines.append("no-tls")
    else:
        lines += [
            f"tls-listening-port={options.tls_port}",
            f"cert={options.tls.certificate}",
            f"pkey={options.tls.key}",
        ]
    if options.address.is_loopback:
        # Only where the node itself is on a loopback address: then its SFU nodes are, too.
        lines.append("allow-loopback-peers")
    return "\n".join(lines) + "\n"


def render_filter(options: ServerOptions, peers: Collection[Address], media_port: int) -> str:
    """An nftables script that replaces the table as a whole: one transaction, also the first time.

    Relay ports speak UDP with the media port of `peers` and nothing else with anybody, both ways. It needs no
    state of connections and touches no other port, so that it may stand on a host's own network.
    """
    ports = f"{options.relay_ports[0]}-{options.relay_ports[1]}"
    family = "ip" if options.address.version == 4 else "ip6"
    kind = "ipv4_addr" if options.address.version == 4 else "ipv6_addr"
    reachable = sorted((p for p in peers if p.version == options.address.version), key=int)
    elements = f" elements = {{ {', '.join(map(str, reachable))} }};" if reachable else ""
    out, into = f"{family} saddr {options.address}", f"{family} daddr {options.address}"
    lines = [
        f"table inet {TABLE} {{}}",
        f"delete table inet {TABLE}",
        f"table inet {TABLE} {{",
        f"  set peers {{ type {kind};{elements} }}",
        "  counter refused {}",
        "  chain out {",
        "    type filter hook output priority 0; policy accept;",
        f"    {out} udp sport {ports} {family} daddr @peers udp dport {media_port} accept",
        f"    {out} udp sport {ports} counter name refused drop",
        f"    {out} tcp sport {ports} counter name refused drop",
        "  }",
        "  chain in {",
        "    type filter hook input priority 0; policy accept;",
        f"    {into} udp dport {ports} {family} saddr @peers udp sport {media_port} accept",
        f"    {into} udp dport {ports} counter name refused drop",
        f"    {into} tcp dport {ports} counter name refused drop",
        "  }",
        "}",
    ]
    return "\n".join(lines) + "\n"
