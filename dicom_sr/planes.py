"""The planes of one DICOM object: one of a single-frame image, many of an enhanced one, each with all it needs to be
placed and read on its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom import uid
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from dicom_sr import part10
from dicom_sr.part10 import Head, text
from dicom_sr.refusals import NoGeometry, NoImages, UnreadablePixels
from dicom_sr.traits import TRAITS, PixelForm, Traits, fault_of, form_of, number, numbers, traits_of
from dicom_sr.uids import LABEL_MAP_SEGMENTATION_STORAGE

FRAME_GROUPS = {
    "PlanePositionSequence": {"ImagePositionPatient": "ImagePositionPatient"},
    "PlaneOrientationSequence": {"ImageOrientationPatient": "ImageOrientationPatient"},
    "PixelMeasuresSequence": {
        "PixelSpacing": "PixelSpacing",
        "SliceThickness": "SliceThickness",
        "SpacingBetweenSlices": "SpacingBetweenSlices",
    },
    "PixelValueTransformationSequence": {"RescaleSlope": "RescaleSlope", "RescaleIntercept": "RescaleIntercept"},
    "CTReconstructionSequence": {"ConvolutionKernel": "ConvolutionKernel"},
    "FrameContentSequence": {
        "StackID": "StackID",
        "TemporalPositionIndex": "TemporalPositionIndex",
        "FrameAcquisitionNumber": "AcquisitionNumber",
    },
    "MREchoSequence": {"EffectiveEchoTime": "EchoTime"},
    "MRDiffusionSequence": {"DiffusionBValue": "DiffusionBValue"},
    "CardiacSynchronizationSequence": {"NominalCardiacTriggerDelayTime": "TriggerTime"},
    "CTImageFrameTypeSequence": {"FrameType": "ImageType"},
    "MRImageFrameTypeSequence": {"FrameType": "ImageType"},
    "PETFrameTypeSequence": {"FrameType": "ImageType"},
}
"""Functional group -> its attribute -> the keyword of the same thing in a single-frame image (PS3.3 C.7.6.16)."""

BINARY = {"US", "UL", "FD"}
"""Value representations of the attributes above that are no text."""

NOT_SOURCES = {
    uid.SegmentationStorage,
    LABEL_MAP_SEGMENTATION_STORAGE,
    uid.RTDoseStorage,
    uid.ParametricMapStorage,
    uid.GrayscaleSoftcopyPresentationStateStorage,
}
"""Objects with grey pixels that are about images rather than images."""

PROJECTIONS = {b"CR", b"DX", b"IO", b"MG", b"PX", b"RG"}
"""Modalities whose images are shadows on a plane: they have no place in the patient (PS3.3 C.8.1, C.8.11)."""

ITS_OWN_PLANE = {"ImagePositionPatient": b"0\\0\\0", "ImageOrientationPatient": b"1\\0\\0\\0\\1\\0"}
"""Where a projection is put, so that rows and columns can be named: in a plane of its own, nowhere in the patient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """One image plane: where it lies in the patient, where its pixels lie in its file, what they mean.

    UIDs are verbatim as in the file. `frame` is 1-based, 1 in a single-frame object. `traits` is what it shares with
    its neighbours: orientation, spacing, rescaling.
    """

    path: Path
    frame: int
    number_of_frames: int
    sop_instance_uid: str
    position: tuple[float, ...]
    traits: Traits
    pixels: PixelForm
    pixel_offset: int | None
    """Of this plane's native pixels in the file; None when they are encapsulated or lie in no usual way."""
    pixel_length: int | None
    fragments_offset: int | None
    """Of the first item of encapsulated pixel data in the file, else None."""
    placed: bool = True
    """Whether it lies in the patient; a projection does not, and its position and orientation mean nothing there."""

    @property
    def sop_class_uid(self) -> str:
        """What kind of object it is a plane of."""
        return self.traits.sop_class_uid

    @property
    def transfer_syntax_uid(self) -> str:
        """How its file is encoded."""
        return self.pixels.transfer_syntax_uid

    @property
    def orientation(self) -> tuple[float, ...]:
        """ImageOrientationPatient: where the column index grows, then where the row index grows."""
        return self.traits.orientation

    @property
    def spacing(self) -> tuple[float, ...]:
        """PixelSpacing: between rows, between columns; mm."""
        return self.traits.spacing

    @property
    def thickness(self) -> float | None:
        """What it extends along its normal when it stands alone: SliceThickness, else SpacingBetweenSlices; mm."""
        return self.traits.slice_thickness or self.traits.spacing_between_slices

    @property
    def slope(self) -> float:
        """RescaleSlope, 1 where absent."""
        return self.traits.slope

    @property
    def intercept(self) -> float:
        """RescaleIntercept, 0 where absent."""
        return self.traits.intercept

    @property
    def name(self) -> str:
        """What a refusal calls it: instance, frame if there are several, and position."""
        frame = f" frame {self.frame}" if self.number_of_frames > 1 else ""
        return f"{self.sop_instance_uid}{frame} at ({', '.join(f'{x:g}' for x in self.position)}) mm"


