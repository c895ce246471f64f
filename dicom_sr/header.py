"""What all result objects share: whose they are, which study they join, who made them and when.

Identity is copied as the bytes that the source holds (see `script.py` for the one exception).

Source:  PS3.3 C.7.1.1, C.7.2.1, C.7.3.1, C.7.5.1, C.7.5.2, C.12.1
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_sr import codes
from dicom_sr.elements import Elements, Text, code, element, elements, joined, native, part10, tag_of
from dicom_sr.kinds import Built, Order
from dicom_sr.nouns import Algorithm, Code
from dicom_sr.script import UNICODE, Script, as_read, terms
from dicom_sr.uids import device_uid

EDITION = "2024c"
"""Edition of the standard that this package was written against."""

MANUFACTURER = "Isocenter"

IDENTITY = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "TypeOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "PatientBirthDate",
    "PatientBirthTime",
    "PatientSex",
    "OtherPatientIDs",
    "OtherPatientIDsSequence",
    "OtherPatientNames",
    "PatientSpeciesDescription",
    "PatientSpeciesCodeSequence",
    "PatientBreedDescription",
    "PatientBreedCodeSequence",
    "BreedRegistrationSequence",
    "ResponsiblePerson",
    "ResponsiblePersonRole",
    "ResponsibleOrganization",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "AdmissionID",
    "IssuerOfAdmissionIDSequence",
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
    "ClinicalTrialTimePointID",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "ReferringPhysicianName",
)
"""Attributes of patient and study that every result copies from its source, where the source has them.

References and codes of the study are not among them: real sources leave out their Type 1 parts, and we would too.
"""

REQUEST = "RequestAttributesSequence"
"""Copied too: the scheduled steps and requested procedures that the study answers (PS3.3 10.6)."""

ALWAYS = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""Type 2: present even where the source lacks them, then empty."""

WELL_FORMED = {
    "PatientAge": re.compile(rb"\d{3}[DWMY]"),
    "PatientSize": re.compile(rb" *\d{1,4}(\.\d{1,10})? *"),
    "PatientWeight": re.compile(rb" *\d{1,4}(\.\d{1,10})? *"),
}
"""Copied only in a form that the standard allows: they are convenient, but they identify nobody."""

OFFSET = re.compile(r"[+-]\d{4}")


def is_ours(header: Dataset | Mapping[str, Any]) -> bool:
    """Whether an object was made by Isocenter, any node of it, as its equipment says; by keyword, absent is no."""
    makers = [header.get("Manufacturer")]
    makers += [part.get("Manufacturer") for part in header.get("ContributingEquipmentSequence") or ()]
    return any(str(maker).strip(" \0").casefold() == MANUFACTURER.casefold() for maker in makers if maker)


def identity_digest(source: Dataset) -> str:
    """Digest of all that a result copies from its source: another identity makes another result."""
    return hashlib.sha256(joined(_identity(source, Script(terms(source))))).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Letterhead:
    """What one object says of patient, study, series and maker."""

    source: Dataset
    """An object of the study, from which identity is copied."""
    sop_instance_uid: str
    series_instance_uid: str
    series_number: int
    series_description: str
    made_at: datetime
    algorithm: Algorithm
    contribution: str
    research: bool
    ordinal: int = 0


def letterhead(order: Order, kind: str, *, ordinal: int = 0) -> Letterhead:
    """The letterhead of an object of this kind in an ordered result set."""
    algorithm = order.findings.algorithm
    return Letterhead(
        source=order.source.header,
        sop_instance_uid=order.uid(kind, ordinal),
        ordinal=ordinal,
        series_instance_uid=order.uid(f"{kind}.series", 0),
        series_number=series_number(order),
        series_description=series_description(order),
        made_at=order.made_at,
        algorithm=algorithm,
        contribution=f"{order.title}, weights {algorithm.weights_digest or 'none'}",
        research=order.research,
    )


def letterhead_like(
    earlier: Dataset,
    *,
    sop_instance_uid: str,
    series_instance_uid: str,
    series_number: int,
    made_at: datetime,
    weights_digest: str | None,
) -> Letterhead:
    """The letterhead of another object of the same run as this one of ours, in the same study."""
    (made_by,) = [part for part in earlier.ContributingEquipmentSequence if part.Manufacturer == MANUFACTURER]
    return Letterhead(
        source=earlier,
        sop_instance_uid=sop_instance_uid,
        series_instance_uid=series_instance_uid,
        series_number=series_number,
        series_description=str(earlier.SeriesDescription),
        made_at=made_at,
        algorithm=Algorithm(
            name=str(earlier.ManufacturerModelName),
            version=str(earlier.SoftwareVersions),
            weights_digest=weights_digest,
        ),
        contribution=str(made_by.ContributionDescription),
        research=str(earlier.ContentQualification) == "RESEARCH",
    )


Content = Callable[[Script], tuple[Elements, Iterable[Code]]]
"""What one object adds to its letterhead, in the script that it is given, and the codes in it."""


def written(order: Order, *, kind: str, sop_class_uid: str, modality: str, content: Content) -> Built:
    """The finished object of an ordered result set."""
    return on_letterhead(
        letterhead(order, kind), kind=kind, sop_class_uid=sop_class_uid, modality=modality, content=content
    )


