"""What the agent is told by its Pod: environment in, one checked value out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final

from headwater_api import wellknown
from headwater_api.environ import Environ

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
    tls_dir: Path | None = None  # None: gRPC without TLS

    def address(self, port: int) -> str:
        """`ip:port`, or `[ip6]:port`, on the Pod's own address."""
        host = f"[{self.pod_ip}]" if self.pod_ip.version == 6 else str(self.pod_ip)
        return f"{host}:{port}"


def read_config(env: Mapping[str, str]) -> NodeConfig:
    """Checks the Pod contract's variables.

    Raises ConfigError with one line for each variable that is missing or wrong.
    """
    found = Environ(env)
    node_id = found.required(wellknown.ENV_POD_NAME)
    region = found.required(wellknown.ENV_REGION)
    cluster = found.required(wellknown.ENV_CLUSTER)
    token = found.required(wellknown.ENV_NODE_TOKEN)
    pod_ip = found.address(wellknown.ENV_POD_IP)
    max_connections = found.number(wellknown.ENV_MAX_CONNECTIONS, DEFAULT_MAX_CONNECTIONS, (1, 1e6))
    grace = found.number(wellknown.ENV_DRAIN_GRACE, DEFAULT_DRAIN_GRACE_S, (0, MAX_DRAIN_GRACE_S))
    tls_dir = Path(text) if (text := found.text(wellknown.ENV_NODE_TLS_DIR)) else None
    if found.problems or pod_ip is None:
        raise ConfigError("\n".join(found.problems))
    return NodeConfig(node_id, region, cluster, pod_ip, token, int(max_connections), grace, tls_dir)
