"""A SEG read back as findings on its source: for pictures of objects that came from anywhere.

Frames are placed by their own position and orientation, never by what they claim to be derived from.
"""

import numpy as np
from pydicom.dataset import Dataset

from dicom_sr.checks.fault import code_of, items, numbers, text
from dicom_sr.checks.segmentation import frames
from dicom_sr.nouns import Algorithm, Code, Findings, LabelMap, Segment
from dicom_sr.problem import Problem
from dicom_sr.source import SourceSeries

UNCODED = Code(value="unknown", scheme="99UNKNOWN", meaning="Unknown")
GREY = (160, 160, 160)


class NotOnItsSource(Problem):
    """A SEG does not lie on the grid of the series that it is to be shown on."""


def findings(dataset: Dataset, source: SourceSeries) -> Findings:
    """The segments of a BINARY SEG as a label map on the source's grid; where two overlap, the later one shows.

    Raises:  NotOnItsSource
    """
    if text(dataset, "SegmentationType") != "BINARY" or (dataset.Rows, dataset.Columns) != source.shape[1:]:
        raise NotOnItsSource(
            f"SEG {dataset.SOPInstanceUID} is {text(dataset, 'SegmentationType')}, {dataset.Rows} x {dataset.Columns}; "
            f"its source has planes of {source.shape[1]} x {source.shape[2]}",
            remedy="Give the series that it was made from",
        )
    labels: LabelMap = np.zeros(source.shape, np.uint8)
    for frame in frames(dataset, source, "SEG"):
        if frame.plane is None:
            raise NotOnItsSource(f"{frame.place} lies on no plane of the source", remedy="Give its own source series")
        labels[frame.plane][frame.mask] = frame.number
    present = {int(number) for number in np.unique(labels) if number}
    described = [item for item in items(dataset, "SegmentSequence") if int(item.SegmentNumber) in present]
    renumbered = np.zeros(256, np.uint8)
    for number, item in enumerate(described, start=1):
        renumbered[int(item.SegmentNumber)] = number
    return Findings(
        algorithm=Algorithm(
            name=text(dataset, "SeriesDescription") or text(dataset, "ManufacturerModelName") or "segmentation",
            version=text(dataset, "SoftwareVersions"),
        ),
        labels=renumbered[labels],
        segments=tuple(segment(item, number) for number, item in enumerate(described, start=1)),
    )


def segment(item: Dataset, number: int) -> Segment:
    """One item of the Segment Sequence under another number (PS3.3 C.8.20.4)."""
    colour = numbers(item, "RecommendedDisplayCIELabValue")
    return Segment(
        number=number,
        label=text(item, "SegmentLabel"),
        category=code_of(item, "SegmentedPropertyCategoryCodeSequence") or UNCODED,
        type=code_of(item, "SegmentedPropertyTypeCodeSequence") or UNCODED,
        rgb=srgb(colour) if len(colour) == 3 else GREY,
    )


def srgb(scaled: tuple[float, ...]) -> tuple[int, int, int]:
    """DICOM's scaled CIELab under D50 as an sRGB colour.  Source: PS3.3 C.10.7.1.1"""
    from highdicom.color import CIELabColor  # a second to import, and only pictures of foreign objects need it

    red, green, blue = CIELabColor.from_dicom_value([round(value) for value in scaled]).to_rgb()
    return int(red), int(green), int(blue)
