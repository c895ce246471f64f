"""`isocenter doctor`: what `check` finds, and then everything that has to be touched to be known.

It stores no object, at home or away: connections, handshakes, negotiation and C-ECHO; a file that is written, synced
and removed; a transaction that is rolled back.
"""

import ctypes
import errno
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification
from sqlalchemy import Connection, Engine, make_url, text
from sqlalchemy.exc import DatabaseError

from dicom_sr.problem import Problem
from router import destinations, rulebook
from router.checkup import Diagnosis, fault, files, good, told, warning
from router.config import Settings
from router.db import callers, revisions
from router.db.engine import clock, connect, now, reading, writing
from router.db.revisions import Kind
from router.destinations import Context, Destination, Rejected, Unreachable, dicom, orthanc
from router.destinations._node import associated, encrypted
from router.destinations._profile import FIELDS, READY, Profile
from router.starter import SENDER
from router.store import file_system

SLOW_SYNC_MS = 50.0
"""A scanner that sends 1000 slices one by one then waits a minute for the disk alone."""

CLOCK_S = 2.0
TIME_ERROR = 5
"""Answer of ntp_adjtime where nothing keeps the clock."""

START = "`isocenter serve`, or `systemctl start isocenter`"
RECENT_S = 86400.0
DEVICES_S = 180.0
DEVICES = (
    "import json, torch; print(json.dumps([torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]))"
)


def look(settings: Settings, *, kind_of: Callable[[Path], str] = file_system) -> Iterator[Diagnosis]:
    """Everything that `check` says, then what can be said by touching."""
    yield from files.look(settings, kind_of=kind_of)
    yield disk(settings.storage.path)
    yield system_clock()
    yield from devices(settings)
    engine = connect(settings.database.url)
    try:
        with reading(engine) as connection:
            entries = rulebook.destinations(revisions.current(connection, Kind.DESTINATIONS).body)
            sources = rulebook.sources(revisions.current(connection, Kind.SOURCES).body)
    except DatabaseError as error:
        url = make_url(settings.database.url).render_as_string()
        yield fault(f"database {url}", f"it does not answer ({error.orig})", "Start it, or correct database.url")
        return
    except Problem as problem:
        yield told("database", problem)
        return
    yield from database(engine)
    yield door(settings, {source.ae_title for source in sources})
    if settings.listener.tls_port:
        yield secure_door(settings)
    for one in entries:
        yield from destination(settings, one, {source.ae_title for source in sources})
        if isinstance(one, orthanc.Settings) and one.pull_as and files.literal(one) is None:
            yield from files.followed(one, sources, address_of(one.url.host or ""))
    with reading(engine) as connection:
        yield from turned_away(connection)
    engine.dispose()


def disk(folder: Path) -> Diagnosis:
    """How long the store's disk takes to make a file durable."""
    about, probe = f"store {folder}", folder / f".doctor-{os.getpid()}"
    took = []
    try:
        for _ in range(5):
            since = time.monotonic()
            with probe.open("wb") as file:
                file.write(bytes(512 << 10))
                file.flush()
                os.fsync(file.fileno())
            took.append((time.monotonic() - since) * 1000)
            probe.unlink()
    except OSError as error:
        said = os.strerror(error.errno or 0)
        return fault(about, f"it cannot be written: {said}", "Correct storage.path, its owner or its mount; free space")
    median = sorted(took)[2]
    if median > SLOW_SYNC_MS:
        return warning(about, f"{median:.0f} ms until 512 KiB are durable", "Take a faster disk")
    return good(about, f"{median:.1f} ms until 512 KiB are durable")


def system_clock() -> Diagnosis:
    """Whether something keeps this machine's clock."""
    state = ctypes.CDLL(None, use_errno=True).ntp_adjtime(ctypes.create_string_buffer(512))
    if state == TIME_ERROR:
        return warning("clock", "nothing keeps this machine's clock", "Start chrony or systemd-timesyncd; see the host")
    return good("clock", f"{time.strftime('%Y-%m-%d %H:%M:%S %Z')}")


def devices(settings: Settings) -> Iterator[Diagnosis]:
    """What the inference worker would run on; asked in a process of its own, since torch is heavy."""
    wanted = settings.inference.device
    if wanted == "cpu":
        return
    done = subprocess.run(
        [sys.executable, "-c", DEVICES], capture_output=True, text=True, check=False, timeout=DEVICES_S
    )
    if done.returncode:
        yield fault("inference", f"torch cannot be imported: {done.stderr.strip()[-300:]}", "Install Isocenter again")
        return
    found = json.loads(done.stdout.splitlines()[-1])
    if wanted.startswith("cuda") and int(wanted.partition(":")[2] or 0) >= len(found):
        yield fault(
            f"inference.device {wanted}", f"there are {len(found)} GPUs",
            "Install its driver, see `nvidia-smi`, or choose auto or cpu",
        )  # fmt: skip
    else:
        yield good(f"inference.device {wanted}", ", ".join(found) or "no GPU: pipelines run on the CPU")


