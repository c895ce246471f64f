"""Certificates for tests: an authority, and what it vouches for. EC keys, since they are made at once."""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A certificate and its key, in memory and as PEM files."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    certificate_file: Path
    key_file: Path


def authority(folder: Path, name: str = "Authority") -> Credential:
    """One that vouches for itself."""
    return _make(folder, name, (), None)


def issue(by: Credential, folder: Path, name: str, *others: str, days: int = 1) -> Credential:
    """A certificate with this common name and these DNS names or addresses; over already where `days` is negative."""
    return _make(folder, name, others, by, days=days)


def _make(folder: Path, name: str, others: tuple[str, ...], by: Credential | None, *, days: int = 1) -> Credential:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 10 * DAY)
        .not_valid_after(now + days * DAY)
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
    )
    if others:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general(one) for one in others]), critical=False)
    certificate = builder.sign(by.key if by else key, hashes.SHA256())
    folder.mkdir(parents=True, exist_ok=True)
    made = Credential(
        certificate=certificate,
        key=key,
        certificate_file=folder / f"{name}.pem",
        key_file=folder / f"{name}.key.pem",
    )
    made.certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    made.key_file.write_bytes(key_pem(key))
    return made


def revocations(by: Credential, file: Path, *revoked: Credential, days: int = 1) -> Path:
    """The authority's revocation list as a PEM file; over already where `days` is negative."""
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(by.certificate.subject)
        .last_update(now - 10 * DAY)
        .next_update(now + days * DAY)
    )
    for one in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(one.certificate.serial_number).revocation_date(now - DAY)
        builder = builder.add_revoked_certificate(entry.build())
    file.write_bytes(builder.sign(by.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return file


def key_pem(key: ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    """The key as PEM."""
    protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
