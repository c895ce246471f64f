"""How fast the door is, beside a bare Python sink, DCMTK's storescp and Orthanc: `python -m tests.bench.ingest`.

Rounds of all receivers are interleaved, ratios are medians of paired rounds, and every instance that was answered
with Success is looked for by the sha256 of its data set. Rounds on tmpfs and CPU seconds a gigabyte are the steady
figures; the disk is noisy.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench import receivers
from tests.bench.load import Instance, Sent, objects, send
from tests.bench.receivers import Receiver
from tests.conftest import COMPONENTS
from tests.ingest.wire import ACCEPTED, Wire

TMPFS = Path("/dev/shm/isocenter-bench")
Start = Callable[[Path], AbstractContextManager[Receiver]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table. A figure of what is asked for at least, or at most."""

    what: str
    figure: float
    must: float
    aim: float | None
    at_most: bool = False
    detail: str = ""

    @property
    def is_met(self) -> bool:
        return self.figure <= self.must if self.at_most else self.figure >= self.must


class Bench:
    """Runs cases and collects rows."""

    def __init__(self, rounds: int, scale: float, disk: Path) -> None:
        self.rounds = rounds
        self.scale = scale
        self.disk = disk
        self.number = 0
        self.rows: list[Row] = []
        self.runs: list[dict[str, object]] = []

    def duel(
        self, kind: str, count: int, opponents: dict[str, Start], *, associations: int = 1, at: Path
    ) -> dict[str, list[float]]:
        """Throughput of us and of each opponent in MB/s, round by round; the first is us."""
        items = objects(kind, max(associations, round(count * self.scale)))
        found: dict[str, list[float]] = {name: [] for name in opponents}
        with ExitStack() as stack:
            running = {
                name: stack.enter_context(start(at / name.replace(" ", ""))) for name, start in opponents.items()
            }  # type: ignore[arg-type]
            for round_ in range(self.rounds + 1):
                order = list(running)
                for name in order if round_ % 2 else reversed(order):
                    sent = self.round(running[name], items, associations)
                    if round_:  # the first one warms up
                        found[name].append(sent.megabytes_a_second)
        return found

    def round(self, receiver: Receiver, items: Sequence[Instance], associations: int) -> Sent:
        """Send under new UIDs, and find every instance again."""
        self.number += 1
        mine = [item.of_round(self.number) for item in items]
        before = receiver.cpu_s()
        sent = send(receiver.port, mine, associations=associations)
        after = receiver.cpu_s()
        gigabytes = sent.megabytes / 1e3
        missing = {item.digest for item in mine} - receiver.new_digests()
        if missing or sent.failed:
            raise SystemExit(f"{receiver.name}: {sent.failed} refused, {len(missing)} of {len(mine)} not found again")
        self.runs.append(
            {
                "receiver": receiver.name, "associations": associations, "instances": sent.instances,
                "megabytes": round(sent.megabytes, 1), "megabytes_a_second": round(sent.megabytes_a_second, 1),
                "p50_ms": round(sent.p50_ms, 3),
                "cpu_s_a_gb": round((after[0] - before[0]) / gigabytes, 3),
                "hashing_s_a_gb": round((after[1] - before[1]) / gigabytes, 3),
            }
        )  # fmt: skip
        receiver.settle()
        return sent

    def ratio(self, what: str, found: dict[str, list[float]], must: float, aim: float) -> None:
        """A row: our throughput over the opponent's, median of paired rounds."""
        ours, theirs = list(found.values())
        ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        detail = f"{statistics.median(ours):.0f} against {statistics.median(theirs):.0f} MB/s"
        spread = f", {min(ratios):.2f} to {max(ratios):.2f}"
        self.rows.append(Row(what=what, figure=statistics.median(ratios), must=must, aim=aim, detail=detail + spread))

    def most(self, what: str, figure: float, must: float, aim: float | None = None, detail: str = "") -> None:
        """A row of which less is better."""
        self.rows.append(Row(what=what, figure=figure, must=must, aim=aim, at_most=True, detail=detail))


def us(*, fsync: bool) -> Start:
    return lambda at: receivers.isocenter(at, fsync=fsync)


def orthanc(*, fsync: bool) -> Start:
    return lambda at: receivers.orthanc(at, fsync=fsync)


def dcmtk(*, fork: bool) -> Start:
    return lambda at: receivers.storescp(at, fork=fork)


def against_sink(bench: Bench) -> None:
    found = bench.duel("ct", 400, {"isocenter": us(fsync=False), "sink": receivers.sink}, at=TMPFS)
    bench.ratio("CT, 1 association, fsync off, against a bare Python sink", found, 0.75, 0.9)


