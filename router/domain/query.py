"""What may be asked of the node and how: the information models, their levels and keys, and the hierarchical rule.

Pure values; reading an identifier's bytes and answering are `router.query`'s, the statements `router.db.catalogue`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import cached_property

from dicom_sr.problem import Problem
from router.domain.matching import AnyOf, Exactly, Match


class IdentifierDoesNotMatch(Problem):
    """A request's identifier is not what its SOP class allows (PS3.4 C.4.1.1.4: A900). Its text names no patient."""


class Level(IntEnum):
    """QueryRetrieveLevel, the lowest number at the top."""

    PATIENT = 0
    STUDY = 1
    SERIES = 2
    IMAGE = 3


class Root(StrEnum):
    """Information models."""

    PATIENT = "patient"
    STUDY = "study"

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels of this model; in Study Root the patient's keys belong to the study."""
        return tuple(Level) if self is Root.PATIENT else tuple(Level)[1:]


UNIQUE: Mapping[Level, str] = {
    Level.PATIENT: "PatientID",
    Level.STUDY: "StudyInstanceUID",
    Level.SERIES: "SeriesInstanceUID",
    Level.IMAGE: "SOPInstanceUID",
}
"""The unique key of each level. Ours are wider: (issuer, PatientID) and (study, series)."""


class Kind(StrEnum):
    """Where a key's value comes from: a column, a sum or set over what lies below, or the facts of a header."""

    COLUMN = "column"
    COUNT = "count"
    SET = "set"
    FACT = "fact"


@dataclass(frozen=True, slots=True)
class Key:
    """One attribute that the index knows."""

    level: Level
    vr: str
    kind: Kind


def _keys(level: Level, kind: Kind, **keywords: str) -> dict[str, Key]:
    return {keyword: Key(level, vr, kind) for vr, names in keywords.items() for keyword in names.split()}


KEYS: Mapping[str, Key] = {
    **_keys(
        Level.PATIENT,
        Kind.COLUMN,
        PN="PatientName",
        LO="PatientID IssuerOfPatientID",
        DA="PatientBirthDate",
        CS="PatientSex",
    ),
    **_keys(
        Level.PATIENT,
        Kind.COUNT,
        IS="NumberOfPatientRelatedStudies NumberOfPatientRelatedSeries NumberOfPatientRelatedInstances",
    ),
    **_keys(
        Level.STUDY,
        Kind.COLUMN,
        UI="StudyInstanceUID",
        DA="StudyDate",
        TM="StudyTime",
        SH="AccessionNumber StudyID",
        LO="StudyDescription",
        PN="ReferringPhysicianName",
    ),
    **_keys(Level.STUDY, Kind.COUNT, IS="NumberOfStudyRelatedSeries NumberOfStudyRelatedInstances"),
    **_keys(Level.STUDY, Kind.SET, CS="ModalitiesInStudy", UI="SOPClassesInStudy"),
    **_keys(
        Level.STUDY,
        Kind.FACT,
        AS="PatientAge",
        LO="PatientSpeciesDescription",
        SQ="ProcedureCodeSequence",
    ),
    **_keys(
        Level.SERIES,
        Kind.COLUMN,
        UI="SeriesInstanceUID",
        CS="Modality BodyPartExamined",
        IS="SeriesNumber",
        LO="SeriesDescription",
    ),
    **_keys(Level.SERIES, Kind.COUNT, IS="NumberOfSeriesRelatedInstances"),
    **_keys(
        Level.SERIES,
        Kind.FACT,
        DA="SeriesDate",
        TM="SeriesTime",
        LO="Manufacturer ManufacturerModelName InstitutionName InstitutionalDepartmentName ProtocolName "
        "RequestedProcedureDescription",
        SH="StationName",
        CS="Laterality PatientPosition",
        UI="FrameOfReferenceUID",
        SQ="RequestAttributesSequence AnatomicRegionSequence",
    ),
    **_keys(Level.IMAGE, Kind.COLUMN, UI="SOPInstanceUID SOPClassUID", IS="InstanceNumber"),
    **_keys(
        Level.IMAGE,
        Kind.FACT,
        CS="ImageType PresentationIntentType PhotometricInterpretation ImageLaterality ViewPosition "
        "LossyImageCompression BurnedInAnnotation",
        DA="AcquisitionDate ContentDate InstanceCreationDate",
        TM="AcquisitionTime ContentTime InstanceCreationTime",
        DT="AcquisitionDateTime",
        IS="AcquisitionNumber NumberOfFrames",
        US="Rows Columns SamplesPerPixel BitsAllocated BitsStored PixelRepresentation",
        DS="SliceThickness SliceLocation SpacingBetweenSlices ImagePositionPatient ImageOrientationPatient "
        "PixelSpacing RescaleIntercept RescaleSlope EchoTime RepetitionTime KVP",
        SH="ConvolutionKernel",
        LT="ImageComments",
        LO="ContrastBolusAgent",
    ),
}
"""Every key that is answered; facts as far as the door records them."""

