"""Result kind `parametric_map`: numbers at the voxels of the source, as 32 bit floats, an object a map.

A saliency, a probability: whatever quantity and unit the map has as codes. A frame is a slice on which the map is not
zero all over. UIDs of an order used here: "parametric_map" with 0, 1 ..., "parametric_map.series",
"parametric_map.dimension", "frame_of_reference" for a source without one.

Source:  PS3.3 A.75, C.8.32.2 (Parametric Map Image), C.7.6.24 (Floating Point Image Pixel), C.7.6.16.2.11 (Real World
Value Mapping)
"""

from pydicom.uid import ParametricMapStorage

from dicom_sr import codes
from dicom_sr.elements import Elements, code, elements, framed, tag_of
from dicom_sr.header import letterhead, on_letterhead
from dicom_sr.kinds import Built, Order
from dicom_sr.multiframe import dimensions, references
from dicom_sr.nouns import Code, ParametricMap
from dicom_sr.references import frame_of_reference
from dicom_sr.script import Script

KIND = "parametric_map"
FLAVOR = ("DERIVED", "PRIMARY", "VOLUME", "QUANTITY")


def build(order: Order) -> tuple[Built, ...]:
    """An object for each map that is not zero all over."""
    told = [one for one in order.findings.maps if one.values.any()]
    return tuple(_of(order, one, ordinal) for ordinal, one in enumerate(told))


def _of(order: Order, one: ParametricMap, ordinal: int) -> Built:
    planes = [plane for plane in reversed(range(len(one.values))) if one.values[plane].any()]
    pixels = b"".join(one.values[plane].astype("<f4").tobytes() for plane in planes)
    low, high = float(one.values[planes].min()), float(one.values[planes].max())

    def content(script: Script) -> tuple[Elements, list[Code]]:
        shared = elements(
            FrameVOILUTSequence=[_window(low, high)],
            PixelValueTransformationSequence=[elements(RescaleIntercept="0", RescaleSlope="1", RescaleType="US")],
            RealWorldValueMappingSequence=[_mapping(one, low, high, script)],
            ParametricMapFrameTypeSequence=[elements(FrameType=FLAVOR)],
        )
        own = _image(order, len(planes), one, script) | references(order.source)
        own |= dimensions(
            order,
            [(0, plane) for plane in planes],
            uid=order.uid(f"{KIND}.dimension", ordinal),
            several=False,
            by_value=True,
            derivation="inference",
            shared=shared,
        )
        used = [one.quantity, one.unit, codes.find("inference")]
        return own | {tag_of("FloatPixelData"): framed(tag_of("FloatPixelData"), "OF", pixels)}, used

    return on_letterhead(
        letterhead(order, KIND, ordinal=ordinal),
        kind=KIND,
        sop_class_uid=ParametricMapStorage,
        modality="OT",
        content=content,
    )


def _window(low: float, high: float) -> Elements:
    """From the lowest value to the highest; only LINEAR_EXACT may be narrower than 1 (PS3.3 C.11.2.1.3.2)."""
    width = max(high - low, 1e-6)
    return elements(WindowCenter=(low + high) / 2, WindowWidth=width, VOILUTFunction="LINEAR_EXACT")


def _mapping(one: ParametricMap, low: float, high: float, script: Script) -> Elements:
    """Values are what they are, from the lowest to the highest; quantity and unit are coded."""
    quantity = elements(
        ValueType="CODE",
        ConceptNameCodeSequence=[code(codes.find("quantity"), script)],
        ConceptCodeSequence=[code(one.quantity, script)],
    )
    return elements(
        script,
        RealWorldValueIntercept=0.0,
        RealWorldValueSlope=1.0,
        LUTExplanation=one.label[:64],
        LUTLabel=one.quantity.meaning[:16],
        MeasurementUnitsCodeSequence=[code(one.unit, script)],
        DoubleFloatRealWorldValueFirstValueMapped=low,
        DoubleFloatRealWorldValueLastValueMapped=high,
        QuantityDefinitionSequence=[quantity],
    )


def _image(order: Order, frames: int, one: ParametricMap, script: Script) -> Elements:
    """Parametric Map Image, Floating Point Image Pixel and Frame of Reference modules."""
    source = order.source
    lossy = script.copied(source.header, ("LossyImageCompressionRatio", "LossyImageCompressionMethod"))
    burned = "YES" if source.acquisition.burned_in else "NO"
    return (
        elements(
            script,
            ImageType=FLAVOR,
            SamplesPerPixel=1,
            PhotometricInterpretation="MONOCHROME2",
            NumberOfFrames=frames,
            Rows=source.shape[1],
            Columns=source.shape[2],
            BitsAllocated=32,
            LossyImageCompression="01" if source.acquisition.lossy else "00",
            BurnedInAnnotation=burned,
            RecognizableVisualFeatures="NO",
            PresentationLUTShape="IDENTITY",
            ContentLabel="PARAMETRIC_MAP",
            ContentDescription=f"{order.title}: {one.label}"[:64],
            ContentCreatorName=None,
            AcquisitionContextSequence=[],
            Laterality=None,
            PositionReferenceIndicator=None,
            FrameOfReferenceUID=frame_of_reference(order),
        )
        | script.copied(source.header, ("PositionReferenceIndicator", "RecognizableVisualFeatures"))
        | (lossy if source.acquisition.lossy else {})
    )
