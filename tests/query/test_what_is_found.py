"""What the node holds is found at each level, counted truly, and nothing else is: on each engine, page by page."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage, SegmentationStorage
from sqlalchemy import Engine, insert

from router.db import catalogue, holdings
from router.db.catalogue import Place, Values
from router.db.engine import reading, writing
from router.db.tables import instance
from router.domain.matching import InItem, parse
from router.domain.query import KEYS, Level, Query, Root
from router.query.made import header_of
from tests.query.holding import EMPTY_INSTANCE, hold, make


def asking(level: Level, root: Root = Root.STUDY, wanted: str = "", **keys: str) -> Query:
    conditions = {name: match for name, text in keys.items() if (match := parse(KEYS[name].vr, text)) is not None}
    return Query(root=root, level=level, conditions=conditions, wanted=dict.fromkeys([*keys, *wanted.split()], ()))


def found(engine: Engine, query: Query, limit: int = 2) -> list[Values]:
    return list(pages(engine, query, limit))


def pages(engine: Engine, query: Query, limit: int) -> Iterator[Values]:
    place: Place | None = Place()
    while place is not None:
        with reading(engine) as connection:
            values, place = catalogue.page(connection, query, place, limit)
        yield from values


@pytest.fixture
def held(index: Engine) -> Engine:
    """Two patients with one PatientID of two issuers, four studies, a series UID that stands in two of them."""
    with writing(index) as connection:
        one = {"patient_id": "7", "issuer_of_patient_id": "NORTH", "patient_name": "Old^Name", "last_instance_at": 1}
        hold(
            connection,
            "1.1",
            {
                "1.1.1": {
                    "series_number": "1",
                    "instances": {f"1.1.1.{n}": {"instance_number": str(n)} for n in range(5)},
                },
                "1.1.2": {
                    "modality": "SR",
                    "instances": {"1.1.2.1": {"sop_class_uid": "1.2.840.10008.5.1.4.1.1.88.33"}},
                },
            },
            **one,
        )
        hold(connection, "1.2", **one | {"patient_name": "New^Name", "last_instance_at": 2})
        hold(connection, "1.3", patient_id="7", issuer_of_patient_id="SOUTH", patient_name="Other^Person")
        hold(connection, "1.4", {"1.1.1": {"series_number": "9", "instances": {"1.4.1.1": {}}}}, patient_name="No^ID")
        hold(connection, "1.5", {"1.5.1": {"instances": {"1.5.1.1": {"status": "purged"}}}}, patient_id="8")
    return index


@pytest.mark.long
def test_a_patient_is_one_of_an_issuer_with_the_newest_name_and_all_studies_counted(held: Engine) -> None:
    wanted = "NumberOfPatientRelatedStudies NumberOfPatientRelatedSeries NumberOfPatientRelatedInstances"
    patients = found(held, asking(Level.PATIENT, Root.PATIENT, wanted, PatientID="7"))
    assert [
        (p["IssuerOfPatientID"], p["PatientName"], *(int(p[name]) for name in wanted.split())) for p in patients
    ] == [("NORTH", "New^Name", 2, 3, 7), ("SOUTH", "Other^Person", 1, 1, 1)]


def test_a_patient_without_an_id_is_no_patient_to_ask_for_but_the_study_is_found(held: Engine) -> None:
    assert {p["PatientID"] for p in found(held, asking(Level.PATIENT, Root.PATIENT))} == {"7"}
    assert [s["StudyInstanceUID"] for s in found(held, asking(Level.STUDY, PatientName="no^id"))] == ["1.4"]


def test_a_study_counts_what_it_holds(held: Engine) -> None:
    wanted = "ModalitiesInStudy SOPClassesInStudy NumberOfStudyRelatedSeries NumberOfStudyRelatedInstances"
    (study,) = found(held, asking(Level.STUDY, wanted=wanted, StudyInstanceUID="1.1"))
    assert study["ModalitiesInStudy"] == ["CT", "SR"]
    assert study["SOPClassesInStudy"] == [str(CTImageStorage), "1.2.840.10008.5.1.4.1.1.88.33"]
    assert (study["NumberOfStudyRelatedSeries"], study["NumberOfStudyRelatedInstances"]) == ("2", "6")


@pytest.mark.parametrize(
    ("key", "studies"),
    [("SR", ["1.1"]), ("CT", ["1.1", "1.2", "1.3", "1.4"]), ("SR\\MR", ["1.1"]), ("S?", ["1.1"]), ("MR", [])],
)
def test_a_study_is_found_by_a_modality_in_it(held: Engine, key: str, studies: list[str]) -> None:
    matches = found(held, asking(Level.STUDY, ModalitiesInStudy=key))
    assert sorted(values["StudyInstanceUID"] for values in matches) == studies


def test_negotiated_several_values_must_all_be_in_the_study(held: Engine) -> None:
    every = parse("CS", "CT\\SR", every=True)
    assert every is not None
    query = Query(root=Root.STUDY, level=Level.STUDY, conditions={"ModalitiesInStudy": every}, wanted={})
    assert [values["StudyInstanceUID"] for values in found(held, query)] == ["1.1"]


def test_a_series_belongs_to_its_study_even_when_its_uid_is_used_twice(held: Engine) -> None:
    for study, number, count in (("1.1", "1", "5"), ("1.4", "9", "1")):
        (series,) = found(
            held,
            asking(Level.SERIES, StudyInstanceUID=study, SeriesInstanceUID="1.1.1", NumberOfSeriesRelatedInstances=""),
        )
        assert (series["SeriesNumber"], series["NumberOfSeriesRelatedInstances"]) == (number, count)
    images = found(held, asking(Level.IMAGE, StudyInstanceUID="1.4", SeriesInstanceUID="1.1.1"))
    assert [image["SOPInstanceUID"] for image in images] == ["1.4.1.1"]


def test_images_are_found_by_number_and_class(held: Engine) -> None:
    within = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1"}
    assert len(found(held, asking(Level.IMAGE, **within))) == 5
    (image,) = found(held, asking(Level.IMAGE, **within, InstanceNumber="03"))
    assert image["SOPInstanceUID"] == "1.1.1.3"
    assert not found(held, asking(Level.IMAGE, **within, SOPClassUID=str(SegmentationStorage)))


def test_what_is_purged_replaced_or_in_conflict_is_not_held(held: Engine) -> None:
    with writing(held) as connection:
        for version, status in ((2, "conflict"), (3, "replaced")):
            keys = {"study_instance_uid": "1.2", "series_instance_uid": "1.2.1", "sop_instance_uid": "1.2.1.1"}
            row = EMPTY_INSTANCE | keys | {"version": version, "status": status, "path": f"{version}"}
            connection.execute(insert(instance).values(row))
    assert not found(held, asking(Level.STUDY, StudyInstanceUID="1.5"))
    assert not found(held, asking(Level.PATIENT, Root.PATIENT, PatientID="8"))
    (study,) = found(held, asking(Level.STUDY, StudyInstanceUID="1.2", NumberOfStudyRelatedInstances=""))
    assert study["NumberOfStudyRelatedInstances"] == "1"


@pytest.mark.long
@pytest.mark.parametrize(
    ("state", "seen"),
    [("queued", True), ("running", True), ("done", True), ("failed", True), ("held", False), ("cancelled", False),
     ("superseded", False), (None, False)],
)  # fmt: skip
def test_a_result_is_found_once_its_delivery_is_on_its_way_and_a_shadow_never(
    held: Engine, state: str | None, seen: bool
) -> None:
    with writing(held) as connection:
        segmentation, report = make(connection, "1.1", ["segmentation", "measurement_report"], state=state)
        header = {"SeriesNumber": 9000, "SeriesDescription": "Lungs", "InstanceNumber": 1, "Modality": "SEG"}
        holdings.describe(connection, segmentation, header)
    wanted = "ModalitiesInStudy NumberOfStudyRelatedSeries NumberOfStudyRelatedInstances"
    (study,) = found(held, asking(Level.STUDY, wanted=wanted, StudyInstanceUID="1.1"))
    assert study["ModalitiesInStudy"] == (["CT", "SEG", "SR"] if seen else ["CT", "SR"])
    assert study["NumberOfStudyRelatedInstances"] == ("8" if seen else "6")
    assert bool(found(held, asking(Level.STUDY, ModalitiesInStudy="SEG"))) is seen
    series = found(held, asking(Level.SERIES, StudyInstanceUID="1.1", Modality="SEG"))
    described = [(one["SeriesInstanceUID"], one["SeriesNumber"], one["SeriesDescription"]) for one in series]
    assert described == ([(f"{segmentation}.0", "9000", "Lungs")] if seen else [])
    assert len(found(held, asking(Level.SERIES, StudyInstanceUID="1.1"))) == (4 if seen else 2)
    images = found(held, asking(Level.IMAGE, StudyInstanceUID="1.1", SeriesInstanceUID=f"{report}.0"))
    assert [one["SOPInstanceUID"] for one in images] == ([report] if seen else [])
    with reading(held) as connection:
        assert (segmentation in holdings.of(connection, [segmentation])) is seen


def test_the_header_of_a_real_segmentation_is_noted_as_it_is_shown(held: Engine, data: Path) -> None:
    path = next(one for one in sorted((data / "seg_sr_highdicom").rglob("*.dcm")) if "seg" in one.name.lower())
    source = dcmread(path)
    with writing(held) as connection:
        (uid,) = make(connection, "1.1", ["segmentation"], state="done")
        holdings.describe(connection, uid, header_of(path.read_bytes()))
    (series,) = found(held, asking(Level.SERIES, StudyInstanceUID="1.1", SeriesInstanceUID=f"{uid}.0"))
    assert series["Modality"] == source.Modality == "SEG"
    assert series["SeriesNumber"] == str(source.SeriesNumber)
    assert series["SeriesDescription"] == source.get("SeriesDescription", "")
    (image,) = found(
        held, asking(Level.IMAGE, wanted="Rows NumberOfFrames", StudyInstanceUID="1.1", SeriesInstanceUID=f"{uid}.0")
    )
    assert (image["Rows"], image["NumberOfFrames"]) == (source.Rows, source.NumberOfFrames)


def test_a_result_that_comes_back_is_found_once(held: Engine) -> None:
    with writing(held) as connection:
        (uid,) = make(connection, "1.2", ["segmentation"], state="done")
        hold(connection, "1.9", {f"{uid}.0": {"modality": "SEG", "instances": {uid: {"ours": True}}}})
        connection.execute(instance.update().where(instance.c.sop_instance_uid == uid).values(study_instance_uid="1.2"))
        connection.execute(
            catalogue.series.update()
            .where(catalogue.series.c.study_instance_uid == "1.9")
            .values(study_instance_uid="1.2")
        )
    assert len(found(held, asking(Level.SERIES, StudyInstanceUID="1.2"))) == 2
    assert len(found(held, asking(Level.IMAGE, StudyInstanceUID="1.2", SeriesInstanceUID=f"{uid}.0"))) == 1
    (study,) = found(held, asking(Level.STUDY, StudyInstanceUID="1.2", NumberOfStudyRelatedInstances=""))
    assert study["NumberOfStudyRelatedInstances"] == "2"


def test_a_study_of_which_only_results_are_left_is_found(index: Engine) -> None:
    with writing(index) as connection:
        hold(connection, "1.1", {"1.1.1": {"instances": {"1.1.1.1": {"status": "purged"}}}}, patient_id="1")
        make(connection, "1.1", ["segmentation"], state="done")
    (study,) = found(index, asking(Level.STUDY, NumberOfStudyRelatedSeries=""))
    assert study["NumberOfStudyRelatedSeries"] == "1"
    assert found(index, asking(Level.PATIENT, Root.PATIENT, PatientID="1"))


def test_sequences_and_other_facts_match_and_are_given(index: Engine) -> None:
    codes = [{"CodeValue": "A", "CodeMeaning": "Kopf"}, {"CodeValue": "B", "CodeMeaning": "Thorax"}]
    with writing(index) as connection:
        headers = {"1.1": {"ProcedureCodeSequence": codes, "Rows": 512}, "1.2": {"ProcedureCodeSequence": codes[:1]}}
        for uid, header in headers.items():
            hold(connection, uid, {f"{uid}.1": {"instances": {f"{uid}.1.1": {"header": header}}}})
    for value, expected in (("A", ["1.1", "1.2"]), ("B", ["1.1"]), ("C", [])):
        code = parse("SH", value)
        assert code is not None
        conditions = {"ProcedureCodeSequence": InItem((("CodeValue", code),))}
        query = Query(root=Root.STUDY, level=Level.STUDY, conditions=conditions, wanted={"ProcedureCodeSequence": ()})
        matches = found(index, query, limit=1)
        assert sorted(values["StudyInstanceUID"] for values in matches) == expected
        assert all(values["ProcedureCodeSequence"] in (codes, codes[:1]) for values in matches)
    within = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1"}
    (image,) = found(index, asking(Level.IMAGE, **within, Rows="512"))
    assert image["Rows"] == 512
    assert not found(index, asking(Level.IMAGE, **within, Rows="256"))


def test_no_page_is_lost_or_given_twice(index: Engine) -> None:
    dates = ["20240101", "20240102", ""]
    with writing(index) as connection:
        for number in range(40):
            hold(
                connection,
                f"1.{number}",
                study_date=dates[number % 3],
                patient_name=f"a{number % 4}^x",
                patient_id=f"{number % 5}",
            )
    for keys in ({"StudyDate": "20240101-"}, {"PatientName": "A*"}, {"PatientID": "3"}, {"PatientID": "?"}, {}):
        wanted = found(index, asking(Level.STUDY, **keys), limit=1000)
        for limit in (1, 3, 7):
            assert found(index, asking(Level.STUDY, **keys), limit=limit) == wanted
    assert len(found(index, asking(Level.STUDY), limit=7)) == 40