ABOUT_THE_ANSWER = frozenset(
    {"QueryRetrieveLevel", "RetrieveAETitle", "InstanceAvailability", "SpecificCharacterSet", "TimezoneOffsetFromUTC"}
)
"""Attributes that are never matched: they speak of the answer, not of what is found."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """A request, understood: every condition must hold.

    `wanted` are the keys to return, in the order asked; for a sequence the keys of its items stand beside it.
    `unsupported` are those among them that the index does not have at this level. The request's text is never shown.
    """

    root: Root
    level: Level
    conditions: Mapping[str, Match]
    wanted: Mapping[str, tuple[str, ...]]
    unsupported: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"Query({self.root}, {self.level.name}, keys {sorted(self.conditions)})"

    @cached_property
    def facts(self) -> dict[str, Match]:
        """Conditions on what only headers say."""
        return {name: match for name, match in self.conditions.items() if KEYS[name].kind is Kind.FACT}

    def asks(self, *kinds: Kind) -> bool:
        """Whether a key of one of these kinds is to be returned."""
        return any(KEYS[name].kind in kinds for name in self.wanted if name in KEYS and name not in self.unsupported)


def single(match: Match | None) -> bool:
    """Whether this asks for exactly one value."""
    return isinstance(match, Exactly) and bool(match.value)


def listed(match: Match | None) -> bool:
    """Whether this asks for one value or a list of values."""
    return single(match) or (isinstance(match, AnyOf) and all(map(single, match.matches)))


def check_search(query: Query, *, relational: bool) -> None:
    """Whether the hierarchical search method allows this C-FIND.

    Raises:  IdentifierDoesNotMatch
    Source:  PS3.4 C.4.1.3.1.1 (Hierarchical Search), C.4.1.2.2.1 (relational-queries)
    """
    _check_level(query)
    if relational:
        return
    for level in query.root.levels:
        if level < query.level and not single(query.conditions.get(UNIQUE[level])):
            raise IdentifierDoesNotMatch(
                f"{UNIQUE[level]} must be a single value at {query.level.name} level",
                remedy="Send it, or negotiate relational queries",
            )


def check_retrieval(query: Query, *, relational: bool) -> None:
    """Whether this C-MOVE or C-GET names what it wants: one entity of each level above, a list at its own.

    Raises:  IdentifierDoesNotMatch
    Source:  PS3.4 C.4.2.2.1, C.4.3.2.1 (baseline behaviour), C.4.2.2.2 (relational-retrieve)
    """
    _check_level(query)
    wanted = UNIQUE[query.level]
    if not listed(query.conditions.get(wanted)) or (
        query.level is Level.PATIENT and not single(query.conditions.get(wanted))
    ):
        raise IdentifierDoesNotMatch(
            f"{wanted} must name what is wanted at {query.level.name} level", remedy="Send it without wild cards"
        )
    above = [level for level in query.root.levels if level < query.level]
    for level in above:
        match = query.conditions.get(UNIQUE[level])
        if not (single(match) or (relational and match is None)):
            raise IdentifierDoesNotMatch(
                f"{UNIQUE[level]} must be a single value at {query.level.name} level",
                remedy="Send it, or negotiate relational retrieval",
            )


def _check_level(query: Query) -> None:
    if query.level not in query.root.levels:
        raise IdentifierDoesNotMatch(
            f"{query.root.value} root has no level {query.level.name}", remedy="Use the Patient Root model"
        )
