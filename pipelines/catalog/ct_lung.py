"""Lungs in a chest CT, without weights: each side delineated and measured, or the reason why it is not.

The trachea is found and followed into the main bronchi; what holds air beside it, reaches past the carina both ways and
is no free gas is lung. Vessels and nodules under 3 cm inside a lung belong to it; the airway does not. All of that is
decided upright in the patient's own directions, so it does not matter how the slices lay.

Failure modes, as far as they are known: a tumour that widens the mediastinum or lies behind the sternum looks like
mediastinum and is not marked; a lung that is collapsed but lies against all ribs counts as whole; ground glass is part
of the lung and heavy consolidation is not; in emphysema so heavy that the airway cannot be told from lung, only the
trachea is left out; the level of inspiration is not known, and an expiratory scan hides emphysema.
"""

from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict, Field

from dicom_sr import codes
from dicom_sr.nouns import Acquisition, Algorithm, Findings, Measurement, MeasurementGroup, NotFound, Volume
from pipelines import measure, runtime, suitable, thorax
from pipelines.kernels import Sharpness, sharpness
from pipelines.measure import Distribution
from pipelines.spec import OutputMeasurement, OutputSegment, Progress, Refused, Spec, freeze, silent
from pipelines.thorax import Chest, Lung, Side

THICK_MM = 3.0
UPRIGHT_MM = 2.5
WHOLE_FROM = 0.85
"""Share of its side of the rib cage that a lung must fill to be measured."""
CUT_MM2 = 300.0
"""A lung that meets the edge of the volume over more than this is cut off."""
FREE_GAS_ML = 100.0
SMALLER_THAN_OTHER = 0.4
"""Lungs differ, but never by more than this."""
TOO_THICK_MM = 8.0
NAMES = ("volume", "mean_attenuation", "laa_950", "perc15")
DENSITY = ("laa_950", "perc15")
STRUCTURES: dict[Side, str] = {"left": "left_lung", "right": "right_lung"}