def planes(path: Path) -> tuple[Head, list[Plane]]:
    """The header of one file and its planes, in the order of its frames.

    Raises:  NotDicom, NoImages, NoGeometry, UnreadablePixels, OSError
    """
    head = part10.head(path)
    if not head.values.get("SOPInstanceUID", b"").strip(b"\0 "):
        raise NoImages(f"{path} has no SOPInstanceUID", remedy="Give DICOM objects as a scanner or archive made them")
    form = pixel_form(head)
    frames = int(number(head.values.get("NumberOfFrames", b"")) or 1)
    if is_projection(head.values) and frames == 1:
        return head, [plane(head, form, head.values | in_its_own_plane(head.values), 1, 1, placed=False)]
    if frames == 1 and "PerFrameFunctionalGroupsSequence" not in head.values:
        return head, [plane(head, form, head.values, 1, 1)]
    if "PerFrameFunctionalGroupsSequence" not in head.values:
        raise NoGeometry(
            f"instance {instance_of(head)} has {frames} frames and says of none where it lies",
            remedy="Use a source with functional groups or single slices (PS3.3 C.7.6.16)",
        )
    each = list(frame_values(head))
    if len(each) != frames:
        raise NoGeometry(
            f"instance {instance_of(head)} has {frames} frames and describes {len(each)}",
            remedy="Send the object again as the scanner made it",
        )
    return head, [plane(head, form, values, index + 1, frames) for index, values in enumerate(each)]


def is_projection(values: dict[str, bytes]) -> bool:
    """Whether this is a radiograph that says nothing of where it lies, as radiographs do."""
    placed = any(values.get(keyword, b"").strip(b" \0") for keyword in ITS_OWN_PLANE)
    return values.get("Modality", b"").strip(b" \0") in PROJECTIONS and not placed


def in_its_own_plane(values: dict[str, bytes]) -> dict[str, bytes]:
    """Position, orientation and pixel spacing of a projection: as calibrated, else at the detector, else 1 mm.

    Source:  PS3.3 10.7.1.3 (Pixel Spacing Value Order and Valid Values), C.8.11.4 (Imager Pixel Spacing)
    """
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        spacing = numbers(values.get(keyword, b""))
        if fault_of(numbers(ITS_OWN_PLANE["ImageOrientationPatient"]), spacing) is None:
            return ITS_OWN_PLANE | {"PixelSpacing": values[keyword]}
    return ITS_OWN_PLANE | {"PixelSpacing": b"1\\1"}


def instance_of(head: Head) -> str:
    """SOPInstanceUID, verbatim but for its padding."""
    return text(head.values["SOPInstanceUID"])


