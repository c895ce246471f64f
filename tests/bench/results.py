"""How much work it is to write results, beside highdicom and dcmqi, and to let them through the gate.

    python -m tests.bench.results [--slices 300] [--rounds 3]

One torso of 512 x 512 slices with 104, 25 or 1 made-up organs, and a report with two numbers an organ. Everyone starts
with the same label map and the same source headers and ends with the bytes of a file; a peer's read of its input is
part of its work, ours of our source is not repeated. CPU seconds of the process and of its children, the least of the
rounds; peers that take long run once. What was written is compared frame by frame, or number by number, before
anything counts. The answer is JSON on stdout, the table goes to stderr; the exit status says whether the goals were
met.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import dcmqi
import highdicom as hd
import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813
from imagecodecs import dicomrle_decode
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import RLELossless
from rich.console import Console
from rich.table import Table

from dicom_sr import kept
from dicom_sr.check import check
from dicom_sr.kinds import Built, Order, label_map, measurement_report, segmentation
from tests.bench import torso

GOALS = {
    "seg_104_highdicom": ("at least", 25.0),
    "seg_104_plain_write": ("at most", 4.0),
    "seg_25_highdicom": ("at least", 20.0),
    "seg_25_dcmqi": ("at least", 25.0),
    "seg_1_highdicom": ("at least", 6.0),
    "label_map_104_highdicom": ("at least", 8.0),
    "sr_104_highdicom": ("at least", 200.0),
    "sr_104_dcmqi": ("at least", 20.0),
    "gate_of_a_tenth_of_our_writing_and_a_read": ("at most", 1.0),
    "gate_of_highdicoms_writing": ("at most", 0.10),
    "label_map_104_mb": ("at most", 3.0),
    "findings_104_mb": ("at most", 3.0),
}
"""By name of the ratio: peer's work over ours, but ours over the plain write's, the gate's over a writer's, and 10^6
bytes of what lies at rest."""

DCMQI = Path(dcmqi.__file__).parent / "bin"


def cpu() -> float:
    """CPU seconds of this process and of its ended children."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def least(work: Callable[[], Any], rounds: int) -> tuple[float, Any]:
    """CPU seconds of the cheapest round, and what the last one made."""
    spent = []
    made: Any = None
    for _ in range(rounds):
        begun = cpu()
        made = work()
        spent.append(cpu() - begun)
    return min(spent), made


def plain_write(content: bytes, folder: Path) -> None:
    """The bytes to a file, and nothing else."""
    with (folder / "plain").open("wb") as file:
        file.write(content)


def one_read(path: Path) -> Dataset:
    """A file from the disk's cache into a data set of pydicom's, pixels and all."""
    return pydicom.dcmread(path)


def described(order: Order) -> list[Any]:
    """The segments as highdicom takes them."""
    concept = hd.sr.CodedConcept
    algorithm = hd.AlgorithmIdentificationSequence(
        "ct_lung", concept("123110", "DCM", "Artificial Intelligence"), "1.0.0"
    )
    return [
        hd.seg.SegmentDescription(
            segment.number, segment.label,
            concept(segment.category.value, segment.category.scheme, segment.category.meaning),
            concept(segment.type.value, segment.type.scheme, segment.type.meaning),
            hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC, algorithm,
        )
        for segment in order.findings.segments
    ]  # fmt: skip


def by_highdicom(order: Order, images: list[Dataset]) -> bytes:
    """The same SEG by highdicom."""
    seg = hd.seg.Segmentation(
        images, order.findings.labels, "BINARY", described(order), "1.2.3.4", 9000, "1.2.3.5", 1, "Other", "Model",
        "1", "7",
    )  # fmt: skip
    out = BytesIO()
    seg.save_as(out)
    return out.getvalue()


def label_map_by_highdicom(order: Order, images: list[Dataset]) -> bytes:
    """The same label map by highdicom, run-length encoded, too."""
    seg = hd.seg.Segmentation(
        images, order.findings.labels, "LABELMAP", described(order), "1.2.3.4", 9000, "1.2.3.5", 1, "Other", "Model",
        "1", "7", transfer_syntax_uid=RLELossless,
    )  # fmt: skip
    out = BytesIO()
    seg.save_as(out)
    return out.getvalue()


def by_dcmqi(folder: Path, source: Path) -> bytes:
    """The same SEG by dcmqi, from a label map in NRRD."""
    out = folder / "dcmqi.dcm"
    command = [DCMQI / "itkimage2segimage", "--inputImageList", folder / "labels.nrrd", "--inputDICOMDirectory", source,
               "--inputMetadata", folder / "meta.json", "--outputDICOM", out, "--skip"]  # fmt: skip
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    return out.read_bytes()


