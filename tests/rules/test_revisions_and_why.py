"""Changing rules leaves numbered revisions and an audit; testing and asking why need no guess."""

import json
from pathlib import Path
from zoneinfo import ZoneInfo

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from router import revise, rulebook, trial, why
from router.db import revisions, studies
from router.db.engine import reading, writing
from router.db.revisions import Kind
from router.db.studies import UnknownStudy
from router.errors import WrongRulebook
from tests.rules.conftest import RULE, STUDY, MakeSite, Site

FOLDERS = "destinations:\n  - {name: pacs, kind: folder, path: /tmp}\n"
UTC = ZoneInfo("UTC")


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    site = make_site()
    with writing(site.node.engine) as connection:
        revise.import_(connection, FOLDERS, "d.yaml", author="tester")
    return site


def test_what_was_exported_is_imported_as_the_same_revision(site: Site) -> None:
    with writing(site.node.engine) as connection:
        old = revisions.current(connection, Kind.RULES)
        text = revise.export(old)
        assert revise.import_(connection, text, "r.yaml", author="tester") == old
        new = revise.import_(connection, text.replace("Modality: CT", "Modality: MR"), "r.yaml", author="tester")
    assert (new.number, new.author, new.note) == (2, "tester", "import of r.yaml")
    difference = revise.difference(old, new)
    assert (difference.added, difference.removed, difference.changed) == ((), (), ("chest",))
    assert "-    - {Modality: CT}" in difference.lines
    assert "+    - {Modality: MR}" in difference.lines
    assert not revise.difference(old, old)
    assert site.acts() == ["destinations.changed", "rules.changed"]


def test_a_wrong_import_changes_nothing(site: Site) -> None:
    wrong = revise.export(current(site, Kind.RULES)).replace("pacs", "pax")
    with writing(site.node.engine) as connection, pytest.raises(WrongRulebook, match=r"r\.yaml:\d+:\d+: .*pax"):
        revise.import_(connection, wrong, "r.yaml", author="tester")
    with writing(site.node.engine) as connection, pytest.raises(revise.WrongKind):
        revise.import_(connection, FOLDERS, "d.yaml", author="tester", kind=Kind.RULES)
    assert current(site, Kind.RULES).number == 1


def test_going_back_is_a_new_revision_that_must_still_make_sense(site: Site) -> None:
    site.rules({**RULE, "name": "other"})
    with writing(site.node.engine) as connection:
        back = revise.rollback(connection, Kind.RULES, 1, author="tester")
    assert (back.number, back.note, back.body) == (3, "back to revision 1", [RULE])
    with writing(site.node.engine) as connection:
        revisions.add(connection, Kind.DESTINATIONS, [], author="tester")
        with pytest.raises(WrongRulebook, match="there is no destination pacs"):
            revise.rollback(connection, Kind.RULES, 1, author="tester")


def test_a_shadow_rule_is_promoted_by_its_name(site: Site) -> None:
    site.rules({**RULE, "mode": "shadow"})
    with writing(site.node.engine) as connection:
        (promoted,) = rulebook.rules(revise.promote(connection, "chest", author="tester").body)
        assert promoted.mode == "on"
        with pytest.raises(revise.NotInTheBook, match="did you mean chest"):
            revise.promote(connection, "chesst", author="tester")


def test_a_caller_is_let_in_by_a_word(site: Site) -> None:
    with writing(site.node.engine) as connection:
        revise.accept_source(connection, "CT1", "10.0.0.1", author="tester")
        both = revise.accept_source(connection, "CT1", "10.0.0.2", author="tester")
    (source,) = rulebook.sources(both.body)
    assert source.addresses == ["10.0.0.1", "10.0.0.2"]


def current(site: Site, kind: Kind) -> revisions.Revision:
    with reading(site.node.engine) as connection:
        return revisions.current(connection, kind)


def page(site: Site, word: str = STUDY) -> tuple[str, str]:
    with reading(site.node.engine) as connection:
        (found,) = why.explain(connection, word)
    return "\n".join(found.lines(UTC)), json.dumps(found.as_json())


