"""Studies go through a real Orthanc and the node while everything is killed: at the end each result is there, once.

    python -m tests.chaos [--kills 200] [--studies 50] [--seed N] [--json FILE] [--folder DIR]

SIGKILL meets random roles, the pipeline's process, the supervisor and the whole node at random moments; meanwhile the
disk fills once, the power is cut once, the PACS goes away twice and the database is locked for 5 s. The same seed does
the same things in the same order. Ends with JSON and 0, or with the faults, 1 and a folder that is kept.
"""

import argparse
import json
import random
import resource
import secrets
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.chaos import verdict
from tests.chaos.scene import Feeder, scene
from tests.chaos.storm import Storm
from tests.conftest import until

SETTLE_S = 600.0


def run(folder: Path, *, kills: int, studies: int, seed: int) -> dict[str, Any]:
    """What happened, and under `faults` what is not as it must be."""
    begun, spent = time.monotonic(), _cpu_s()

    def say(what: str) -> None:
        print(f"{time.monotonic() - begun:7.1f} s  {what}", flush=True)

    with scene(folder, studies=studies, seed=seed) as made:
        feeder = Feeder(made)
        feeder.start()
        storm = Storm(made=made, feeder=feeder, chance=random.Random(seed), say=say)
        faults: list[str] = []
        try:
            storm.rage(kills)
            say("the storm is over")
            until(lambda: feeder.done, deadline_s=SETTLE_S, what="the last study's arrival")
            said = ""

            def quiet() -> bool:
                nonlocal said
                now = verdict.busy(made)
                if now != said:
                    said = now
                    say(now or "quiet")
                time.sleep(0.5)
                return not now

            until(quiet, deadline_s=SETTLE_S, what="a quiet node")
        except AssertionError as error:
            faults.append(f"{error}; still going on: {verdict.busy(made) or 'nothing'}")
        finally:
            feeder.over.set()
        faults += verdict.faults(made)
        figures = verdict.summary(made)
        made.node.stop()
    return {
        "seed": seed,
        "kills": dict(storm.killed),
        "events": storm.events,
        "not_possible_here": storm.not_here,
        "studies": studies,
        "sent_again": feeder.tries,
        "seconds": round(time.monotonic() - begun, 1),
        "cpu_s": round(_cpu_s() - spent, 1),
        **figures,
        "faults": faults,
    }


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    """Run it once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--studies", type=int, default=50)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help="kept in any case; default: a new one, kept when it fails")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="isocenter-chaos-"))
    print(f"seed {options.seed}, folder {folder}", flush=True)
    figures = run(folder, kills=options.kills, studies=options.studies, seed=options.seed)
    text = json.dumps(figures, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text)
    if figures["faults"]:
        print(f"FAILED: seed {options.seed}; everything lies in {folder}")
        return 1
    if options.folder is None:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
