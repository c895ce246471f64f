"""Archives as they are: refusing, full, aborting, forgetting, old; and what `why` then says of a set."""

from zoneinfo import ZoneInfo

import pytest
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom.sop_class import CTImageStorage  # type: ignore[attr-defined]

from router.db.engine import reading
from router.why import explain
from tests.delivery.conftest import delivering, pacs, produce
from tests.delivery.scp import CLASSES, Archive, aborts, archive
from tests.work.site import SERIES, STUDY, Site

pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)  # pynetdicom 3.0.4 forgets the socket whose connect was refused

BOTH = (ImplicitVRLittleEndian, "1.2.840.10008.1.2.1")


@pytest.mark.parametrize(
    ("far", "classes", "syntaxes", "commits", "says"),
    [
        pytest.param(
            Archive(), [str(CTImageStorage)], BOTH, False,
            ["attempt 1 of 2", "ARCHIVE does not take Segmentation Storage", "its set is not sent there"],
            id="refuses SEG",
        ),
        pytest.param(
            Archive(answers=[0x0000, 0xA700]), CLASSES, BOTH, False,
            ["done, delivered", "attempt 2 of 2", "its set is sent there"],
            id="is full for a while",
        ),
        pytest.param(
            Archive(answers=[0x0000, 0x0122]), CLASSES, BOTH, False,
            ["failed", "0122 (Refused: SOP Class not supported); 1 of 2 objects are not there",
             "its set is half sent there"],
            id="answers 0122",
        ),
        pytest.param(
            Archive(answers=[0x0000, aborts, aborts]), CLASSES, BOTH, False,
            ["attempt 2 of 2", "ended the association", "its set is half sent there"],
            id="aborts in the middle",
        ),
        pytest.param(
            Archive(forgets=True), CLASSES, BOTH, True,
            ["failed", "not committed: 0112 (No such object instance); 2 of 2 objects are not there",
             "its set is not sent there"],
            id="says Success and keeps nothing",
        ),
        pytest.param(
            Archive(reasons={1: 0x0112}), CLASSES, BOTH, True,
            ["done, delivered", "attempt 2 of 2", "its set is committed there"],
            id="commits half",
        ),
        pytest.param(
            Archive(), CLASSES, [ImplicitVRLittleEndian], True,
            ["done, delivered", "attempt 1 of 2", "its set is committed there"],
            id="takes only Implicit VR",
        ),
    ],
)  # fmt: skip
def test_why_says_what_became_of_a_set(
    site: Site, far: Archive, classes: list[str], syntaxes: list[str], commits: bool, says: list[str]
) -> None:
    site.receive()
    with archive(state=far, classes=classes, syntaxes=syntaxes, commits=commits):
        site.destinations(pacs(far))
        (delivery,) = produce(site, "pacs", study=STUDY, series=SERIES, max_attempts=2)
        with delivering(site):
            site.ended(delivery)
    with reading(site.node.engine) as connection:
        (page,) = explain(connection, STUDY)
    told = "\n".join(page.lines(ZoneInfo("UTC")))
    assert [words for words in says if words not in told] == [], told
    if syntaxes == [ImplicitVRLittleEndian]:
        assert set(far.syntaxes.values()) == {ImplicitVRLittleEndian}
