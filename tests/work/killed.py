"""A role in a process of its own that kills itself with SIGKILL at its n-th step.

Steps are what a kill could come between: each beginning and end of a transaction (before its commit and after it),
each file that is renamed to its final name, each process that is started.
"""

import os
import signal
import subprocess
import sys
import threading
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import event

from pipelines import catalog
from router.domain.job import Lane
from router.node import Node
from router.work import build, deliver, infer
from tests.work import INSIDE, SHELF
from tests.work.site import open_site


def run(lane: Lane, folder: Path, *, kill_at: int, job_id: int) -> subprocess.Popen[bytes]:
    """Start it; it ends by the kill, or by itself once the job has ended."""
    command = [sys.executable, "-m", "tests.work.killed", lane, folder, str(kill_at), str(job_id)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def main(lane: Lane, folder: Path, kill_at: int, job_id: int) -> None:
    """Serve until the job has ended."""
    catalog.__path__.append(SHELF)
    site = open_site(folder)
    count_steps(site.node, kill_at)
    stop = threading.Event()

    def leave() -> None:
        site.ended(job_id)
        stop.set()
        site.node.bell.ring(lane)

    threading.Thread(target=leave, name="leave", daemon=True).start()
    if lane is Lane.INFER:
        infer.serve(site.node, stop, inside=INSIDE)
    elif lane is Lane.BUILD:
        build.serve(site.node, stop)
    else:
        deliver.serve(site.node, stop)


def count_steps(node: Node, kill_at: int) -> None:
    """Die at the step of this number."""
    steps = count(1)

    def step(*_: Any) -> None:
        if threading.current_thread().name != "leave" and next(steps) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    for name in ("begin", "commit", "checkin"):
        event.listen(node.engine, name, step)

    def audited(name: str, _: Any) -> None:
        if name in ("os.rename", "subprocess.Popen"):
            step()

    sys.addaudithook(audited)


if __name__ == "__main__":
    main(Lane(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
