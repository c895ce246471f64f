"""What nobody foresaw is logged by kind and place: its text may name a patient."""

import ast
import errno
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from sqlalchemy.exc import SQLAlchemyError

from dicom_sr.problem import Problem
from router.db.engine import connect, fault, writing
from tests.conftest import REPOSITORY

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


def quoted(tree: ast.AST) -> Iterator[int]:
    """Lines of log calls that quote the text of an error; `problem` is the name of those that are ours."""
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("log."):
            for value in [*call.args[1:], *(keyword.value for keyword in call.keywords)]:
                said = ast.unparse(value)
                if "str(error)" in said or "{error" in said or "error.orig" in said or "error.args" in said:
                    yield value.lineno


def test_no_log_call_quotes_an_error_that_is_not_ours() -> None:
    found = [
        f"{path.relative_to(REPOSITORY)}:{line}"
        for path in sorted((REPOSITORY / "router").rglob("*.py"))
        for line in quoted(ast.parse(path.read_text()))
    ]
    assert not found, "give it as fault(error)"


def test_a_fault_is_a_code_and_never_a_value() -> None:
    engine = connect("sqlite://")
    with writing(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE t (name TEXT CHECK (name <> 'SECRET^PATIENT'))")
        with pytest.raises(SQLAlchemyError) as failed:
            connection.exec_driver_sql("INSERT INTO t VALUES ('SECRET^PATIENT')")
    engine.dispose()
    assert fault(failed.value) == "SQLITE_CONSTRAINT_CHECK"
    assert fault(OSError(errno.ENOSPC, "no room", "SECRET^PATIENT.dcm")) == "ENOSPC"
    assert fault(ValueError("SECRET^PATIENT")) == "ValueError"
    assert fault(Problem("the store is full", remedy="Free space")) == "the store is full"
