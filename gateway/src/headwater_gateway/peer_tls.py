"""TLS between gateways: what this one shows the others, and by what it checks them.

One certificate for all gateways, for the DNS name `gateway.headwater`: their addresses come and go.
"""

import ssl
from pathlib import Path

import structlog
from headwater_api.certificates import AUTHORITY, CERTIFICATE, KEY, Shown, taken_until
from headwater_api.wellknown import ENV_GATEWAY_TLS_DIR, GATEWAY_TLS_NAME

from headwater_gateway.settings import SettingsError

log = structlog.get_logger(__name__)


def checking(directory: Path | None) -> ssl.SSLContext | None:
    """For calls of other gateways: their certificate must be of this authority. None: there is no TLS.

    SettingsError.
    """
    if directory is None:
        return None
    try:
        return ssl.create_default_context(cafile=directory / AUTHORITY)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"{ENV_GATEWAY_TLS_DIR}={directory}: {AUTHORITY}: {error}") from None


def accepted_until(shown: ssl.SSLContext, directory: Path) -> float:
    """When the certificate runs out, Unix seconds; 0: other gateways with this directory would not take it.

    They are asked here, in memory: nobody else is told of a name or an issuer that is wrong.
    """
    try:
        checks = checking(directory)
        assert checks is not None
        return taken_until(shown, checks, GATEWAY_TLS_NAME)
    except (OSError, SettingsError, KeyError, ValueError) as error:  # ssl.SSLError is an OSError
        log.error("peer_tls.not_accepted", reason=f"other gateways will not take the certificate: {error}")
        return 0.0


class PeerCertificate:
    """The certificate that other gateways are shown, and until when they take it."""

    def __init__(self, directory: Path) -> None:
        """Raises SettingsError."""
        self._directory = directory
        try:
            self.context = Shown(directory, self._renewed, self._unusable).context
        except OSError as error:
            raise SettingsError(
                f"{ENV_GATEWAY_TLS_DIR}={directory}: {CERTIFICATE} and {KEY} are no pair to use: {error}"
            ) from None
        self.expires = accepted_until(self.context, directory)

    def _renewed(self, context: ssl.SSLContext) -> None:
        self.expires = accepted_until(context, self._directory)
        log.info("peer_tls.renewed")

    def _unusable(self, error: OSError) -> None:
        log.warning("peer_tls.unusable", reason=f"the certificate in use stays: {error}")
