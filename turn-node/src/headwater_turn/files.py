"""Mounted Secrets: shared secrets and the certificate, read again when the kubelet has renewed them."""

import hashlib
import logging
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509

from headwater_turn.render import TlsFiles

log = logging.getLogger(__name__)
MIN_SECRET: Final = 16
MAX_SECRET: Final = 255  # coturn's column


def read_secrets(directory: Path, references: Iterable[str]) -> dict[str, str]:
    """Secret by reference, of those that are there and usable. What is not is logged by name."""
    found: dict[str, str] = {}
    for reference in references:
        try:
            value = (directory / reference).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            continue  # not mounted yet
        if MIN_SECRET <= len(value) <= MAX_SECRET:
            found[reference] = value
        else:
            log.warning("shared secret %s must have %d to %d characters", reference, MIN_SECRET, MAX_SECRET)
    return found


class Shown:
    """A certificate that callers are shown. Renewed for new connections: those that are there keep theirs."""

    def __init__(self, files: TlsFiles) -> None:
        """Raises OSError where the pair cannot be used."""
        self._files = files
        self._known = read_certificate(files)
        if self._known is None:
            raise OSError(f"{files.certificate} and {files.key} are no pair that can be used")
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(files.certificate, files.key)

    def refresh(self) -> None:
        """Take over a pair that is new and fits."""
        found = read_certificate(self._files)
        if found is None or found == self._known:
            return
        try:
            self.context.load_cert_chain(self._files.certificate, self._files.key)
        except (OSError, ValueError):
            return  # changed at this very moment: the next look finds it
        self._known = found
        log.info("new certificate for commands")


@dataclass(frozen=True, slots=True)
class Certificate:
    """A pair that fits. `expires`: Unix seconds."""

    digest: str
    expires: float


def read_certificate(files: TlsFiles) -> Certificate | None:
    """The pair as it is now; None while it is missing, half renewed or does not fit."""
    try:
        text = files.certificate.read_bytes()
        key = files.key.read_bytes()
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(files.certificate, files.key)
        leaf = x509.load_pem_x509_certificate(text)
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        return None
    return Certificate(hashlib.sha256(text + key).hexdigest(), leaf.not_valid_after_utc.timestamp())