def prepare_dcmqi(order: Order, folder: Path) -> None:
    """What dcmqi reads: label map and description."""
    labels = order.findings.labels
    assert labels is not None
    image = sitk.GetImageFromArray(labels)
    step = np.linalg.norm(order.source.affine[:3, :3], axis=0)
    image.SetSpacing([float(step[2]), float(step[1]), float(step[0])])
    image.SetOrigin([float(x) for x in order.source.affine[:3, 3]])
    sitk.WriteImage(image, str(folder / "labels.nrrd"), useCompression=False)
    code = lambda one: {"CodeValue": one.value, "CodingSchemeDesignator": one.scheme, "CodeMeaning": one.meaning}  # noqa: E731
    attributes = [
        {
            "labelID": segment.number, "SegmentDescription": segment.label, "SegmentLabel": segment.label,
            "SegmentAlgorithmType": "AUTOMATIC", "SegmentAlgorithmName": "ct_lung",
            "SegmentedPropertyCategoryCodeSequence": code(segment.category),
            "SegmentedPropertyTypeCodeSequence": code(segment.type), "recommendedDisplayRGBValue": list(segment.rgb),
        }
        for segment in order.findings.segments
    ]  # fmt: skip
    meta = {"ContentCreatorName": "AI", "SeriesDescription": "AI", "SeriesNumber": "9000", "InstanceNumber": "1",
            "BodyPartExamined": "", "segmentAttributes": [attributes]}  # fmt: skip
    (folder / "meta.json").write_text(json.dumps(meta))


def frames_of(content: bytes) -> dict[tuple[int, int], bytes]:
    """The packed pixels of each frame that is not empty, by segment and rank of its height.

    dcmqi writes positions of its own, a hundredth of a millimetre off where slices are 560/300 mm apart.
    """
    dataset = pydicom.dcmread(BytesIO(content))
    size = dataset.Rows * dataset.Columns // 8
    shared = dataset.SharedFunctionalGroupsSequence[0]
    groups = dataset.PerFrameFunctionalGroupsSequence
    heights = [round(float(group.PlanePositionSequence[0].ImagePositionPatient[2]), 1) for group in groups]
    rank = {height: place for place, height in enumerate(sorted(set(heights)))}
    found = {}
    for index, group in enumerate(groups):
        identified = group.get("SegmentIdentificationSequence") or shared.SegmentIdentificationSequence
        pixels = dataset.PixelData[index * size : (index + 1) * size]
        if any(pixels):
            found[int(identified[0].ReferencedSegmentNumber), rank[heights[index]]] = pixels
    return found


def report_by_highdicom(order: Order, images: list[Dataset], seg: Dataset) -> bytes:
    """The same report by highdicom."""
    concept = hd.sr.CodedConcept
    observer = hd.sr.ObserverContext(
        concept("121007", "DCM", "Device"), hd.sr.DeviceObserverIdentifyingAttributes(uid="1.2.3.6", name="AI")
    )
    groups = [
        hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=hd.sr.TrackingIdentifier(uid=f"1.2.3.7.{group.segment_number}", identifier=group.label),
            referenced_segment=hd.sr.ReferencedSegment(
                seg.SOPClassUID, seg.SOPInstanceUID, group.segment_number,
                source_series=hd.sr.SourceSeriesForSegmentation(order.source.acquisition.series_instance_uid),
            ),
            finding_type=concept(group.finding.value, group.finding.scheme, group.finding.meaning),
            finding_sites=[hd.sr.FindingSite(concept(group.site.value, group.site.scheme, group.site.meaning))],
            measurements=[
                hd.sr.Measurement(
                    concept(m.name.value, m.name.scheme, m.name.meaning), m.value,
                    concept(m.unit.value, m.unit.scheme, m.unit.meaning),
                    derivation=m.derivation and concept(m.derivation.value, m.derivation.scheme, m.derivation.meaning),
                )
                for m in group.measurements
            ],
        )
        for group in order.findings.groups
    ]  # fmt: skip
    content = hd.sr.MeasurementReport(
        hd.sr.ObservationContext(observer_device_context=observer),
        concept("25045-6", "LN", "CT unspecified body region"), groups, referenced_images=images,
    )  # fmt: skip
    report = hd.sr.Comprehensive3DSR([*images, seg], content, "1.2.3.8", 9001, "1.2.3.9", 1, "Other")
    out = BytesIO()
    report.save_as(out)
    return out.getvalue()


