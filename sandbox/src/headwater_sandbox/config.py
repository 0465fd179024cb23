"""What a sandbox consists of: pure, from the command line's options to manifests and chart values."""

import re
from dataclasses import dataclass, field
from typing import Any, Final

from headwater_api import wellknown

NAMESPACE: Final = "headwater"
CLUSTER_NAME: Final = "demo"
DEFAULT_NAME: Final = "default"
TURN_SECRET: Final = "turn-secret"
DEFAULT_REGIONS: Final = ("eu", "us", "ap")
# A sandbox owns 16 blocks of loopback addresses, one for each Kubernetes node.
MAX_KUBERNETES_NODES: Final = 16
MAX_GATEWAYS: Final = 16

# Frankfurt, Northern Virginia, Singapore: degrees north and east.
_COORDINATES: Final = {"eu": (50.11, 8.68), "us": (39.04, -77.49), "ap": (1.35, 103.82)}
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


class InvalidOption(ValueError):
    """An option that cannot be; the message names it and what is allowed."""


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """A sandbox as asked for. Raises InvalidOption."""

    name: str = DEFAULT_NAME
    regions: tuple[str, ...] = DEFAULT_REGIONS
    nodes_per_region: int = 2
    gateways: int = 1
    port: int = 0  # 0: 7880, or the next free ones

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InvalidOption(f"--name {self.name!r}: take 1 to 32 of a-z, 0-9 and -")
        if not self.regions or any(not _NAME.fullmatch(region) for region in self.regions):
            raise InvalidOption(
                f"--regions {','.join(self.regions)!r}: take names of a-z, 0-9 and -, such as eu,us"
            )
        if len(set(self.regions)) != len(self.regions):
            raise InvalidOption(f"--regions {','.join(self.regions)!r}: name each region once")
        if self.nodes_per_region < 1:
            raise InvalidOption(f"--nodes-per-region {self.nodes_per_region}: at least 1")
        if (total := len(self.regions) * self.nodes_per_region) > MAX_KUBERNETES_NODES:
            raise InvalidOption(
                f"--nodes-per-region {self.nodes_per_region}: makes {total} nodes,"
                f" a sandbox has at most {MAX_KUBERNETES_NODES}"
            )
        if not 0 <= self.gateways <= MAX_GATEWAYS:
            raise InvalidOption(f"--gateways {self.gateways}: 0 to {MAX_GATEWAYS}")
        if self.port and not 1024 <= self.port <= 65536 - max(self.gateways, 1):
            raise InvalidOption(f"--port {self.port}: 1024 to {65536 - max(self.gateways, 1)}")


@dataclass(frozen=True, slots=True)
class Secrets:
    """Made anew for each sandbox."""

    api_key: str
    api_secret: str = field(repr=False)
    node_token: str = field(repr=False)


def nodes_argument(config: SandboxConfig) -> str:
    """The Kubernetes nodes as the control plane's --nodes: each one in its own zone of its region."""
    return ",".join(
        f"{region}-{number}={region}/{region}-{chr(ord('a') + number - 1)}"
        for region in config.regions
        for number in range(1, config.nodes_per_region + 1)
    )


def chart_values(config: SandboxConfig, secrets: Secrets, public_url: str) -> dict[str, Any]:
    """Values of the chart `headwater`: small, and open to tests that choose their region."""
    return {
        "nodeToken": {"value": secrets.node_token},
        "apiKeys": {"values": {secrets.api_key: secrets.api_secret}},
        "publicUrl": public_url,
        "operator": {"replicaCount": 1},
        # For those who declare TURN nodes: the Secret is theirs to make.
        "turn": {"sharedSecrets": [TURN_SECRET]},
        "gateway": {
            "replicaCount": config.gateways,
            "regionOverride": True,
            "defaultRegion": config.regions[0],
            "meetingsApi": {"enabled": True},
        },
    }


def namespace_manifest() -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}


def cluster_manifest(config: SandboxConfig) -> dict[str, Any]:
    """The fleet: in each region one SFU Pod for each Kubernetes node."""
    return {
        "apiVersion": f"{wellknown.GROUP}/{wellknown.VERSION}",
        "kind": "SFUCluster",
        "metadata": {"name": CLUSTER_NAME, "namespace": NAMESPACE},
        "spec": {
            "regions": [
                {
                    "name": region,
                    "coordinates": {"latitude": latitude, "longitude": longitude},
                    "minNodes": config.nodes_per_region,
                }
                for region, (latitude, longitude) in zip(
                    config.regions, map(_coordinates, config.regions, range(len(config.regions))), strict=True
                )
            ]
        },
    }


def _coordinates(region: str, index: int) -> tuple[float, float]:
    """A region that we know no place for lies on the equator, away from the others."""
    return _COORDINATES.get(region, (0.0, -170.0 + 20.0 * index))
