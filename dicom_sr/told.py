"""Any SEG, SR or Parametric Map in words: rows of segments, lines of a content tree, the range of what is mapped.

Headers by others are read as they are.

No patient text is among them: what is shown of an object is what it found, not whose it is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

from dicom_sr.checks import masks
from dicom_sr.checks.fault import code_of, items, numbers, text
from dicom_sr.checks.seen import VALUES, Item, Seen
from dicom_sr.readback import number_of, numbers_of, stored

COLUMNS = ("number", "label", "type", "side", "category", "algorithm", "frames", "pixels", "ml", "tracking_uid")
"""What a row says of a segment: `pixels` inside it, `ml` their volume where the spacings are known."""


MAPPED = ("label", "quantity", "unit", "frames", "minimum", "maximum", "mean")
"""What a row says of a mapping of a Parametric Map, in its unit."""


@dataclass(frozen=True, slots=True)
class Line:
    """One content item: how deep it stands, what it is called, what it says."""

    depth: int
    name: str
    value: str


def title(dataset: Dataset) -> str:
    """One line on what the object is and who made it."""
    maker = " ".join(filter(None, (text(dataset, "Manufacturer"), text(dataset, "ManufacturerModelName"))))
    kind = text(dataset, "SegmentationType") or text(dataset, "Modality")
    flags = [text(dataset, name) for name in ("CompletionFlag", "VerificationFlag", "ContentQualification")]
    size = f"{dataset.get('NumberOfFrames')} frames of {dataset.get('Rows')} x {dataset.get('Columns')}"
    parts = [kind, text(dataset, "SeriesDescription"), maker, *flags, size if "NumberOfFrames" in dataset else ""]
    return ", ".join(part for part in parts if part)


def segments(dataset: Dataset) -> list[dict[str, Any]]:
    """A row for each segment, with the columns of COLUMNS."""
    seen = Seen(dataset, "SEG", dataset.get("PixelData") or b"")
    counted, frames = counts(seen)
    ml = voxel_ml(seen)
    rows = []
    for item in items(dataset, "SegmentSequence"):
        number = int(item.get("SegmentNumber") or 0)
        types = items(item, "SegmentedPropertyTypeCodeSequence")
        side = code_of(types[0], "SegmentedPropertyTypeModifierCodeSequence") if types else None
        category = code_of(item, "SegmentedPropertyCategoryCodeSequence")
        pixels = counted.get(number, 0)
        rows.append(
            {
                "number": number,
                "label": text(item, "SegmentLabel"),
                "type": text(types[0], "CodeMeaning") if types else "",
                "side": side.meaning if side else "",
                "category": category.meaning if category else "",
                "algorithm": text(item, "SegmentAlgorithmName") or text(item, "SegmentAlgorithmType").lower(),
                "frames": frames.get(number, 0),
                "pixels": pixels,
                "ml": None if ml is None else float(f"{pixels * ml:.4g}"),
                "tracking_uid": text(item, "TrackingUID"),
            }
        )
    return rows


def counts(seen: Seen) -> tuple[dict[int, int], dict[int, int]]:
    """Pixels and frames of each segment; of a FRACTIONAL one those that are more likely in than out.

    Raises:  NotOnItsSource, for pixels that are shorter than the header says
    """
    pixels: dict[int, int] = {}
    frames: dict[int, int] = {}
    by_value = text(seen.dataset, "SegmentationType") == "LABELMAP"
    numbered = [int(item.get("SegmentNumber") or 0) for item in items(seen.dataset, "SegmentSequence")]
    values = stored(seen)
    for index, plane in enumerate(values):
        if by_value:
            present = {number: int((plane == number).sum()) for number in numbered}
        else:
            own = number_of(seen, index, len(values)) or 0
            present = {own: int((plane > 0).sum())}
        for number, count in present.items():
            pixels[number] = pixels.get(number, 0) + count
            frames[number] = frames.get(number, 0) + (count > 0)
    return pixels, frames


def voxel_ml(seen: Seen) -> float | None:
    """Volume of one voxel by the object's own spacings, None where it does not say them."""
    groups = seen.for_all
    measures = [part for group in groups for part in items(group.dataset, "PixelMeasuresSequence")]
    spacing = numbers(measures[0], "PixelSpacing") if measures else ()
    depth = numbers(measures[0], "SpacingBetweenSlices") or numbers(measures[0], "SliceThickness") if measures else ()
    if len(spacing) != 2 or len(depth) != 1 or masks.shape(seen)[0] == 0:
        return None
    return spacing[0] * spacing[1] * depth[0] / 1000


