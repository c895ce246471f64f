"""`isocenter show`: a SEG as a picture on its source."""

from pathlib import Path
from typing import Annotated

import typer
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from dicom_sr.problem import Problem
from router.cli import app
from router.cli._common import answer


class NotASegmentation(Problem):
    """The file holds no segmentation."""


@app.command(epilog="Example: isocenter show results/segmentation.dcm --source study/ --png overlay.png")
def show(
    file: Annotated[Path, typer.Argument(help="A BINARY SEG, of ours or by others")],
    source: Annotated[Path, typer.Option(help="Folder of the image series that it was made from")],
    png: Annotated[Path, typer.Option(help="Where to write the contact sheet")],
) -> None:
    """Draw a contact sheet: slices spread over the segments, coloured and outlined, with a legend."""
    from dicom_sr import pixels, readback
    from dicom_sr import show as pictures
    from dicom_sr import source as images
    from router.cli.run import series_below

    try:
        dataset = dcmread(file)
    except (OSError, InvalidDicomError) as error:
        raise NotASegmentation(f"{file} cannot be read as DICOM", remedy="Name a DICOM SEG file") from error
    if dataset.get("Modality") != "SEG":
        raise NotASegmentation(f"{file} is {dataset.get('Modality')}, not a SEG", remedy="Name a DICOM SEG file")
    wanted = {item.SeriesInstanceUID for item in dataset.get("ReferencedSeriesSequence", [])}
    below = series_below(source)
    series = images.read(next((files for uid, files in below.items() if uid in wanted), next(iter(below.values()))))
    found = readback.findings(dataset, series)
    png.write_bytes(pictures.contact_sheet(pixels.load(series), found))
    answer.print(str(png), markup=False, soft_wrap=True)
