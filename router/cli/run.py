"""`isocenter run`: the same pipeline, the same writers and the same gate, on a folder; no server."""

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer
from pydantic import ValidationError
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dicom_sr.pixels import pixel_digest
from dicom_sr.problem import Problem
from dicom_sr.uids import input_digest, pixels_digest
from pipelines.spec import Spec
from router.cli import app
from router.cli._common import DEFAULT_CONFIG, AsJson, Config, answer, models_of, print_json, talk
from router.work.messages import Build, Naming
from router.work.messages import Progress as Phase

IDENTITY = ["SOPInstanceUID", "PatientID", "IssuerOfPatientID", "StudyInstanceUID", "AccessionNumber", "PatientName"]

NODE = "offline"
"""Stands for the node's id in the UIDs of offline results: the same folder run again gives the same objects."""


class NotRunnable(Problem):
    """There is nothing here that the pipeline could read."""


class WrongSetting(Problem):
    """A --set is not a setting of this pipeline."""

    exit_code = 2


def series_below(path: Path) -> dict[str, tuple[Path, ...]]:
    """The files of each image series below a path, by SeriesInstanceUID, series with most files first.

    Raises:  NotRunnable
    """
    if not path.exists():
        raise NotRunnable(f"{path} does not exist", remedy="Name a DICOM file or a folder of one series")
    found: dict[str, list[Path]] = {}
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if not file.is_file():
            continue
        try:
            header = dcmread(file, stop_before_pixels=True, specific_tags=["SeriesInstanceUID", "Rows"])
        except (InvalidDicomError, EOFError):
            if file == path:
                raise NotRunnable(
                    f"{file} is not a DICOM file", remedy="Name a DICOM Part 10 file or a folder"
                ) from None
            continue
        if "Rows" in header:
            found.setdefault(str(header.get("SeriesInstanceUID", "")), []).append(file)
    if not found:
        raise NotRunnable(f"no DICOM image below {path}", remedy="Name a folder that holds an image series")
    return {uid: tuple(files) for uid, files in sorted(found.items(), key=lambda item: -len(item[1]))}


def only(series: dict[str, tuple[Path, ...]], wanted: str | None, path: Path) -> tuple[Path, ...]:
    """The one series that is meant.

    Raises:  NotRunnable, when it is not clear which
    """
    if wanted is None and len(series) == 1:
        return next(iter(series.values()))
    if wanted in series:
        return series[wanted]
    listed = "; ".join(f"{uid} ({len(files)} images)" for uid, files in series.items())
    raise NotRunnable(f"{path} holds {len(series)} series: {listed}", remedy="Choose one with --series UID")


def settings_of(pairs: list[str], model: type[Any]) -> dict[str, Any]:
    """NAME=VALUE pairs as the pipeline's settings, values read as JSON where they are.

    Raises:  WrongSetting
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        try:
            values[name] = json.loads(text)
        except json.JSONDecodeError:
            values[name] = text
    try:
        return dict(model.model_validate(values).model_dump(mode="json"))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise WrongSetting(faults, remedy=f"It has: {', '.join(model.model_fields) or 'no settings'}") from None


@app.command(epilog="Example: isocenter run ct_lung study/ --out results")
def run(
    pipeline: Annotated[str, typer.Argument(help="Its name, from `isocenter pipelines list`")],
    path: Annotated[Path, typer.Argument(help="A folder with one image series, or a multi-frame file")],
    out: Annotated[Path, typer.Option(help="Folder for the objects and the overlay; made if it is not there")],
    series: Annotated[str | None, typer.Option(help="SeriesInstanceUID, where the folder holds several")] = None,
    setting: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE of a pipeline setting")] = None,
    allow_thick: Annotated[bool, typer.Option("--allow-thick", help="Short for --set allow_thick=true")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda:0")] = "auto",
    timezone: Annotated[str, typer.Option(help="IANA time zone of the dates in the objects")] = "UTC",
    profile: Annotated[bool, typer.Option("--profile", help="Print where the time went, phase by phase")] = False,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Run one pipeline on a folder and write SEG, SR and an overlay picture; exits 1 when it refuses."""
    from dicom_sr import pixels, show
    from dicom_sr.source import STRICT
    from pipelines import catalog
    from router.config import load
    from router.work.inside import Inside
    from router.work.messages import Run

    models_of(config)
    spec = catalog.find(pipeline).spec
    settings = settings_of([*(setting or []), *(["allow_thick=true"] if allow_thick else [])], spec.settings)
    files = only(series_below(path), series, path)
    policy = load(config).inference.policy if config.exists() else STRICT
    with Meter(pipeline) as meter:
        meter.enter("start")
        inside = Inside(device, 0, meter.told)
        found = inside.run(Run(paths=files, pipeline=pipeline, settings=settings, policy=policy))
        meter.enter("objects")
        objects = inside.build(order_of(spec, settings, files, ZoneInfo(timezone))).built
    assert inside.last is not None
    source, findings = inside.last
    out.mkdir(parents=True, exist_ok=True)
    contents = {f"{one.kind}.dcm": one.part10 for one in objects}
    contents["overlay.png"] = show.contact_sheet(pixels.load(source), findings, title=pipeline)
    for name, content in contents.items():
        (out / name).write_bytes(content)
    if as_json:
        measurements = [asdict(row) for row in found.measurements]
        said = {"measurements": measurements, "files": [str(out / name) for name in contents]}
        print_json(said | ({"profile": meter.profile()} if profile else {}))
        return
    title = f"{pipeline} {spec.version}, {'research use' if spec.research_use else spec.title}"
    table = Table("structure", "measurement", "value", "unit", "remark", title=title)
    for row in show.table(findings):
        table.add_row(row.finding, row.measurement, row.value, row.unit, row.note)
    answer.print(table)
    for name in contents:
        answer.print(str(out / name), markup=False, soft_wrap=True)
    if profile:
        answer.print(timetable(meter.profile()))