def against_storescp(bench: Bench) -> None:
    for associations, must, aim in ((1, 0.9, 1.0), (8, 0.78, 0.9)):
        for fork in (True, False):
            if associations > 1 and not fork:
                continue  # it serves one association after the other
            found = bench.duel(
                "ct",
                400,
                {"isocenter": us(fsync=False), "storescp": dcmtk(fork=fork)},
                associations=associations,
                at=TMPFS,
            )
            name = "storescp --fork +B" if fork else "storescp +B"
            bench.ratio(f"CT, {associations} association(s), fsync off, against {name}", found, must, aim)


def against_orthanc(bench: Bench) -> None:
    for kind, count, name in (("ct", 200, "CT"), ("mr", 600, "small MR")):
        found = bench.duel(kind, count, {"isocenter": us(fsync=False), "orthanc": orthanc(fsync=False)}, at=TMPFS)
        bench.ratio(f"{name} on tmpfs against Orthanc", found, 4.2, 5)


def durable(bench: Bench) -> None:
    for associations, must, aim in ((1, 2.6, 3.0), (8, 2.1, 2.5)):
        contest = {"isocenter": us(fsync=True), "orthanc": orthanc(fsync=True)}
        found = bench.duel("ct", 160, contest, associations=associations, at=bench.disk)
        bench.ratio(
            f"durable and indexed against Orthanc with SyncStorageArea, {associations} association(s)", found, must, aim
        )


def round_trip(bench: Bench) -> None:
    items = objects("ct", round(200 * bench.scale))
    with receivers.isocenter(bench.disk / "round-trip", fsync=True) as receiver:
        trips = [bench.round(receiver, items, 1).p50_ms for _ in range(bench.rounds + 1)][1:]
    bench.most("round trip of a durable CT slice, p50 (ms)", statistics.median(trips), 1.5, 1.2)


def multi_frame(bench: Bench) -> None:
    found = bench.duel("mf", 1, {"isocenter": us(fsync=False), "orthanc": orthanc(fsync=False)}, at=TMPFS)
    bench.ratio("one 200 MB multi-frame against Orthanc", found, 7, 8)


def processor(bench: Bench) -> None:
    """Beside what the same bytes cost a bare sink on this machine, which has to copy them twice as we do."""
    rivals: dict[str, Start] = {"isocenter": us(fsync=False), "sink": receivers.sink, **_prototype()}
    for kind, count, name, must, aim in (("ct", 400, "CT", 1.3, 1.0), ("mf", 1, "one 200 MB multi-frame", 0.5, 0.4)):
        first = len(bench.runs) + len(rivals)  # after the round that warms up
        bench.duel(kind, count, rivals, at=TMPFS)
        spent = {rival: _cpu_without_hash(bench.runs[first:], rival) for rival in rivals}
        mine = [run for run in bench.runs[first:] if run["receiver"] == "isocenter"]
        hashing = statistics.median(float(str(run["hashing_s_a_gb"])) for run in mine)
        detail = f"hashing while receiving {hashing:.2f}; here "
        detail += ", ".join(f"{rival} {seconds:.2f}" for rival, seconds in spent.items() if rival != "isocenter")
        bench.most(f"CPU without the hash, {name} (s a GB)", spent["isocenter"], must, aim, detail)


def _cpu_without_hash(runs: Sequence[dict[str, object]], receiver: str) -> float:
    mine = [run for run in runs if run["receiver"] == receiver]
    return statistics.median(float(str(run["cpu_s_a_gb"])) - float(str(run["hashing_s_a_gb"])) for run in mine)


def _prototype() -> dict[str, Start]:
    return {"prototype": receivers.prototype} if receivers.PROTOTYPE.exists() else {}


def against_prototype(bench: Bench) -> None:
    """How far the product is from what was shown to be possible, on this machine; it checks and keeps far more."""
    for kind, count, name in (("ct", 200, "CT"), ("mr", 600, "small MR")):
        found = bench.duel(kind, count, {"isocenter": us(fsync=False), **_prototype()}, at=TMPFS)
        bench.ratio(f"{name} on tmpfs against the prototype", found, 0.7, 0.9)


