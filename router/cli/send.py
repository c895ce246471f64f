"""`isocenter send`: a C-STORE SCU with a progress bar."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dicom_sr.problem import Problem
from router.cli import app
from router.cli._common import peer, talk
from router.domain.delivery import Outgoing, Verdict

SENDER = "ISOCENTER_SEND"
"""Our calling AE title; `init` lets it in from this machine."""


class NothingToSend(Problem):
    """No DICOM file lies where it was looked for."""


class NotAccepted(Problem):
    """The receiver refused at least one instance."""


def outgoing(paths: list[Path]) -> Iterator[Outgoing]:
    """Every DICOM Part 10 file below these paths; in a folder others are passed over, one named directly is refused.

    Raises:  NothingToSend
    """
    for path in paths:
        if not path.exists():
            raise NothingToSend(f"{path} does not exist", remedy="Name a DICOM file or a folder of them")
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if not file.is_file():
                continue
            try:
                header = dcmread(file, specific_tags=["SOPClassUID", "SOPInstanceUID"], stop_before_pixels=True)
            except (InvalidDicomError, EOFError):
                if file == path:
                    raise NothingToSend(
                        f"{file} is not a DICOM file", remedy="Name a DICOM Part 10 file or a folder of them"
                    ) from None
                continue
            if "SOPInstanceUID" in header:  # a DICOMDIR has none
                yield Outgoing(
                    sop_class_uid=str(header.SOPClassUID), sop_instance_uid=str(header.SOPInstanceUID), path=file
                )


@app.command(epilog="Example: isocenter send study/ --to ISOCENTER@127.0.0.1:11112")
def send(
    paths: Annotated[list[Path], typer.Argument(help="DICOM files, or folders of them")],
    to: Annotated[str, typer.Option(help="Receiver: AE_TITLE@HOST:PORT")],
    calling: Annotated[str, typer.Option(help="Our AE title")] = SENDER,
    timeout_s: Annotated[float, typer.Option(help="For connecting and for each answer", min=0.1)] = 30.0,
) -> None:
    """Send DICOM files by C-STORE, as they are; exits 1 unless all are accepted."""
    from router.destinations import Context, dicom

    title, host, port = peer(to)
    receiver = dicom.Settings(kind="dicom", name="send", ae_title=title, host=host, port=port)
    files = list(outgoing(paths))
    if not files:
        raise NothingToSend(f"no DICOM file below {', '.join(map(str, paths))}", remedy="Name a folder that has some")
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=talk
    )
    refused = []
    with bar:
        task = bar.add_task(f"to {to}", total=len(files))
        for receipt in dicom.send(receiver, files, Context(calling_ae_title=calling, timeout_s=timeout_s)):
            bar.advance(task)
            if receipt.verdict is not Verdict.ACCEPTED:
                refused.append(receipt)
    if refused:
        first = refused[0]
        raise NotAccepted(
            f"{to} refused {len(refused)} of {len(files)} instances, first {first.sop_instance_uid}: {first.detail}",
            remedy="See the receiver's log, then send again: what it has already is not stored twice",
        )
    talk.print(f"{len(files)} instances accepted by {to}")
