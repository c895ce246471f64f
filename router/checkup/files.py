"""`isocenter check`: files, settings and what the database holds, without a connection to anybody."""

import ipaddress
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from pydantic import ValidationError
from sqlalchemy import Connection, create_engine, inspect, make_url, text
from sqlalchemy.exc import DatabaseError

from dicom_sr.problem import Problem
from pipelines import catalog, models
from pipelines.trust import AllowList, Untrusted
from router import revise, rulebook
from router.checkup import Diagnosis, fault, good, told, warning
from router.config import Settings
from router.db import migrate, revisions
from router.db.place import NETWORK
from router.db.revisions import Kind
from router.destinations import Destination, orthanc
from router.domain.disk import GIGABYTE, Mark
from router.errors import WrongRulebook
from router.store import file_system
from router.tls import UnusableCredentials, client_context, server_context

RENEW_DAYS = 30
PEM_LIST = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)
LOW_PORTS = 1024


def look(settings: Settings, *, kind_of: Callable[[Path], str] = file_system) -> Iterator[Diagnosis]:
    """Everything that can be said without touching anybody. Paths in the settings are absolute by now."""
    yield from store(settings)
    yield from network_file_systems(settings, kind_of)
    yield from certificates(settings)
    yield from audit_key(settings)
    yield from low_ports(settings)
    yield from bundles(settings)
    yield from database(settings)


def store(settings: Settings) -> Iterator[Diagnosis]:
    """The folder of the objects: there, ours, and with room."""
    path, about = settings.storage.path, f"store {settings.storage.path}"
    there = nearest(path)
    if not os.access(there, os.W_OK | os.X_OK) or os.statvfs(there).f_flag & os.ST_RDONLY:
        yield fault(about, f"{there} may not be written by this user", "Correct storage.path, its owner or its mount")
        return
    free = shutil.disk_usage(there).free
    mark = settings.storage.marks.reached(free)
    said = f"{free / GIGABYTE:.1f} GB free"
    if mark >= Mark.REFUSE:
        what = "associations are rejected" if mark >= Mark.REJECT else "C-STORE is answered A700"
        yield fault(about, f"{said}: {what}", "Free space, or lower storage.refuse_free_gb and reject_free_gb")
    elif mark >= Mark.PURGE:
        yield warning(about, f"{said}: what was delivered longest ago is purged", "Free space, or a larger disk")
    else:
        yield good(about, said)


def nearest(path: Path) -> Path:
    """The path, or the folder above it that is there."""
    return next(one for one in (path, *path.parents) if one.exists())


def network_file_systems(settings: Settings, kind_of: Callable[[Path], str]) -> Iterator[Diagnosis]:
    """SQLite and the bell's sockets want a disk of this machine; a store on another machine is as safe as its fsync."""
    url = make_url(settings.database.url)
    if url.get_backend_name() == "sqlite" and url.database:
        kind = kind_of(nearest(Path(url.database)))
        if kind in NETWORK:
            yield fault(
                f"database {url.database}",
                f"SQLite lies on a network file system ({kind}), where its locks do not hold: it will be damaged",
                "Put database.url on a disk of this machine, or use PostgreSQL",
            )
    kind = kind_of(nearest(settings.run_path))
    if kind in NETWORK:
        yield fault(f"run_path {settings.run_path}", f"sockets cannot lie on {kind}", "Put run_path on a local disk")
    kind = kind_of(nearest(settings.storage.path))
    if kind in NETWORK:
        yield warning(
            f"store {settings.storage.path}",
            f"it lies on a network file system ({kind}): Success is as true as that server's fsync",
            "Mount it hard and synchronous, and try `isocenter doctor`",
        )


