"""How fast we send, beside DCMTK's storescu and pynetdicom: `python -m tests.bench.send`.

Everybody sends the same CT slices (0.5 MB) as Part 10 files from tmpfs to one and the same bare sink; then we and an
un-tuned storescu send MR slices (33 kB) to an un-tuned storescp, where each instance costs it two delayed
acknowledgements. With CT slices that receiver needs a millisecond of CPU each, so no sender can be 50 times as fast;
that row is shown and promises nothing. Rounds are interleaved, ratios medians of paired rounds, and what came is
compared by sha256.
Every sender's time is that of all its files less that of a single one: without imports, association and release.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from router.ingest import part10
from tests.bench import receivers
from tests.bench.load import objects
from tests.conftest import REPOSITORY, until
from tests.servers import free_port, listens

TMPFS = Path("/dev/shm/isocenter-bench-send")
LARGE_PDU = "131072"


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """What one round of one sender took."""

    seconds: float
    cpu_s: float
    instances: int

    @property
    def rate(self) -> float:
        return self.instances / self.seconds


Sender = Callable[[int, Path], Took]


def files(folder: Path, count: int, kind: str = "ct") -> set[str]:
    """So many slices of a kind as Part 10 files; digests of their data sets."""
    folder.mkdir(parents=True)
    found = set()
    for number, one in enumerate(objects(kind, count)):
        start = part10.beginning(
            sop_class_uid=one.sop_class_uid,
            sop_instance_uid=one.sop_instance_uid,
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            calling_ae_title="BENCH",
        )
        (folder / f"{number:05d}.dcm").write_bytes(start + one.content)
        found.add(one.digest)
    return found


def us(port: int, folder: Path) -> Took:
    return _python("isocenter", port, folder)


def pynetdicom(port: int, folder: Path) -> Took:
    return _python("pynetdicom", port, folder)


def storescu(port: int, folder: Path, *, tuned: bool = True) -> Took:
    """DCMTK's, with TCP_NODELAY and large PDUs, or as it comes."""
    environment = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    options = ["--max-send-pdu", LARGE_PDU] if tuned else []
    if tuned:
        environment["TCP_NODELAY"] = "1"
    names = sorted(folder.iterdir())

    def run(some: list[Path]) -> tuple[float, float]:
        begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            ["storescu", *options, "-aec", "ANY", "127.0.0.1", str(port), *map(str, some)], env=environment, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return time.perf_counter() - begun, spent

    one, many = run(names[:1]), run(names)
    return Took(seconds=many[0] - one[0], cpu_s=many[1] - one[1], instances=len(names) - 1)


def untuned_storescu(port: int, folder: Path) -> Took:
    return storescu(port, folder, tuned=False)


