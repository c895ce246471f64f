"""Text of others, in a DICOM header or anywhere else, does nothing in spreadsheets, answers, metrics and logs.

In the console a real browser looks for it: `test_console.py`.
"""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router.db import alerts, audit
from router.db.engine import writing
from router.domain.access import Scope
from router.web import doors
from router.web.sheets import RUNS, cell, sheet
from tests.conftest import REPOSITORY
from tests.web.conftest import Window, opened
from tests.web.rows import arrive

HOSTILE = "<img src=x onerror=\"document.title='run'\">"
TEXTS = (HOSTILE, "=cmd|' /C calc'!A0", "+1", "-1+1", "@SUM(A1)", "\t=1", "a\r\nSet-Cookie: x=1", "\x1b[31mred\x00",
         "\u202eevil",
         '","=1+1', "＝1")  # fmt: skip


@given(st.text())
@example("\n=1")
@example(" =1")
@example("\x00=1")
@example("\u2028=1")
def test_no_cell_is_a_formula_or_a_second_row(text: str) -> None:
    said = cell(text)
    assert not said.lstrip().startswith(RUNS)
    rows = list(csv.reader(StringIO(sheet(("name", "number"), [(text, 5)]), newline="")))
    assert rows == [["name", "number"], [said, "5"]]
    assert not re.search(r"[\x00-\x1f\x7f]", said)


def test_numbers_stay_numbers() -> None:
    assert [cell(value) for value in (-5, 1.5, None, True, "text")] == ["-5", "1.5", "", "True", "text"]


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Window]:
    with opened(tmp_path_factory.mktemp("window")) as made:
        yield made


def test_a_reason_in_the_audit_is_text_in_its_spreadsheet(window: Window) -> None:
    with writing(window.node.engine) as connection:
        for text in TEXTS:
            audit.write(connection, text, "study.held", why=text)
    admin = window.log_in("admin")
    answer = admin.get(f"{doors.API}/audit.csv")
    assert answer.headers["content-type"].startswith("text/csv")
    assert "attachment" in answer.headers["content-disposition"]
    header, *rows = csv.reader(StringIO(answer.text, newline=""))
    assert len(rows) >= len(TEXTS)
    assert all(len(row) == len(header) for row in rows)
    assert not [one for row in rows for one in row if one.lstrip().startswith(RUNS)]
    kept = [one for one in admin.get(f"{doors.API}/audit").json() if one["act"] == "study.held"]
    assert [one["who"] for one in kept[::-1]] == list(TEXTS), "only the spreadsheet is changed"
    assert ("user:admin", "audit.exported") in window.acts()


def test_the_audit_is_for_admins_and_names_no_patient(window: Window) -> None:
    arrive(window.node, "1.2.3")
    window.log_in("viewer").get(f"{doors.API}/studies/1.2.3")
    for path in ("audit", "audit.csv"):
        assert window.log_in("operator").get(f"{doors.API}/{path}").status_code == 403
        said = window.log_in("admin").get(f"{doors.API}/{path}", params={"study": "1.2.3"}).text
        assert "study.viewed" in said
        assert "SECRET" not in said
    one, two, *_ = window.log_in("admin").get(f"{doors.API}/audit").json()
    (next_, *_) = window.log_in("admin").get(f"{doors.API}/audit", params={"before": one["id"], "limit": 1}).json()
    assert next_["id"] == two["id"]


def test_hostile_headers_are_json_and_nothing_else(window: Window) -> None:
    for number, text in enumerate(TEXTS):
        arrive(window.node, f"1.4.{number}", description=text, PatientID=text, SeriesDescription=text)
    reader = window.program(Scope.READ)
    for path in (f"{doors.API}/studies", f"{doors.API}/studies/1.4.0", f"{doors.DICOMWEB}/studies"):
        answer = reader.get(path, headers={"accept": "application/json"})
        assert answer.headers["content-type"].split(";")[0] in ("application/json", "application/dicom+json")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert HOSTILE in json.dumps(answer.json()).replace('\\"', '"')
        assert not re.search(rb"[\x00-\x08\x0b-\x1f]", answer.content)
    assert reader.get(f"{doors.DICOMWEB}/studies", headers={"accept": "text/html"}).status_code == 406


LOGGING = """
import json, sys, structlog
from router.config import Log
from router.telemetry import configure
configure(Log(format="json"), role="test")
for text in json.load(sys.stdin):
    structlog.get_logger().warning("test.hostile", said=text)
"""


def test_a_log_stays_in_its_lines() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOGGING],
        input=json.dumps(TEXTS),
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=True,
    )
    lines = done.stderr.splitlines()
    assert [json.loads(line)["said"] for line in lines] == list(TEXTS)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", done.stderr)


def test_alerts_are_kept_as_text_and_metrics_name_none_of_it(window: Window) -> None:
    with writing(window.node.engine) as connection:
        for text in TEXTS:
            alerts.raise_(connection, "test.hostile", text, what=text, remedy=text)
        assert {one.what for one in alerts.list_(connection)} == set(TEXTS)
    assert "onerror" not in window.program(Scope.METRICS).get("/metrics").text
