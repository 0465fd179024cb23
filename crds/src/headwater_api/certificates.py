"""Certificates in Secrets that the kubelet mounts: which version is there, who shows it, who takes it."""

import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"
AUTHORITY: Final = "ca.crt"
_FLIGHTS: Final = 4  # of a handshake


def version_in(directory: Path) -> Path:
    """Where the files of one version of the Secret are: the kubelet swaps the link `..data`."""
    version = (directory / "..data").resolve()
    return version if version.is_dir() else directory


def showing(directory: Path) -> ssl.SSLContext:
    """A server with the pair that is there now. Raises OSError (of which ssl.SSLError is one)."""
    version = version_in(directory)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(version / CERTIFICATE, version / KEY)
    return context


class Shown:
    """A certificate that callers are shown: read anew for a connection once the files have changed.

    A pair that cannot be used changes nothing, and connections that are there keep what they were made with.
    Both functions are called within a handshake.
    """

    def __init__(
        self,
        directory: Path,
        on_renewed: Callable[[ssl.SSLContext], None],
        on_unusable: Callable[[OSError], None],
    ) -> None:
        """Raises OSError (of which ssl.SSLError is one)."""
        self._directory = directory
        self._on_renewed, self._on_unusable = on_renewed, on_unusable
        self._version = _newest(directory)
        self.context = self._current = showing(directory)
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        """Called in each handshake, whether or not the caller names a certificate."""
        newest = _newest(self._directory)
        if newest != self._version:
            self._version = newest
            try:
                self._current = showing(self._directory)
            except OSError as error:
                self._on_unusable(error)
            else:
                self._on_renewed(self._current)
        connection.context = self._current


def _newest(directory: Path) -> tuple[str, float]:
    """Tells one version of the Secret from another."""
    version = version_in(directory)
    try:
        return str(version), max((version / name).stat().st_mtime for name in (CERTIFICATE, KEY))
    except OSError:
        return str(version), 0.0


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