def report_by_dcmqi(folder: Path, source: Path) -> bytes:
    """The same report by dcmqi."""
    out = folder / "dcmqi_sr.dcm"
    command = [DCMQI / "tid1500writer", "--inputMetadata", folder / "sr.json", "--inputImageLibraryDirectory", source,
               "--inputCompositeContextDirectory", folder / "context", "--outputDICOM", out]  # fmt: skip
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    return out.read_bytes()


def prepare_report_for_dcmqi(order: Order, folder: Path, seg: Built) -> None:
    """What dcmqi reads: the SEG, and the numbers in JSON."""
    (folder / "context").mkdir(exist_ok=True)
    (folder / "context" / "seg.dcm").write_bytes(seg.part10)
    code = lambda one: {"CodeValue": one.value, "CodingSchemeDesignator": one.scheme, "CodeMeaning": one.meaning}  # noqa: E731
    groups = [
        {
            "TrackingIdentifier": group.label, "ReferencedSegment": group.segment_number,
            "SourceSeriesForImageSegmentation": order.source.acquisition.series_instance_uid,
            "segmentationSOPInstanceUID": seg.sop_instance_uid, "Finding": code(group.finding),
            "FindingSite": code(group.site),
            "measurementItems": [
                {"value": f"{m.value:.6g}", "quantity": code(m.name), "units": code(m.unit)}
                | ({"derivationModifier": code(m.derivation)} if m.derivation else {})
                for m in group.measurements
            ],
        }
        for group in order.findings.groups
    ]  # fmt: skip
    meta = {
        "SeriesDescription": "Measurements", "SeriesNumber": "9001", "InstanceNumber": "1",
        "compositeContext": ["seg.dcm"], "imageLibrary": [plane.path.name for plane in order.source.planes],
        "observerContext": {"ObserverType": "DEVICE", "DeviceObserverName": "AI", "DeviceObserverUID": "1.2.3.6"},
        "VerificationFlag": "UNVERIFIED", "CompletionFlag": "COMPLETE", "activitySession": "1", "timePoint": "1",
        "procedureReported": {
            "CodeValue": "25045-6", "CodingSchemeDesignator": "LN", "CodeMeaning": "CT unspecified body region"},
        "Measurements": groups,
    }  # fmt: skip
    (folder / "sr.json").write_text(json.dumps(meta))


def numbers_of(content: bytes) -> list[float]:
    """All numbers of a report, in their order."""
    found: list[float] = []

    def walk(item: Dataset) -> None:
        if item.get("ValueType") == "NUM" and item.ConceptNameCodeSequence[0].CodeValue in ("118565006", "112031"):
            found.append(float(item.MeasuredValueSequence[0].NumericValue))
        for child in item.get("ContentSequence", ()):
            walk(child)

    walk(pydicom.dcmread(BytesIO(content)))
    return found


def same(ours: list[float], theirs: list[float]) -> bool:
    """Whether two reports say the same numbers; dcmqi is given, and keeps, six digits."""
    return len(ours) == len(theirs) > 0 and bool(np.allclose(ours, theirs, rtol=1e-5, atol=0))


def segmentations(slices: int, rounds: int, folder: Path) -> dict[str, float]:
    """CPU seconds of each writer for each number of segments, of the gate and of the plain write."""
    spent: dict[str, float] = {}
    for number in (104, 25, 1):
        print(f"{number} segments ...", file=sys.stderr, flush=True)
        here = folder / str(number)
        here.mkdir()
        order = torso.order(folder / "ct", slices, number)
        images = [pydicom.dcmread(plane.path, stop_before_pixels=True) for plane in order.source.planes]
        spent[f"seg_{number}_ours"], seg = least(lambda order=order: segmentation.build(order), rounds)
        spent[f"seg_{number}_plain_write"], _ = least(lambda: plain_write(seg.part10, folder), rounds)  # noqa: B023
        spent[f"seg_{number}_one_read"], _ = least(lambda: one_read(folder / "plain"), rounds)
        spent[f"seg_{number}_gate"], _ = least(lambda: check([seg], order), rounds)  # noqa: B023
        spent[f"seg_{number}_highdicom"], theirs = least(lambda: by_highdicom(order, images), 1)  # noqa: B023
        ours = frames_of(seg.part10)
        assert ours == frames_of(theirs), "highdicom wrote other frames"
        if number == 25:
            prepare_dcmqi(order, here)
            spent["seg_25_dcmqi"], theirs = least(lambda: by_dcmqi(here, folder / "ct"), 1)  # noqa: B023
            assert ours == frames_of(theirs), "dcmqi wrote other frames"
        if number == 104:
            spent |= reports(order, images, seg, here, folder / "ct", rounds)
            spent |= label_maps(order, images, rounds)
    return spent


