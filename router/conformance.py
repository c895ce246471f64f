"""The DICOM conformance statement of a running configuration, from the same tables that the code works with.

What is negotiated is asked of the listener's own contexts, what is answered of its own statuses and keys. Nothing here
is a list of its own: a test proposes everything to a running listener and compares.

Source:  PS3.2 Annex N (conformance statement template)
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from pydicom.charset import python_encoding
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (
    ModalityPerformedProcedureStep,
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)
from sqlalchemy import Connection

from dicom_sr.header import EDITION
from router import rulebook, tls
from router.config import Settings
from router.db import revisions
from router.db.revisions import Kind, UnknownRevision
from router.destinations import Destination, dicom
from router.destinations._profile import FIELDS
from router.domain.query import KEYS, UNIQUE, Level
from router.ingest.offers import contexts
from router.ingest.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from router.ingest.status import Rejection, StoreStatus
from router.query.service import ROOTS
from router.query.status import CommitmentStatus, FindStatus, RetrieveStatus, StepStatus
from router.rulebook import Source
from router.statement import Section, Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What the statement is about. `sources` and `destinations` are those in force."""

    settings: Settings
    sources: tuple[Source, ...]
    destinations: tuple[Destination, ...]


def running(settings: Settings, connection: Connection) -> Running:
    """The configuration in force."""

    def body(kind: Kind) -> rulebook.Body:
        try:
            found: rulebook.Body = revisions.current(connection, kind).body
        except UnknownRevision:
            return ()
        return found

    return Running(
        settings=settings,
        sources=rulebook.sources(body(Kind.SOURCES)),
        destinations=rulebook.destinations(body(Kind.DESTINATIONS)),
    )


def statement(of: Running) -> list[Section]:
    """The statement's sections."""
    return [*overview(of), *implementation(of), *as_acceptor(of), *as_requestor(of), *interfaces(of), *the_rest(of)]


def overview(of: Running) -> list[Section]:
    """What it is, in one page."""
    accepted = contexts(of.settings.listener.private_sop_classes)
    storage = [one for one in accepted if is_storage(one)]
    transfer = [
        ("Storage", f"{len(storage)} SOP classes, see 4.2.1.3", "Results, see 4.2.2", "Yes"),
        ("Query/Retrieve", "C-FIND, C-MOVE, C-GET", "C-FIND", "Yes"),
        ("Storage Commitment", "Push Model", "Push Model", "Yes"),
        ("Modality Performed Procedure Step", "N-CREATE, N-SET", "No", "Yes"),
        ("Verification", "C-ECHO", "Yes", "Yes"),
    ]
    return [
        Section(
            "1",
            "Conformance statement overview",
            (
                "Isocenter stores what it is sent, routes it by rules to pipelines, and sends their results as DICOM "
                "objects to its destinations. Research use only: it is not a medical device.",
                Table(("Service", "What", "User of service (SCU)", "Provider of service (SCP)"), tuple(transfer)),
            ),
        ),
        Section(
            "2",
            "Introduction",
            (
                "For those who connect other systems. It is written by `isocenter conformance` from the configuration "
                f"in force, after the template of PS3.2 Annex N and edition {EDITION} of the standard. That two "
                "systems conform does not mean that they work together: try them with each other.",
            ),
        ),
    ]


def implementation(of: Running) -> list[Section]:
    """How it works, and by what names it is known."""
    settings = of.settings
    calling = settings.delivery.calling_ae_title or settings.ae_title
    return [
        Section("4", "Networking"),
        Section(
            "4.1",
            "Implementation model",
            (
                "One application entity accepts associations (storage, queries, retrieval, commitment, performed "
                "procedure steps, verification); received objects are on the disk before C-STORE is answered Success. "
                "Results leave on associations that it requests.",
                Table(
                    ("Item", "Value"),
                    (
                        ("AE title (called)", settings.ae_title),
                        ("AE title (calling)", calling),
                        ("Application context", "1.2.840.10008.3.1.1.1"),
                        ("Implementation class UID", IMPLEMENTATION_CLASS_UID),
                        ("Implementation version name", IMPLEMENTATION_VERSION_NAME),
                    ),
                ),
            ),
        ),
        Section("4.2", "Application entity specifications"),
    ]


