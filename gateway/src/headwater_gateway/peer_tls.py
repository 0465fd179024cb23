"""TLS between gateways: what this one shows the others, and by what it checks them.

One certificate for all gateways, for the DNS name `gateway.headwater`: their addresses come and go.
"""

import ssl
from pathlib import Path
from typing import Final

import structlog
from headwater_api.certificates import CERTIFICATE, KEY, taken_until, version_in
from headwater_api.wellknown import ENV_GATEWAY_TLS_DIR, GATEWAY_TLS_NAME

from headwater_gateway.settings import SettingsError

AUTHORITY: Final = "ca.crt"

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


class Shown:
    """The certificate that other gateways are shown: read anew for a connection once the files have changed.

    A pair that cannot be used changes nothing, and connections that are there keep what they were made with.
    """

    def __init__(self, directory: Path) -> None:
        """Raises SettingsError."""
        self._directory = directory
        self._version = self._newest()
        try:
            self.context = self._loaded()
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"{ENV_GATEWAY_TLS_DIR}={directory}: {CERTIFICATE} and {KEY} are no pair to use: {error}"
            ) from None
        self._current = self.context
        self.expires = accepted_until(self.context, directory)
        self.context.sni_callback = self._renewed

    def _renewed(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        """Gateways name the certificate that they ask for: called in each of their handshakes."""
        newest = self._newest()
        if newest != self._version:
            self._version = newest
            try:
                self._current = self._loaded()
            except (OSError, ssl.SSLError) as error:
                log.warning("peer_tls.unusable", reason=f"the certificate in use stays: {error}")
            else:
                self.expires = accepted_until(self._current, self._directory)
                log.info("peer_tls.renewed")
        connection.context = self._current

    def _newest(self) -> tuple[str, float]:
        """Tells one version of the Secret from another."""
        place = version_in(self._directory)
        try:
            return str(place), max((place / name).stat().st_mtime for name in (CERTIFICATE, KEY))
        except OSError:
            return str(place), 0.0

    def _loaded(self) -> ssl.SSLContext:
        place = version_in(self._directory)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(place / CERTIFICATE, place / KEY)
        return context
