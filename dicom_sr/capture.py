"""Secondary captures: what all pictures say of themselves as DICOM objects.

BurnedInAnnotation is NO, since no patient text is drawn, unless the source itself has some. Visual features, lossy
compression and, for a picture of one plane, its place in the patient are the source's.

Source:  PS3.3 A.8.1, C.8.6.1, C.7.6.1, C.7.6.2, C.12.4
"""

from pydicom.uid import SecondaryCaptureImageStorage

from dicom_sr import codes
from dicom_sr.drawing import Picture
from dicom_sr.elements import Elements, code, elements, framed, tag_of
from dicom_sr.header import MANUFACTURER, letterhead, on_letterhead
from dicom_sr.kinds import Built, Order
from dicom_sr.nouns import Code
from dicom_sr.references import frame_of_reference, instance, source_instances
from dicom_sr.script import Script
from dicom_sr.source import Plane

SOP_CLASS = SecondaryCaptureImageStorage


def captured(order: Order, kind: str, picture: Picture, *, ordinal: int, plane: Plane | None, words: str) -> Built:
    """One picture as a Secondary Capture; `plane` is the one it shows whole, None for a page of words and pictures."""
    header = order.source.header

    def content(script: Script) -> tuple[Elements, list[Code]]:
        copied = script.copied(header, ("RecognizableVisualFeatures",))
        if order.source.acquisition.lossy:
            copied |= script.copied(header, ("LossyImageCompressionRatio", "LossyImageCompressionMethod"))
        own = elements(
            ConversionType="SYN",
            SecondaryCaptureDeviceManufacturer=MANUFACTURER,
            ImageType=("DERIVED", "SECONDARY", "OTHER"),
            SamplesPerPixel=3,
            PhotometricInterpretation="RGB",
            PlanarConfiguration=0,
            Rows=picture.shape[0],
            Columns=picture.shape[1],
            BitsAllocated=8,
            BitsStored=8,
            HighBit=7,
            PixelRepresentation=0,
            Laterality=None,
            BurnedInAnnotation="YES" if order.source.acquisition.burned_in else "NO",
            LossyImageCompression="01" if order.source.acquisition.lossy else "00",
            DerivationDescription=words,
            DerivationCodeSequence=[code(codes.find("segmentation"), script)],
            SourceImageSequence=[source(plane)] if plane else source_instances(order.source),
        )
        raw = picture.tobytes()
        return own | copied | (placed(order, plane, picture) if plane else elements(PatientOrientation=None)) | {
            tag_of("PixelData"): pixel_data(raw)
        }, []

    head = letterhead(order, kind, ordinal=ordinal)
    return on_letterhead(head, kind=kind, sop_class_uid=SOP_CLASS, modality="OT", content=content)


def pixel_data(raw: bytes) -> bytes:
    """The element with these pixels (PS3.5 8.1, OB since BitsAllocated is 8)."""
    return framed(tag_of("PixelData"), "OB", raw)


def source(plane: Plane) -> Elements:
    """The plane as what the picture was made from."""
    purpose = elements(PurposeOfReferenceCodeSequence=[code(codes.find("source_image"))])
    return instance(plane, frame=True) | purpose


def placed(order: Order, plane: Plane, picture: Picture) -> Elements:
    """Where the picture lies in the patient; enlarged pixels are smaller and begin further out."""
    scale = picture.shape[0] // order.source.shape[1]
    between_rows, between_columns = plane.spacing
    row_wise, column_wise = plane.orientation[:3], plane.orientation[3:]
    out = (scale - 1) / (2 * scale)
    position = [
        at - out * (between_columns * along + between_rows * down)
        for at, along, down in zip(plane.position, row_wise, column_wise, strict=True)
    ]
    thickness = {"SliceThickness": plane.thickness} if plane.thickness else {}
    return elements(
        FrameOfReferenceUID=frame_of_reference(order),
        PositionReferenceIndicator=None,
        ImagePositionPatient=position,
        ImageOrientationPatient=plane.orientation,
        PixelSpacing=(between_rows / scale, between_columns / scale),
        PatientOrientation=(letters(row_wise), letters(column_wise)),
        **thickness,
    )


def letters(direction: tuple[float, ...]) -> str:
    """A direction in the patient as letters, the strongest first (PS3.3 C.7.6.1.1.1)."""
    named = sorted(zip(direction, ("LR", "PA", "HF"), strict=True), key=lambda part: -abs(part[0]))
    return "".join(pair[0] if value > 0 else pair[1] for value, pair in named if abs(value) > 0.1)
