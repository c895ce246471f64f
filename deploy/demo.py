"""The main job on this machine: a study goes by C-STORE through a whole node, and SEG and SR come back to an archive.

Run by deploy/demo. Everything it makes lies in var/demo, which each run begins anew.
"""

import argparse
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.sop_class import Verification
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

HERE = Path(__file__).parent
WORK = HERE.parent / "var" / "demo"
QUIET_PERIOD_S = 2
DEADLINE_S = 300

console = Console(highlight=False, soft_wrap=True)


def free_port() -> int:
    """A TCP port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(name: str, *command: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours, its log in var/demo; asked to stop at the end."""
    with (WORK / f"{name}.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, *map(str, command)], stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(90)


def await_echo(port: int, title: str, process: subprocess.Popen[bytes], name: str) -> None:
    """Wait until C-ECHO is answered there."""
    ae = AE(ae_title="ISOCENTER_SEND")
    ae.add_requested_context(Verification)
    ae.connection_timeout = 2
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"{name} did not start; see {WORK / f'{name}.log'}:\n{(WORK / f'{name}.log').read_text()[-2000:]}")
        association = ae.associate("127.0.0.1", port, ae_title=title)
        if association.is_established:
            association.release()
            return
        time.sleep(0.1)
    sys.exit(f"{name} does not answer on port {port}; see {WORK / f'{name}.log'}")


def cli(*arguments: object) -> None:
    """One isocenter command, its output shown."""
    if subprocess.run([sys.executable, "-m", "router.cli", *map(str, arguments)], check=False).returncode:
        sys.exit(1)


def watch(config: Path) -> list[int]:
    """Show what the node does until nothing is left to do; numbers of the inference jobs."""
    from router.config import load
    from router.db import jobs, studies
    from router.db.engine import connect, reading
    from router.domain.job import Lane, State

    engine = connect(load(config).database.url)
    open_states = {State.QUEUED, State.RUNNING, State.WAITING}
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    deadline = time.monotonic() + DEADLINE_S
    with Progress(*columns, console=console) as progress:
        tasks = {0: progress.add_task("waiting for the study to be complete", total=None)}
        while time.monotonic() < deadline:
            with reading(engine) as connection:
                known = studies.list_(connection)
                queue = jobs.list_(connection)
            receiving = [study for study in known if study.state == "receiving"]
            if known and not receiving:
                note = known[0].held_reason or known[0].completeness
                progress.update(tasks[0], description=f"study {known[0].state}: {note}", total=1, completed=1)
            for job in sorted(queue, key=lambda job: job.id):
                what = job.pipeline if job.lane is Lane.INFER else f"deliver to {job.destination}"
                text = f"job {job.id} {what}: {job.outcome or job.phase or job.state}"
                done = 1.0 if job.state not in open_states else job.fraction or 0.0
                if job.id not in tasks:
                    tasks[job.id] = progress.add_task(text, total=1.0)
                progress.update(tasks[job.id], description=text, completed=done)
            if known and not receiving and not any(job.state in open_states for job in queue):
                return [job.id for job in queue if job.lane is Lane.INFER]
            time.sleep(0.1)
    sys.exit(f"nothing came back within {DEADLINE_S} s; see {WORK}/*.log")


def show(config: Path, archive: Path, runs: list[int], source: Path) -> bool:
    """Print measurements and where the objects lie, and draw the contact sheet; whether there was a result."""
    from router.config import load
    from router.db import jobs, results
    from router.db.engine import connect, reading

    engine = connect(load(config).database.url)
    if not runs:
        console.print("\nNo rule wanted this study: `isocenter why` tells which condition failed.", style="yellow")
        return False
    with reading(engine) as connection:
        for run in runs:
            job = jobs.find(connection, run)
            assert job is not None
            if job.reason:
                console.print(f"\njob {run} ({job.pipeline}): {job.outcome or job.state}: {job.reason}", style="yellow")
            table = Table("structure", "measurement", "value", "unit", "remark", title=f"{job.pipeline} (research use)")
            for row in results.measurements_of(connection, run):
                value = "withheld" if row.value is None else f"{row.value:.1f}"
                table.add_row(row.label, row.name, value, row.unit, row.remark or "")
            if table.row_count:
                console.print(table)
    segmentations = []
    for file in sorted(archive.glob("*.dcm")):
        modality = dcmread(file, specific_tags=["Modality"], stop_before_pixels=True).Modality
        if modality in ("SEG", "SR"):
            console.print(f"{modality:<4} in the archive: {file}")
        if modality == "SEG":
            segmentations.append(file)
    for file in segmentations:
        console.print("What the SEG holds, and a picture of it (open it):")
        cli("show", file, "--source", source, "--png", WORK / "overlay.png")
    return bool(segmentations)


def main() -> None:
    parser = argparse.ArgumentParser(prog="deploy/demo", description=__doc__)
    parser.add_argument("--data", type=Path, help="send this folder of DICOM files instead of the phantom")
    parser.add_argument("--cwd", type=Path, default=Path.cwd(), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    started = time.monotonic()
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    if arguments.data:
        study = (arguments.cwd / arguments.data).resolve()
    else:
        from pipelines import phantom

        study = WORK / "phantom"
        study.mkdir()
        phantom.write(phantom.chest(), study)
        console.print("A synthetic chest CT with known lungs has been made (the phantom).")
    archive_port, port, config = free_port(), free_port(), WORK / "node" / "isocenter.yaml"
    cli("init", config.parent, "--pacs", f"ARCHIVE@127.0.0.1:{archive_port}", "--port", port,
        "--quiet-period-s", QUIET_PERIOD_S)  # fmt: skip
    config.write_text(config.read_text() + "\nweb:\n  port: 0\n")
    with (
        running("archive", HERE / "archive.py", WORK / "archive", archive_port) as archive,
        running("node", "-m", "router.cli", "serve", "--config", config) as node,
    ):
        await_echo(archive_port, "ARCHIVE", archive, "archive")
        await_echo(port, "ISOCENTER", node, "node")
        cli("send", study, "--to", f"ISOCENTER@127.0.0.1:{port}")
        runs = watch(config)
        found = show(config, WORK / "archive", runs, study)
    console.print(f"{time.monotonic() - started:.0f} s in all. Logs and everything else lie in {WORK}")
    sys.exit(0 if found else 1)


if __name__ == "__main__":
    main()