def mappings(dataset: Dataset) -> list[dict[str, Any]]:
    """A row for each real world value mapping that all frames share or the first has, with the columns of MAPPED.

    Raises:  NotOnItsSource, for pixels that are shorter than the header says
    """
    seen, stored = Seen(dataset, "map"), numbers_of(dataset)
    rows = []
    for mapping in (part for group in seen.for_all for part in items(group.dataset, "RealWorldValueMappingSequence")):
        slope, intercept = numbers(mapping, "RealWorldValueSlope"), numbers(mapping, "RealWorldValueIntercept")
        values = stored * (slope or (1.0,))[0] + (intercept or (0.0,))[0]
        defined = [code_of(one, "ConceptCodeSequence") for one in items(mapping, "QuantityDefinitionSequence")]
        unit = code_of(mapping, "MeasurementUnitsCodeSequence")
        rows.append(
            {
                "label": text(mapping, "LUTExplanation") or text(mapping, "LUTLabel"),
                "quantity": ", ".join(one.meaning for one in defined if one),
                "unit": unit.value if unit else "",
                "frames": len(stored),
                "minimum": float(f"{values.min():.6g}"),
                "maximum": float(f"{values.max():.6g}"),
                "mean": float(f"{values.mean():.6g}"),
            }
        )
    return rows


def content(dataset: Dataset) -> Iterator[Line]:
    """The content tree of a report, line by line."""
    for child in Seen(dataset, "SR").root.children:
        yield from _lines(child, 0)


def _lines(item: Item, depth: int) -> Iterator[Line]:
    name = item.name.meaning if item.name else item.value_type.lower()
    yield Line(depth, name, _value(item))
    for child in item.children:
        yield from _lines(child, depth + 1)


def _value(item: Item) -> str:
    dataset = item.dataset
    if item.value_type == "CONTAINER":
        templates = [text(part, "TemplateIdentifier") for part in items(dataset, "ContentTemplateSequence")]
        return f"TID {templates[0]}" if templates else ""
    if item.value_type == "NUM":
        measured = next(iter(items(dataset, "MeasuredValueSequence")), None)
        if measured is None:
            reason = code_of(dataset, "NumericValueQualifierCodeSequence")
            return f"no value ({reason.meaning if reason else 'no reason given'})"
        unit = code_of(measured, "MeasurementUnitsCodeSequence")
        return f"{text(measured, 'NumericValue')} {unit.value if unit else ''}".strip()
    if item.value_type in ("IMAGE", "COMPOSITE", "WAVEFORM"):
        return "; ".join(_reference(part) for part in items(dataset, "ReferencedSOPSequence"))
    if item.value_type in ("SCOORD", "SCOORD3D"):
        each = 3 if item.value_type == "SCOORD3D" else 2
        data = numbers(dataset, "GraphicData")
        first = ", ".join(f"{value:g}" for value in data[:each])
        return f"{text(dataset, 'GraphicType').lower()} of {len(data) // each} points from ({first})"
    if item.value_type == "PNAME":
        return "(a person)"
    return item.words_of if item.value_type in VALUES else ""


def _reference(part: Dataset) -> str:
    words = [text(part, "ReferencedSOPInstanceUID")]
    for keyword, what in (("ReferencedSegmentNumber", "segment"), ("ReferencedFrameNumber", "frame")):
        if numbers(part, keyword):
            words.append(f"{what} {', '.join(f'{number:g}' for number in numbers(part, keyword))}")
    return " ".join(words)