def certificates(settings: Settings) -> Iterator[Diagnosis]:
    """Ours and those that we trust: usable, and not over."""
    tls = settings.tls
    if tls.certificate_file is None and tls.ca_file is None:
        return
    try:
        if tls.certificate_file is not None:
            server_context(tls, settings.listener.client_certificate if tls.ca_file else "none")
        else:
            client_context(tls)
    except UnusableCredentials as problem:
        yield told("tls", problem)
        return
    for path in (tls.certificate_file, tls.ca_file):
        for certificate in x509.load_pem_x509_certificates(path.read_bytes()) if path else ():
            yield dates(path or Path(), certificate, datetime.now(UTC))
    for pem in PEM_LIST.findall(tls.crl_file.read_bytes()) if tls.crl_file else ():
        yield revocations(tls.crl_file, x509.load_pem_x509_crl(pem), datetime.now(UTC))
    if tls.key_file is not None and stat.S_IMODE(tls.key_file.stat().st_mode) & 0o077:
        yield warning(f"tls.key_file {tls.key_file}", "others may read our private key", "chmod 600 that file")


def revocations(path: Path | None, revoked: x509.CertificateRevocationList, now: datetime) -> Diagnosis:
    """Whether a revocation list is still in force: nobody of its authority comes in when it is over."""
    about = f"revocation list of {revoked.issuer.rfc4514_string()} in {path}"
    end = revoked.next_update_utc
    if end is not None and end <= now:
        return fault(about, f"over since {end:%Y-%m-%d %H:%M} UTC: nobody of this authority comes in", "Fetch it anew")
    return good(about, f"{len(revoked)} revoked" + (f", good until {end:%Y-%m-%d %H:%M} UTC" if end else ""))


def dates(path: Path, certificate: x509.Certificate, now: datetime) -> Diagnosis:
    """How long a certificate is good for."""
    about = f"certificate {certificate.subject.rfc4514_string()} in {path}"
    end = certificate.not_valid_after_utc
    left = (end - now).days
    if certificate.not_valid_before_utc > now:
        return fault(
            about, f"not valid before {certificate.not_valid_before_utc:%Y-%m-%d}", "Correct this machine's clock"
        )
    if end <= now:
        return fault(about, f"over since {end:%Y-%m-%d}", "Renew it; a running node reads the new file by itself")
    if left < RENEW_DAYS:
        return warning(about, f"over in {left} days, on {end:%Y-%m-%d}", "Renew it now")
    return good(about, f"good until {end:%Y-%m-%d}")


def audit_key(settings: Settings) -> Iterator[Diagnosis]:
    """The key of the audit's chain is ours alone."""
    path = settings.audit.key_file
    if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
        yield warning(f"audit.key_file {path}", "others may read the key of the audit's chain", "chmod 600 that file")


def low_ports(settings: Settings) -> Iterator[Diagnosis]:
    """Ports below 1024 need a right."""
    ports = {"listener.port": settings.listener.port, "listener.tls_port": settings.listener.tls_port or 0}
    low = {name: port for name, port in (ports | {"web.port": settings.web.port}).items() if 0 < port < LOW_PORTS}
    if low and os.geteuid() != 0:
        names = ", ".join(f"{name} {port}" for name, port in low.items())
        yield warning(names, "ports below 1024 need a right", "AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit")


def bundles(settings: Settings) -> Iterator[Diagnosis]:
    """Installed bundles are what was installed."""
    root = settings.inference.models_path
    catalog.look_in(**settings.inference.shelf)
    allowed = AllowList()
    try:
        allowed = catalog.allowed()
    except Untrusted as refused:
        yield fault("inference.allow_list", refused.what, refused.remedy)
    for one in models.verify(root, allowed=allowed) if root.is_dir() else ():
        if one.fault:
            yield fault(f"model {one.name}", one.fault, f"`isocenter models remove {one.name}`, and add it again")
        else:
            yield good(f"model {one.name}", "as it was installed")


def database(settings: Settings) -> Iterator[Diagnosis]:
    """The SQLite file: there, of this version, and what it holds makes sense. PostgreSQL is the doctor's."""
    url = make_url(settings.database.url)
    if url.get_backend_name() != "sqlite":
        yield good("database", f"{url.render_as_string()}: see `isocenter doctor`")
        return
    path = Path(url.database or "")
    about = f"database {path}"
    if not path.is_file():
        yield fault(about, "there is no such file", "`isocenter init DIR` makes it; else correct database.url")
        return
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        yield fault(about, "this user may not write it, or its folder", "chown it to the user of the service")
    try:
        with create_engine(f"sqlite:///file:{path}?mode=ro&uri=true").connect() as connection:
            yield from schema(about, connection)
            yield from books(connection)
    except DatabaseError as error:
        yield fault(about, f"it cannot be read ({error.orig})", "Restore a backup: see the runbook")


