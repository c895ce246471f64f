"""What an answer says and how: character sets, options that were negotiated, keys that nobody knows, hostile bytes."""

import struct
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as StudyRootFind
from sqlalchemy import update

from router.db.engine import writing
from router.db.tables import study
from router.domain.query import IdentifierDoesNotMatch, Level, Query, Root
from router.ingest import text
from router.query.answer import Answer
from router.query.elements import UnreadableError, read
from router.query.identifier import Granted, Request, understand
from router.query.scu import Peer, WrongQuery, find
from tests.query.node import Answering, answering, ct


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Answering]:
    with answering(tmp_path) as made:
        yield made


def peer(node: Answering, **changes: Any) -> Peer:
    return Peer(ae_title="ISOCENTER", host="127.0.0.1", port=node.port, calling_ae_title="FRIEND", **changes)


def asked(
    node: Answering,
    identifier: Dataset,
    *,
    options: bytes = b"",
    syntax: str = ExplicitVRLittleEndian,
    longest: int = 16382,
) -> list[tuple[int, Dataset | None]]:
    """Status and identifier of every response."""
    ae = AE(ae_title="FRIEND")
    ae.maximum_pdu_size = longest
    ae.add_requested_context(StudyRootFind, syntax)
    negotiation = SOPClassExtendedNegotiation()
    negotiation.sop_class_uid = StudyRootFind
    negotiation.service_class_application_information = options
    association = ae.associate("127.0.0.1", node.port, ext_neg=[negotiation] if options else [])
    assert association.is_established
    if options:
        answer = association.acceptor.sop_class_extended[StudyRootFind]
        assert len(answer) == len(options)
    responses = [(status.Status, found) for status, found in association.send_c_find(identifier, StudyRootFind)]
    association.release()
    return responses


def keys(level: str = "STUDY", **values: Any) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in values.items():
        setattr(identifier, keyword, value)
    return identifier


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize(
    ("asks_in", "name", "answers_in"),
    [
        (None, "Doe^Jane", None),
        ("ISO_IR 100", "Müller^Jörg", "ISO_IR 100"),
        (None, "Müller^Jörg", "ISO_IR 192"),
        ("ISO_IR 100", "Иванов^Иван", "ISO_IR 192"),
        ("ISO_IR 144", "Иванов^Иван", "ISO_IR 144"),
        ("ISO_IR 192", "Yamada^Tarou=山田^太郎=やまだ^たろう", "ISO_IR 192"),
        ("ISO 2022 IR 6\\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎", "ISO_IR 192"),
    ],
)
def test_a_name_comes_back_whole_in_a_character_set_that_the_asker_has(
    node: Answering, syntax: str, asks_in: str | None, name: str, answers_in: str | None
) -> None:
    node.hold(ct(name=name))
    request = keys(PatientName="", StudyInstanceUID="")
    if asks_in:
        request.SpecificCharacterSet = asks_in.split("\\")
        if asks_in == answers_in:
            request.PatientName = name.split("=")[0].upper() + "*"
    (pending, found), (last, nothing) = asked(node, request, syntax=syntax)
    assert (pending, last, nothing) == (0xFF00, 0x0000, None)
    assert found is not None
    assert found.get("SpecificCharacterSet") == answers_in
    assert found.PatientName == name


def test_names_of_real_files_in_ten_scripts_are_found_by_what_the_files_say(node: Answering, data: Path) -> None:
    tried = 0
    for path in sorted((data / "charsets").glob("*.dcm")):
        source = dcmread(path)
        if not source.get("PatientName"):
            continue
        tried += 1
        terms = source.get("SpecificCharacterSet", "ISO_IR 6")
        raw = terms if isinstance(terms, str) else "\\".join(terms)
        name = text.decode(source.PatientName.original_string, text.encodings_of(raw.encode()))
        node.hold(ct(name="Doe^Jane", study_uid=f"1.5.{tried}"))
        with writing(node.node.engine) as connection:  # as the door has decoded it
            connection.execute(
                update(study).where(study.c.study_instance_uid == f"1.5.{tried}").values(patient_name=name)
            )
        request = keys(SpecificCharacterSet=terms, PatientName=source.PatientName, StudyInstanceUID=f"1.5.{tried}")
        (pending, found), _ = asked(node, request)
        assert pending == 0xFF00, path.name
        assert found is not None
        assert str(found.PatientName) == name, path.name
    assert tried >= 10


def test_keys_that_the_index_lacks_come_back_empty_with_a_warning(node: Answering) -> None:
    node.hold(ct())
    request = keys(StudyInstanceUID="", PatientSize="1.80", OtherPatientIDs="x", Modality="MR")
    (pending, found), _ = asked(node, request)
    assert pending == 0xFF01
    assert found is not None
    asked_in_vain = ("PatientSize", "OtherPatientIDs", "Modality")
    assert all(name in found and not found[name].value for name in asked_in_vain)


def test_relational_queries_are_answered_when_they_were_negotiated(node: Answering) -> None:
    node.hold(ct(), ct(study_uid="1.2.2", Modality="PT"))
    request = keys("SERIES", Modality="PT", SeriesInstanceUID="", StudyInstanceUID="")
    assert [status for status, _ in asked(node, request)] == [0xA900]
    (_, found), (last, _) = asked(node, request, options=b"\1")
    assert last == 0x0000
    assert found is not None
    assert found.StudyInstanceUID == "1.2.2"