def timetable(profile: list[dict[str, Any]]) -> Table:
    """Where the time went, a line a phase."""
    table = Table("phase", "seconds", "share", title="Where the time went")
    for row in profile:
        table.add_row(row["phase"], f"{row['seconds']:.3f}", f"{100 * row['share']:.0f} %")
    table.add_row("together", f"{sum(row['seconds'] for row in profile):.3f}", "")
    return table


class Meter:
    """A progress bar that the pipeline moves, and a clock that is read whenever a phase begins.

    The phases are those that the pipeline tells, in its own words (a bundle's are pre, network and post), after "start"
    (torch is imported and the device looked for) and "reading", and before "objects" (SEG and SR, and the gate).
    """

    def __init__(self, pipeline: str) -> None:
        self.pipeline = pipeline
        self.bar = Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=talk)
        self.task = self.bar.add_task(pipeline, total=1.0)
        self.phase: str | None = None
        self.entered = 0.0
        self.spent: dict[str, float] = {}

    def __enter__(self) -> "Meter":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.enter(None)
        self.bar.stop()

    def enter(self, phase: str | None) -> None:
        """A phase begins, and the one before it has ended."""
        now = perf_counter()
        if self.phase is not None:
            self.spent[self.phase] = self.spent.get(self.phase, 0.0) + now - self.entered
        self.phase, self.entered = phase, now

    def profile(self) -> list[dict[str, Any]]:
        """Seconds of each phase, and its share of all, in the order in which they began."""
        whole = sum(self.spent.values()) or 1.0
        return [
            {"phase": phase, "seconds": round(seconds, 6), "share": round(seconds / whole, 4)}
            for phase, seconds in self.spent.items()
        ]

    def told(self, reply: object) -> None:
        """Show what the pipeline says of its progress."""
        if isinstance(reply, Phase):
            self.enter(reply.phase if reply.fraction < 1 else "finishing")
            self.bar.update(self.task, description=f"{self.pipeline}: {reply.phase}", completed=reply.fraction)


def order_of(spec: Spec, settings: dict[str, Any], files: tuple[Path, ...], zone: ZoneInfo) -> Build:
    """What an offline run orders: the same folder run again gets the same UIDs."""
    headers = [dcmread(file, stop_before_pixels=True, specific_tags=IDENTITY) for file in files]
    read = [(str(header.SOPInstanceUID), pixel_digest(file)) for header, file in zip(headers, files, strict=True)]
    identity = "\x1f".join(str(headers[0].get(keyword, "")) for keyword in IDENTITY[1:])
    return Build(
        kinds=("segmentation", "measurement_report"),
        settings={},
        sr="comprehensive3d",
        tracking="plain",
        uid=Naming(
            node=NODE,
            input_digest=input_digest(pixels_digest(read), identity),
            pipeline=spec.name,
            version=spec.version,
            weights=spec.weights_digest or "none",
            settings=json.dumps(settings, sort_keys=True),
            encoding=NODE,
            run=0,
        ),
        made_at=datetime.now(zone),
        series_number=9000,
        pipeline=spec.name,
        title=spec.title,
        research=spec.research_use,
        completeness=f"Offline run on the {len(files)} files of one folder; nothing is known of others",
    )