def schema(about: str, connection: Connection) -> Iterator[Diagnosis]:
    """Whether the database is at the revision of this program."""
    tables = inspect(connection).get_table_names()
    if "alembic_version" not in tables or "node" not in tables:
        yield fault(about, "it is no database of Isocenter", "`isocenter init DIR` makes one; or correct database.url")
        return
    at = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    known = migrate.schemas()
    if at not in known:
        yield fault(
            about, f"a newer Isocenter has migrated it (schema {at})", "Run that version, or restore the backup"
        )
    elif at != known[0]:
        yield warning(about, f"schema {at}, ours is {known[0]}", "`isocenter serve` migrates it; back it up before")
    else:
        yield good(about, f"schema {at}")


def books(connection: Connection) -> Iterator[Diagnosis]:
    """Rules, sources and destinations in force still make sense: what they name is there."""
    try:
        known = revise.known(connection)
    except Problem as problem:
        yield told("rules", problem)
        return
    for kind in Kind:
        about = str(kind)
        try:
            revision = revisions.current(connection, kind)
            rulebook.parse(rulebook.write(kind, revision.body), f"{kind}-{revision.number}", known=known)
        except WrongRulebook as problem:
            yield fault(about, problem.what, f"`isocenter {kind} export`, correct it, `isocenter {kind} import`")
        except Problem as problem:
            yield told(about, problem)
        else:
            yield good(about, f"revision {revision.number}, {len(revision.body)} entries")
            if kind is Kind.SOURCES:
                yield from passcodes(rulebook.sources(revision.body))
    with suppress(Problem, ValidationError):  # which were named above
        sources = rulebook.sources(revisions.current(connection, Kind.SOURCES).body)
        for one in rulebook.destinations(revisions.current(connection, Kind.DESTINATIONS).body):
            yield from followed(one, sources, literal(one))


def literal(one: Destination) -> str | None:
    """The IP address of an Orthanc whose url has one and no name."""
    host = (one.url.host or "").strip("[]") if isinstance(one, orthanc.Settings) else ""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def followed(one: Destination, sources: Sequence[rulebook.Source], address: str | None) -> Iterator[Diagnosis]:
    """Why nothing can be fetched from an Orthanc that is to be followed: the source that it comes from may not store.

    `address` is where it comes from; None where that is not known.
    """
    if not isinstance(one, orthanc.Settings) or one.pull_as is None:
        return
    about, title = f"destination {one.name}", one.pull_as
    here = [source for source in sources if source.ae_title == title]
    if not here:
        what = f"pull_as {title} is not among the sources: nothing is fetched"
        yield fault(about, what, f"`isocenter sources accept {title} --address IP`, with the address of {one.url.host}")
        return
    if address is not None:
        here = [source for source in here if source.calls_from(address)]
        if not here:
            what = f"source {title} does not come from {address}: nothing is fetched"
            yield fault(about, what, f"`isocenter sources accept {title} --address {address}`")
            return
    here = [source for source in here if source.is_named(()) and source.username is None]
    if not here:
        what = f"source {title} must show a certificate or a user, which a fetch has not: nothing is fetched"
        yield fault(about, what, "Name a source of its own in pull_as, without them")
    elif "store" not in here[0].services:
        what = f"source {title} may not store: nothing is fetched"
        yield fault(about, what, f"Give it the service store: `isocenter sources export`, and import ({title})")


def passcodes(sources: Sequence[rulebook.Source]) -> Iterator[Diagnosis]:
    """The files that hold passcodes of sources can be read."""
    for source in sources:
        path = source.passcode_file
        if path is not None and not os.access(path, os.R_OK):
            yield fault(
                f"source {source.ae_title}", f"its passcode_file {path} cannot be read: it is always turned away",
                "Write the passcode into that file, readable by the user of the service",
            )  # fmt: skip
