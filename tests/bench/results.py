"""How much work it is to write results, beside highdicom and dcmqi, and to let them through the gate.

    python -m tests.bench.results [--slices 300] [--rounds 5] [--only seg-104 --only report ...] [--limit-s 420]

One torso of 512 x 512 slices with 104, 25 or 1 made-up organs, and a report with two numbers an organ. Everyone starts
with the same label map and the same source headers and ends with a file on the same disk; a peer's read of its input is
part of its work, ours of our source is not repeated. CPU seconds of the process and of its children, the least of the
rounds, in which ours, the plain write, a read and the gate take turns; peers that take long run once. What was written
is compared frame by frame, or number by number, before anything counts. Each row goes to stderr as it is found, the
goals at the end; once the limit is over no further case is begun, and what is missing is told. The answer is JSON on
stdout; the exit status says whether the goals of all cases that were asked for were met.
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
from router.store import write_all
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

CASES = ("seg-104", "label-map", "report", "seg-25", "seg-1")

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


def built_to(path: Path, build: Callable[[], Any]) -> Built:
    """What we build, as a file."""
    built: Built = build()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        for piece in (built.head, built.pixels):
            write_all(fd, piece)
    finally:
        os.close(fd)
    return built


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


def by_highdicom(order: Order, images: list[Dataset], path: Path) -> None:
    """The same SEG by highdicom."""
    seg = hd.seg.Segmentation(
        images, order.findings.labels, "BINARY", described(order), "1.2.3.4", 9000, "1.2.3.5", 1, "Other", "Model",
        "1", "7",
    )  # fmt: skip
    seg.save_as(path)


def label_map_by_highdicom(order: Order, images: list[Dataset], path: Path) -> None:
    """The same label map by highdicom, run-length encoded, too."""
    seg = hd.seg.Segmentation(
        images, order.findings.labels, "LABELMAP", described(order), "1.2.3.4", 9000, "1.2.3.5", 1, "Other", "Model",
        "1", "7", transfer_syntax_uid=RLELossless,
    )  # fmt: skip
    seg.save_as(path)


def by_dcmqi(folder: Path, source: Path, path: Path) -> None:
    """The same SEG by dcmqi, from a label map in NRRD."""
    command = [DCMQI / "itkimage2segimage", "--inputImageList", folder / "labels.nrrd", "--inputDICOMDirectory", source,
               "--inputMetadata", folder / "meta.json", "--outputDICOM", path, "--skip"]  # fmt: skip
    subprocess.run(list(map(str, command)), check=True, capture_output=True)


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


def report_by_highdicom(order: Order, images: list[Dataset], seg: Dataset, path: Path) -> None:
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
    report.save_as(path)


def report_by_dcmqi(folder: Path, source: Path, path: Path) -> None:
    """The same report by dcmqi."""
    command = [DCMQI / "tid1500writer", "--inputMetadata", folder / "sr.json", "--inputImageLibraryDirectory", source,
               "--inputCompositeContextDirectory", folder / "context", "--outputDICOM", path]  # fmt: skip
    subprocess.run(list(map(str, command)), check=True, capture_output=True)


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


class Bench:
    """One run: what is measured is told at once; `spent` holds CPU seconds, or 10^6 bytes, by name."""

    def __init__(self, slices: int, rounds: int, folder: Path) -> None:
        self.slices, self.rounds, self.folder = slices, rounds, folder
        self.spent: dict[str, float] = {}
        self.orders: dict[int, tuple[Order, list[Dataset], Built]] = {}

    def note(self, **found: float) -> None:
        """Rows of the table."""
        self.spent |= found
        for name, value in found.items():
            print(f"{name:28} {value:9.3f} {'MB' if name.endswith('_mb') else 's'}", file=sys.stderr, flush=True)

    def once(self, name: str, work: Callable[[], Any]) -> None:
        """A peer's work, done once."""
        self.note(**{name: least(work, 1)[0]})

    def order(self, number: int) -> tuple[Order, list[Dataset], Built]:
        """So many organs, the headers of their images, and our SEG of them."""
        if number not in self.orders:
            order = torso.order(self.folder / "ct", self.slices, number)
            images = [pydicom.dcmread(plane.path, stop_before_pixels=True) for plane in order.source.planes]
            self.orders = {number: (order, images, segmentation.build(order))}
        return self.orders[number]

    def run(self, case: str) -> None:
        """One of CASES."""
        if case.startswith("seg-"):
            self.segmentation(int(case.removeprefix("seg-")))
        else:
            {"label-map": self.label_map, "report": self.report}[case]()

    def segmentation(self, number: int) -> None:
        """CPU seconds of each writer of a BINARY SEG, of the gate, of the plain write and of a read."""
        order, images, seg = self.order(number)
        out, content = self.folder / "ours.dcm", seg.part10
        works: dict[str, Callable[[], Any]] = {
            "ours": lambda: built_to(out, lambda: segmentation.build(order)),
            "plain_write": lambda: plain_write(content, self.folder),
            "one_read": lambda: one_read(self.folder / "plain"),
            "gate": lambda: check([seg], order),
        }
        found = {name: [least(work, 1)[0]] for name, work in works.items()}
        for _ in range(self.rounds - 1):
            for name, work in works.items():
                found[name].append(least(work, 1)[0])
        self.note(**{f"seg_{number}_{name}": min(rounds) for name, rounds in found.items()})
        theirs = self.folder / "theirs.dcm"
        self.once(f"seg_{number}_highdicom", lambda: by_highdicom(order, images, theirs))
        ours = frames_of(out.read_bytes())
        assert ours == frames_of(theirs.read_bytes()), "highdicom wrote other frames"
        if number == 25:
            prepare_dcmqi(order, self.folder)
            self.once("seg_25_dcmqi", lambda: by_dcmqi(self.folder, self.folder / "ct", theirs))
            assert ours == frames_of(theirs.read_bytes()), "dcmqi wrote other frames"

    def label_map(self) -> None:
        """CPU seconds of each writer for a label map of 104 segments, and the 10^6 bytes of what lies at rest."""
        order, images, _ = self.order(104)
        out, theirs = self.folder / "ours.dcm", self.folder / "theirs.dcm"
        spent, built = least(lambda: built_to(out, lambda: label_map.build(order)[0]), self.rounds)
        self.note(
            label_map_104_ours=spent,
            label_map_104_gate=least(lambda: check([built], order), 1)[0],
            label_map_104_mb=out.stat().st_size / 1e6,
            findings_104_mb=len(kept.pack(order.findings, order.source)) / 1e6,
        )
        self.once("label_map_104_highdicom", lambda: label_map_by_highdicom(order, images, theirs))
        assert np.array_equal(decoded(out.read_bytes()), decoded(theirs.read_bytes())), "highdicom wrote other pixels"

    def report(self) -> None:
        """CPU seconds of each writer for a report of 104 groups, and of the gate for the set."""
        order, images, seg = self.order(104)
        out, theirs = self.folder / "ours.dcm", self.folder / "theirs.dcm"
        ordered = replace(order, companions=(seg,))
        spent, built = least(lambda: built_to(out, lambda: measurement_report.build(ordered)), self.rounds)
        self.note(sr_104_ours=spent, set_104_gate=least(lambda: check([seg, built], order), self.rounds)[0])
        ours, header = numbers_of(out.read_bytes()), pydicom.dcmread(BytesIO(seg.part10))
        self.once("sr_104_highdicom", lambda: report_by_highdicom(order, images[:100], header, theirs))
        assert same(ours, numbers_of(theirs.read_bytes())), "highdicom wrote other numbers"
        prepare_report_for_dcmqi(order, self.folder, seg)
        self.once("sr_104_dcmqi", lambda: report_by_dcmqi(self.folder, self.folder / "ct", theirs))
        assert same(ours, numbers_of(theirs.read_bytes())), "dcmqi wrote other numbers"


