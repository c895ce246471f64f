"""`isocenter fetch`: have another node send a study, to us or to a third by C-MOVE, or into a folder by C-GET."""

import os
from collections.abc import Callable
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import write_file_meta_info

from dicom_sr.problem import Problem
from router.cli import app
from router.cli._common import DEFAULT_CONFIG, AsJson, Config, print_json, talk
from router.cli._peer import TIMEOUT_S, At, Calling, NoNode, Secure, Timeout, other
from router.domain.query import Level

if TYPE_CHECKING:
    from router.query.scu import Retrieved


class NotFetched(Problem):
    """Not everything that was asked for came."""

    retryable = True


@app.command(epilog="Example: isocenter fetch 1.2.840.1.7 --at ORTHANC@10.0.0.5:4242")
def fetch(
    study: Annotated[str, typer.Argument(help="Its StudyInstanceUID")],
    at: At,
    series: Annotated[str | None, typer.Option(help="Only this SeriesInstanceUID")] = None,
    move_to: Annotated[str | None, typer.Option(help="Have it sent to this AE title; default: our node's")] = None,
    out: Annotated[Path | None, typer.Option(help="Have it sent here by C-GET instead: a folder of files")] = None,
    calling: Calling = None,
    tls: Secure = False,
    timeout_s: Timeout = TIMEOUT_S,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Have another node send a study, to our node by C-MOVE or into a folder by C-GET; exits 1 unless all came."""
    from router.config import load
    from router.query import scu

    there = other(at, config, calling=calling, tls=tls, timeout_s=timeout_s)
    level = Level.STUDY if series is None else Level.SERIES
    keys = {"StudyInstanceUID": study} | ({} if series is None else {"SeriesInstanceUID": series})
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        came = scu.get(there, keys, level, keep_in(out))
    else:
        if move_to is None and not config.exists():
            raise NoNode(f"{config} is not there", remedy="Name the node's file by --config, or use --move-to or --out")
        came = scu.move(there, keys, level, move_to or load(config).ae_title)
    tell(came, str(there), as_json=as_json)


def tell(came: "Retrieved", there: str, *, as_json: bool) -> None:
    """Print how the retrieval ended.

    Raises:  NotFetched
    """
    if as_json:
        print_json(asdict(came))
    if not came.whole:
        raise NotFetched(
            f"{there} sent {came.completed} instances and failed with {came.failed} (status {came.status:04X})",
            remedy="Ask its administrator what its log says; what came is there, and is not stored twice",
        )
    if came.completed + came.warning == 0:
        raise NotFetched(f"{there} holds nothing of it", remedy="Look for it with `isocenter query`")
    talk.print(f"{came.completed + came.warning} instances sent by {there}")


def keep_in(folder: Path) -> Callable[[FileMetaDataset, bytes], int]:
    """Keeps each object as a file of this folder, whole or not at all."""

    def keep(meta: FileMetaDataset, body: bytes) -> int:
        from router.ingest.status import StoreStatus

        uid = str(meta.MediaStorageSOPInstanceUID)
        if not uid or set(uid) - set("0123456789."):
            return StoreStatus.CANNOT_UNDERSTAND
        head = BytesIO()
        write_file_meta_info(head, meta)
        part = folder / f"{uid}.part"
        try:
            part.write_bytes(bytes(128) + b"DICM" + head.getvalue() + body)
            os.replace(part, folder / f"{uid}.dcm")
        except OSError:
            part.unlink(missing_ok=True)
            return StoreStatus.OUT_OF_RESOURCES
        return StoreStatus.SUCCESS

    return keep
