"""The node's certificate, which is renewed while the node runs."""

import logging
import ssl
from pathlib import Path
from typing import Final

import grpc
from headwater_api.wellknown import ENV_NODE_TLS_DIR

CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"

log = logging.getLogger(__name__)


class BadCertificate(ValueError):
    """The pair of files cannot be used; the text names the variable and the file."""


class Certificates:
    """Reads the pair anew for each connection; one that cannot be used changes nothing.

    Connections that are there keep what they were made with.
    """

    def __init__(self, directory: Path) -> None:
        """Raises BadCertificate."""
        self._directory = directory
        self._pair = _read(directory)
        self._told = ""

    def credentials(self) -> grpc.ServerCredentials:
        """For the gRPC server."""
        first = _configuration(self._pair)
        return grpc.dynamic_ssl_server_credentials(first, self._renewed)  # type: ignore[arg-type]  # or None

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC, on a thread of its own, before each handshake. None: nothing has changed."""
        try:
            pair = _read(self._directory)
        except BadCertificate as error:
            if self._told != str(error):
                log.warning("the certificate in use stays: %s", error)
            self._told = str(error)
            return None
        if pair == self._pair:
            return None
        self._pair, self._told = pair, ""
        log.info("new certificate")
        return _configuration(pair)


def _read(directory: Path) -> tuple[bytes, bytes]:
    """Certificate chain and key, both of one version of the Secret."""
    # The kubelet swaps this link: what is read behind it belongs together.
    version = (directory / "..data").resolve()
    place = version if version.is_dir() else directory
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(place / CERTIFICATE, place / KEY)
        return (place / CERTIFICATE).read_bytes(), (place / KEY).read_bytes()
    except (OSError, ssl.SSLError) as error:
        raise BadCertificate(
            f"{ENV_NODE_TLS_DIR}={directory}: {CERTIFICATE} and {KEY} are no pair that can be used: {error}"
        ) from None


def _configuration(pair: tuple[bytes, bytes]) -> grpc.ServerCertificateConfiguration:
    certificate, key = pair
    return grpc.ssl_server_certificate_configuration([(key, certificate)])
