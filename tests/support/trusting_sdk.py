"""LiveKit's SDK with an authority of the test's own among its roots.

Over TURN/TLS, libwebrtc on Linux trusts the roots that are compiled into it and no others: no file, no
variable and no option adds one. So a copy of its library gets our certificate in the place of one of them,
which must be exactly as long.
"""

from pathlib import Path
from typing import Final

import livekit.rtc
import pytest
from cryptography import x509
from support.authority import Authority

# What a BotSpec's process loads in place of the library that comes with the package.
_ENV_LIBRARY: Final = "LIVEKIT_LIB_PATH"
_LIBRARY: Final = Path(livekit.rtc.__file__).parent / "resources" / "liblivekit_ffi.so"
# The root that gives way: it must be one of the longer ones.
_REPLACED: Final = b"DigiCert Trusted Root G4"
_HEADER: Final = b"\x30\x82"


def trusted_authority(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """Whom all clients of the test trust: the SDK by a copy of its library, aiortc by OpenSSL's file."""
    library, authority = _trusting_library(directory)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.directory / "ca.crt"))
    monkeypatch.setenv(_ENV_LIBRARY, str(library))
    return authority


def _trusting_library(directory: Path) -> tuple[Path, Authority]:
    """A copy of the SDK's library in `directory`, and the authority that it trusts."""
    library = _LIBRARY.read_bytes()
    start, end = _root(library)
    authority = Authority(directory / "authority", der_bytes=end - start)
    copy = directory / _LIBRARY.name
    copy.write_bytes(library[:start] + authority.der + library[end:])
    return copy, authority


def _root(library: bytes) -> tuple[int, int]:
    """Where the certificate to replace begins and ends."""
    start = library.rfind(_HEADER, 0, library.index(_REPLACED))
    while start >= 0:
        end = start + 4 + int.from_bytes(library[start + 2 : start + 4], "big")
        try:
            found = x509.load_der_x509_certificate(library[start:end])
        except ValueError:
            start = library.rfind(_HEADER, 0, start)
            continue
        assert _REPLACED.decode() in found.subject.rfc4514_string()
        return start, end
    raise AssertionError(f"{_LIBRARY} has no root {_REPLACED.decode()}")
