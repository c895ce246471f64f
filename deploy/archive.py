"""A small archive for demonstrations: answers C-ECHO and C-STORE and keeps every object as a file. Not a PACS.

python deploy/archive.py FOLDER PORT [AE_TITLE]
"""

import os
import sys
from pathlib import Path

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification


def keep(event: evt.Event, folder: Path) -> int:
    """Keep one object, whole or not at all."""
    target = folder / f"{event.request.AffectedSOPInstanceUID}.dcm"
    part = target.with_suffix(".part")
    with part.open("wb") as file:
        file.write(event.encoded_dataset())
        file.flush()
        os.fsync(file.fileno())
    part.rename(target)
    return 0x0000


def main(folder: Path, port: int, title: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    ae = AE(ae_title=title)
    ae.add_supported_context(Verification)
    for context in AllStoragePresentationContexts:
        ae.add_supported_context(context.abstract_syntax, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    ae.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_C_STORE, keep, [folder])])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "ARCHIVE")
