"""A bundle that runs code of its own, seen from outside: its process, which has no network and no files (`walled`).

The volume is given as memory that the process cannot change. What comes back is a line of JSON at a time, and the
findings in the form in which they are kept on disk: nothing is unpickled, and findings that contradict themselves are
refused. The process ends with the run, so what a bundle leaves in memory meets no other volume; that torch is imported
each time is the price.
"""

import fcntl
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from dicom_sr import kept
from dicom_sr.nouns import Findings, Volume
from dicom_sr.problem import Problem
from pipelines import trust
from pipelines.spec import Progress, Refused, silent
from pipelines.trust import Untrusted

if TYPE_CHECKING:
    from pipelines.bundles import Bundle

PACKAGES = Path(__file__).parent.parent
PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from pipelines import walled; walled.main(int(sys.argv[2]))"
ENVIRONMENT = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "OMP_WAIT_POLICY")
READABLE = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/proc/self", "/proc/cpuinfo",
            "/proc/meminfo", "/sys/devices/system", "/dev/urandom")  # fmt: skip
"""Of the machine: its libraries, and what torch asks of its processors."""


class IsolatedFailed(Problem):
    """The process of a bundle that runs code of its own gave no answer that can be used."""

    retryable = True


def run(
    bundle: "Bundle", volume: Volume, settings: BaseModel, *, device: str = "cpu", progress: Progress = silent
) -> Findings:
    """The bundle's findings on a volume.

    Raises:  Refused, Untrusted, IsolatedFailed, and whatever `progress` raises: it ends the process
    """
    with _memory(volume.array) as voxels, _memory(volume.padding) as padding:
        given = {
            "voxels": voxels,
            "padding": padding,
            "dtype": volume.array.dtype.str,
            "shape": volume.array.shape,
            "affine": volume.affine.tolist(),
            "acquisition": asdict(volume.acquisition),
            "settings": settings.model_dump(mode="json"),
        }
        content = _asked(bundle, given, device, progress, pass_fds=[fd for fd in (voxels, padding) if fd is not None])
    findings = kept.unpacked(content, bundle.digest)
    fits = findings.labels is None or findings.labels.shape == volume.array.shape
    if not fits or (findings.algorithm.name, findings.algorithm.weights_digest) != (bundle.name, bundle.digest):
        raise IsolatedFailed(
            f"the bundle {bundle.name} answered with findings of another volume or algorithm",
            remedy="Remove the bundle; its code does not do what it was signed for",
        )
    return findings


def try_it(bundle: "Bundle") -> None:
    """Builds the bundle's network in its process.

    Raises:  Untrusted, IsolatedFailed
    """
    _asked(bundle, {}, "cpu", silent, pass_fds=[])


def _asked(bundle: "Bundle", given: dict[str, Any], device: str, progress: Progress, *, pass_fds: list[int]) -> bytes:
    """What the process answers to one request."""
    if trust.digest(bundle.root) != bundle.digest:
        raise Untrusted(
            f"the files of {bundle.name} are not those that were signed for", remedy="Remove the bundle, add it again"
        )
    with tempfile.TemporaryDirectory(prefix="isocenter-") as place:
        request = {
            **given,
            "root": str(bundle.root.resolve()),
            "name": bundle.name,
            "digest": bundle.digest,
            "device": device,
            "readable": [*_readable(), str(bundle.root.resolve())],
            "writable": [place, "/dev/null", *(map(str, Path("/dev").glob("nvidia*")) if device != "cpu" else ())],
        }
        near, far = os.pipe()
        with open(near, "rb") as answers:
            with open(far, "wb"):
                process = subprocess.Popen(
                    [sys.executable, "-c", PROGRAM, str(PACKAGES), str(far)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[far, *pass_fds],
                    cwd=place,
                    env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
                    | {"TMPDIR": place, "HOME": place},
                )
            try:
                assert process.stdin is not None
                with process.stdin as wire:
                    wire.write(json.dumps(request).encode())
                return _answer(answers, bundle, progress)
            except BrokenPipeError:
                raise _died(bundle) from None
            finally:
                process.kill()
                process.wait()


def _answer(answers: BinaryIO, bundle: "Bundle", progress: Progress) -> bytes:
    """The first answer that is not mere progress."""
    for line in answers:
        try:
            said = json.loads(line)
            kind = said["kind"]
            if kind == "progress":
                phase, fraction = str(said["phase"]), float(said["fraction"])
            elif kind == "findings":
                size = int(said["bytes"])
                content = answers.read(size)
                if len(content) == size:
                    return content
                break
            else:
                what, remedy = str(said["what"])[:1000], str(said["remedy"])[:1000]
        except (ValueError, KeyError, TypeError):
            break
        if kind == "progress":
            progress(phase, fraction)
        elif kind == "refused":
            raise Refused(what, remedy=remedy)
        elif kind == "untrusted":
            raise Untrusted(what, remedy=remedy)
        else:
            raise IsolatedFailed(f"the code of {bundle.name} failed: {what}", remedy=remedy)
    raise _died(bundle)


def _died(bundle: "Bundle") -> IsolatedFailed:
    return IsolatedFailed(
        f"the process of {bundle.name} ended without an answer",
        remedy="It may have crashed, run out of memory, or done what it is kept from",
    )


def _readable() -> list[str]:
    """Folders of Python and its packages, and of the machine's libraries."""
    packages = [path for path in sys.path if "site-packages" in path or "dist-packages" in path]
    ours = [str(PACKAGES / name) for name in ("pipelines", "dicom_sr")]
    return [*READABLE, sys.prefix, sys.base_prefix, *packages, *ours]


@contextmanager
def _memory(array: NDArray[Any] | None) -> Iterator[int | None]:
    """The array in memory that can be passed on and that nobody can change; None for none."""
    if array is None:
        yield None
        return
    place = os.memfd_create("volume", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(place, "wb", closefd=False) as file:
            for plane in array:
                file.write(np.ascontiguousarray(plane).data)
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(place, fcntl.F_ADD_SEALS, seals)
        yield place
    finally:
        os.close(place)
