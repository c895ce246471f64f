"""TLS of DICOM connections, ours as a server and as a client, by the BCP 195 profile; certificates are read anew when
their files change.

Source:  PS3.15 B.12 (BCP 195, RFC 8996 and 9325); it stands for B.9 and B.10, whose peers it can talk to, too
"""

import os
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import structlog

from dicom_sr.problem import Problem
from router.config import Tls

log = structlog.get_logger()

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"
"""For TLS 1.2: forward secrecy and authenticated encryption only, keys of at least 112 bits (RFC 9325 4.2)."""


class UnusableCredentials(Problem):
    """A certificate, its key or the list of authorities cannot be used."""

    exit_code = 2


def server_context(tls: Tls, client_certificate: str) -> ssl.SSLContext:
    """For connections to us; `client_certificate` is none, optional or required.

    Raises:  UnusableCredentials
    """
    context = _strict(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    _load_own(context, tls)
    if client_certificate != "none":
        _load_authorities(context, tls)
        context.verify_mode = ssl.CERT_REQUIRED if client_certificate == "required" else ssl.CERT_OPTIONAL
    return context


def client_context(tls: Tls) -> ssl.SSLContext:
    """For connections of ours. The peer's certificate and its name are verified: against `ca_file`, else against the
    system's authorities; our own certificate goes along where one is set.

    Raises:  UnusableCredentials
    """
    context = _strict(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    if tls.certificate_file is not None:
        _load_own(context, tls)
    if tls.ca_file is not None:
        _load_authorities(context, tls)
    else:
        context.load_default_certs()
    return context


class Credentials:
    """A context that is made anew when one of its files has changed: the next connection has it, no restart needed.

    New files that cannot be used (only one of two is there yet) are told in the log; until they can be, the old ones
    stay in force.

    Raises:  UnusableCredentials, when it is made
    """

    def __init__(self, tls: Tls, make: Callable[[], ssl.SSLContext]) -> None:
        files = (tls.certificate_file, tls.key_file, tls.ca_file, tls.crl_file)
        self.files = [one for one in files if one is not None]
        self.make = make
        self.lock = threading.Lock()
        self.seen = _looks(self.files)
        self.context = make()

    def current(self) -> ssl.SSLContext:
        """The context for a new connection."""
        with self.lock:
            looks = _looks(self.files)
            if looks != self.seen:
                self.seen = looks
                try:
                    self.context = self.make()
                    log.info("tls.reloaded", files=[str(one) for one in self.files])
                except UnusableCredentials as problem:
                    log.error("tls.not_reloaded", why=problem.what)
            return self.context


def names_of(connection: socket.socket | None) -> tuple[str, ...]:
    """What the peer's verified certificate is called: DNS names and addresses of SubjectAltName, and the common names.
    Empty where there is no TLS, or no certificate was asked for."""
    certificate = connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None
    if not certificate:
        return ()
    alternatives: Any = certificate.get("subjectAltName", ())
    subject: Any = certificate.get("subject", ())
    names = [value for kind, value in alternatives if kind in ("DNS", "IP Address")]
    names += [value for parts in subject for kind, value in parts if kind == "commonName"]
    return tuple(dict.fromkeys(names))


def _strict(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    return context


def _load_own(context: ssl.SSLContext, tls: Tls) -> None:
    try:
        context.load_cert_chain(str(tls.certificate_file), str(tls.key_file), password=_no_password)
    except OSError as error:
        raise UnusableCredentials(
            f"tls.certificate_file {tls.certificate_file} with tls.key_file {tls.key_file}: {_why(error)}",
            remedy="Give a PEM certificate, its chain behind it, and its own PEM key, which has no password",
        ) from error


def _no_password() -> str:
    raise ssl.SSLError("the key is protected by a password")  # else OpenSSL would ask on the terminal


def _load_authorities(context: ssl.SSLContext, tls: Tls) -> None:
    try:
        context.load_verify_locations(cafile=str(tls.ca_file))
    except OSError as error:
        raise UnusableCredentials(
            f"tls.ca_file {tls.ca_file}: {_why(error)}", remedy="Give a PEM file of the certificates to be trusted"
        ) from error
    if tls.crl_file is not None:
        _load_revoked(context, tls.crl_file)


def _load_revoked(context: ssl.SSLContext, crl_file: Path) -> None:
    """Whoever is on the list of its authority is nobody; so is everybody whose authority has no current list there.

    Source:  RFC 5280 6.3
    """
    lists = context.cert_store_stats()["crl"]
    try:
        context.load_verify_locations(cafile=str(crl_file))
    except OSError as error:
        why = _why(error)
    else:
        why = "it holds no revocation list"
    if context.cert_store_stats()["crl"] == lists:
        raise UnusableCredentials(
            f"tls.crl_file {crl_file}: {why}", remedy="Give a PEM file of the current revocation lists"
        )
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        said = getattr(error, "reason", None) or error.args[-1]
        return str(said).replace("_", " ").lower()
    return os.strerror(error.errno or 0)


def _looks(files: Sequence[Path]) -> list[tuple[int, int, int] | None]:
    """What changes when a file is written or replaced; None where there is none."""

    def look(path: Path) -> tuple[int, int, int] | None:
        try:
            found = path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    return [look(one) for one in files]