def as_acceptor(of: Running) -> list[Section]:
    """What others may ask of it."""
    listener = of.settings.listener
    limits = (
        ("Port", str(listener.port) if listener.plain else "none"),
        ("Port for TLS", str(listener.tls_port or "none")),
        ("Largest PDU received", f"{listener.max_pdu_bytes} bytes"),
        ("Associations at once", str(listener.max_associations)),
        ("Associations at once from one calling AE", str(listener.max_associations_per_ae)),
        ("Wait for the association request", f"{listener.association_timeout_s:g} s"),
        ("Silence until an association is aborted", f"{listener.idle_timeout_s:g} s"),
        ("Wait for the rest of a PDU", f"{listener.pdu_timeout_s:g} s"),
        ("Asynchronous operations window", "not negotiated: 1 operation"),
        ("User identity", "types 1 and 2, for sources that have a user"),
    )
    return [
        Section(
            "4.2.1",
            f"{of.settings.ae_title}: associations that it accepts",
            (
                "A caller must use the called AE title and be a source in force by AE title and address, and by "
                "certificate name or user where its source wants that.",
                Table(("Limit", "Value"), limits),
            ),
        ),
        Section("4.2.1.1", "Sources in force", (sources_table(of.sources),)),
        Section("4.2.1.2", "Rejections", (rejections(),)),
        Section("4.2.1.3", "Accepted presentation contexts", (accepted_contexts(of.settings),)),
        Section(
            "4.2.1.4",
            "Transfer syntaxes of storage",
            (
                "Of what is proposed for a context the first in this order is accepted.",
                Table(("Name", "UID"), tuple((UID(one).name, str(one)) for one in storage_syntaxes(of.settings))),
            ),
        ),
        Section(
            "4.2.1.5",
            "Storage (C-STORE)",
            (
                "Level 2 (full): every attribute is kept as it came, private ones included. An object that is sent "
                "again unchanged is answered Success and not stored twice; other pixels under a known SOP Instance "
                f"UID are kept apart and answered {'Success' if listener.on_conflict == 'accept' else 'C000'}.",
                statuses(StoreStatus),
            ),
        ),
        *queries(),
        Section(
            "4.2.1.7",
            "Storage commitment (N-ACTION)",
            (
                "The report follows on an association of ours where the caller is a destination in force, else on the "
                "same association.",
                statuses(CommitmentStatus),
            ),
        ),
        Section(
            "4.2.1.8",
            "Modality performed procedure step (N-CREATE, N-SET)",
            ("What a step names is waited for; nothing else of it is kept.", statuses(StepStatus)),
        ),
    ]


def as_requestor(of: Running) -> list[Section]:
    """What it asks of others."""
    either = "As the object lies in the store; Implicit VR Little Endian"
    results = tuple((UID(uid).name, uid, either, "SCU") for uid in FIELDS)
    both = syntaxes((ExplicitVRLittleEndian, ImplicitVRLittleEndian))
    asked = (
        (str(Verification), both),
        (str(StudyRootQueryRetrieveInformationModelFind), both),
        (str(StorageCommitmentPushModel), both),
    )
    nodes = [one for one in of.destinations if isinstance(one, dicom.Settings)]
    known = tuple(
        (one.name, one.ae_title, one.host, str(one.port), "yes" if one.tls else "no", one.commitment) for one in nodes
    )
    delivery = of.settings.delivery
    return [
        Section(
            "4.2.2",
            "Associations that it requests",
            (
                f"A delivery is tried up to {delivery.max_attempts} times, after {delivery.retry_first_s:g} s at first "
                f"and at most {delivery.retry_cap_s:g} s, with {delivery.timeout_s:g} s for each answer.",
                Table(("Destination", "AE title", "Host", "Port", "TLS", "Storage commitment"), known),
            ),
        ),
        Section(
            "4.2.2.1",
            "Results that it sends",
            (
                "Which of these a destination gets is said by its profile. Objects that it received are sent by C-MOVE "
                "and C-GET in their own SOP class and in the transfer syntax in which they came, or Implicit VR Little "
                "Endian.",
                Table(("SOP class", "UID", "Transfer syntaxes", "Role"), results),
            ),
        ),
        Section(
            "4.2.2.2",
            "Other proposed presentation contexts",
            (
                Table(
                    ("SOP class", "UID", "Transfer syntaxes", "Role"),
                    tuple((UID(uid).name, uid, transfer, "SCU") for uid, transfer in asked),
                ),
            ),
        ),
    ]


def queries() -> list[Section]:
    """Models, levels and keys of C-FIND, C-MOVE and C-GET."""
    models = tuple((UID(uid).name, uid, ", ".join(level.name for level in root.levels)) for uid, root in ROOTS.items())
    return [
        Section(
            "4.2.1.6",
            "Query and retrieval (C-FIND, C-MOVE, C-GET)",
            (
                "Relational queries and retrieval, date-time matching and empty values are granted where extended "
                "negotiation asks for them; fuzzy names and time zones are not.",
                Table(("SOP class", "UID", "Levels"), models),
            ),
        ),
        *(
            Section(
                f"4.2.1.6.{number}",
                f"Keys at {level.name} level",
                (
                    Table(
                        ("Keyword", "VR", "Type"),
                        tuple(
                            (name, key.vr, "U" if UNIQUE[level] == name else "O")
                            for name, key in KEYS.items()
                            if key.level is level
                        ),
                    ),
                ),
            )
            for number, level in enumerate(Level, 1)
        ),
        Section("4.2.1.6.5", "Answers to C-FIND", (statuses(FindStatus),)),
        Section("4.2.1.6.6", "Answers to C-MOVE and C-GET", (statuses(RetrieveStatus),)),
    ]


