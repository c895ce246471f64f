"""Off-peak hours are those that the clock on the wall shows, also in the two nights in which it jumps."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.domain.hours import MINUTE, SECOND, Hours

ZURICH = ZoneInfo("Europe/Zurich")
NIGHT = Hours(begins=time(19), ends=time(7), weekends=False, zone=ZURICH)


def at(text: str, zone: ZoneInfo = ZURICH, fold: int = 0) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp() * SECOND)


def shown(moment: int, zone: ZoneInfo = ZURICH) -> str:
    return datetime.fromtimestamp(moment / SECOND, zone).isoformat(timespec="minutes")


@pytest.mark.parametrize(
    ("when", "are_open"),
    [
        ("2024-05-15T18:59:59", False), ("2024-05-15T19:00", True), ("2024-05-15T23:59", True),
        ("2024-05-15T06:59:59", True), ("2024-05-15T07:00", False), ("2024-05-15T12:00", False),
    ],
)  # fmt: skip
def test_a_night_goes_over_midnight(when: str, are_open: bool) -> None:
    assert NIGHT.are_open(at(when)) is are_open


def test_weekends_are_open_all_day_where_they_are_meant_to_be() -> None:
    both = Hours(begins=time(19), ends=time(7), weekends=True, zone=ZURICH)
    saturday, monday = at("2024-05-18T12:00"), at("2024-05-20T12:00")
    assert both.are_open(saturday)
    assert not NIGHT.are_open(saturday)
    assert not both.are_open(monday)
    assert shown(NIGHT.open_at(saturday)) == "2024-05-18T19:00+02:00"


def test_the_night_in_which_an_hour_is_left_out() -> None:
    """Europe/Zurich, 2024-03-31: after 01:59 comes 03:00."""
    early = Hours(begins=time(2, 30), ends=time(4), weekends=False, zone=ZURICH)
    before = at("2024-03-31T01:59")
    assert not early.are_open(before)
    assert shown(early.open_at(before)) == "2024-03-31T03:00+02:00"
    assert shown(NIGHT.open_at(at("2024-03-31T12:00"))) == "2024-03-31T19:00+02:00"


def test_the_night_in_which_an_hour_is_shown_twice() -> None:
    """Europe/Zurich, 2024-10-27: after 02:59 comes 02:00 again."""
    late = Hours(begins=time(1), ends=time(2, 30), weekends=False, zone=ZURICH)
    first, second = at("2024-10-27T02:45"), at("2024-10-27T02:15", fold=1)
    assert second - first == 30 * MINUTE
    assert not late.are_open(first)
    assert late.are_open(second)
    assert shown(late.open_at(first)) == "2024-10-27T02:00+01:00"
    assert not late.are_open(at("2024-10-27T02:45", fold=1))


@given(
    st.datetimes(datetime(2024, 1, 1), datetime(2026, 1, 1)),
    st.times(), st.times(), st.booleans(),
    st.sampled_from(["Europe/Zurich", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"]),
)  # fmt: skip
def test_they_open_at_the_first_minute_at_which_they_are_open(
    when: datetime, begins: time, ends: time, weekends: bool, zone: str
) -> None:
    begins, ends = begins.replace(second=0, microsecond=0), ends.replace(second=0, microsecond=0)
    hours = Hours(begins=begins, ends=ends, weekends=weekends, zone=ZoneInfo(zone))
    moment = round(when.replace(tzinfo=UTC).timestamp() * SECOND)
    opens = hours.open_at(moment)
    assert opens >= moment
    assert hours.are_open(opens)
    assert opens == moment or not hours.are_open(opens - MINUTE)
    assert opens - moment <= timedelta(days=2).total_seconds() * SECOND