def label_maps(order: Order, images: list[Dataset], rounds: int) -> dict[str, float]:
    """CPU seconds of each writer for a label map of 104 segments, and the 10^6 bytes of what lies at rest."""
    spent: dict[str, float] = {}
    spent["label_map_104_ours"], (built,) = least(lambda: label_map.build(order), rounds)
    spent["label_map_104_gate"], _ = least(lambda: check([built], order), 1)
    spent["label_map_104_highdicom"], theirs = least(lambda: label_map_by_highdicom(order, images), 1)
    planes = decoded(built.part10)
    assert np.array_equal(planes, decoded(theirs)), "highdicom wrote other pixels"
    spent["label_map_104_mb"] = len(built.part10) / 1e6
    spent["findings_104_mb"] = len(kept.pack(order.findings, order.source)) / 1e6
    return spent


def decoded(content: bytes) -> np.ndarray:
    """The frames of a run-length encoded label map; both are written from the same end."""
    dataset = pydicom.dcmread(BytesIO(content))
    frames = generate_frames(dataset.PixelData, number_of_frames=int(dataset.NumberOfFrames))
    return np.stack([np.frombuffer(dicomrle_decode(frame, "u1"), np.uint8) for frame in frames])


def reports(
    order: Order, images: list[Dataset], seg: Built, folder: Path, source: Path, rounds: int
) -> dict[str, float]:
    """CPU seconds of each writer for a report of 104 groups, and of the gate for the set."""
    spent: dict[str, float] = {}
    ordered = replace(order, companions=(seg,))
    spent["sr_104_ours"], built = least(lambda: measurement_report.build(ordered), rounds)
    spent["set_104_gate"], _ = least(lambda: check([seg, built], order), rounds)
    spent["sr_104_highdicom"], theirs = least(
        lambda: report_by_highdicom(order, images[:100], pydicom.dcmread(BytesIO(seg.part10))), 1
    )
    assert same(numbers_of(built.part10), numbers_of(theirs)), "highdicom wrote other numbers"
    prepare_report_for_dcmqi(order, folder, seg)
    spent["sr_104_dcmqi"], theirs = least(lambda: report_by_dcmqi(folder, source), 1)
    assert same(numbers_of(built.part10), numbers_of(theirs)), "dcmqi wrote other numbers"
    return spent


def ratios(spent: dict[str, float]) -> dict[str, float]:
    """What the goals are about."""
    peers = [name for name in spent if name.endswith(("_highdicom", "_dcmqi"))]
    over = {name: spent[name] / spent[f"{name.rsplit('_', 1)[0]}_ours"] for name in peers}
    over["seg_104_plain_write"] = spent["seg_104_ours"] / spent["seg_104_plain_write"]
    over |= {name: value for name, value in spent.items() if name.endswith("_mb")}
    over["gate_of_highdicoms_writing"] = spent["seg_104_gate"] / spent["seg_104_highdicom"]
    bound = spent["seg_104_ours"] / 10 + spent["seg_104_one_read"]
    over["gate_of_a_tenth_of_our_writing_and_a_read"] = spent["seg_104_gate"] / bound
    return over


def main() -> int:
    """Run, print, and say whether the goals were met."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--slices", type=int, default=300)
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    warnings.simplefilter("ignore")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        spent = segmentations(given.slices, given.rounds, Path(folder))
    found = ratios(spent)
    met = {
        name: found[name] >= bound if how == "at least" else found[name] <= bound
        for name, (how, bound) in GOALS.items()
        if name in found
    }
    table = Table("what", "CPU s", title=f"{given.slices} slices of 512 x 512, {time.monotonic() - begun:.0f} s in all")
    for name, seconds in spent.items():
        table.add_row(name, f"{seconds:.3f} {'MB' if name.endswith('_mb') else ''}".strip())
    goals = Table("ratio", "found", "goal", "met")
    for name, value in found.items():
        how, bound = GOALS.get(name, ("", 0.0))
        goals.add_row(name, f"{value:.2f}", f"{how} {bound:g}" if how else "", str(met.get(name, "")))
    talk = Console(stderr=True)
    talk.print(table)
    talk.print(goals)
    print(json.dumps({"cpu_s": spent, "ratios": found, "met": met}, indent=2))
    return 0 if all(met.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