def decoded(content: bytes) -> np.ndarray:
    """The frames of a run-length encoded label map; both are written from the same end."""
    dataset = pydicom.dcmread(BytesIO(content))
    frames = generate_frames(dataset.PixelData, number_of_frames=int(dataset.NumberOfFrames))
    return np.stack([np.frombuffer(dicomrle_decode(frame, "u1"), np.uint8) for frame in frames])


def ratios(spent: dict[str, float]) -> dict[str, float]:
    """What the goals are about."""
    peers = [name for name in spent if name.endswith(("_highdicom", "_dcmqi"))]
    over = {name: spent[name] / spent[f"{name.rsplit('_', 1)[0]}_ours"] for name in peers}
    over |= {name: value for name, value in spent.items() if name.endswith("_mb")}
    if "seg_104_ours" in spent:
        over["seg_104_plain_write"] = spent["seg_104_ours"] / spent["seg_104_plain_write"]
        over["gate_of_highdicoms_writing"] = spent["seg_104_gate"] / spent["seg_104_highdicom"]
        bound = spent["seg_104_ours"] / 10 + spent["seg_104_one_read"]
        over["gate_of_a_tenth_of_our_writing_and_a_read"] = spent["seg_104_gate"] / bound
    return over


def main() -> int:
    """Run, print, and say whether the goals were met."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--slices", type=int, default=300)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--only", choices=CASES, action="append", help="a case; all of them by default")
    options.add_argument("--limit-s", type=float, default=420.0, help="no further case is begun after so long")
    given = options.parse_args()
    warnings.simplefilter("ignore")
    begun, left = time.monotonic(), list(given.only or CASES)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        bench = Bench(given.slices, given.rounds, Path(folder))
        while left and time.monotonic() - begun < given.limit_s:
            bench.run(left.pop(0))
    spent = bench.spent
    found = ratios(spent)
    met = {
        name: found[name] >= bound if how == "at least" else found[name] <= bound
        for name, (how, bound) in GOALS.items()
        if name in found
    }
    goals = Table("ratio", "found", "goal", "met")
    for name, value in found.items():
        how, bound = GOALS.get(name, ("", 0.0))
        goals.add_row(name, f"{value:.2f}", f"{how} {bound:g}" if how else "", str(met.get(name, "")))
    talk = Console(stderr=True)
    talk.print(goals)
    talk.print(f"{given.slices} slices of 512 x 512, {time.monotonic() - begun:.0f} s in all")
    if left:
        talk.print(f"Not measured for lack of time: {', '.join(left)}")
    print(json.dumps({"cpu_s": spent, "ratios": found, "met": met, "left_out": left}, indent=2))
    return 0 if all(met.values()) and not left else 1


if __name__ == "__main__":
    sys.exit(main())