def interfaces(of: Running) -> list[Section]:
    """Below and beside DICOM's upper layer."""
    return [
        Section("4.3", "Network interfaces", ("TCP/IP, IPv4 and IPv6, by the operating system.",)),
        Section(
            "4.4",
            "Configuration",
            (
                "Machine settings stand in isocenter.yaml; sources, destinations and rules are numbered revisions in "
                "the database. Both are this statement's sources.",
            ),
        ),
        Section("5", "Media interchange", ("None.",)),
        Section(
            "5.1",
            "DICOMweb",
            (
                "QIDO-RS and WADO-RS (studies, series, instances, metadata, frames, rendered frames, bulk data) "
                "below /dicom-web, with "
                "a session or a bearer token. A destination may be reached by STOW-RS.",
            ),
        ),
    ]


def the_rest(of: Running) -> list[Section]:
    """Character sets and security."""
    terms = sorted(term for term in python_encoding if term.startswith("ISO") and "\\" not in term)
    listener = of.settings.listener
    secure = (
        ("Profile", "BCP 195 (PS3.15 B.12): TLS 1.2 and 1.3"),
        ("Lowest version", "TLS 1.2"),
        ("Ciphers of TLS 1.2", tls.CIPHERS),
        ("Port", str(listener.tls_port or "none")),
        ("Certificate of a caller", listener.client_certificate if listener.tls_port else "-"),
        ("Certificate of a destination", "verified, with its name"),
    )
    return [
        Section(
            "6",
            "Support of character sets",
            (
                "Objects are kept and sent byte by byte. For rules, queries and the console text is read in these "
                "character sets, single or by code extension; what cannot be read is replaced, never refused.",
                Table(("Defined term",), tuple((term,) for term in terms)),
            ),
        ),
        Section(
            "7",
            "Security",
            (
                Table(("Item", "Value"), secure),
                "Acts on patient data are kept in a sealed audit and exported as audit messages (PS3.15 A.5).",
            ),
        ),
        Section(
            "8",
            "Annexes",
            (
                "Results carry the identity of their source as its own bytes, UIDs below 2.25, and no private "
                "attributes. Codes of our own have the designator 99ISOCENTER.",
            ),
        ),
    ]


def is_storage(context: PresentationContext) -> bool:
    """Whether it is stored under this context, and no service of another kind."""
    return str(context.abstract_syntax) not in {
        *ROOTS,
        str(Verification),
        str(StorageCommitmentPushModel),
        str(ModalityPerformedProcedureStep),
    }


def accepted_contexts(settings: Settings) -> Table:
    """Every abstract syntax that the listener accepts, with its transfer syntaxes and our roles."""
    rows = []
    for one in contexts(settings.listener.private_sop_classes):
        uid = str(one.abstract_syntax)
        transfer = "See 4.2.1.4" if is_storage(one) else syntaxes(one.transfer_syntax)
        rows.append((UID(uid).name, uid, transfer, "SCP, SCU by role selection" if one.scu_role else "SCP"))
    return Table(("SOP class", "UID", "Transfer syntaxes", "Role"), tuple(rows))


def storage_syntaxes(settings: Settings) -> Sequence[UID]:
    """What all storage contexts accept, in the order of choice."""
    return next(one.transfer_syntax for one in contexts(settings.listener.private_sop_classes) if is_storage(one))


def syntaxes(uids: Iterable[UID]) -> str:
    """Transfer syntaxes in a cell."""
    return "; ".join(f"{UID(one).name} ({one})" for one in uids)


def sources_table(known: Sequence[Source]) -> Table:
    """Who may call."""
    return Table(
        ("Calling AE title", "Addresses", "Services"),
        tuple((one.ae_title, ", ".join(one.addresses), ", ".join(one.services)) for one in known),
    )


def rejections() -> Table:
    """Why an association is rejected."""
    rows = []
    for one in Rejection:
        said = one.value
        rows.append((words(one.name), str(said.result), str(said.source), str(said.reason)))
    return Table(("Meaning", "Result", "Source", "Reason"), tuple(rows))


def statuses(of: type[IntEnum]) -> Table:
    """Every status that a service answers."""
    return Table(("Status", "Meaning"), tuple((f"{one.value:04X}", words(one.name)) for one in of))


def words(name: str) -> str:
    """A constant's name as people read it."""
    return name.replace("_", " ").capitalize()