@pytest.mark.parametrize(("options", "count"), [(b"", 1), (b"\0\1", 3)])
def test_dates_and_times_are_one_moment_when_that_was_negotiated(node: Answering, options: bytes, count: int) -> None:
    moments = [("20240101", "080000"), ("20240101", "120000"), ("20240102", "070000"), ("20240103", "110000"),
               ("20240103", "130000")]  # fmt: skip
    node.hold(*(ct(study_uid=f"1.6.{n}", StudyDate=d, StudyTime=t) for n, (d, t) in enumerate(moments)))
    request = keys(StudyDate="20240101-20240103", StudyTime="1130-1230", StudyInstanceUID="")
    found = [identifier.StudyInstanceUID for _, identifier in asked(node, request, options=options) if identifier]
    assert len(found) == count
    if options:
        assert found == ["1.6.1", "1.6.2", "1.6.3"]


def test_a_long_answer_is_cut_into_pdus_that_the_asker_takes(node: Answering) -> None:
    long = "ä" * 60
    node.hold(*(ct(study_uid=f"1.7.{n}", StudyDescription=long) for n in range(5)))
    responses = asked(node, keys(StudyInstanceUID="", StudyDescription="", AccessionNumber=""), longest=150)
    assert [status for status, _ in responses] == [0xFF00] * 5 + [0x0000]
    assert {found.StudyDescription for _, found in responses if found} == {long}


def test_our_own_scu_asks_for_what_a_level_is_about_and_stops_when_it_has_enough(node: Answering) -> None:
    node.hold(*(ct(study_uid=f"1.8.{n}") for n in range(30)))
    (one,) = find(peer(node), {"StudyInstanceUID": "1.8.3"}, Level.STUDY)
    assert (one.PatientName, one.NumberOfStudyRelatedInstances, one.ModalitiesInStudy) == ("Doe^Jane", 1, "CT")
    assert len(list(find(peer(node), {"PatientName": "döe*"}, Level.STUDY, most=4))) == 4
    with pytest.raises(WrongQuery):
        list(find(peer(node), {"PatientNmae": "x"}, Level.STUDY))


def test_the_audit_says_who_asked_for_what_kind_of_thing_and_names_no_patient(node: Answering) -> None:
    node.hold(ct())
    list(find(peer(node), {"PatientName": "doe^jane", "PatientID": "P1", "PatientBirthDate": ""}, Level.STUDY))
    (row,) = node.audited("study.queried")
    assert row["who"] == "FRIEND@127.0.0.1"
    assert row["keys"] == ["PatientID", "PatientName"]
    assert "jane" not in str(row).lower()
    assert "P1" not in str(row)


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=200), explicit=st.booleans())
def test_no_bytes_make_more_than_a_refusal(content: bytes, explicit: bool) -> None:
    with suppress(IdentifierDoesNotMatch):
        understand(content, explicit=explicit, root=Root.STUDY, granted=Granted())


def test_sequences_in_sequences_without_end_are_refused() -> None:
    one = struct.pack("<HH2sHI", 0x0040, 0x0275, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    with pytest.raises(UnreadableError):
        read(one * 10_000, explicit=True)
    implicit = struct.pack("<HHI", 0x0040, 0x0275, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    with pytest.raises(UnreadableError):
        read(implicit * 10_000, explicit=False)


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\\"), max_size=20)


@pytest.mark.long
@settings(max_examples=200, deadline=None)
@given(
    explicit=st.booleans(),
    name=words,
    codes=st.lists(st.fixed_dictionaries({"CodeValue": words, "CodeMeaning": words}), max_size=2),
    number=st.one_of(st.integers(0, 70000), st.just(""), st.floats(0, 1)),
)
def test_pydicom_reads_whatever_the_index_holds(explicit: bool, name: str, codes: list[Any], number: Any) -> None:
    wanted = dict.fromkeys(("PatientName", "Rows", "SliceThickness", "ImageType", "ProcedureCodeSequence"), ())
    query = Query(root=Root.STUDY, level=Level.IMAGE, conditions={}, wanted=wanted)
    answer = Answer(Request(query=query, character_set=None), explicit=explicit, retrieve_ae_title="ISOCENTER")
    values = {
        "PatientName": name,
        "Rows": number,
        "SliceThickness": number,
        "ImageType": ["A", "B"],
        "ProcedureCodeSequence": codes,
        "StudyInstanceUID": "1.2",
    }
    dataset = read_dataset(BytesIO(answer.identifier(values)), not explicit, True)
    tags = [int(element.tag) for element in dataset.values()]
    assert tags == sorted(tags)
    assert (dataset.QueryRetrieveLevel, dataset.RetrieveAETitle) == ("IMAGE", "ISOCENTER")
    assert str(dataset.PatientName).strip(" =") == name.strip(" =")  # it drops empty groups at the end
    assert len(dataset.ProcedureCodeSequence) == len(codes)
    for item, code in zip(dataset.ProcedureCodeSequence, codes, strict=True):
        assert str(item.CodeMeaning or "").strip() == code["CodeMeaning"].strip()
