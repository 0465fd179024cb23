"""TLS between gateways: what this one shows the others, and by what it checks them.

One certificate for all gateways, for the DNS name `gateway.headwater`: their addresses come and go.
"""

import ssl
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog
from headwater_api.wellknown import ENV_GATEWAY_TLS_DIR, GATEWAY_TLS_NAME

from headwater_gateway.settings import SettingsError

CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"
AUTHORITY: Final = "ca.crt"
_FLIGHTS: Final = 4  # of a handshake

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
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = shown.wrap_bio(to_server, to_client, server_side=True)
    try:
        checks = checking(directory)
        assert checks is not None
        client = checks.wrap_bio(to_client, to_server, server_hostname=GATEWAY_TLS_NAME)
        for _ in range(_FLIGHTS):
            for end in (client, server):
                with suppress(ssl.SSLWantReadError):
                    end.do_handshake()
        certificate = client.getpeercert() or {}
        return float(ssl.cert_time_to_seconds(str(certificate["notAfter"])))
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
        """Tells one version of the Secret from another. The kubelet swaps the link `..data`."""
        place = self._place()
        try:
            return str(place), max((place / name).stat().st_mtime for name in (CERTIFICATE, KEY))
        except OSError:
            return str(place), 0.0

    def _place(self) -> Path:
        version = (self._directory / "..data").resolve()
        return version if version.is_dir() else self._directory

    def _loaded(self) -> ssl.SSLContext:
        place = self._place()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(place / CERTIFICATE, place / KEY)
        return context
