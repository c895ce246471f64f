"""`isocenter query`: what another node holds, by C-FIND."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from router.cli import app
from router.cli._common import DEFAULT_CONFIG, AsJson, Config, print_rows
from router.cli._peer import TIMEOUT_S, At, Calling, Secure, Timeout, other
from router.domain.query import Level, Root

COLUMNS: Mapping[Level, Sequence[str]] = {
    Level.PATIENT: ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "NumberOfPatientRelatedStudies"),
    Level.STUDY: (
        "PatientID", "PatientName", "StudyDate", "ModalitiesInStudy", "StudyDescription",
        "NumberOfStudyRelatedInstances", "StudyInstanceUID",
    ),
    Level.SERIES: (
        "SeriesNumber", "Modality", "SeriesDescription", "NumberOfSeriesRelatedInstances", "SeriesInstanceUID",
    ),
    Level.IMAGE: ("InstanceNumber", "SOPClassUID", "SOPInstanceUID"),
}  # fmt: skip
"""What the table shows at each level; JSON has every attribute that came."""


@app.command(epilog="Example: isocenter query PatientID=4711 StudyDate=20260101- --at ORTHANC@10.0.0.5:4242")
def query(
    keys: Annotated[
        list[str],
        typer.Argument(metavar="KEYWORD=VALUE", help='Keywords of PS3.6; * and ? as wildcards, A-B a range, "" any'),
    ],
    at: At,
    level: Annotated[str, typer.Option(help="patient, study, series or image")] = "study",
    most: Annotated[int | None, typer.Option(help="Cancel after so many matches", min=1)] = None,
    calling: Calling = None,
    tls: Secure = False,
    timeout_s: Timeout = TIMEOUT_S,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Ask another node what it holds, by C-FIND."""
    from router.query import scu

    wanted = level_of(level)
    root = Root.PATIENT if wanted is Level.PATIENT else Root.STUDY
    asked = asked_for(keys)
    there = other(at, config, calling=calling, tls=tls, timeout_s=timeout_s)
    rows = [plain(match) for match in scu.find(there, asked, wanted, root=root, most=most)]
    columns = [*dict.fromkeys([*COLUMNS[wanted], *(key for key in asked if key in {k for row in rows for k in row})])]
    if not as_json:
        rows = [{column: row.get(column, "") for column in columns} for row in rows]
    print_rows(rows, columns, as_json=as_json, empty=f"{there} holds nothing that matches")


def level_of(name: str) -> Level:
    """The level of this name.

    Raises:  WrongQuery
    """
    from router.query.scu import WrongQuery

    try:
        return Level[name.upper()]
    except KeyError:
        names = ", ".join(one.name.lower() for one in Level)
        raise WrongQuery(f"{name!r} is no level", remedy=f"Write one of {names}") from None


def asked_for(keys: Sequence[str]) -> dict[str, str]:
    """Keyword -> text of KEYWORD=VALUE arguments.

    Raises:  WrongQuery
    """
    from router.query.scu import WrongQuery

    asked: dict[str, str] = {}
    for key in keys:
        keyword, equals, value = key.partition("=")
        if not equals or not keyword:
            raise WrongQuery(f"{key!r} is no key", remedy="Write KEYWORD=VALUE, as in PatientID=4711")
        asked[keyword] = value
    return asked


def plain(match: Dataset) -> dict[str, Any]:
    """A match as keyword -> text, list of texts, or list of the like for a sequence."""
    return {
        element.keyword: _value(element.value)
        for element in match
        if element.keyword and element.keyword not in ("QueryRetrieveLevel", "SpecificCharacterSet")
    }


def _value(value: Any) -> Any:
    if isinstance(value, MultiValue):
        return [str(one) for one in value]
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    return "" if value is None else str(value)