def database(engine: Engine) -> Iterator[Diagnosis]:
    """Whether it writes, is whole, and has our time."""
    about = f"database {engine.url.render_as_string()}"
    since = time.monotonic()
    try:
        with writing(engine) as connection:
            apart_s = (clock(connection) - now()) / 1e6
        took_ms = (time.monotonic() - since) * 1000
        with reading(engine) as connection:  # which may take long, and holds up nobody
            if engine.dialect.name == "sqlite" and (said := connection.scalar(text("PRAGMA quick_check"))) != "ok":
                yield fault(about, f"it is damaged ({said})", "Stop the node and restore a backup: see the runbook")
    except DatabaseError as error:
        yield fault(about, f"it takes no write ({error.orig})", "Look at its disk, its owner and its log")
        return
    if abs(apart_s) > CLOCK_S:
        yield warning(about, f"its clock is {apart_s:+.1f} s from ours", "Keep both clocks by NTP")
    yield good(about, f"takes writes, {took_ms:.0f} ms")


def reached(host: str, port: int, timeout_s: float) -> socket.socket | str:
    """A connection; or in plain words why there is none."""
    try:
        return socket.create_connection((host, port), timeout_s)
    except socket.gaierror:
        return f"the name {host} has no address"
    except TimeoutError:
        return f"{host}:{port} does not answer: a firewall drops it, or the machine is off"
    except OSError as error:
        if error.errno == errno.ECONNREFUSED:
            return f"nobody listens on {host}:{port}"
        return f"{host}:{port} cannot be reached: {os.strerror(error.errno or 0)}"


def address_of(host: str) -> str | None:
    """The IP address that a name has; None where it has none, which is a diagnosis of its own."""
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError:
        return None


def door(settings: Settings, known: set[str]) -> Diagnosis:
    """Our own door: C-ECHO as `isocenter send` calls."""
    here = settings.listener
    host = "127.0.0.1" if here.host in ("0.0.0.0", "::", "") else here.host
    about = f"listener {host}:{here.port}"
    if not here.plain:
        return good(about, "closed, by listener.plain")
    connection = reached(host, here.port, settings.delivery.timeout_s)
    if isinstance(connection, str):
        return warning(about, f"{connection}: the node does not run", START)
    connection.close()
    if SENDER not in known:
        return good(about, f"open; no C-ECHO, since {SENDER} is not among the sources")
    ourselves = dicom.Settings(kind="dicom", name="ourselves", ae_title=settings.ae_title, host=host, port=here.port)
    try:
        dicom.echo(ourselves, Context(calling_ae_title=SENDER, timeout_s=settings.delivery.timeout_s))
    except Problem as problem:
        return fault(
            about, problem.what, "Another program has this port, or this file is not the one that the node runs with"
        )
    return good(about, f"{settings.ae_title} answers C-ECHO")


def secure_door(settings: Settings) -> Diagnosis:
    """Our own TLS port: what a sender meets there, with our certificate for its own."""
    here = settings.listener
    host = "127.0.0.1" if here.host in ("0.0.0.0", "::", "") else here.host
    about = f"listener.tls_port {host}:{here.tls_port}"
    connection = reached(host, here.tls_port or 0, settings.delivery.timeout_s)
    if isinstance(connection, str):
        return warning(about, f"{connection}: the node does not run", START)
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # whose it is, `check` has said
        with context.wrap_socket(connection) as wrapped:
            return good(about, f"speaks {wrapped.version()}")
    except OSError as error:
        return fault(about, f"no TLS there ({reason(error)})", "Correct listener.tls_port")


