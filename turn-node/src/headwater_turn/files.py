"""Mounted Secrets: shared secrets and the certificate, read again when the kubelet has renewed them."""

import hashlib
import logging
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from headwater_api.certificates import CERTIFICATE, KEY, Shown

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


def shown_to_operator(directory: Path) -> ssl.SSLContext:
    """Who takes its commands. Raises OSError where there is no pair to use; later bad ones change nothing."""
    try:
        shown = Shown(
            directory,
            lambda _: log.info("new certificate for commands"),
            lambda error: log.warning("the certificate for commands stays: %s", error),
        )
    except OSError as error:  # as ssl.SSLError is
        raise OSError(f"{directory}: {CERTIFICATE} and {KEY} are no pair that can be used: {error}") from None
    return shown.context


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
