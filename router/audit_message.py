"""Audit rows as the audit messages that DICOM defines, for a hospital's audit repository.

Source:  PS3.15 A.5 (message schema A.5.1, event-specific forms A.5.3), CID 400-405
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from xml.etree.ElementTree import Element, SubElement, tostring

from router.domain.audit import Act, Outcome, Row, act_of
from router.domain.study import Patient

KIND = "DICOM+RFC3881"
"""Message id of such a message in syslog.  Source: PS3.15 A.6"""

EVENTS: Mapping[Act, tuple[str, str, str]] = {
    Act.RECEIVED: ("110104", "DICOM Instances Transferred", "C"),
    Act.READ: ("110103", "DICOM Instances Accessed", "R"),
    Act.ROUTED: ("110103", "DICOM Instances Accessed", "R"),
    Act.PRODUCED: ("110103", "DICOM Instances Accessed", "C"),
    Act.SENT: ("110104", "DICOM Instances Transferred", "R"),
    Act.VIEWED: ("110103", "DICOM Instances Accessed", "R"),
    Act.QUERIED: ("110112", "Query", "E"),
    Act.EXPORTED: ("110106", "Export", "R"),
    Act.DELETED: ("110105", "DICOM Study Deleted", "D"),
    Act.CONFIGURED: ("110113", "Security Alert", "E"),
    Act.COMMANDED: ("110100", "Application Activity", "E"),
    Act.LOGGED_IN: ("110114", "User Authentication", "E"),
    Act.TURNED_AWAY: ("110113", "Security Alert", "E"),
    Act.AUDIT_USED: ("110101", "Audit Log Used", "R"),
}
"""Event code and meaning (CID 400), and the action code: create, read, update, delete, execute."""

TYPES: Mapping[str, tuple[str, str]] = {
    "user.logged_in": ("110122", "Login"),
    "user.logged_out": ("110123", "Logout"),
    "association.rejected": ("110126", "Node Authentication"),
}
SECURITY_CONFIGURATION = ("110129", "Security Configuration")
"""Event types.  Source: CID 401"""

OUTCOMES = {Outcome.DONE: "0", Outcome.REFUSED: "4", Outcome.FAILED: "8"}
"""EventOutcomeIndicator: success, minor failure, serious failure."""


def xml(row: Row, *, node_id: str, ae_title: str, patient: Patient | None = None) -> str:
    """One row as an audit message; of a forgotten patient only the key is left.

    Raises:  UnknownAct
    """
    act = act_of(row.act)
    code, meaning, action = EVENTS[act]
    root = Element("AuditMessage")
    at = datetime.fromtimestamp(row.at / 1e6, tz=UTC).isoformat(timespec="milliseconds")
    event = SubElement(
        root,
        "EventIdentification",
        EventActionCode=action,
        EventDateTime=at,
        EventOutcomeIndicator=OUTCOMES[row.outcome],
    )
    _coded(event, "EventID", code, meaning)
    kind = TYPES.get(row.act, SECURITY_CONFIGURATION if act is Act.CONFIGURED else None)
    if kind:
        _coded(event, "EventTypeCode", *kind)
    _participants(root, row, act, ae_title)
    SubElement(root, "AuditSourceIdentification", AuditSourceID=node_id)
    if row.study_instance_uid:
        _object(root, row.study_instance_uid, "2", "3", "110180", "Study Instance UID")
    if row.patient_key:
        name = patient.patient_name if patient else ""
        shown = patient.patient_id if patient else row.patient_key
        _object(root, shown, "1", "1", "2", "Patient Number", system="RFC-3881", name=name)
    return tostring(root, encoding="unicode")


def _participants(root: Element, row: Row, act: Act, ae_title: str) -> None:
    """Who did it, and this node: the source of what it sends, the destination of what it receives."""
    who, _, address = row.who.partition("@")
    other = SubElement(root, "ActiveParticipant", UserID=who or row.who, UserIsRequestor="true")
    if address:
        other.attrib |= {"NetworkAccessPointID": address, "NetworkAccessPointTypeCode": "2"}
    ours = SubElement(
        root, "ActiveParticipant", UserID="isocenter", AlternativeUserID=f"AETITLES={ae_title}", UserIsRequestor="false"
    )
    source, destination = ("110153", "Source Role ID"), ("110152", "Destination Role ID")
    roles = {Act.RECEIVED: (source, destination), Act.SENT: (None, source), Act.EXPORTED: (destination, source)}
    for participant, role in zip((other, ours), roles.get(act, (None, None)), strict=True):
        if role:
            _coded(participant, "RoleIDCode", *role)
    if act is Act.SENT:
        far = SubElement(
            root, "ActiveParticipant", UserID=str(row.detail.get("destination", "")), UserIsRequestor="false"
        )
        _coded(far, "RoleIDCode", *destination)


def _object(
    root: Element, identity: str, kind: str, role: str, code: str, meaning: str, *, system: str = "DCM", name: str = ""
) -> None:
    found = SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=identity,
        ParticipantObjectTypeCode=kind,
        ParticipantObjectTypeCodeRole=role,
    )
    _coded(found, "ParticipantObjectIDTypeCode", code, meaning, system=system)
    SubElement(found, "ParticipantObjectName").text = name


def _coded(parent: Element, tag: str, code: str, meaning: str, *, system: str = "DCM") -> None:
    SubElement(
        parent, tag, {"csd-code": code, "codeSystemName": system, "originalText": meaning, "displayName": meaning}
    )
