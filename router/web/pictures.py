"""Slices of a series with the segments that a job found on it, drawn for the console; no patient text is ever drawn."""

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.errors import InvalidDicomError

from dicom_sr import pixels, readback, source
from dicom_sr.nouns import LabelMap, Segment, Volume
from dicom_sr.problem import Problem
from router.db import instances, jobs, results
from router.db.engine import reading
from router.domain.job import Lane
from router.node import Node

MASKS = ("segmentation", "label_map", "fractional")
"""Kinds of results that say where segments lie."""

PRESETS: dict[str, tuple[float, float]] = {
    "lung": (-600, 1500),
    "soft tissue": (40, 400),
    "bone": (400, 1800),
    "brain": (40, 80),
    "liver": (60, 160),
}
"""Centre and width in HU; `auto` goes from the 1st to the 99th percentile."""
AUTO = "auto"
KEPT = 2
"""Series that are held in memory, each with its labels; the one looked at longest ago goes first."""
KEPT_S = 300.0
SMALLEST, LARGEST = 384, 1024
"""Longer side of a picture, in pixels."""


class NothingToSee(Problem):
    """A job has no pictures: it is no inference, or its files are not here any more."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scan:
    """A series with what was found on it. `limits` are its 1st and 99th percentile."""

    volume: Volume
    labels: LabelMap | None
    segments: tuple[Segment, ...]
    limits: tuple[float, float]

    @property
    def presets(self) -> tuple[str, ...]:
        """Names of the windows that make sense for it, the first one first."""
        if self.volume.acquisition.modality != "CT":
            return (AUTO,)
        first = "lung" if any("lung" in one.label.lower() for one in self.segments) else "soft tissue"
        return tuple(dict.fromkeys((first, *PRESETS, AUTO)))

    def best_slice(self) -> int:
        """Index of the slice that shows most of what was found; the middle one where nothing was."""
        if self.labels is None or not self.labels.any():
            return int(self.volume.array.shape[0] // 2)
        return int(np.count_nonzero(self.labels, axis=(1, 2)).argmax())

    def millilitres(self, number: int) -> float:
        """Volume of a segment, counted on its voxels."""
        return 0.0 if self.labels is None else float(np.count_nonzero(self.labels == number)) * self.volume.voxel_ml


class Pictures:
    """The scans of the jobs that people look at. Safe for many threads; a scan is read by one of them."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.lock = threading.Lock()
        self.kept: OrderedDict[int, tuple[float, Scan]] = OrderedDict()

    def scan(self, job_id: int) -> Scan:
        """The scan of this inference job.

        Raises:  UnknownJob, NothingToSee, UnusableSeries, UnreadablePixels, NotOnItsSource
        """
        with self.lock:
            at = time.monotonic()
            for number in [number for number, (used, _) in self.kept.items() if used < at - KEPT_S]:
                del self.kept[number]
            if job_id not in self.kept:
                while len(self.kept) >= KEPT:
                    self.kept.popitem(last=False)
                self.kept[job_id] = at, self._read(job_id)
            scan = self.kept[job_id][1]
            self.kept[job_id] = at, scan
            self.kept.move_to_end(job_id)
            return scan

    def _read(self, job_id: int) -> Scan:
        with reading(self.node.engine) as connection:
            job = jobs.find(connection, job_id)
            if job is None:
                raise jobs.UnknownJob(f"there is no job {job_id}", remedy="See the list of jobs")
            if job.lane is not Lane.INFER or job.series_instance_uid is None:
                raise NothingToSee(f"job {job_id} reads no images", remedy="Look at the job that made its results")
            rows = instances.of_series(connection, job.study_instance_uid, job.series_instance_uid)
            sets = [results.of_set(connection, kept.id) for kept in results.sets_of_job(connection, job_id)]
            of_sets = [[one for one in objects if one.kind in MASKS and one.purged_at is None] for objects in sets]
            made = next((objects for objects in of_sets if objects), [])
        store = self.node.store
        try:
            policy = self.node.settings.inference.policy
            series = source.read([store.path(row.path) for row in rows], policy=policy)
            volume = pixels.load(series)
            found = readback.together([pydicom.dcmread(store.path(one.path)) for one in made], series) if made else None
        except (OSError, InvalidDicomError) as error:
            raise NothingToSee(
                f"the files of job {job_id} cannot be read ({type(error).__name__})",
                remedy="They may have been purged; send the study again to see it",
            ) from error
        low, high = np.percentile(volume.array[:: max(1, len(volume.array) // 16)], (1, 99))
        return Scan(
            volume=volume,
            labels=found.labels if found else None,
            segments=found.segments if found else (),
            limits=(float(low), float(max(high, low + 1))),
        )


def drawn(
    scan: Scan, index: int, *, window: str, shown: frozenset[int] | None, opacity: float, contours: bool
) -> bytes:
    """One slice in its true proportions as PNG; segments among `shown` (None: all) are tinted and outlined."""
    plane = scan.volume.array[index].astype(np.float32)
    centre, width = PRESETS.get(window, (sum(scan.limits) / 2, scan.limits[1] - scan.limits[0]))
    grey = np.clip((plane - (centre - width / 2)) / width * 255, 0, 255).astype(np.uint8)
    _, row_mm, column_mm = scan.volume.spacing
    height, width_mm = grey.shape[0] * row_mm, grey.shape[1] * column_mm
    side = min(LARGEST, max(SMALLEST, *grey.shape))
    scale = side / max(height, width_mm)
    size = max(1, round(width_mm * scale)), max(1, round(height * scale))
    picture = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR))
    colours = np.repeat(picture[:, :, None], 3, axis=2).astype(np.float32)
    if scan.labels is not None:
        labels = np.asarray(Image.fromarray(scan.labels[index]).resize(size, Image.Resampling.NEAREST))
        for segment in scan.segments:
            if shown is None or segment.number in shown:
                _tint(colours, labels == segment.number, segment.rgb, opacity, contours=contours)
    out = BytesIO()
    Image.fromarray(colours.astype(np.uint8)).save(out, "PNG", compress_level=1)
    return out.getvalue()


def _tint(
    colours: NDArray[np.float32], mask: NDArray[np.bool_], rgb: tuple[int, int, int], opacity: float, *, contours: bool
) -> None:
    colour = np.array(rgb, np.float32)
    colours[mask] = (1 - opacity) * colours[mask] + opacity * colour
    if contours:
        padded = np.pad(mask, 1)
        inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        colours[mask & ~inner] = colour
