"""A listener in a process of its own, that can be killed and traced: `python -m tests.ingest.door_process FOLDER PORT`.

Further arguments are settings of the listener, as name=value; `audit=off` writes no audit, for a benchmark. It prints
"ready" when it listens.
"""

import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import structlog

from router.db import audit, revisions
from router.db.engine import writing
from router.ingest import listener
from tests.conftest import REPOSITORY, until


def main() -> None:
    """Serve until SIGTERM; then say what it took."""
    from tests.ingest.conftest import make_node

    folder, port, *rest = sys.argv[1:]
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    values: dict[str, Any] = dict(one.split("=", 1) for one in rest)
    if values.pop("audit", "on") == "off":
        setattr(audit, "write", lambda *_, **__: None)  # noqa: B010 - mypy would have us keep its type
    node = make_node(
        Path(folder),
        listener={"host": "127.0.0.1", "port": int(port), **values},
        storage={"path": Path(folder) / "store", "purge_free_gb": 0.01, "refuse_free_gb": 0.01, "reject_free_gb": 0.01},
    )
    with writing(node.engine) as connection:
        revisions.add(connection, revisions.Kind.SOURCES, [{"ae_title": "SENDER", "addresses": ["any"]}], author="test")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threading.Thread(target=_say_when_ready, args=(int(port),), daemon=True).start()
    listener.serve(node, stop)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(f"cpu_s={used.ru_utime + used.ru_stime:.3f} max_rss_mb={used.ru_maxrss / 1024:.1f}", flush=True)


def _say_when_ready(port: int) -> None:
    until(lambda: _is_open(port), deadline_s=120)
    print("ready", flush=True)


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def door_process(
    folder: Path, port: int, *settings: str, before: Sequence[str] = ()
) -> Iterator[subprocess.Popen[str]]:
    """A listener that is ready, as a process; killed at the end. `before` is the command line of a tracer."""
    command = [*before, sys.executable, "-m", "tests.ingest.door_process", str(folder), str(port), *settings]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line == "ready\n", line
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


if __name__ == "__main__":
    main()
