"""A certificate authority of the test's own."""

import ipaddress
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

# Not critical and of no meaning: it makes a certificate as long as it must be.
_PADDING = x509.ObjectIdentifier("2.25.999")


class Authority:
    """Its certificate is `directory`/ca.crt. `der_bytes`: how long that must be in DER; 0: as it comes."""

    def __init__(self, directory: Path, *, der_bytes: int = 0) -> None:
        self.directory = directory
        directory.mkdir(parents=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("authority")
        self.certificate = self._own(der_bytes)
        (directory / "ca.crt").write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    @property
    def der(self) -> bytes:
        """Its certificate in DER."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def issue(self, directory: Path, *names: str, serial: int) -> None:
        """tls.crt and tls.key for those DNS names or addresses, as a Secret is mounted."""
        directory.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_name(names[0]), self._name, key, serial)
            .add_extension(x509.SubjectAlternativeName(list(_alternatives(names))), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        written = {
            "tls.crt": certificate.public_bytes(pem),
            "tls.key": key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain),
        }
        for file, data in written.items():
            fresh = directory / f"{file}.new"
            fresh.write_bytes(data)
            fresh.rename(directory / file)

    def _own(self, der_bytes: int) -> x509.Certificate:
        """An ECDSA signature is two bytes shorter now and then: sign until the length fits."""
        padding = max(0, der_bytes - 400)
        for _ in range(200):
            builder = _builder(self._name, self._name, self._key, x509.random_serial_number())
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            if der_bytes:
                builder = builder.add_extension(
                    x509.UnrecognizedExtension(_PADDING, bytes(padding)), critical=False
                )
            made = builder.sign(self._key, hashes.SHA256())
            lacking = der_bytes - len(made.public_bytes(serialization.Encoding.DER)) if der_bytes else 0
            if not lacking:
                return made
            padding += lacking
        raise AssertionError(f"no certificate of {der_bytes} bytes")

    @staticmethod
    def serial_of(certificate: bytes) -> int:
        """Of a certificate in DER."""
        return x509.load_der_x509_certificate(certificate).serial_number


def _alternatives(names: tuple[str, ...]) -> Iterator[x509.GeneralName]:
    """An address also as a DNS name: libwebrtc looks for its text there."""
    for name in names:
        yield x509.DNSName(name)
        try:
            yield x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            continue


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, serial: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
    )
