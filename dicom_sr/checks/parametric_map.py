"""A Parametric Map: finite floats with a coded quantity and unit, on its source, and value for value the map found.

Source:  PS3.3 A.75, C.8.32.2, C.7.6.16.2.11, C.7.6.24
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ParametricMapStorage

from dicom_sr.checks import frames
from dicom_sr.checks.attributes import missing
from dicom_sr.checks.fault import Fault, code_of, every, expect, items, numbers, same, text
from dicom_sr.checks.masks import shape
from dicom_sr.checks.seen import Around, Seen
from dicom_sr.kinds import Order
from dicom_sr.nouns import ParametricMap
from dicom_sr.source import SourceSeries

SOP_CLASSES = frozenset({str(ParametricMapStorage)})
TYPE_1 = ("ImageType", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns",
          "BitsAllocated", "ContentLabel", "BurnedInAnnotation", "LossyImageCompression", "PresentationLUTShape",
          "DimensionOrganizationSequence", "DimensionIndexSequence", "SharedFunctionalGroupsSequence",
          "PerFrameFunctionalGroupsSequence", "FrameOfReferenceUID")  # fmt: skip
TYPE_2 = ("ContentDescription", "PositionReferenceIndicator")

MAPPING_1 = ("LUTExplanation", "LUTLabel", "MeasurementUnitsCodeSequence")

PIXELS = {"FloatPixelData": "<f4", "DoubleFloatPixelData": "<f8", "PixelData": "<u2"}
"""Where the values are, and their types."""


def alone(seen: Seen) -> Iterator[Fault]:
    """What must hold of a map alone."""
    dataset, place = seen.dataset, seen.place
    held = [keyword for keyword in PIXELS if keyword in dataset or (keyword == "PixelData" and seen.pixels)]
    yield from expect(place, "FloatPixelData", len(held), 1)
    yield from expect(place, "SamplesPerPixel", dataset.get("SamplesPerPixel"), 1)
    yield from expect(place, "PhotometricInterpretation", text(dataset, "PhotometricInterpretation"), "MONOCHROME2")
    yield from frames.dimensions(seen)
    mappings = [part for group in seen.for_all for part in items(group.dataset, "RealWorldValueMappingSequence")]
    if not mappings:
        yield Fault(f"{place}.RealWorldValueMappingSequence", "is missing")
    for mapping in mappings:
        where = f"{place}.RealWorldValueMappingSequence"
        yield from missing(mapping, MAPPING_1, (), where)
        for quantity_place, quantity in every(mapping, "QuantityDefinitionSequence", where):
            if not code_of(quantity, "ConceptNameCodeSequence"):
                yield Fault(quantity_place, "has no name")
    if len(held) == 1 and held != ["PixelData"]:
        yield from _floats(seen, held[0], mappings)


def _floats(seen: Seen, keyword: str, mappings: Sequence[Dataset]) -> Iterator[Fault]:
    """As many as the frames need, all of them numbers, none outside what is said to be mapped."""
    where, width = f"{seen.place}.{keyword}", int(PIXELS[keyword][2:])
    found, wanted = len(seen.dataset.get(keyword) or b""), int(np.prod(shape(seen))) * width
    yield from expect(seen.place, "BitsAllocated", seen.dataset.get("BitsAllocated"), 8 * width)
    if found != wanted:
        yield Fault(where, f"has {found} bytes, {wanted} are needed")
        return
    values = stored(seen, keyword)
    if not np.isfinite(values).all():
        yield Fault(where, "holds what is no number")
        return
    for mapping in mappings:
        first = numbers(mapping, "DoubleFloatRealWorldValueFirstValueMapped")
        last = numbers(mapping, "DoubleFloatRealWorldValueLastValueMapped")
        if seen.ours and not (first and last and first[0] <= values.min() and values.max() <= last[0]):
            yield Fault(f"{seen.place}.RealWorldValueMappingSequence", "does not map all values")


def stored(seen: Seen, keyword: str) -> NDArray[np.floating]:
    """Values of all frames, shape (frame, row, column)."""
    values: NDArray[np.floating] = np.frombuffer(seen.dataset.get(keyword), PIXELS[keyword]).reshape(shape(seen))
    return values


def beside(seen: Seen, around: Around) -> Iterator[Fault]:
    """What must hold of it beside its source; with an order, that it is the map that was found."""
    source, order = around.source, around.order
    if source is None:
        return
    dataset, place = seen.dataset, seen.place
    if source.frame_of_reference_uid:
        found = text(dataset, "FrameOfReferenceUID")
        yield from expect(place, "FrameOfReferenceUID", found, source.frame_of_reference_uid)
    yield from frames.references(dataset, source, place, whole=order is not None)
    faults = [*frames.grid(seen, source)]
    if order is not None or not frames.another_grid(seen, source):
        yield from expect(place, "Rows", dataset.get("Rows"), source.shape[1])
        yield from expect(place, "Columns", dataset.get("Columns"), source.shape[2])
        yield from faults
    if faults or (dataset.get("Rows"), dataset.get("Columns")) != source.shape[1:]:
        return
    planes = frames.planes_of(seen, source)
    yield from frames.derivations(seen, source, planes, whole=order is not None)
    if order is not None:
        yield from _as_found(seen, planes, source, order)


def _as_found(seen: Seen, planes: Sequence[int | None], source: SourceSeries, order: Order) -> Iterator[Fault]:
    """Its values are those of the map that it stands for: the one at its place among those that are not all zero."""
    place, told = seen.place, [one for one in order.findings.maps if one.values.any()]
    ordinal = int(seen.dataset.get("InstanceNumber") or 0) - 1
    if not 0 <= ordinal < len(told):
        yield Fault(f"{place}.InstanceNumber", f"is that of no map; {len(told)} were found")
        return
    wanted = told[ordinal]
    yield from _coded(seen, wanted)
    if len(seen.dataset.get("FloatPixelData") or b"") != 4 * int(np.prod(shape(seen))) or len(planes) != shape(seen)[0]:
        return
    values = stored(seen, "FloatPixelData")
    by_plane = {plane: values[frame] for frame, plane in enumerate(planes)}
    for plane in range(source.shape[0]):
        wrong = int(np.count_nonzero(by_plane.get(plane, np.float32(0)) != wanted.values[plane]))
        if wrong:
            yield Fault(f"{place}.FloatPixelData", f"{wrong} values in plane {plane} are not as found")


def _coded(seen: Seen, wanted: ParametricMap) -> Iterator[Fault]:
    for group in seen.shared:
        for mapping in items(group.dataset, "RealWorldValueMappingSequence"):
            where = f"{seen.place}.RealWorldValueMappingSequence"
            yield from expect(where, "LUTExplanation", text(mapping, "LUTExplanation"), wanted.label[:64])
            quantities = items(mapping, "QuantityDefinitionSequence")
            coded = code_of(quantities[0], "ConceptCodeSequence") if quantities else None
            if not same(coded, wanted.quantity):
                yield Fault(f"{where}.QuantityDefinitionSequence", f"is not {wanted.quantity.meaning!r}")
            if not same(code_of(mapping, "MeasurementUnitsCodeSequence"), wanted.unit):
                yield Fault(f"{where}.MeasurementUnitsCodeSequence", f"is not {wanted.unit.meaning!r}")
            slope = numbers(mapping, "RealWorldValueSlope"), numbers(mapping, "RealWorldValueIntercept")
            yield from expect(where, "RealWorldValueSlope", slope, ((1.0,), (0.0,)))