def audited(bench: Bench) -> None:
    """Many short associations, each of which ends in an audit row, beside a listener that writes none."""
    items = objects("ct", max(10, round(200 * bench.scale)))
    found: dict[str, list[float]] = {"audit": [], "no audit": []}
    spent = dict.fromkeys(found, 0.0)
    with ExitStack() as stack:
        running = {
            name: stack.enter_context(
                receivers.isocenter(TMPFS / name.replace(" ", ""), fsync=False, audit=name == "audit")
            )
            for name in found
        }
        for round_ in range(bench.rounds + 1):
            for name in running if round_ % 2 else reversed(running):
                receiver = running[name]
                bench.number += 1
                mine = [item.of_round(bench.number) for item in items]
                begun, before = time.perf_counter(), receiver.cpu_s()[0]
                failed = sum(send(receiver.port, mine[at : at + 10]).failed for at in range(0, len(mine), 10))
                took = time.perf_counter() - begun
                if failed or {item.digest for item in mine} - receiver.new_digests():
                    raise SystemExit(f"{name}: {failed} refused, or not all found again")
                receiver.settle()
                if round_:
                    spent[name] += receiver.cpu_s()[0] - before
                    found[name].append(sum(len(item.content) for item in mine) / 1e6 / took)
    bench.ratio("associations of 10 CT slices, audit on against off", found, 0.95, 1.0)
    ratio = spent["audit"] / spent["no audit"]
    detail = f"{spent['audit']:.2f} against {spent['no audit']:.2f} CPU seconds, with digests"
    bench.most("the same, CPU of listener and digester", ratio, 1.05, 1.0, detail)


def memory(bench: Bench) -> None:
    with receivers.isocenter(TMPFS / "memory", fsync=False) as receiver:
        bench.round(receiver, objects("gb", 1), 1)
        high = receiver.high_water_mb()
    bench.most("resident memory of a listener, 1 GB object (MB)", high, 120)


def idle(bench: Bench) -> None:
    with receivers.isocenter(TMPFS / "idle", fsync=False) as receiver, ExitStack() as stack:
        wires = [stack.enter_context(Wire(receiver.port)) for _ in range(50)]  # as many as one AE may have
        assert all(wire.associate() == ACCEPTED for wire in wires)
        time.sleep(3)
        before, _ = receiver.cpu_s()
        time.sleep(10)
        after, _ = receiver.cpu_s()
    share = (after - before) / 10 * 100 * 2
    bench.most("100 idle associations (% of a core; 50 measured, doubled)", share, 3, 1)


CASES: dict[str, Callable[[Bench], None]] = {
    "sink": against_sink, "storescp": against_storescp, "orthanc": against_orthanc, "durable": durable,
    "round-trip": round_trip, "multi-frame": multi_frame, "processor": processor, "memory": memory, "idle": idle,
    "audit": audited, "prototype": against_prototype,
}  # fmt: skip
NEEDS = {"storescp": "DCMTK", "orthanc": "Orthanc", "durable": "Orthanc", "multi-frame": "Orthanc"}


def main() -> int:
    """Measure, print the table, write JSON; 1 when something is not met."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.ingest", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="paired rounds of each case")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of instances a round")
    parser.add_argument("--case", action="append", choices=CASES, help="only this case; may be given again")
    parser.add_argument("--disk", type=Path, default=Path("var/bench"), help="folder for the durable rounds")
    parser.add_argument("--json", type=Path, help="write all runs and rows there")
    options = parser.parse_args()
    bench = Bench(options.rounds, options.scale, options.disk.absolute() / "ingest")
    for name in options.case or CASES:
        if name in NEEDS and not COMPONENTS[NEEDS[name]]():
            print(f"{name}: left out, {NEEDS[name]} is not installed", file=sys.stderr)
            continue
        if name == "prototype" and not _prototype():
            print(f"{name}: left out, {receivers.PROTOTYPE} is not there", file=sys.stderr)
            continue
        shutil.rmtree(TMPFS, ignore_errors=True)
        shutil.rmtree(bench.disk, ignore_errors=True)
        CASES[name](bench)
        for row in bench.rows[-4:]:
            print(f"  {row.what}: {row.figure:.2f}  {row.detail}", file=sys.stderr)
    shutil.rmtree(TMPFS, ignore_errors=True)
    shutil.rmtree(bench.disk, ignore_errors=True)
    print(table(bench.rows))
    if options.json:
        machine = {"cores": os.cpu_count(), "load": os.getloadavg()}
        rows = [asdict(row) | {"is_met": row.is_met} for row in bench.rows]
        options.json.write_text(json.dumps({"machine": machine, "rows": rows, "runs": bench.runs}, indent=1))
    return 0 if all(row.is_met for row in bench.rows) else 1


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| | figure | must | aim | met | |", "|---|---|---|---|---|---|"]
    for row in rows:
        sign = "≤" if row.at_most else "≥"
        aim = "" if row.aim is None else f"{sign} {row.aim}"
        met = "yes" if row.is_met else "NO"
        lines.append(f"| {row.what} | {row.figure:.2f} | {sign} {row.must} | {aim} | {met} | {row.detail} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