def _python(name: str, port: int, folder: Path) -> Took:
    command = [sys.executable, "-m", "tests.bench.send", "--as", name, "--port", str(port), "--files", str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    return Took(**json.loads(done.stdout))


def work(name: str, port: int, folder: Path) -> Took:
    """Send as this sender, in this process."""
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    names = sorted(folder.iterdir())
    if name == "isocenter":
        from router.cli.send import outgoing
        from router.destinations import Context, dicom

        items = list(outgoing([folder]))
        settings = dicom.Settings(kind="dicom", name="bench", ae_title="ANY", host="127.0.0.1", port=port)

        def send(count: int) -> int:
            receipts = dicom.send(settings, items[:count], Context(calling_ae_title="BENCH", timeout_s=60))
            return sum(receipt.verdict == "accepted" for receipt in receipts)

    else:
        from pynetdicom import AE, _config

        from router.requestor import steady

        _config.STORE_SEND_CHUNKED_DATASET = True
        ae = AE(ae_title="BENCH")
        ae.add_requested_context(CTImageStorage, [ExplicitVRLittleEndian])

        def send(count: int) -> int:
            association = steady(ae.associate("127.0.0.1", port, ae_title="ANY"))  # else it may lose an answer and 30 s
            taken = sum(association.send_c_store(one).Status == 0 for one in names[:count])
            association.release()
            return taken

    send(1)  # what is imported late
    times = [(time.perf_counter(), time.process_time())]
    for count in (1, len(names)):
        accepted = send(count)
        times.append((time.perf_counter(), time.process_time()))
    seconds, cpu_s = (one - 2 * two + three for one, two, three in zip(*times, strict=True))
    took = Took(seconds=seconds, cpu_s=cpu_s, instances=len(names) - 1)
    if accepted != len(names):
        raise SystemExit(f"{name}: {accepted} of {len(names)} accepted")
    return took


def came(folder: Path, *, is_part10: bool) -> set[str]:
    """Digests of the data sets that lie there."""
    found = set()
    for path in folder.iterdir():
        content = path.read_bytes()
        if path.suffix != ".part" and len(content) > 200:
            found.add(hashlib.sha256(content[part10.dataset_offset(content) :] if is_part10 else content).hexdigest())
    return found


@contextmanager
def untuned(folder: Path) -> Iterator[int]:
    """The port of DCMTK's storescp as it comes."""
    folder.mkdir(parents=True)
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    process = subprocess.Popen(["storescp", "+B", "-od", str(folder), str(port)], env=environment)
    try:
        until(lambda: listens(port), what="storescp listens")
        yield port
    finally:
        process.terminate()
        process.wait(10)


def rounds(
    port: int, folder: Path, senders: dict[str, tuple[Sender, Path, set[str]]], count: int, *, is_part10: bool
) -> dict[str, list[Took]]:
    """Every sender in every round, in turns; what came is what was sent."""
    found: dict[str, list[Took]] = {name: [] for name in senders}
    for number in range(count + 1):
        order = list(senders)
        for name in order if number % 2 else reversed(order):
            send, source, digests = senders[name]
            took = send(port, source)
            until(lambda wanted=digests: wanted <= came(folder, is_part10=is_part10), what=f"all that {name} has sent")
            for path in folder.iterdir():
                path.unlink()
            if number:  # the first one warms up
                found[name].append(took)
    return found


def to_untuned(kind: str, options: argparse.Namespace) -> dict[str, list[Took]]:
    """We and storescu as it comes to storescp as it comes; storescu, which takes its time, sends fewer."""
    many, few = TMPFS / f"many-{kind}", TMPFS / f"few-{kind}"
    all_of, some = files(many, 2 * options.count, kind), files(few, 20, kind)
    with untuned(TMPFS / f"storescp-{kind}") as port:
        return rounds(
            port,
            TMPFS / f"storescp-{kind}",
            {"isocenter": (us, many, all_of), "storescu": (untuned_storescu, few, some)},
            min(3, options.rounds),
            is_part10=True,
        )


def main() -> int:
    """Measure, print the table, write JSON; 1 when something is not met."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.send", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="paired rounds")
    parser.add_argument("--count", type=int, default=200, help="CT slices a round")
    parser.add_argument("--json", type=Path, help="write all rounds there")
    parser.add_argument("--as", dest="name", choices=("isocenter", "pynetdicom"), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--files", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.name:
        took = work(options.name, options.port, options.files)
        print(json.dumps({"seconds": took.seconds, "cpu_s": took.cpu_s, "instances": took.instances}))
        return 0
    shutil.rmtree(TMPFS, ignore_errors=True)
    try:
        many = TMPFS / "many"
        all_of = files(many, options.count)
        with receivers.sink(TMPFS / "sink") as sink:
            fast = rounds(
                sink.port,
                sink.folder,
                {
                    "isocenter": (us, many, all_of),
                    "storescu": (storescu, many, all_of),
                    "pynetdicom": (pynetdicom, many, all_of),
                },
                options.rounds,
                is_part10=False,
            )
        slow = {kind: to_untuned(kind, options) for kind in ("mr", "ct")}
    finally:
        shutil.rmtree(TMPFS, ignore_errors=True)
    return report(fast, slow, options.json)


def report(fast: dict[str, list[Took]], slow: dict[str, dict[str, list[Took]]], path: Path | None) -> int:
    """The table, and 1 when something is not met."""
    mr, ct = slow["mr"], slow["ct"]
    wanted: tuple[tuple[str, list[Took], list[Took], float | None], ...] = (
        ("storescu with TCP_NODELAY, CT to the sink", fast["isocenter"], fast["storescu"], 1.0),
        ("pynetdicom, chunked, CT to the sink", fast["isocenter"], fast["pynetdicom"], 5.0),
        ("un-tuned storescu, MR to an un-tuned storescp", mr["isocenter"], mr["storescu"], 50.0),
        ("un-tuned storescu, CT to an un-tuned storescp", ct["isocenter"], ct["storescu"], None),
    )
    rows = []
    for name, ours, theirs, must in wanted:
        ratio = statistics.median(mine.rate / other.rate for mine, other in zip(ours, theirs, strict=True))
        is_met = must is None or ratio >= must
        row: dict[str, object] = {"against": name, "ratio": round(ratio, 2), "must": must, "is_met": is_met}
        for who, all_took in (("ours", ours), ("theirs", theirs)):
            row[f"{who}_a_second"] = round(statistics.median(took.rate for took in all_took), 1)
            row[f"{who}_cpu_ms_each"] = round(
                statistics.median(1e3 * took.cpu_s / took.instances for took in all_took), 2
            )
        rows.append(row)
        verdict = "shown  " if must is None else "met    " if is_met else "NOT met"
        print(
            f"{verdict} {ratio:7.2f}x {'' if must is None else f'(must {must:g}) '}{name}: "
            f"{row['ours_a_second']} against {row['theirs_a_second']} a second, "
            f"CPU {row['ours_cpu_ms_each']} against {row['theirs_cpu_ms_each']} ms each"
        )
    if path:
        path.write_text(
            json.dumps({"machine": {"cores": os.cpu_count(), "load": os.getloadavg()}, "rows": rows}, indent=1)
        )
    return 0 if all(row["is_met"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