class Settings(BaseModel):
    """What a rule may set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allow_thick: bool = Field(
        default=False,
        description="Give LAA-950 and Perc15 even from thick slices, a sharp or unknown kernel or a lossy source; "
        "each is then marked with the reason to doubt it.",
    )


SPEC = Spec(
    name="ct_lung",
    version="1.0.0",
    title="Lungs in CT: volume and emphysema",
    intended_use="Research: volume of each lung and its low-attenuation area in CT of the chest of adults",
    limitations=(
        "Not validated on patients; no child, no lung after surgery and no pneumothorax was seen",
        "A tumour that widens the mediastinum or lies behind the sternum is not told from it",
        "The level of inspiration is not known; expiration hides emphysema",
        "Vessels and nodules under 3 cm count as lung; trachea and main bronchi do not",
    ),
    modalities=("CT",),
    needs=(
        "Both lungs whole in the volume, trachea included",
        f"Slices at most {TOO_THICK_MM:g} mm apart; for LAA-950 and Perc15 at most {THICK_MM:g} mm thick",
        "For LAA-950 and Perc15 a soft kernel and no lossy compression",
        "Values in HU",
    ),
    segments=tuple(
        OutputSegment(label=lung.label, type=lung.type, laterality=lung.laterality)
        for lung in map(codes.structure, STRUCTURES.values())
    ),
    measurements=tuple(
        OutputMeasurement(name=quantity.concept, unit=quantity.unit) for quantity in map(codes.quantity, NAMES)
    ),
    settings=Settings,
    time_limit_s=120.0,
    device_memory_mb=1500,
)


def runner(volume: Volume, settings: BaseModel, *, device: str = "cpu", progress: Progress = silent) -> Findings:
    """Delineates and measures each lung that is whole.

    Raises:  Refused, Cancelled (from progress)
    """
    chosen = Settings.model_validate(settings.model_dump())
    suitable.ct_slices(volume, SPEC.name, apart_mm=TOO_THICK_MM)
    with runtime.settled():
        progress("seeing upright", 0.0)
        chest = thorax.see(volume, step=UPRIGHT_MM, device=device, progress=progress)
        why_not = {side: _why_not(chest, side) for side in STRUCTURES}
        whole = [side for side in STRUCTURES if why_not[side] is None]
        if not whole:
            raise _refused(chest, why_not)
        progress("delineating", 0.7)
        labels = thorax.delineated(volume, chest, {side: number for number, side in enumerate(whole, start=1)})
        progress("measuring", 0.85)
        spread = measure.distributions(volume, labels, len(whole), device=device)
    progress("done", 1.0)
    remarks = {side: _remark(chest.lungs[side]) for side in whole}
    return Findings(
        algorithm=Algorithm(
            name=SPEC.name,
            version=SPEC.version,
            parameters=tuple((name, str(value).lower()) for name, value in freeze(chosen).items()),
        ),
        labels=labels,
        segments=tuple(codes.structure(STRUCTURES[side]).segment(number) for number, side in enumerate(whole, start=1)),
        groups=tuple(
            _group(side, number, distribution, _doubts(volume), chosen, remarks[side], volume.acquisition)
            for number, (side, distribution) in enumerate(zip(whole, spread, strict=True), start=1)
        ),
        not_found=tuple(_not_found(side, reason) for side, reason in why_not.items() if reason is not None),
        remarks=tuple(_general_remarks(chest, remarks)),
    )


def _why_not(chest: Chest, side: Side) -> str | None:
    """Why the lung of this side is not measured, or None when it is."""
    lung = chest.lungs.get(side)
    other = chest.lungs.get("right" if side == "left" else "left")
    if lung is None:
        return f"no aerated lung was found on the {side} that reaches from above the carina to below it"
    if lung.cut_mm2 > CUT_MM2:
        return f"cut off, not measured: the lung leaves the volume at its {lung.cut_at} ({lung.cut_mm2 / 100:.0f} cm2)"
    if lung.gas_ml > FREE_GAS_ML:
        return f"not measured: {lung.gas_ml:.0f} ml of free gas (pneumothorax or giant bulla) are not told from lung"
    if lung.fill < WHOLE_FROM:
        return (
            f"incomplete, not measured: aerated lung fills {100 * lung.fill:.0f} % of its side of the rib cage, "
            f"{100 * WHOLE_FROM:.0f} % are needed (fluid, consolidation, collapse or a large mass)"
        )
    if other is not None and lung.volume_ml < SMALLER_THAN_OTHER * other.volume_ml:
        share = 100 * lung.volume_ml / other.volume_ml
        return f"incomplete, not measured: aerated lung is only {share:.0f} % of the other side's"
    return None


def _refused(chest: Chest, why_not: Mapping[Side, str | None]) -> Refused:
    if chest.airway is None:
        return Refused(
            "no trachea was found, so whole lungs are not in this volume; its air may be lung bases, stomach or bowel",
            remedy="Send a chest CT that reaches from above the lungs to below them; parts of lungs are not measured",
        )
    reasons = "; ".join(f"{side} lung: {reason}" for side, reason in why_not.items())
    return Refused(
        f"neither lung can be measured ({reasons})",
        remedy="Look at the images; if the lungs are whole in another series of the study, route that one",
    )


def _doubts(volume: Volume) -> tuple[str, ...]:
    """Why the densities of single voxels are not to be believed."""
    made = volume.acquisition
    thickness = max(made.slice_thickness or 0.0, volume.spacing[0])
    doubts = []
    if thickness > THICK_MM + 0.05:
        doubts.append(f"slices are {thickness:.1f} mm thick, at most {THICK_MM:g} mm are needed")
    match sharpness(made.manufacturer, made.convolution_kernel):
        case Sharpness.SHARP:
            doubts.append(f"kernel {made.convolution_kernel} is sharp, a soft one is needed")
        case Sharpness.UNKNOWN:
            name = f"kernel {made.convolution_kernel}" if made.convolution_kernel else "the kernel"
            doubts.append(f"{name} is not known to be soft")
    if made.lossy:
        doubts.append("the images were lossy compressed")
    return tuple(doubts)


def _group(
    side: Side,
    number: int,
    spread: Distribution,
    doubts: tuple[str, ...],
    settings: Settings,
    remark: str | None,
    made: Acquisition,
) -> MeasurementGroup:
    structure = codes.structure(STRUCTURES[side])
    doubt = "; ".join(doubts)
    values = {
        "volume": spread.volume_ml,
        "mean_attenuation": spread.mean,
        "laa_950": spread.percent_below(-950),
        "perc15": spread.percentile(15),
    }
    contrast = "contrast agent was given, which raises the density of lung" if made.contrast else None

    def measured(name: str) -> Measurement:
        quantity = codes.quantity(name)
        if name == "volume":
            return quantity.measured(values[name], remark=remark)
        if name in DENSITY and doubt and not settings.allow_thick:
            return quantity.withheld(doubt)
        said = [f"doubtful, since {doubt}"] if name in DENSITY and doubt else []
        return quantity.measured(values[name], remark="; ".join([*said, *([contrast] if contrast else [])]) or None)

    return MeasurementGroup(
        label=structure.label,
        finding=structure.type,
        site=structure.type,
        segment_number=number,
        laterality=structure.laterality,
        measurements=tuple(map(measured, NAMES)),
    )


def _not_found(side: Side, reason: str) -> NotFound:
    structure = codes.structure(STRUCTURES[side])
    return NotFound(label=structure.label, finding=structure.type, reason=reason, laterality=structure.laterality)


def _remark(lung: Lung) -> str | None:
    """What must be known of a lung that is measured although something is in its place."""
    if not lung.mass_ml:
        return None
    return (
        f"at least {lung.mass_ml:.0f} ml without air in the {lung.mass_at} of this side (mass, consolidation or fluid) "
        "are not part of the lung"
    )


def _general_remarks(chest: Chest, remarks: Mapping[Side, str | None]) -> Iterable[str]:
    for side, remark in remarks.items():
        if remark is not None:
            yield f"{codes.structure(STRUCTURES[side]).label}: {remark}"
    if chest.airway is not None and chest.airway.leaked:
        yield "Main bronchi could not be told from the lungs and may be part of them"
