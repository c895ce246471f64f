"""`isocenter inspect`: the gate as a command, for objects by whomever."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydicom import Dataset, config, dcmread
from pydicom.errors import InvalidDicomError

from dicom_sr.problem import Problem
from router.cli import app
from router.cli._common import AsJson, answer, print_json, talk

if TYPE_CHECKING:
    from dicom_sr.source import SourceSeries


class NotInspectable(Problem):
    """A file cannot be read as DICOM."""


@app.command(epilog="Example: isocenter inspect results/*.dcm --source study/")
def inspect(
    files: Annotated[list[Path], typer.Argument(help="Segmentations, reports and other results, by whomever")],
    source: Annotated[
        Path | None, typer.Option(help="Folder of the images that they were made from; pixels and places are compared")
    ] = None,
    related: Annotated[
        Path | None, typer.Option(help="Folder of further objects that they refer to, such as the SEG of an SR")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print every fault of these objects with its place; exits 1 when there is one.

    Looks at attributes, templates, codes, units, references, geometry and identity, and computes the numbers of a
    report again from its SEG and, with --source, from the images.
    """
    from dicom_sr import check

    config.settings.reading_validation_mode = config.IGNORE
    datasets = [_read(file) for file in files]
    images, series = _images(source, datasets) if source else ([], None)
    faults = check.inspect(
        datasets,
        places=[file.name for file in files],
        source=series,
        images=images,
        related=list(_below(related, skip=files)) if related else [],
    )
    if as_json:
        print_json([{"place": fault.place, "fault": fault.what} for fault in faults])
    else:
        for fault in faults:
            answer.print(str(fault), markup=False, soft_wrap=True)
        talk.print(f"{len(files)} objects, {len(faults)} faults", markup=False)
    if faults:
        raise typer.Exit(1)


def _read(file: Path) -> Dataset:
    try:
        return dcmread(file)
    except (OSError, InvalidDicomError, EOFError) as error:
        raise NotInspectable(f"{file} cannot be read as DICOM", remedy="Name DICOM files") from error


def _below(folder: Path, skip: Iterable[Path]) -> Iterator[Dataset]:
    left_out = {file.resolve() for file in skip}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.resolve() not in left_out:
            try:
                yield dcmread(path)
            except (InvalidDicomError, EOFError):
                continue


def _images(folder: Path, datasets: Iterable[Dataset]) -> tuple[list[Dataset], "SourceSeries | None"]:
    """Headers of all images below a folder, and the series among them that the objects refer to, as a volume.

    A series that makes no volume (a radiograph, slices with a gap) is said, and only its references are followed.
    """
    from dicom_sr import source
    from router.cli.run import series_below

    below = series_below(folder)
    keywords = ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality"]
    headers = [dcmread(file, specific_tags=keywords) for files in below.values() for file in files]
    wanted = {uid for dataset in datasets for uid in _referenced(dataset)}
    chosen = next((files for uid, files in below.items() if uid in wanted), next(iter(below.values())))
    try:
        return headers, source.read(chosen)
    except source.UnusableSeries as refusal:
        talk.print(f"places and pixels are not compared: {refusal.what}", markup=False)
        return headers, None


def _referenced(dataset: Dataset) -> Iterator[str]:
    """SeriesInstanceUIDs that an object names."""
    studies = dataset.get("CurrentRequestedProcedureEvidenceSequence") or ()
    for holder in (dataset, *studies):
        for series in holder.get("ReferencedSeriesSequence") or ():
            yield str(series.get("SeriesInstanceUID"))
