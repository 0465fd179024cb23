"""What the agent is told by its Pod: environment in, one checked value out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from headwater_api import wellknown
from headwater_api.certificates import CERTIFICATE, KEY
from headwater_api.environ import Environ

from headwater_turn.render import Address, TlsFiles

ENV_TLS_DIR: Final = "HEADWATER_TURN_TLS_DIR"
ENV_TLS_PORT: Final = "HEADWATER_TURN_TLS_PORT"
ENV_RUN_DIR: Final = "HEADWATER_TURN_RUN_DIR"
ENV_PACKET_FILTER: Final = "HEADWATER_TURN_PACKET_FILTER"
ENV_RUN_AS: Final = "HEADWATER_TURN_RUN_AS"
ENV_GRACE: Final = "HEADWATER_TURN_GRACE_SECONDS"
REALM: Final = "headwater"


class ConfigError(ValueError):
    """The environment does not describe a TURN node; the message names every bad variable."""


@dataclass(frozen=True, slots=True)
class TurnConfig:
    """Identity and places of one TURN node. `tls` None: no TLS listener. `grace_s` seconds after SIGTERM."""

    node_id: str
    region: str
    address: Address
    token: str = field(repr=False)
    secrets_dir: Path
    run_dir: Path
    tls: TlsFiles | None = None
    tls_port: int = wellknown.PORT_TURN_TLS
    packet_filter: bool = False
    run_as: int | None = None
    grace_s: float = 50.0
    admin_tls_dir: Path | None = None  # None: commands come without TLS


def read_config(env: Mapping[str, str]) -> TurnConfig:
    """Checks the Pod contract's variables. Raises ConfigError with one line for each that is wrong.

    HEADWATER_TURN_TLS_DIR: directory with tls.crt and tls.key; unset: no TLS.
    HEADWATER_TURN_TLS_PORT: default 443.
    HEADWATER_TURN_ADMIN_TLS_DIR: the same for the operator's commands.
    HEADWATER_TURN_RUN_DIR: writable directory for the configuration and the user database.
    HEADWATER_TURN_PACKET_FILTER: true sets an nftables filter, which needs CAP_NET_ADMIN. Default false.
    HEADWATER_TURN_RUN_AS: user and group id of coturn where the agent is root. Default: the agent's.
    HEADWATER_TURN_GRACE_SECONDS: how long allocations may last after SIGTERM. Default 50.
    """
    found = Environ(env)
    node_id = found.required(wellknown.ENV_POD_NAME)
    region = found.required(wellknown.ENV_REGION)
    token = found.required(wellknown.ENV_NODE_TOKEN)
    address = found.address(wellknown.ENV_POD_IP)
    secrets_dir = Path(found.required(wellknown.ENV_TURN_SECRETS_DIR))
    run_dir = Path(found.required(ENV_RUN_DIR))
    grace = found.number(ENV_GRACE, 50, (0, 86_400))
    port = found.number(ENV_TLS_PORT, wellknown.PORT_TURN_TLS, (1, 65_535))
    wants_filter = (found.text(ENV_PACKET_FILTER) or "false").lower()
    if wants_filter not in ("true", "false"):
        found.problems.append(f"{ENV_PACKET_FILTER}={wants_filter!r} must be true or false")
    run_as = int(found.number(ENV_RUN_AS, 0, (0, 2**31 - 1))) or None
    tls_dir = _pair(ENV_TLS_DIR, found)
    admin_tls_dir = _pair(wellknown.ENV_TURN_ADMIN_TLS_DIR, found)
    if found.problems or address is None:
        raise ConfigError("\n".join(found.problems))
    return TurnConfig(
        node_id,
        region,
        address,
        token,
        secrets_dir,
        run_dir,
        TlsFiles(tls_dir / CERTIFICATE, tls_dir / KEY) if tls_dir is not None else None,
        int(port),
        wants_filter == "true",
        run_as,
        grace,
        admin_tls_dir,
    )


def _pair(variable: str, found: Environ) -> Path | None:
    """The directory of a certificate and its key."""
    if not (text := found.text(variable)):
        return None
    directory = Path(text)
    for path in (directory / CERTIFICATE, directory / KEY):
        if not path.is_file():
            found.problems.append(
                f"{variable}: {path} is missing: the Secret must be of type kubernetes.io/tls"
            )
    return directory
