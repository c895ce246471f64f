"""Whether a frontal chest radiograph arrives as a reader expects it: not inverted, upright, not cut off, not saturated.

An image whose PhotometricInterpretation contradicts its content is shown with bright air; one that was read out of the
cassette the wrong way round lies on its side. Both are found by `pipelines.radiograph`, without weights. Nothing is
corrected and nothing about the patient is said.

Failure modes, as far as they are known: an opacified or missing lung, a patient who is strongly rotated, small
children, large foreign bodies and images of something else than a chest look unlike the drawn chest, and then nothing
is said about their layout; a mirrored image is not told from a proper one, since hearts lie on either side; lungs that
are cut off at the side or below are not looked for; a patient on the side (decubitus) is reported as turned.
"""

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dicom_sr import codes
from dicom_sr.nouns import Algorithm, Evaluation, Findings, Measurement, MeasurementGroup, Volume
from pipelines import radiograph
from pipelines.radiograph import Grey, Layout
from pipelines.spec import OutputMeasurement, Progress, Refused, Spec, silent

FRONTAL = ("PA", "AP")
SMALLEST = 128
NAMES = ("image_rotation", "saturated_pixels")
INVERTED = {"MONOCHROME1": True, "MONOCHROME2": False}
"""Whether the lowest value is displayed white (PS3.3 C.7.6.3.1.2)."""


class Settings(BaseModel):
    """What a site may choose."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    assume_frontal: bool = Field(
        False, description="Take a radiograph whose ViewPosition is empty for a frontal one of the chest"
    )


SPEC = Spec(
    name="cr_quality",
    version="1.0.0",
    title="Chest radiograph: grey scale, rotation, cut-off apices, saturation",
    intended_use="Research: finding frontal chest radiographs that are displayed inverted or turned, or were cut off",
    limitations=(
        "Tried on very few real radiographs; where the layout is not clear, it says nothing about it",
        "A mirrored image is not recognised; lungs that are cut off at the side or below are not looked for",
        "Says nothing about the patient; a patient who was lying on the side is reported as a turned image",
    ),
    modalities=("CR", "DX"),
    needs=(
        "A single frontal radiograph of the chest in its series: ViewPosition PA or AP",
        f"At least {SMALLEST} x {SMALLEST} pixels",
        "MONOCHROME1 or MONOCHROME2, without a Modality LUT",
    ),
    segments=(),
    measurements=tuple(
        OutputMeasurement(name=quantity.concept, unit=quantity.unit) for quantity in map(codes.quantity, NAMES)
    ),
    settings=Settings,
    time_limit_s=60.0,
)


def runner(volume: Volume, settings: BaseModel, *, device: str = "cpu", progress: Progress = silent) -> Findings:
    """Looks at one radiograph; `device` does not matter.

    Raises:  Refused, Cancelled (from progress)
    """
    chosen = settings if isinstance(settings, Settings) else Settings()
    white_is_low = _accept(volume, chosen)
    progress("looking", 0.0)
    values = volume.array[0].astype(np.float64)
    shown: Grey = -values if white_is_low else values
    if volume.padding is not None:
        shown[volume.padding[0]] = shown.min()
    try:
        rows, columns = radiograph.field(shown)
    except radiograph.NothingShownError:
        raise Refused("the image shows no structure", remedy="Look at the image and send it again") from None
    seen = shown[rows, columns]
    if min(seen.shape) < radiograph.SIDE:
        raise Refused(
            f"the exposed field has only {seen.shape[0]} x {seen.shape[1]} pixels", remedy="Look at the image"
        )
    layout = radiograph.layout(seen)
    progress("done", 1.0)
    return Findings(
        algorithm=Algorithm(
            name=SPEC.name,
            version=SPEC.version,
            parameters=(("assume_frontal", str(chosen.assume_frontal)),),
        ),
        groups=(_group(layout, _saturated(seen)),),
        remarks=(f"Rotation, grey scale and apices are not stated: {layout}",) if isinstance(layout, str) else (),
    )


def _accept(volume: Volume, settings: Settings) -> bool:
    """Whether the lowest value is displayed white; what is no frontal chest is refused.

    Raises:  Refused
    """
    made = volume.acquisition
    if made.modality not in SPEC.modalities or not made.projection:
        raise Refused(
            f"the series is {made.modality or 'of no modality'} and no radiograph"
            if made.modality not in SPEC.modalities
            else "the image lies in the patient like a slice, so it is no radiograph",
            remedy="Route only CR and DX images to cr_quality",
        )
    if made.photometric_interpretation not in INVERTED:
        raise Refused(
            f"PhotometricInterpretation is {made.photometric_interpretation or 'missing'}",
            remedy="Send images that are MONOCHROME1 or MONOCHROME2",
        )
    view = (made.view_position or "").upper()
    if view not in FRONTAL and (view or not settings.assume_frontal):
        raise Refused(
            f"ViewPosition is {made.view_position or 'empty'}, and only {' and '.join(FRONTAL)} are known here",
            remedy="Route only frontal chests here; where their ViewPosition is empty, set assume_frontal",
        )
    if min(volume.array.shape[1:]) < SMALLEST:
        raise Refused(
            f"the image has {volume.array.shape[1]} x {volume.array.shape[2]} pixels",
            remedy="Send the image as it was taken",
        )
    return INVERTED[made.photometric_interpretation]


def _saturated(seen: Grey) -> float:
    """Pixels at the lowest or highest value, in percent of the exposed field."""
    return 100.0 * float(np.mean((seen == seen.min()) | (seen == seen.max())))


def _group(layout: Layout | str, saturated: float) -> MeasurementGroup:
    rotation, ends = map(codes.quantity, NAMES)
    known = None if isinstance(layout, str) else layout
    turned: Measurement = (
        rotation.withheld(f"The layout cannot be told: {layout}")
        if known is None
        else rotation.measured(90.0 * known.quarters)
    )
    return MeasurementGroup(
        label="Image quality",
        finding=codes.find("image_quality"),
        site=codes.find("chest"),
        measurements=(turned, ends.measured(saturated)),
        evaluations=(
            _statement("grey_scale_inverted", None if known is None else known.inverted),
            _statement("apices_cut_off", None if known is None else known.apices_cut_off),
        ),
    )


def _statement(name: str, holds: bool | None) -> Evaluation:
    answer = "indeterminate" if holds is None else "yes" if holds else "no"
    return Evaluation(name=codes.find(name), answer=codes.find(answer))
