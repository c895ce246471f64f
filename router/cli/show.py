"""`isocenter show`: any SEG or map of numbers as a table, any SR as a tree, by whomever; what has pixels also drawn."""

from pathlib import Path
from typing import Annotated

import typer
from pydicom import Dataset, config, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import ParametricMapStorage
from rich.table import Table
from rich.tree import Tree

from dicom_sr.problem import Problem
from router.cli import app
from router.cli._common import AsJson, answer, print_json, talk

PARAMETRIC_MAP = str(ParametricMapStorage)


class NotShowable(Problem):
    """The file is no segmentation, no map and no report."""


@app.command(epilog="Example: isocenter show results/segmentation.dcm --source study/ --png overlay.png")
def show(
    file: Annotated[Path, typer.Argument(help="A SEG, a Parametric Map or an SR, of ours or by others")],
    source: Annotated[Path | None, typer.Option(help="Folder of the image series that a SEG was made from")] = None,
    png: Annotated[Path | None, typer.Option(help="Where to write a contact sheet of a SEG or a map")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the segments of a SEG, the content of an SR, the range of a map; with --png draw its slices.

    A SEG is drawn on its source, where that is given.
    """
    from dicom_sr import told

    config.settings.reading_validation_mode = config.IGNORE
    try:
        dataset = dcmread(file)
    except (OSError, InvalidDicomError, EOFError) as error:
        raise NotShowable(f"{file} cannot be read as DICOM", remedy="Name a DICOM SEG or SR file") from error
    if "SegmentSequence" in dataset:
        rows = told.segments(dataset)
        if as_json:
            print_json(rows)
        else:
            table = Table(*(column.replace("_", " ") for column in told.COLUMNS), title=told.title(dataset))
            for row in rows:
                table.add_row(*("" if row[column] is None else str(row[column]) for column in told.COLUMNS))
            answer.print(table)
        if png is not None:
            png.write_bytes(_picture(dataset, source))
            answer.print(str(png), markup=False, soft_wrap=True)
    elif (
        "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset or dataset.get("SOPClassUID") == PARAMETRIC_MAP
    ):
        ranges = told.mappings(dataset)
        if as_json:
            print_json(ranges)
        else:
            table = Table(*told.MAPPED, title=told.title(dataset))
            for row in ranges:
                table.add_row(*(str(row[column]) for column in told.MAPPED))
            answer.print(table)
        if png is not None:
            png.write_bytes(_grey(dataset))
            answer.print(str(png), markup=False, soft_wrap=True)
    elif "ContentSequence" in dataset:
        lines = list(told.content(dataset))
        if as_json:
            print_json([{"depth": line.depth, "name": line.name, "value": line.value} for line in lines])
            return
        trunk = Tree(told.title(dataset), highlight=False)
        nodes = [trunk]
        for line in lines:
            del nodes[line.depth + 1 :]
            words = f"{line.name}: {line.value}" if line.value else line.name
            nodes.append(nodes[-1].add(words.replace("[", r"\[")))
        answer.print(trunk)
        if png is not None:
            talk.print("A report has no picture; name its SEG for one", markup=False)
    else:
        raise NotShowable(
            f"{file} is {dataset.get('Modality') or 'no DICOM object'}, neither a SEG nor an SR nor a Parametric Map",
            remedy="Name a DICOM SEG, SR or Parametric Map file",
        )


def _grey(dataset: Dataset) -> bytes:
    """A contact sheet of the slices of a map."""
    from dicom_sr import readback
    from dicom_sr import show as pictures
    from dicom_sr.header import is_ours
    from dicom_sr.nouns import Algorithm, Findings

    name = str(dataset.get("SeriesDescription") or "Parametric Map")
    plain = Findings(algorithm=Algorithm(name=name, version=""))
    return pictures.contact_sheet(readback.map_alone(dataset), plain, title=name, ours=is_ours(dataset))


def _picture(dataset: Dataset, source: Path | None) -> bytes:
    """A contact sheet of the SEG's slices, on its source or alone.

    Raises:  Problem
    """
    from dicom_sr import pixels, readback
    from dicom_sr import show as pictures
    from dicom_sr import source as images
    from dicom_sr.header import is_ours
    from router.cli.run import series_below

    if source is None:
        return pictures.contact_sheet(*readback.alone(dataset), ours=is_ours(dataset))
    wanted = {item.SeriesInstanceUID for item in dataset.get("ReferencedSeriesSequence", [])}
    below = series_below(source)
    series = images.read(next((files for uid, files in below.items() if uid in wanted), next(iter(below.values()))))
    found = readback.findings(dataset, series)
    return pictures.contact_sheet(pixels.load(series), found, ours=is_ours(dataset))
