"""A query finds exactly what the standard's matching says, on each engine, page by page."""

import re
import unicodedata
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from router.db import catalogue
from router.db.catalogue import Place, Values
from router.db.engine import reading, writing
from router.domain import matching
from router.domain.matching import UnmatchableKeyError, parse
from router.domain.query import KEYS, Level, Query, Root
from tests.query.holding import forget_all, hold

COLUMNS = {
    "PatientName": "patient_name",
    "PatientID": "patient_id",
    "IssuerOfPatientID": "issuer_of_patient_id",
    "PatientBirthDate": "patient_birth_date",
    "StudyDate": "study_date",
    "StudyTime": "study_time",
    "AccessionNumber": "accession_number",
    "StudyDescription": "study_description",
}


def asking(level: Level, **keys: str) -> Query:
    conditions = {name: match for name, text in keys.items() if (match := parse(KEYS[name].vr, text)) is not None}
    return Query(root=Root.STUDY, level=level, conditions=conditions, wanted=dict.fromkeys(keys, ()))


def answers(engine: Engine, query: Query, limit: int = 2) -> Iterator[Values]:
    place: Place | None = Place()
    while place is not None:
        with reading(engine) as connection:
            found, place = catalogue.page(connection, query, place, limit)
        yield from found


def uids(engine: Engine, query: Query, limit: int = 2) -> list[str]:
    return sorted(values["StudyInstanceUID"] for values in answers(engine, query, limit))


# --- a third matcher, slow and written from the standard's words alone


def plain(text: str) -> str:
    """Letters without accents and case."""
    return "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c)).upper()


