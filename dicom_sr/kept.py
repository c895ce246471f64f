"""Findings as one file: what a run found, so that any result set can be built from it later without another run.

A ZIP archive. `findings.json` is all but the voxels, `layer0`, `layer1` ... are the label maps: row differences modulo
256, deflated, so a label map of a chest takes a megabyte; `map0` ... are the numbers of parametric maps. The same
findings are always the same bytes. It names no patient: whose findings they are is read from the source series whenever
they are built into objects, so a corrected identity needs no other findings. They are used again only on a series that
says the same of its geometry and its acquisition, for what a run has read from the headers is as much its input as the
pixels.
"""

import hashlib
import json
import zipfile
import zlib
from dataclasses import asdict, dataclass
from io import BytesIO

import numpy as np
from pydantic import TypeAdapter, ValidationError

from dicom_sr.nouns import Algorithm, Code, Findings, LabelMap, MeasurementGroup, NotFound, ParametricMap, Segment
from dicom_sr.problem import Problem
from dicom_sr.source import SourceSeries

FORMAT = 1
"""Raised when an older version could not read what this one writes."""

SPEED = 4
"""Deflate level: from 5 on, half a second more saves a tenth."""


class UnreadableFindings(Problem):
    """Kept findings are damaged, or of a format that this version does not know."""


class OtherSeries(Problem):
    """Kept findings were made on a series that said something else of its geometry or its acquisition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaidOfMap:
    """A parametric map less its values."""

    label: str
    quantity: Code
    unit: Code
    segment_number: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """Findings less their voxels.

    `series` is `read_of` the series that they were found on; `shape` is (slice, row, column), or None when nothing was
    delineated or mapped.
    """

    format: int
    series: str
    algorithm: Algorithm
    segments: tuple[Segment, ...]
    groups: tuple[MeasurementGroup, ...]
    not_found: tuple[NotFound, ...]
    remarks: tuple[str, ...]
    shape: tuple[int, int, int] | None
    maps: tuple[SaidOfMap, ...] = ()


SAID = TypeAdapter(Said)


def read_of(series: SourceSeries) -> str:
    """Digest of all that a run reads from the headers of its series: planes, geometry, rescaling, acquisition."""
    planes = [
        (plane.sop_instance_uid, plane.frame, plane.position, plane.orientation, plane.spacing, plane.thickness)
        for plane in series.planes
    ]
    words = [(plane.slope, plane.intercept, asdict(plane.pixels)) for plane in series.planes]
    said = [planes, words, series.frame_of_reference_uid, asdict(series.acquisition)]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def pack(findings: Findings, series: SourceSeries) -> bytes:
    """The findings on this series as one file."""
    return packed(findings, read_of(series))


def packed(findings: Findings, series: str) -> bytes:
    """The findings as one file, for whatever goes by this name."""
    said = Said(
        format=FORMAT,
        series=series,
        algorithm=findings.algorithm,
        segments=findings.segments,
        groups=findings.groups,
        not_found=findings.not_found,
        remarks=findings.remarks,
        shape=shape_of(findings),
        maps=tuple(
            SaidOfMap(label=one.label, quantity=one.quantity, unit=one.unit, segment_number=one.segment_number)
            for one in findings.maps
        ),
    )
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(zipfile.ZipInfo("findings.json"), SAID.dump_json(said, indent=1))
        for number, layer in enumerate(findings.layers):
            archive.writestr(zipfile.ZipInfo(f"layer{number}"), deflated(layer))
        for number, one in enumerate(findings.maps):
            archive.writestr(zipfile.ZipInfo(f"map{number}"), zlib.compress(one.values.astype("<f4").tobytes(), SPEED))
    return out.getvalue()


def unpack(content: bytes, series: SourceSeries) -> Findings:
    """The findings on this series again, equal in every voxel and number.

    Raises:  UnreadableFindings, OtherSeries
    """
    return unpacked(content, read_of(series))


def unpacked(content: bytes, series: str) -> Findings:
    """The findings again, if they were packed for what goes by this name.

    Raises:  UnreadableFindings, OtherSeries
    """
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            words = archive.read("findings.json")
            if json.loads(words).get("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            said = SAID.validate_json(words, strict=True)
            names = sorted((name for name in archive.namelist() if name.startswith("layer")), key=lambda n: int(n[5:]))
            shape = said.shape or (0, 0, 0)
            layers = [inflated(archive.read(name), shape) for name in names]
            values = [zlib.decompress(archive.read(f"map{number}")) for number in range(len(said.maps))]
            maps = tuple(mapped(one, content, shape) for one, content in zip(said.maps, values, strict=True))
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, ValidationError) as error:
        why = "it does not say what findings say" if isinstance(error, ValidationError) else str(error)
        raise UnreadableFindings(
            f"kept findings cannot be read: {why}", remedy="Re-run the inference job; it keeps new ones"
        ) from None
    if said.series != series:
        raise OtherSeries(
            "the series says something else of its geometry or acquisition than when these findings were made",
            remedy="Re-run the inference job",
        )
    return Findings(
        algorithm=said.algorithm,
        labels=layers[0] if layers else None,
        segments=said.segments,
        groups=said.groups,
        not_found=said.not_found,
        remarks=said.remarks,
        overlaps=tuple(layers[1:]),
        maps=maps,
    )


def shape_of(findings: Findings) -> tuple[int, int, int] | None:
    """(slice, row, column) of all that the findings say voxel by voxel."""
    shapes = [layer.shape for layer in findings.layers] + [one.values.shape for one in findings.maps]
    if not shapes:
        return None
    planes, rows, columns = shapes[0]
    return planes, rows, columns


def mapped(said: SaidOfMap, content: bytes, shape: tuple[int, int, int]) -> ParametricMap:
    """A parametric map again.

    Raises:  ValueError
    """
    values = np.frombuffer(content, "<f4").astype(np.float32).reshape(shape)
    return ParametricMap(
        label=said.label, quantity=said.quantity, unit=said.unit, segment_number=said.segment_number, values=values
    )


def deflated(layer: LabelMap) -> bytes:
    """A label map as the differences of its rows, compressed slice by slice."""
    press = zlib.compressobj(SPEED)
    parts = []
    for plane in layer:
        rows = plane.copy()
        rows[1:] -= plane[:-1]
        parts.append(press.compress(rows.tobytes()))
    return b"".join([*parts, press.flush()])


def inflated(content: bytes, shape: tuple[int, int, int]) -> LabelMap:
    """The label map again.

    Raises:  ValueError, zlib.error
    """
    rows = np.frombuffer(zlib.decompress(content), np.uint8).reshape(shape)
    layer: LabelMap = np.add.accumulate(rows, axis=1, dtype=np.uint8)
    return layer