def reason(error: OSError) -> str:
    """What went wrong in a handshake, in few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return str(error.reason or "the other side ended it").replace("_", " ").lower()
    return os.strerror(error.errno) if error.errno else "the other side ended it"


def destination(settings: Settings, one: Destination, known: set[str]) -> Iterator[Diagnosis]:
    """One way out: name, port, TLS, AE titles, what it negotiates; or as its kind echoes."""
    about = f"destination {one.name}"
    ours = settings.delivery.calling_ae_title or settings.ae_title
    context = Context(calling_ae_title=ours, timeout_s=settings.delivery.timeout_s, tls=settings.tls)
    try:
        if isinstance(one, dicom.Settings):
            yield from dicom_node(about, one, context)
            if one.commitment != "never" and one.ae_title not in known:
                yield warning(
                    about, f"{one.ae_title} is not among the sources: its storage commitment reports are turned away",
                    f"`isocenter sources accept {one.ae_title} --address {one.host}`, or commitment: never",
                )  # fmt: skip
        else:
            destinations.find(one.kind).echo(one, context)
            yield good(about, "answers")
    except Problem as problem:
        yield told(about, problem)


def dicom_node(about: str, one: dicom.Settings, context: Context) -> Iterator[Diagnosis]:
    """A DICOM node, from the name to what it takes; what a later step needs of an earlier one is not asked in vain.

    Raises:  Problem
    """
    connection = reached(one.host, one.port, context.timeout_s)
    if isinstance(connection, str):
        yield fault(about, connection, "Compare host and port with its settings; ask for the firewall in between")
        return
    secure = encrypted(one, context)
    with connection:
        if secure is not None and (said := handshake(connection, secure, one.host)):
            yield fault(about, *said)
            return
    plain = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
    try:
        with associated(one, [build_context(uid, plain) for uid in (Verification, *FIELDS)], context) as association:
            taken = {str(each.abstract_syntax) for each in association.accepted_contexts}
            echoed = str(Verification) in taken and association.send_c_echo().get("Status") == 0
    except Rejected as problem:
        ours = one.calling_ae_title or context.calling_ae_title
        remedy = f"Make {ours} known there as a sender, or correct ae_title {one.ae_title}; letter case matters"
        yield fault(about, problem.what, remedy)
        return
    except Unreachable as problem:
        remedy = f"Compare ae_title {one.ae_title} with its own, and tls with what its port speaks; see its log"
        yield fault(about, problem.what, remedy)  # some that refuse a title hang up before the refusal is read
        return
    missing = [uid for uid in classes(one.profile) if uid not in taken]
    for uid in missing:
        yield fault(
            about, f"{one.ae_title} refuses {UID(uid).name}",
            f"Let it store that SOP class, or {proposed(one.profile, frozenset(FIELDS) - taken)}",
        )  # fmt: skip
    if not echoed:
        yield warning(about, f"{one.ae_title} does not answer C-ECHO", "It may do without; ask its administrator")
    if not missing:
        yield good(about, f"{one.ae_title} takes {', '.join(UID(uid).name for uid in classes(one.profile))}")


def proposed(profile: Profile, refused: frozenset[str]) -> str:
    """What to give a destination that refuses these SOP classes of results: a ready profile, or one of its own."""
    instead = profile.without(refused)
    if instead is None:
        return "send results elsewhere: it takes none of any kind"
    name = next((name for name, ready in READY.items() if ready == instead), None)
    return f"say `profile: {name or instead.canonical()}`, which it takes whole"


def handshake(connection: socket.socket, secure: ssl.SSLContext, host: str) -> tuple[str, str] | None:
    """What is wrong with TLS there and what to do; None where it stands."""
    try:
        secure.wrap_socket(connection, server_hostname=host).close()
    except ssl.SSLCertVerificationError as error:
        what = f"its certificate is not accepted: {error.verify_message}"
        if "match" in error.verify_message:
            return what, f"Use a name in `host` that its certificate bears; it bears another than {host}"
        if "expired" in error.verify_message:
            return what, "Its administrator renews it"
        return what, "Put the authority that signed it into tls.ca_file"
    except OSError as error:
        return f"no TLS on this port ({reason(error)})", "Give the port on which it speaks TLS, or say tls: false"
    return None


def classes(profile: Profile) -> list[str]:
    """SOP classes of the results that a profile sends."""
    wanted = {
        "seg": profile.seg in ("binary", "fractional"), "label map": profile.seg == "labelmap",
        f"sr {profile.sr}": True, "gsps": profile.gsps, "rtstruct": profile.rtstruct,
        "parametric_map": profile.parametric_map, "pdf": profile.pdf, "key_objects": profile.key_objects,
        "pictures": profile.overlay != "none" or profile.summary,
    }  # fmt: skip
    return [uid for uid, name in FIELDS.items() if wanted.get(name)]


def turned_away(connection: Connection) -> Iterator[Diagnosis]:
    """Callers of the last day that were not let in, and why."""
    for one in callers.seen(connection):
        if one.last_seen_at > now() - RECENT_S * 1e6:
            yield warning(
                f"caller {one.calling_ae_title} at {one.address}",
                f"turned away {one.attempts} times: {one.reason}",
                f"If it may send: `isocenter sources accept {one.calling_ae_title} --address {one.address}`",
            )