def fits(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(fits(pattern[1:], text[start:]) for start in range(len(text) + 1))
    return bool(text) and pattern[0] in ("?", text[0]) and fits(pattern[1:], text[1:])


def name_fits(key: str, name: str) -> bool:
    """Some run of the name's component groups fits, delimiters at a group's end added or left out as it needs."""
    groups = name.rstrip("^= ").split("=")
    wanted = "=".join(part.strip(" ").rstrip("^ ") for part in key.split("=")).rstrip("=")
    starts = range(1) if "=" in wanted else range(len(groups))
    runs = ["=".join(groups[i:j]) for i in starts for j in range(i + 1, len(groups) + 1)]
    carets = ["", "^"] if re.search(r"\^\*+$", wanted) else [""]
    return any(fits(plain(wanted), plain(run + caret)) for run in runs for caret in carets)


def in_range(key: str, value: str, vr: str) -> bool:
    low, dash, high = key.partition("-")
    high = high if dash else low
    begins, ends = ("000000000000", "235959999999") if vr == "TM" else ("", "")

    def at(text: str, rest: str) -> int:
        digits = text.replace(".", "")
        return int(digits + rest[len(digits) :])

    moment = at(value, begins) if value else -1
    return bool(value) and (not low or moment >= at(low, begins)) and (not high or moment <= at(high, ends))


def expected(key: str, keyword: str, value: str) -> bool:
    vr = KEYS[keyword].vr
    values = [one.strip() for one in key.split("\\") if one.strip()]
    if not values or any(vr in ("PN", "LO", "SH", "CS") and not one.strip("*") for one in values):
        return True
    if vr == "PN" and any(not one.strip("^= ") for one in values):
        return True
    for one in values:
        if one == '""':
            hit = value == ""
        elif vr == "PN":
            hit = name_fits(one, value)
        elif vr == "DA":
            hit = in_range(one, value, "DA")
        elif vr == "TM":
            hit = in_range(one, value, "TM")
        else:
            hit = fits(one, value)
        if hit:
            return True
    return False


# --- values: few letters, so that keys and values meet

letters = st.sampled_from(list("aAäÅbBß^[]%_-ΩώЖ山"))
words = st.text(letters, max_size=4)
names = st.builds("=".join, st.lists(words, min_size=1, max_size=3)).map(lambda text: text.strip("= "))
name_keys = st.text(st.one_of(letters, st.sampled_from("*?=")), max_size=5)
texts = st.text(st.sampled_from("abAB%_[]\\'\""), max_size=3).map(lambda text: text.replace("\\", ""))
text_keys = st.text(st.sampled_from("abAB%_[]*?\\"), max_size=4)
dates = st.sampled_from(["", "20231231", "20240101", "20240102", "20240229"])
date_keys = st.one_of(
    dates, st.builds("{}-{}".format, dates, dates), st.just('""'), st.builds("{}\\{}".format, dates, dates)
)
times = st.sampled_from(
    ["", "00", "0000", "10", "1015", "101500", "101500.000001", "101559.5", "1016", "235959.999999"]
)
time_keys = st.one_of(times, st.builds("{}-{}".format, times, times))

studies = st.lists(
    st.fixed_dictionaries(
        {
            "PatientName": names,
            "PatientID": texts,
            "IssuerOfPatientID": st.sampled_from(["", "a", "B"]),
            "PatientBirthDate": dates,
            "StudyDate": dates,
            "StudyTime": times,
            "AccessionNumber": texts,
            "StudyDescription": texts,
        }
    ),
    max_size=6,
)
queries = st.dictionaries(st.sampled_from(sorted(COLUMNS)), st.none(), min_size=1, max_size=3).flatmap(
    lambda chosen: st.fixed_dictionaries(
        {
            keyword: {"PN": name_keys, "DA": date_keys, "TM": time_keys}.get(KEYS[keyword].vr, text_keys)
            for keyword in chosen
        }
    )
)


@pytest.mark.long
@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(held=studies, keys=queries)
def test_sql_and_python_find_what_a_slow_matcher_finds(
    index: Engine, held: list[Mapping[str, str]], keys: dict[str, str]
) -> None:
    try:
        query = asking(Level.STUDY, **keys)
    except UnmatchableKeyError:
        return
    with writing(index) as connection:
        forget_all(connection)
        for number, values in enumerate(held):
            hold(connection, f"1.{number}", **{COLUMNS[name]: value for name, value in values.items()})
    wanted = [
        f"1.{number}"
        for number, values in enumerate(held)
        if all(expected(key, keyword, values[keyword]) for keyword, key in keys.items())
    ]
    assert uids(index, query) == wanted
    in_python = [
        f"1.{number}"
        for number, values in enumerate(held)
        if all(matching.matches(match, values[name]) for name, match in query.conditions.items())
    ]
    assert in_python == wanted


NAMES = [
    ("MULLER*", "Müller^Jörg", True),
    ("Müller", "MULLER", True),
    ("muller^jorg", "Müller^Jörg^^^", True),
    ("doe^*", "DOE", True),
    ("doe", "DOE^JOHN", False),
    ("山田*", "Yamada^Tarou=山田^太郎=やまだ^たろう", True),
    ("yamada^tarou", "Yamada^Tarou=山田^太郎=やまだ^たろう", True),
    ("*=山田*", "Yamada^Tarou=山田^太郎", True),
    ("Иванов*", "ИВАНОВ^ИВАН", True),
    ("?oe*", "Doe^Jane", True),
    ("[d]oe*", "Doe^Jane", False),
]


def test_a_name_is_found_whatever_its_case_accents_and_groups(index: Engine) -> None:
    for key, name, found in NAMES:
        with writing(index) as connection:
            forget_all(connection)
            hold(connection, "1.2", patient_name=name)
        assert uids(index, asking(Level.STUDY, PatientName=key)) == (["1.2"] if found else []), (key, name)


TEXTS = [
    ("StudyDate", "-20240101", "", False),
    ("StudyDate", "20240101-", "", False),
    ("StudyDate", '""', "", True),
    ("StudyDate", "2024.01.01", "20240101", True),
    ("StudyTime", "-1015", "101559.999", True),
    ("StudyTime", "1015-", "1015", True),
    ("StudyTime", "101500-", "1015", True),
    ("StudyTime", "1015", "1016", False),
    ("AccessionNumber", "[A]*", "A1", False),
    ("AccessionNumber", "[A]*", "[A]1", True),
    ("AccessionNumber", "%_*", "AB", False),
    ("AccessionNumber", "a*", "A1", False),
    ("AccessionNumber", "A?", "A", False),
    ("AccessionNumber", " A1 ", "A1", True),
    ("PatientID", "A*B*", "AxxBB", True),
    ("StudyDescription", "ä*", "Ärger", False),
]


def test_each_kind_of_text_matches_as_the_standard_says(index: Engine) -> None:
    for keyword, key, value, found in TEXTS:
        with writing(index) as connection:
            forget_all(connection)
            hold(connection, "1.2", **{COLUMNS[keyword]: value})
        query = asking(Level.STUDY, **{keyword: key})
        assert uids(index, query) == (["1.2"] if found else []), (keyword, key, value)
        assert matching.matches(query.conditions[keyword], value) is found, (keyword, key, value)


@pytest.mark.parametrize("key", ["2024010", "20240102-20240101", "-", "yesterday", "2024-13-01"])
def test_what_is_no_date_is_refused_and_not_guessed(key: str) -> None:
    with pytest.raises(UnmatchableKeyError):
        parse("DA", key)


def test_a_key_longer_than_its_attribute_can_be_is_refused() -> None:
    with pytest.raises(UnmatchableKeyError):
        parse("PN", "a*" * 101)
