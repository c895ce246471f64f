"""What runs in the process of a bundle with code of its own: it walls itself in before it imports anything else.

At the top are the standard library and `confinement` alone: numpy begins threads, which would be left outside.
"""

import json
import mmap
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pipelines import confinement

if TYPE_CHECKING:
    from dicom_sr.nouns import Volume


def main(answers: int) -> None:
    """Answer the one request on standard input, on this descriptor."""
    with open(answers, "wb") as wire:
        request = json.loads(sys.stdin.buffer.read())
        confinement.confine(
            readable=[Path(path) for path in request["readable"]], writable=[Path(path) for path in request["writable"]]
        )
        try:
            content = _findings(request, wire)
        except BaseException as error:  # noqa: BLE001 - told by kind and place: its text may name a patient
            _tell(wire, **_told(error))
        else:
            _tell(wire, kind="findings", bytes=len(content))
            wire.write(content)


def _findings(request: dict[str, Any], wire: BinaryIO) -> bytes:
    warnings.simplefilter("ignore")
    sys.path.insert(0, request["root"])
    from dicom_sr import kept
    from pipelines import bundles, model, trust

    root = Path(request["root"])
    bundle = bundles.read(
        root,
        digest=request["digest"],
        name=request["name"],
        allowed=trust.AllowList(frozenset({request["digest"]})),
    )
    loaded = model.load(bundle, request["device"])
    if "voxels" not in request:
        return b""

    def progress(phase: str, fraction: float) -> None:
        _tell(wire, kind="progress", phase=phase, fraction=fraction)

    settings = bundles.BundleSettings.model_validate(request["settings"])
    return kept.packed(model.run(loaded, _volume(request), settings, progress), bundle.digest)


def _volume(request: dict[str, Any]) -> "Volume":
    import numpy as np

    from dicom_sr.nouns import Acquisition, Volume

    def array(fd: int | None, dtype: str) -> Any:
        if fd is None:
            return None
        memory = mmap.mmap(fd, os.fstat(fd).st_size, prot=mmap.PROT_READ)
        return np.frombuffer(memory, dtype).reshape(request["shape"])

    made = request["acquisition"]
    made |= {name: tuple(made[name]) for name in ("image_type", "warnings")}
    return Volume(
        array=array(request["voxels"], request["dtype"]),
        affine=np.array(request["affine"]),
        acquisition=Acquisition(**made),
        padding=array(request["padding"], "|b1"),
    )


def _told(error: BaseException) -> dict[str, str]:
    import traceback

    from dicom_sr.problem import Problem
    from pipelines.spec import Refused

    if isinstance(error, Problem):
        kind = "refused" if isinstance(error, Refused) else "untrusted"
        return {"kind": kind, "what": error.what, "remedy": error.remedy}
    frame = traceback.extract_tb(error.__traceback__)[-1]
    what = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno} {frame.name}"
    return {"kind": "failed", "what": what, "remedy": "Ask the bundle's author; it has no network and no other files"}


def _tell(wire: BinaryIO, **said: Any) -> None:
    wire.write(json.dumps(said).encode() + b"\n")
    wire.flush()