@pytest.mark.parametrize("word", [STUDY, "7", "ACC7"], ids=["study", "patient", "accession"])
def test_why_shows_how_completeness_was_known_and_every_yes_and_no(site: Site, word: str) -> None:
    site.rules(RULE, {**RULE, "name": "thin", "when": {"SliceThickness": {"at_most": 0.5}}})
    site.receive(12, AccessionNumber="ACC7")
    site.decide()
    for text in page(site, word):
        assert "12 instances received, then silence for 0 s" in text
        assert "SliceThickness at_most 0.5: 1" in text
        assert "axial volume" in text
        assert "SECRET" not in text
        assert "ACC7" not in text
    assert "YES chest on series 1.2.3.1: always_one to pacs, job 1" in page(site)[0]
    assert "Job 1 always_one 1.0: queued" in page(site)[0]


def test_why_says_that_a_study_is_held_for_two_patients(site: Site) -> None:
    site.receive(3)
    site.receive(2, series="1.2.3.2", PatientID="SECRET8")
    site.decide()
    for text in (*page(site), *page(site, "7"), *page(site, "SECRET8")):
        assert "one StudyInstanceUID with 2 PatientIDs: 3 instances in series 1.2.3.1; 2 instances in" in text
        assert "SECRET" not in text
    with writing(site.node.engine) as connection:
        assert studies.release(connection, STUDY, 0)
    site.decide()
    assert site.study().state == "held"


def test_why_of_nothing_known_does_not_repeat_what_was_asked(site: Site) -> None:
    with reading(site.node.engine) as connection, pytest.raises(UnknownStudy) as caught:
        why.explain(connection, "SECRET")
    assert "SECRET" not in str(caught.value)


def slices(folder: Path, count: int = 5) -> None:
    for number in range(1, count + 1):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = f"1.2.3.1.{number}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, "1.2.3.1"
        dataset.Modality, dataset.StudyDescription = "CT", "Chest"
        dataset.ImagePositionPatient = [0, 0, number]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ExposureTime = str(500 + number)
        block = dataset.private_block(0x0043, "GEMS_PARM_01", create=True)
        block.add_new(0x27, "LO", "STANDARD")
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "24627-2", "LN", "CT Chest"
        dataset.ProcedureCodeSequence = pydicom.Sequence([code])
        dataset.save_as(folder / f"{number}.dcm", enforce_file_format=True)


WHENS = [
    ({"ExposureTime": {"at_least": 501, "at_most": 505}}, True),
    ({"ExposureTime": {"at_most": 504}}, False),
    ({"GEMS_PARM_01 0043xx27": "standard"}, True),
    ({"GEMS_PARM_02 0043xx27": "absent"}, True),
    ({"ProcedureCodeSequence": "24627-2:LN"}, True),
    ({"ProcedureCodeSequence.CodeMeaning": {"contains": "chest"}}, True),
    ({"ProcedureCodeSequence.CodeValue": {"matches": "^24627"}}, True),
    ({"sop_class": "CTImageStorage", "plane": "axial", "slice_spacing": 1, "slice_gaps": 0}, True),
]


@pytest.mark.parametrize(("when", "fires"), WHENS, ids=str)
def test_rules_are_tried_on_files_with_any_attribute_of_any_kind(
    tmp_path: Path, shelf: None, when: dict[str, object], fires: bool
) -> None:
    slices(tmp_path)
    (tmp_path / "notes.txt").write_text("no DICOM")
    rules = rulebook.rules([{**RULE, "when": when}])
    tried = trial.on_files([tmp_path], rules)
    (study,) = tried.studies
    (answer,) = study.judged
    assert answer.fires is fires
    assert [path.name for path in tried.skipped] == ["notes.txt"]
    shown = tried.as_json()["studies"][0]
    assert set(when) <= set(shown["series"][0]["facts"]) or "absent" in when.values()
    assert json.loads(json.dumps(shown))["decisions"][0]["fires"] is fires


def test_rules_cannot_be_tried_on_nothing(tmp_path: Path) -> None:
    with pytest.raises(trial.NothingToTest):
        trial.on_files([tmp_path], [])
