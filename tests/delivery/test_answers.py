"""The one table of answers: it agrees with pynetdicom's, and every status has exactly one meaning."""

import pytest
from pynetdicom.status import STORAGE_SERVICE_CLASS_STATUS, code_to_category

from router.domain.delivery import ANSWERS, Verdict, judge, name_of

CATEGORY = {"Success": Verdict.ACCEPTED, "Warning": Verdict.ACCEPTED}


@pytest.mark.parametrize("status", [low for low, high, *_ in ANSWERS if low != 0xA771])
def test_accepted_is_what_pynetdicom_calls_success_or_warning(status: int) -> None:
    known = STORAGE_SERVICE_CLASS_STATUS.get(status)
    category = known[0] if known else code_to_category(status)
    assert (judge(status) is Verdict.ACCEPTED) == (category in CATEGORY)


@pytest.mark.parametrize("status", [0x0110, 0x0122, 0x0124, 0x0117, 0x0119, 0x0211, 0x0213, 0xA700, 0xA900, 0xC000])
def test_a_status_is_called_what_pynetdicom_calls_it(status: int) -> None:
    def words(text: str) -> set[str]:
        return set(text.lower().replace(":", "").replace("-", " ").replace("object", "sop").split())

    from pynetdicom.status import GENERAL_STATUS

    theirs = (STORAGE_SERVICE_CLASS_STATUS.get(status) or GENERAL_STATUS[status])[1]
    assert words(theirs) <= words(name_of(status).split(" (")[1].rstrip(")"))


def test_a_status_that_nobody_knows_is_final_and_named() -> None:
    assert judge(0x1234) is Verdict.NEVER
    assert name_of(0x1234) == "1234 (unknown status)"


@pytest.mark.parametrize(
    ("status", "verdict"),
    [(0xA770, "later"), (0xA771, "never"), (0xA772, "later"), (0xBFFF, "accepted"), (0xC000, "later")],
)
def test_ranges_end_where_they_should(status: int, verdict: str) -> None:
    assert judge(status) == verdict


def test_an_exact_override_wins() -> None:
    assert judge(0x0111, {0x0111: Verdict.ACCEPTED}) is Verdict.ACCEPTED
    assert judge(0x0112, {0x0111: Verdict.ACCEPTED}) is Verdict.NEVER