def on_letterhead(
    head: Letterhead,
    *,
    kind: str,
    sop_class_uid: str,
    modality: str,
    content: Content,
    transfer_syntax_uid: str = ExplicitVRLittleEndian,
    pixels: bytes | memoryview = b"",
) -> Built:
    """The finished object: what all results share, and what `content` adds in the script that it is given.

    `pixels` are native ones that are not among the content. `content` is asked a second time, in UTF-8, when a text of
    it cannot be said in the source's character set.
    """
    script = Script(terms(head.source))
    try:
        own, used = content(script)
        shared = _shared(head, modality, script)
    except UnicodeEncodeError:
        script = replace(script, unicode=True)
        own, used = content(script)
        shared = _shared(head, modality, script) | elements(SpecificCharacterSet=UNICODE)
    uid = head.sop_instance_uid
    marks = elements(SOPClassUID=sop_class_uid, SOPInstanceUID=uid)
    whole = _identity(head.source, script) | shared | marks | declared(used) | own
    if pixels:
        whole[tag_of("PixelData")] = native(len(pixels))
    return Built(
        kind=kind,
        sop_class_uid=sop_class_uid,
        sop_instance_uid=uid,
        series_instance_uid=head.series_instance_uid,
        head=part10(whole, sop_class_uid=sop_class_uid, sop_instance_uid=uid, transfer_syntax_uid=transfer_syntax_uid),
        pixels=pixels,
        ordinal=head.ordinal,
    )


def series_description(order: Order) -> str:
    """What a worklist shows: the pipeline, its version and, until its card says otherwise, RESEARCH; at most 64."""
    ending = " RESEARCH" if order.research else ""
    return f"AI {order.pipeline} {order.findings.algorithm.version}"[: 64 - len(ending)] + ending


def series_number(order: Order) -> int:
    """A number of its own for each series of a result set: the order's, one higher for each before it."""
    return order.series_number + len({built.series_instance_uid for built in order.companions})


def device(algorithm: Algorithm) -> str:
    """The Device UID of this model version."""
    return device_uid(pipeline=algorithm.name, version=algorithm.version, weights=algorithm.weights_digest or "none")


def clock(order: Order) -> datetime:
    """When the findings were made, in the zone that the objects' dates and times are in."""
    return zoned(order.made_at, order.source.header)


def zoned(made_at: datetime, source: Dataset) -> datetime:
    """A moment in the zone that the object's dates and times are in.

    That is the source's zone where the source declares one, since the study's date and time are copied as they
    stand and one TimezoneOffsetFromUTC speaks for all of them; else it is the configured one.
    """
    declared_offset = str(source.get("TimezoneOffsetFromUTC") or "").strip()
    if not OFFSET.fullmatch(declared_offset):
        return made_at
    minutes = int(declared_offset[1:3]) * 60 + int(declared_offset[3:])
    return made_at.astimezone(timezone(timedelta(minutes=-minutes if declared_offset[0] == "-" else minutes)))


def declared(used: Iterable[Code]) -> Elements:
    """CodingSchemeIdentificationSequence for the own terms among these codes; nothing when there are none."""
    own = codes.own(used)
    if not own:
        return {}
    meanings = " ".join(f"{term.code.value}: {term.definition}." for term in own)
    return elements(
        CodingSchemeIdentificationSequence=[
            elements(
                CodingSchemeDesignator=codes.OWN,
                CodingSchemeName=f"Isocenter codes. {meanings}"[:1024],
                CodingSchemeResponsibleOrganization=MANUFACTURER,
            )
        ]
    )


def _shared(head: Letterhead, modality: str, text: Text) -> Elements:
    now, algorithm = zoned(head.made_at, head.source), head.algorithm
    date, time = now.strftime("%Y%m%d"), now.strftime("%H%M%S.%f")
    equipment: dict[str, str] = {
        "Manufacturer": MANUFACTURER,
        "ManufacturerModelName": algorithm.name,
        "SoftwareVersions": algorithm.version,
        "DeviceUID": device(algorithm),
    }
    return elements(
        text,
        **equipment,
        DeviceSerialNumber=device(algorithm),
        InstanceCreationDate=date,
        InstanceCreationTime=time,
        SeriesDate=date,
        SeriesTime=time,
        ContentDate=date,
        ContentTime=time,
        TimezoneOffsetFromUTC=now.strftime("%z")[:5],
        Modality=modality,
        SeriesInstanceUID=head.series_instance_uid,
        SeriesNumber=head.series_number,
        SeriesDescription=head.series_description,
        InstanceNumber=head.ordinal + 1,
        ContentQualification="RESEARCH" if head.research else "PRODUCT",
        ContributingEquipmentSequence=[
            elements(
                text,
                **equipment,
                PurposeOfReferenceCodeSequence=[code(codes.find("processing_equipment"))],
                ContributionDateTime=now.strftime("%Y%m%d%H%M%S.%f%z")[:26],
                ContributionDescription=head.contribution,
            )
        ],
    )


def copied_keywords(source: Dataset) -> tuple[str, ...]:
    """What results copy from this source: all of IDENTITY and the request, less what is malformed and dispensable."""
    left_out = {
        keyword
        for keyword, form in WELL_FORMED.items()
        if keyword in source and not form.fullmatch(as_read(source.get_item(tag_of(keyword)), ()).rstrip(b" \0"))
    }
    return tuple(keyword for keyword in (*IDENTITY, REQUEST) if keyword not in left_out)


def _identity(source: Dataset, script: Script) -> Elements:
    keywords = (*copied_keywords(source), *(() if script.unicode else ("SpecificCharacterSet",)))
    copies = script.copied(source, keywords)
    empty = {tag_of(keyword): element(keyword, None) for keyword in ALWAYS}
    # an empty optional attribute says nothing, and where it is Type 1C it would be an error of ours
    return empty | {tag: copy for tag, copy in copies.items() if len(copy) > len(element(keyword_for_tag(tag), None))}
