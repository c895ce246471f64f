"""What a series is, before any rule sees it: its kind, plane, spacing and whatever else no single attribute says.

Names of derived facts are in lower case, so that they never collide with a DICOM keyword.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import pairwise
from statistics import median
from typing import Any

from router.domain import body_part
from router.domain.body_part import Detected
from router.domain.facts import Fact, Facts, Header, Scalar, aggregate, derived, number

Vector = tuple[float, float, float]


class SeriesKind(StrEnum):
    """What the images of a series are, as the fact `kind` says it."""

    AXIAL_VOLUME = "axial volume"
    VOLUME = "volume"
    FEW_IMAGES = "few images"
    DERIVED_REFORMAT = "derived reformat"
    DERIVED_MAP = "derived map"
    LOCALIZER = "localizer"
    DOSE_REPORT = "dose report"
    SCREEN_CAPTURE = "screen capture"
    PROJECTION = "projection"
    RESULT_OF_AI = "result of an AI"
    DOCUMENT = "document"
    OTHER = "other"


DERIVED_FACTS: dict[str, type[Scalar]] = {
    "kind": str,
    "plane": str,
    "instances": int,
    "frames": int,
    "positions": int,
    "slice_spacing": float,
    "slice_gaps": int,
    "gantry_tilt": float,
    "kernel": str,
    "contrast": bool,
    "acquisitions": int,
    "laterality": str,
    "patient_age": float,
    "body_part": str,
    "detected.body_part": str,
    "detected.confidence": float,
    "body_part_conflict": bool,
    "algorithm": str,
    "sop_class": str,
    "calling_ae_title": str,
}
"""Names that rules may use beside DICOM keywords, with the type of their values."""

DOCUMENTS = frozenset({"SEG", "SR", "PR", "KO", "DOC", "RTSTRUCT"})
"""Modalities that describe other objects; a rule matches them only when it names them."""

PROJECTIONS = frozenset({"CR", "DX", "MG", "RG", "PX", "IO", "XA", "RF"})
SLICES = frozenset({"CT", "MR", "PT", "NM"})
REFORMATS = frozenset(
    {"MPR", "CSA MPR", "REFORMATTED", "RESAMPLED", "PROJECTION IMAGE", "MIP", "MAX_IP", "MIN_IP", "MINIP",
     "VOLUME RENDERING", "VRT", "CURVED", "CPR", "3D", "3D RENDERING", "MAXIMUM"}
)  # fmt: skip
MAPS = frozenset({"ADC", "FA", "TRACEW", "CBF", "CBV", "MTT", "TTP", "TMAX", "SUBTRACTION"})
SCOUTS = ("SCOUT", "TOPOGRAM", "LOCALIZER", "SURVIEW", "SCANOGRAM", "LOCALISER", "SCANO")
DOSE_WORDS = ("DOSE REPORT", "DOSE INFO", "DOSE SUMMARY", "PATIENT PROTOCOL", "DOSE RECORD", "DOSISBERICHT")

FEWEST_SLICES = 4
"""A volume has at least so many slice positions."""

GAP = 1.5
"""A step longer than this many usual steps is a gap."""


def describe(
    headers: Sequence[Header],
    *,
    given: Mapping[str, Scalar | None] | None = None,
    maker: Fact | None = None,
    look: Callable[[Facts], Sequence[Detected]] = lambda facts: (),
) -> dict[str, Fact]:
    """All facts of one series: what its instances say together, and what follows from it.

    `given` are facts that no header holds (calling AE title, name of the SOP class), `maker` is the algorithm that made
    the series, where one did (`router.domain.algorithm`); `look` tells from the facts so far, `kind` among them, what
    part of the body the pixels show.
    """
    facts = aggregate(headers)
    facts |= {} if maker is None else {maker.keyword: maker}
    facts |= {name: derived(name, value, "the node") for name, value in (given or {}).items() if value is not None}
    planes = [plane for header in headers for plane in _planes(header)]
    facts |= _geometry(planes)
    facts |= {
        fact.keyword: fact
        for fact in (
            derived("instances", len(headers), "counted"),
            derived(
                "frames", sum(max(1, int(number(one.get("NumberOfFrames") or 1) or 1)) for one in headers), "counted"
            ),
            derived("acquisitions", _count(facts, "AcquisitionUID", "AcquisitionNumber"), "counted"),
            derived("gantry_tilt", _largest(facts.get("GantryDetectorTilt")), "GantryDetectorTilt"),
            derived("kernel", sharpness(_text(facts, "ConvolutionKernel")), "ConvolutionKernel"),
            derived("contrast", _contrast(facts), "ContrastBolusAgent"),
            derived("laterality", _values(facts, "ImageLaterality", "FrameLaterality", "Laterality"), "laterality"),
            derived("patient_age", _age(_text(facts, "PatientAge")), "PatientAge"),
        )
        if fact.values
    }
    facts["kind"] = derived("kind", kind_of(facts), "worked out")
    return facts | _regions(facts, look(facts))


def kind_of(facts: Facts) -> SeriesKind:
    """What the images of this series are; `plane` and `positions` are among the facts already."""
    modality, image_type = _text(facts, "Modality"), {value.upper() for value in _values(facts, "ImageType")}
    description, sop_class = _text(facts, "SeriesDescription").upper(), _text(facts, "sop_class")
    if "RadiationDose" in sop_class:
        return SeriesKind.DOSE_REPORT
    if "algorithm" in facts:
        return SeriesKind.RESULT_OF_AI
    if modality in DOCUMENTS:
        return SeriesKind.DOCUMENT
    if modality in PROJECTIONS:
        return SeriesKind.PROJECTION
    captured = "SecondaryCapture" in sop_class or any("SCREEN" in value for value in image_type)
    if any(word in description for word in DOSE_WORDS) and (captured or "SECONDARY" in image_type):
        return SeriesKind.DOSE_REPORT
    if image_type.intersection(SCOUTS) or (description.startswith(SCOUTS) and "AXIAL" not in image_type):
        return SeriesKind.LOCALIZER
    if captured:
        return SeriesKind.SCREEN_CAPTURE
    return _kind_of_slices(facts, image_type) if modality in SLICES else SeriesKind.OTHER


def _kind_of_slices(facts: Facts, image_type: set[str]) -> SeriesKind:
    if "DERIVED" in image_type and image_type & REFORMATS:
        return SeriesKind.DERIVED_REFORMAT
    if "DERIVED" in image_type and image_type & MAPS:
        return SeriesKind.DERIVED_MAP
    positions = facts.get("positions")
    if positions is None or (positions.highest or 0) < FEWEST_SLICES:
        return SeriesKind.FEW_IMAGES
    return SeriesKind.AXIAL_VOLUME if _text(facts, "plane") == "axial" else SeriesKind.VOLUME


def plane_of(normal: Vector) -> str:
    """Name of the plane with this unit normal: the patient axis within 30 degrees of it, else "oblique"."""
    names = ("sagittal", "coronal", "axial")
    axis = max(range(3), key=lambda index: abs(normal[index]))
    return names[axis] if abs(normal[axis]) >= math.cos(math.radians(30)) else "oblique"


def sharpness(kernel: str) -> str | None:
    """Whether a CT reconstruction kernel's name is one of a soft or a sharp one; None where it is unknown.

    Siemens numbers its kernels (B30f, Br40d, Bl57: 50 and above are sharp), Toshiba and Canon as FC01 (30 and above
    are bone and lung), GE and Philips name theirs.
    """
    name = kernel.strip().upper()
    digits = "".join(filter(str.isdigit, name))[:2]
    if name in {"LUNG", "BONE", "BONEPLUS", "EDGE", "ULTRA", "CHST", "L", "D", "E", "YB", "YC", "YD", "YE"}:
        return "sharp"
    if name in {"STANDARD", "SOFT", "DETAIL", "STND", "A", "B", "C", "YA", "SMOOTH"}:
        return "soft"
    if name.startswith("FC") and digits:
        return "sharp" if int(digits) >= 30 else "soft"
    if name[:1] in {"B", "I", "Q", "H", "U", "S"} and len(digits) == 2:
        return "sharp" if int(digits) >= 50 else "soft"
    return None


def _regions(facts: Facts, shown: Sequence[Detected]) -> dict[str, Fact]:
    """What part of the body the series covers, by its pixels and its texts and, beside them, by its tag."""
    found = body_part.combine(shown, body_part.detect(facts))
    both = body_part.reconcile(body_part.of_tag(_values(facts, "BodyPartExamined")), found)
    sure = max((one.confidence for one in found), default=None)
    origins = " and ".join(dict.fromkeys(one.origin for one in found))
    said = f"{origins}, confidence {sure:g}" if found else ""
    made = (
        derived("detected.body_part", [one.part for one in found], said),
        derived("detected.confidence", sure, origins),
        derived("body_part", both.parts, both.origin),
        derived("body_part_conflict", both.conflict, "BodyPartExamined and what was detected"),
    )
    return {fact.keyword: fact for fact in made if fact.values}


def _geometry(planes: list[tuple[Vector, float]]) -> dict[str, Fact]:
    """Plane, number of positions, spacing in mm and gaps, where the images have a place in the patient."""
    if not planes:
        return {}
    origin = "ImageOrientationPatient, ImagePositionPatient"
    names = list(dict.fromkeys(plane_of(normal) for normal, _ in planes))
    first = planes[0][0]
    parallel = all(sum(a * b for a, b in zip(first, normal, strict=True)) > 0.999 for normal, _ in planes)
    facts = {"plane": derived("plane", names[0] if len(names) == 1 else "mixed", origin)}
    places = sorted({round(place, 2) for _, place in planes})
    facts["positions"] = derived("positions", len(places), origin)
    if parallel and len(places) > 1:
        steps = [after - before for before, after in pairwise(places)]
        usual = median(steps)
        facts["slice_spacing"] = derived("slice_spacing", round(usual, 2), origin)
        facts["slice_gaps"] = derived("slice_gaps", sum(step > GAP * usual for step in steps), origin)
    return facts


def _planes(header: Header) -> Iterator[tuple[Vector, float]]:
    """Unit normal and place along it, in mm, of each plane of one instance (PS3.3 C.7.6.2.1.1, C.7.6.16.2)."""
    shared = _first(header.get("SharedFunctionalGroupsSequence"))
    frames = header.get("PerFrameFunctionalGroupsSequence")
    for group in frames if isinstance(frames, list) and frames else [{}]:
        orientation = (
            header.get("ImageOrientationPatient")
            or _first(group.get("PlaneOrientationSequence")).get("ImageOrientationPatient")
            or _first(shared.get("PlaneOrientationSequence")).get("ImageOrientationPatient")
        )
        position = header.get("ImagePositionPatient") or _first(group.get("PlanePositionSequence")).get(
            "ImagePositionPatient"
        )
        cosines, corner = _numbers(orientation, 6), _numbers(position, 3)
        if cosines is None or corner is None:
            continue
        normal = _normal(cosines)
        if normal is not None:
            yield normal, sum(a * b for a, b in zip(normal, corner, strict=True))


def _normal(cosines: Sequence[float]) -> Vector | None:
    a, b, c, d, e, f = cosines
    x, y, z = b * f - c * e, c * d - a * f, a * e - b * d
    length = math.sqrt(x * x + y * y + z * z)
    return (x / length, y / length, z / length) if length > 0.1 else None


def _numbers(value: Any, count: int) -> list[float] | None:
    if not isinstance(value, list | tuple) or len(value) != count:
        return None
    found = [number(one) for one in value if one is not None]
    kept = [one for one in found if one is not None]
    return kept if len(kept) == count else None


def _first(sequence: Any) -> Mapping[str, Any]:
    if isinstance(sequence, Mapping):
        return sequence
    return sequence[0] if isinstance(sequence, list) and sequence and isinstance(sequence[0], Mapping) else {}


def _text(facts: Facts, keyword: str) -> str:
    """The first value as text; empty where there is none."""
    fact = facts.get(keyword)
    return str(fact.values[0]) if fact is not None and fact.values else ""


def _values(facts: Facts, *keywords: str) -> list[str]:
    """All values of the first of these keywords that has one."""
    for keyword in keywords:
        if keyword in facts and facts[keyword].values:
            return [str(value) for value in facts[keyword].values]
    return []


def _count(facts: Facts, *keywords: str) -> int | None:
    return len(_values(facts, *keywords)) or None


def _largest(fact: Fact | None) -> float | None:
    if fact is None or fact.lowest is None or fact.highest is None:
        return None
    return max(abs(fact.lowest), abs(fact.highest))


def _contrast(facts: Facts) -> bool:
    return any(value.upper() not in {"NO", "NONE", "N", "WITHOUT"} for value in _values(facts, "ContrastBolusAgent"))


def _age(text: str) -> float | None:
    """Years from an Age String (PS3.5 6.2), such as 063Y or 006M."""
    per_year = {"Y": 1.0, "M": 12.0, "W": 365.25 / 7, "D": 365.25}
    count, unit = text[:-1], text[-1:]
    return round(int(count) / per_year[unit], 2) if unit in per_year and count.isdecimal() else None


def modalities(facts: Iterable[Facts]) -> set[str]:
    """Modalities of these series."""
    return {modality for one in facts for modality in _values(one, "Modality")}