def pixel_form(head: Head) -> PixelForm:
    """How the object's stored values lie.

    Raises:  NoImages, UnreadablePixels
    """
    values = head.values
    sop_class = text(values.get("SOPClassUID", b""))
    if head.pixel_keyword is None or sop_class in NOT_SOURCES:
        raise NoImages(
            f"instance {instance_of(head)} ({uid.UID(sop_class).name or 'no SOP Class'}) holds no image slices",
            remedy="Choose a series of images",
        )
    if not values.get("PhotometricInterpretation", b"MONOCHROME2").startswith(b"MONOCHROME"):
        raise NoImages(
            f"instance {instance_of(head)} is {text(values['PhotometricInterpretation'])}, not grey-scale",
            remedy="Choose a series of grey-scale images",
        )
    if "ModalityLUTSequence" in values:
        raise UnreadablePixels(
            f"instance {instance_of(head)} gives its values by a Modality LUT",
            remedy="Use the original slices (PS3.3 C.11.1)",
        )
    get = values.get
    try:
        return form_of(
            head.pixel_keyword,
            head.transfer_syntax_uid,
            tuple([get(keyword, b"") for keyword in part10.NUMBERS]),
            tuple([get(keyword, b"") for keyword in part10.PADDING]),
        )
    except ValueError as fault:
        raise UnreadablePixels(
            f"instance {instance_of(head)}: {fault}", remedy="Send the original slices again"
        ) from None


def frame_values(head: Head) -> Iterator[dict[str, bytes]]:
    """The values of each frame: its own functional groups before the shared ones before the object's.

    Source:  PS3.3 C.7.6.16 (Multi-frame Functional Groups)
    """
    dataset = pydicom.dcmread(head.path, stop_before_pixels=True)
    shared = [group_values(item) for item in dataset.get("SharedFunctionalGroupsSequence") or ()]
    common = head.values | (shared[0] if shared else {})
    for item in dataset.PerFrameFunctionalGroupsSequence:
        yield common | group_values(item)


def group_values(item: Dataset) -> dict[str, bytes]:
    """What the functional groups of one item say, under the keywords of single-frame images."""
    found = {}
    for sequence, attributes in FRAME_GROUPS.items():
        for group in item.get(sequence) or ():
            for keyword, known_as in attributes.items():
                element = group.get_item(keyword)
                if isinstance(element, RawDataElement) and dictionary_VR(keyword) not in BINARY:
                    found[known_as] = bytes(element.value or b"")
                elif element is not None:
                    found[known_as] = str(group[keyword].value).encode("latin-1", "replace")
    return found


def plane(
    head: Head, form: PixelForm, values: dict[str, bytes], frame: int, frames: int, *, placed: bool = True
) -> Plane:
    """One plane from the values of its frame.

    Raises:  NoGeometry, UnreadablePixels
    """
    get = values.get
    traits = traits_of(tuple([get(keyword, b"") for keyword in TRAITS]))
    position = numbers(get("ImagePositionPatient", b""))
    if traits.fault or not (len(position) == 3 and max(position) < 1e6 and min(position) > -1e6):
        raise NoGeometry(
            f"instance {instance_of(head)} has {traits.fault or 'no usable ImagePositionPatient'}",
            remedy="Send the slices as the scanner made them",
        )
    if not traits.can_rescale:
        raise UnreadablePixels(
            f"instance {instance_of(head)} has no usable RescaleSlope and RescaleIntercept",
            remedy="Send the slices as the scanner made them",
        )
    native = head.pixel_offset is not None and head.pixel_length is not None
    if native:
        complete(head, form, frames)
    offset = head.pixel_offset + (frame - 1) * form.frame_bytes if native and head.pixel_offset else None
    return Plane(
        path=head.path,
        frame=frame,
        number_of_frames=frames,
        sop_instance_uid=text(get("SOPInstanceUID", b"")),
        position=position,
        traits=traits,
        pixels=form,
        pixel_offset=offset,
        pixel_length=None if offset is None else form.frame_bytes,
        fragments_offset=None if native else head.pixel_offset,
        placed=placed,
    )


def complete(head: Head, form: PixelForm, frames: int) -> None:
    """Refuse native pixel data that its transfer syntax does not announce, or that is shorter than its frames.

    Raises:  UnreadablePixels
    """
    there = min(head.pixel_length or 0, head.size - (head.pixel_offset or 0))
    if form.encapsulated:
        fault = f"its transfer syntax is {uid.UID(form.transfer_syntax_uid).name}, its pixel data is not compressed"
    elif there < form.frame_bytes * frames:
        fault = f"{there} of {form.frame_bytes * frames} bytes of pixel data"
    else:
        return
    raise UnreadablePixels(f"instance {instance_of(head)}: {fault}", remedy="Send the object again")
