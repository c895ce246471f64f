"""Tables as comma-separated values for spreadsheets, in which text of others stays text.

A spreadsheet runs what begins like a formula, and what looks like a new line may be a new row: the first gets an
apostrophe, control characters become blanks (OWASP, CSV Injection; RFC 4180).
"""

import csv
import re
from collections.abc import Iterable, Sequence
from io import StringIO
from typing import Any

RUNS = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%", "＝", "＋", "－", "＠")
"""How a cell begins that a spreadsheet may run, full-width forms among them."""
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


def cell(value: Any) -> str:
    """A value as the text of a cell."""
    if value is None:
        return ""
    if isinstance(value, bool | int | float):
        return str(value)
    text = CONTROL.sub(" ", str(value))
    return f"'{text}" if text.lstrip().startswith(RUNS) or str(value).startswith(RUNS) else text


def sheet(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """All of it, with a first row of names."""
    out = StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    writer.writerow(columns)
    writer.writerows([cell(value) for value in row] for row in rows)
    return out.getvalue()
