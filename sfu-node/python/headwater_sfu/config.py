"""What the agent is told by its Pod: environment in, one checked value out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from headwater_api import wellknown

# The operator sets it from the Pod's termination grace; without one there is only time for the
# draining report to arrive.
DEFAULT_DRAIN_GRACE_S: Final = 2.0
MAX_DRAIN_GRACE_S: Final = 3600.0
DEFAULT_MAX_CONNECTIONS: Final = 1000


class ConfigError(ValueError):
    """The environment does not describe a node; the message names every bad variable."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Identity and limits of one node process."""

    node_id: str
    region: str
    cluster: str
    pod_ip: IPv4Address | IPv6Address
    token: str = field(repr=False)
    max_connections: int = DEFAULT_MAX_CONNECTIONS
    drain_grace_s: float = DEFAULT_DRAIN_GRACE_S

    def address(self, port: int) -> str:
        """`ip:port`, or `[ip6]:port`, on the Pod's own address."""
        host = f"[{self.pod_ip}]" if self.pod_ip.version == 6 else str(self.pod_ip)
        return f"{host}:{port}"


def read_config(env: Mapping[str, str]) -> NodeConfig:
    """Checks the Pod contract's variables.

    Raises ConfigError with one line for each variable that is missing or wrong.
    """
    problems: list[str] = []

    def required(name: str) -> str:
        value = env.get(name, "").strip()
        if not value:
            problems.append(f"{name} is not set: the SFU Pod template must provide it")
        return value

    node_id = required(wellknown.ENV_POD_NAME)
    region = required(wellknown.ENV_REGION)
    cluster = required(wellknown.ENV_CLUSTER)
    token = required(wellknown.ENV_NODE_TOKEN)
    pod_ip = _pod_ip(required(wellknown.ENV_POD_IP), problems)
    max_connections = _number(env, wellknown.ENV_MAX_CONNECTIONS, DEFAULT_MAX_CONNECTIONS, (1, 1e6), problems)
    grace = _number(env, wellknown.ENV_DRAIN_GRACE, DEFAULT_DRAIN_GRACE_S, (0, MAX_DRAIN_GRACE_S), problems)
    if problems or pod_ip is None:
        raise ConfigError("\n".join(problems))
    return NodeConfig(node_id, region, cluster, pod_ip, token, int(max_connections), grace)


def _pod_ip(text: str, problems: list[str]) -> IPv4Address | IPv6Address | None:
    if not text:
        return None
    try:
        parsed = ip_address(text)
    except ValueError:
        problems.append(f"{wellknown.ENV_POD_IP}={text!r} is not an IP address")
        return None
    if parsed.is_unspecified:
        # A socket bound to the wildcard answers from another source address and ICE fails.
        problems.append(f"{wellknown.ENV_POD_IP}={text!r} is the wildcard: give the Pod's own address")
        return None
    return parsed


def _number(
    env: Mapping[str, str], name: str, default: float, bounds: tuple[float, float], problems: list[str]
) -> float:
    text = env.get(name, "").strip()
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    low, high = bounds
    if not low <= value <= high:
        problems.append(f"{name}={text!r} must be a number from {low:g} to {high:g}")
        return default
    return value
