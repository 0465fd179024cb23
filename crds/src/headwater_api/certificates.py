"""Certificates in Secrets that the kubelet mounts: which version is there, and until when callers take it."""

import ssl
from contextlib import suppress
from pathlib import Path
from typing import Final

CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"
_FLIGHTS: Final = 4  # of a handshake


def version_in(directory: Path) -> Path:
    """Where the files of one version of the Secret are: the kubelet swaps the link `..data`."""
    version = (directory / "..data").resolve()
    return version if version.is_dir() else directory


def taken_until(shown: ssl.SSLContext, checks: ssl.SSLContext, name: str | None = None) -> float:
    """When the certificate that `shown` has runs out for a caller with these checks, Unix seconds.

    By a handshake in memory: the library tells in no other way, and the caller's reasons come with it.
    `name`: the DNS name that the caller asks for. Raises OSError (of which ssl.SSLError is one), KeyError or
    ValueError where it is not taken.
    """
    to_server, to_caller = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = shown.wrap_bio(to_server, to_caller, server_side=True)
    caller = checks.wrap_bio(to_caller, to_server, server_hostname=name)
    for _ in range(_FLIGHTS):
        for end in (caller, server):
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    told = caller.getpeercert() or {}
    return float(ssl.cert_time_to_seconds(str(told["notAfter"])))
