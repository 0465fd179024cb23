"""The node's certificate, which is renewed while the node runs."""

import logging
import ssl
from pathlib import Path

import grpc
from headwater_api.certificates import CERTIFICATE, KEY, showing, taken_until, version_in
from headwater_api.wellknown import ENV_NODE_TLS_DIR

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
        self._pair, shown = _read(directory)
        self.expires = _expires(self._pair[0], shown)
        self._told = ""

    def credentials(self) -> grpc.ServerCredentials:
        """For the gRPC server."""
        first = _configuration(self._pair)
        return grpc.dynamic_ssl_server_credentials(first, self._renewed)  # type: ignore[arg-type]  # or None

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC, on a thread of its own, before each handshake. None: nothing has changed."""
        try:
            pair, shown = _read(self._directory)
        except BadCertificate as error:
            if self._told != str(error):
                log.warning("the certificate in use stays: %s", error)
            self._told = str(error)
            return None
        if pair == self._pair:
            return None
        self._pair, self._told, self.expires = pair, "", _expires(pair[0], shown)
        log.info("new certificate")
        return _configuration(pair)


def _read(directory: Path) -> tuple[tuple[bytes, bytes], ssl.SSLContext]:
    """Certificate chain and key, both of one version of the Secret; and who shows them."""
    place = version_in(directory)  # what is read there belongs together
    try:
        return ((place / CERTIFICATE).read_bytes(), (place / KEY).read_bytes()), showing(place)
    except (OSError, ssl.SSLError) as error:
        raise BadCertificate(
            f"{ENV_NODE_TLS_DIR}={directory}: {CERTIFICATE} and {KEY} are no pair that can be used: {error}"
        ) from None


def _expires(certificate: bytes, shown: ssl.SSLContext) -> float:
    """When the certificate runs out, Unix seconds; 0: it has, or is not valid yet.

    Asked of somebody who trusts it for itself.
    """
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    try:
        trusting.load_verify_locations(cadata=certificate.decode("ascii"))
        return taken_until(shown, trusting)
    except (OSError, KeyError, ValueError) as error:  # ssl.SSLError is an OSError
        log.error("operator and gateways will not take the certificate: %s", error)
        return 0.0


def _configuration(pair: tuple[bytes, bytes]) -> grpc.ServerCertificateConfiguration:
    certificate, key = pair
    return grpc.ssl_server_certificate_configuration([(key, certificate)])
