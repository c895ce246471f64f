"""What nobody foresaw is logged by kind and place: its text may name a patient."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import logging, threading, structlog
from router import telemetry
from router.config import Log

telemetry.configure(Log(format="{format}"), role="test")

def fail():
    try:
        int("SECRET^PATIENT")
    except ValueError as error:
        raise KeyError("SECRET^PATIENT") from error

try:
    fail()
except KeyError:
    structlog.get_logger().exception("query.failed")
    logging.getLogger("uvicorn.error").exception("SECRET^PATIENT %s", "SECRET^PATIENT")
logging.getLogger("some.library").warning("SECRET^PATIENT")
thread = threading.Thread(target=fail, name="pulse")
thread.start()
thread.join()
"""


@pytest.mark.parametrize("format", ["json", "pretty"])
def test_errors_of_ours_of_libraries_and_of_threads_are_told_without_their_text(format: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("{format}", format)], capture_output=True, text=True, check=True
    )
    assert "SECRET" not in done.stdout + done.stderr
    for word in ("query.failed", "library.said", "uvicorn.error", "some.library", "thread.failed", "KeyError"):
        assert word in done.stderr, word
    if format == "json":
        first = json.loads(done.stderr.splitlines()[0])
        assert [one["kind"] for one in first["exception"]] == ["KeyError", "ValueError"]
