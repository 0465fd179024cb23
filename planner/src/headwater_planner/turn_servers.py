"""Which TURN servers a client is told, in which order, with which credentials. Pure."""

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from headwater_api.ids import ParticipantSid, RegionName
from headwater_api.wellknown import PORT_TURN

from headwater_planner.geo_distance import Coordinates, great_circle_km

# Two: the second is the way out when the first one dies. More would only slow the gathering down.
MAX_NODES: Final = 2
# A client may join, reconnect and restart ICE with its credentials for so long.
CREDENTIAL_LIFE_S: Final = 12 * 3600
_FAR_KM: Final = 1e6


@dataclass(frozen=True, slots=True)
class TurnNode:
    """A TURN node that serves. `tls_host` empty: no TLS. `secret`: what signs for it; empty: none known."""

    name: str
    region: RegionName
    ip: str
    secret: str
    tls_host: str = ""
    tls_port: int = 443


@dataclass(frozen=True, slots=True)
class IceServer:
    """One entry of a client's RTCConfiguration."""

    urls: tuple[str, ...]
    username: str
    credential: str


def rest_credentials(secret: str, participant: ParticipantSid, expires_at: int) -> tuple[str, str]:
    """Username and password, bound to the participant and valid until `expires_at` (Unix seconds).

    draft-uberti-behave-turn-rest-00 §2.2.
    """
    username = f"{expires_at}:{participant}"
    digest = hmac.new(secret.encode(), username.encode(), hashlib.sha1).digest()
    return username, base64.b64encode(digest).decode()


def ice_servers(
    nodes: Sequence[TurnNode],
    regions: Mapping[RegionName, Coordinates | None],
    near: RegionName,
    participant: ParticipantSid,
    *,
    now: int,
    external: Sequence[tuple[str, str]] = (),
) -> tuple[IceServer, ...]:
    """The servers for a client in region `near`, nearest first. `external`: (URL, secret). `now`: Unix s."""
    expires = now + CREDENTIAL_LIFE_S
    usable = [node for node in nodes if node.secret]
    chosen = sorted(usable, key=lambda node: _order(node, regions, near, participant))[:MAX_NODES]
    servers = [
        IceServer(turn_urls(node), *rest_credentials(node.secret, participant, expires)) for node in chosen
    ]
    servers += [
        IceServer((url,), *rest_credentials(secret, participant, expires))
        for url, secret in external
        if secret
    ]
    return tuple(servers)


def turn_urls(node: TurnNode) -> tuple[str, ...]:
    """UDP first, then what passes where UDP does not: TCP, and TLS on the port of HTTPS (RFC 7065)."""
    host = f"[{node.ip}]" if ":" in node.ip else node.ip
    urls = [f"turn:{host}:{PORT_TURN}?transport=udp", f"turn:{host}:{PORT_TURN}?transport=tcp"]
    if node.tls_host:
        urls.append(f"turns:{node.tls_host}:{node.tls_port}?transport=tcp")
    return tuple(urls)


def tls_host_of(ip: str, domain: str) -> str:
    """`203-0-113-7.<domain>`; without a domain the address itself, in brackets where it is IPv6."""
    address = ip_address(ip)
    if not domain:
        return f"[{address}]" if address.version == 6 else str(address)
    return f"{str(address.exploded).replace(':', '-').replace('.', '-')}.{domain}"


def _order(
    node: TurnNode,
    regions: Mapping[RegionName, Coordinates | None],
    near: RegionName,
    participant: ParticipantSid,
) -> tuple[bool, float, bytes]:
    here, there = regions.get(near), regions.get(node.region)
    km = great_circle_km(here, there) if here is not None and there is not None else _FAR_KM
    # Within a region each participant has an order of its own: the load spreads, and stays where it is.
    spread = hashlib.blake2b(f"{participant}\n{node.name}".encode(), digest_size=8).digest()
    return node.region != near, km, spread
