"""DICOMweb of our own: found as by C-FIND, given whole and bit by bit, never to strangers, and noted in the audit."""

import email
import json
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
    SegmentationStorage,
)
from sqlalchemy import delete

from router.db.engine import writing
from router.db.tables import metadata
from router.domain.access import Role, Scope
from router.web import doors
from tests.query.node import Answering, ct
from tests.web.conftest import Window, opened

WEB = doors.DICOMWEB
STUDY = f"{WEB}/studies/1.2.1"
DICOM = 'multipart/related; type="application/dicom"'
FRAMES = 'multipart/related; type="application/octet-stream"'


def hold(window: Window, *objects: FileDataset) -> None:
    """Keep these as if they had been received."""
    Answering(node=window.node, ae=None).hold(*objects)


def multipart(answer: httpx.Response) -> list[tuple[str, bytes]]:
    """Media type and content of each part, read by the standard library."""
    assert answer.status_code in (200, 206), answer.text
    message = email.message_from_bytes(
        b"MIME-Version: 1.0\r\nContent-Type: " + answer.headers["content-type"].encode() + b"\r\n\r\n" + answer.content
    )
    assert message.get_content_type() == "multipart/related"
    assert not message.defects
    return [(part["Content-Type"], raw_of(part, answer)) for part in message.get_payload()]


def raw_of(part: Any, answer: httpx.Response) -> bytes:
    """The bytes of a part; the standard library would turn its line ends."""
    boundary = email.message_from_string(f"Content-Type: {answer.headers['content-type']}\r\n\r\n").get_boundary()
    for piece in answer.content.split(f"--{boundary}".encode())[1:-1]:
        head, _, body = piece.partition(b"\r\n\r\n")
        if (part["Content-Location"] or "") in head.decode():
            return body.removesuffix(b"\r\n")
    raise AssertionError("no such part")


def written(*uids: str) -> list[FileDataset]:
    return [ct(series_uid=uid, number=number) for number, uid in enumerate(uids, 1)]


def pixels(seed: int = 1, shape: tuple[int, ...] = (8, 8)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4000, shape, dtype=np.uint16)


def in_syntax(one: FileDataset, syntax: str) -> FileDataset:
    """The same object in this transfer syntax."""
    one.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        one.set_original_encoding(False, False, one.SpecificCharacterSet)
    if syntax in (RLELossless, JPEG2000Lossless):
        import imagecodecs

        words = np.frombuffer(one.PixelData, np.uint16).reshape(-1, one.Rows, one.Columns)
        code = imagecodecs.jpeg2k_encode
        if syntax == JPEG2000Lossless:
            one.PixelData = encapsulate([code(frame, reversible=True, codecformat="j2k", level=0) for frame in words])
            one["PixelData"].VR = "OB"
        else:
            one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            one.compress(RLELossless, generate_instance_uid=False)
    return one


KEPT = frozenset({"node", "account", "session", "token", "revision", "login_failure"})
"""Tables that stay from test to test: who may look."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Window]:
    with opened(tmp_path_factory.mktemp("window")) as made:
        yield made


@pytest.fixture
def window(shared: Window) -> Window:
    """The one window of this module, its node empty again."""
    with writing(shared.node.engine) as connection:
        for table in reversed(metadata.sorted_tables):
            if table.name not in KEPT:
                connection.execute(delete(table))
    for path in shared.node.store.root.rglob("*.dcm"):
        path.unlink()
    return shared


@pytest.fixture
def reader(window: Window) -> httpx.Client:
    return window.program(Scope.READ)


@pytest.mark.long
def test_no_answer_without_a_session_or_a_token_that_may_read(window: Window) -> None:
    hold(window, ct())
    walked = 0
    under = [one for one in doors.DOORS if one.path.startswith(WEB)]
    takes = {one.path for one in under if "POST" in one.methods}
    for one in under:
        if "GET" not in one.methods:
            continue
        path = one.path.replace("{study}", "1.2.1").replace("{series}", "1.2.1.1").replace("{instance}", "1")
        path = path.replace("{numbers}", "1").replace("{tag}", "7FE00010")
        assert window.bare().get(path).status_code == 401, path
        assert window.program(Scope.METRICS).get(path).status_code == 403, path
        for role in Role:
            assert window.log_in(str(role)).get(path).status_code in (200, 404), path
        assert window.program(Scope.READ).post(path).status_code == (403 if one.path in takes else 405), path
        walked += 1
    assert walked == 16


def test_studies_are_found_as_by_c_find(window: Window, reader: httpx.Client) -> None:
    hold(
        window,
        ct(name="Müller^Jörg", study_uid="1.2.1"),
        ct(name="Mueller^Jane", study_uid="1.2.2", StudyDate="20230101"),
        ct(name="Yamada^Tarou=山田^太郎=やまだ^たろう", study_uid="1.2.3", patient="P3"),
    )

    def found(**asked: str) -> set[str]:
        answer = reader.get(f"{WEB}/studies", params=asked)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/dicom+json"
        return {one["0020000D"]["Value"][0] for one in answer.json()}

    assert found() == {"1.2.1", "1.2.2", "1.2.3"}
    assert found(PatientName="muller*") == {"1.2.1"}
    assert found(PatientName="*太郎*") == {"1.2.3"}
    assert found(**{"00100010": "M*"}) == {"1.2.1", "1.2.2"}
    assert found(StudyDate="20240101-") == {"1.2.1", "1.2.3"}
    assert found(StudyInstanceUID="1.2.1,1.2.3,9.9") == {"1.2.1", "1.2.3"}
    assert found(StudyInstanceUID="1.2.2\\9.9") == {"1.2.2"}
    assert found(ModalitiesInStudy="MR") == set()
    assert found(PatientID="P3", limit="1") == {"1.2.3"}
    assert found(limit="0") == set()
    (one,) = reader.get(f"{WEB}/studies", params={"PatientID": "P3"}).json()
    assert one["00100010"] == {
        "vr": "PN",
        "Value": [{"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}],
    }
    assert one["00201208"] == {"vr": "IS", "Value": [1]}
    assert one["00080061"] == {"vr": "CS", "Value": ["CT"]}
    assert one["00081190"]["Value"] == [f"{window.url}{WEB}/studies/1.2.3"]
    assert one["00100030"] == {"vr": "DA"}


def test_series_and_instances_are_found_below_and_without_their_study(window: Window, reader: httpx.Client) -> None:
    hold(window, *written("1.2.1.1", "1.2.1.1", "1.2.1.2"), ct(study_uid="1.2.2"))

    def uids(path: str, tag: str, **asked: str) -> list[str]:
        return sorted(one[tag]["Value"][0] for one in reader.get(f"{WEB}/{path}", params=asked).json())

    assert uids("studies/1.2.1/series", "0020000E") == ["1.2.1.1", "1.2.1.2"]
    assert uids("series", "0020000E", Modality="CT") == ["1.2.1.1", "1.2.1.2", "1.2.2.1"]
    assert len(uids("studies/1.2.1/instances", "00080018")) == 3
    assert len(uids("studies/1.2.1/series/1.2.1.1/instances", "00080018")) == 2
    assert len(uids("instances", "00080018", InstanceNumber="1")) == 2
    (one,) = reader.get(f"{WEB}/studies/1.2.1/series", params={"SeriesInstanceUID": "1.2.1.2"}).json()
    assert one["00201209"]["Value"] == [1]
    assert "00100010" not in one
    (one, *_) = reader.get(f"{WEB}/instances", params={"includefield": "ImageType,00180050"}).json()
    assert one["00080008"]["Value"] == ["ORIGINAL", "PRIMARY", "AXIAL"]
    assert one["00180050"] == {"vr": "DS", "Value": [5.0]}
    assert one["00280010"] == {"vr": "US", "Value": [8]}
    assert one["00100020"]["Value"] == ["P1"], "what is above is told where the path does not name it"
    assert reader.get(f"{WEB}/studies/9.9/series").json() == []


def test_pages_have_no_gap_and_no_double_and_say_that_there_is_more(window: Window, reader: httpx.Client) -> None:
    hold(window, *(ct(study_uid=f"1.2.{number}", patient=f"P{number}") for number in range(1, 8)))
    seen: list[str] = []
    for offset in range(0, 8, 3):
        answer = reader.get(f"{WEB}/studies", params={"limit": 3, "offset": offset})
        seen += [one["0020000D"]["Value"][0] for one in answer.json()]
        assert ("warning" in answer.headers) == (offset < 6), offset
    assert sorted(seen) == [f"1.2.{number}" for number in range(1, 8)]
    answer = reader.get(f"{WEB}/studies", params={"fuzzymatching": "true", "PatientComments": "x"})
    assert "fuzzy" in answer.headers["warning"]
    assert "PatientComments" in answer.headers["warning"]


@pytest.mark.parametrize(
    "asked",
    [
        {"limit": "-1"},
        {"offset": "x"},
        {"limit": "١"},
        {"NoSuchKeyword": "1"},
        {"zzzzzzzz": "1"},
        {"StudyDate": "yesterday"},
        {"PatientID": "x" * 65},
        {"RequestAttributesSequence": "x", "RequestAttributesSequence.ScheduledProcedureStepID": "y"},
        {"includefield": "NoSuchKeyword"},
    ],
)
def test_a_search_that_means_nothing_is_refused_and_its_text_not_repeated(
    reader: httpx.Client, asked: dict[str, str]
) -> None:
    answer = reader.get(f"{WEB}/studies", params=asked)
    if asked.get("NoSuchKeyword") or asked.get("zzzzzzzz") or answer.status_code != 200:
        assert answer.status_code == 400, answer.text
        assert answer.json()["problem"] == "WrongQuery"
        assert "x" * 65 not in answer.text
    else:
        pytest.fail(f"{asked} was taken")


def test_objects_leave_bit_by_bit_as_they_came(window: Window, reader: httpx.Client) -> None:
    objects = [ct(number=n, series_uid=f"1.2.1.{n % 2 + 1}", PixelData=pixels(n).tobytes()) for n in range(1, 5)]
    hold(window, *objects)
    kept = {path.read_bytes() for path in window.node.store.root.rglob("*.dcm")}
    given = multipart(reader.get(STUDY, headers={"accept": DICOM}))
    assert {content for _, content in given} == kept
    assert {kind for kind, _ in given} == {f"application/dicom; transfer-syntax={ExplicitVRLittleEndian}"}
    assert len(multipart(reader.get(f"{STUDY}/series/1.2.1.1", headers={"accept": DICOM}))) == 2
    one = objects[0]
    path = f"{STUDY}/series/{one.SeriesInstanceUID}/instances/{one.SOPInstanceUID}"
    ((_, content),) = multipart(reader.get(path))
    assert content in kept
    alone = reader.get(path, headers={"accept": "application/dicom"})
    assert alone.headers["content-type"].startswith("application/dicom")
    assert alone.content == content
    assert reader.get(STUDY, headers={"accept": "application/dicom"}).status_code == 406
    assert reader.get(STUDY, headers={"accept": "text/html"}).status_code == 406
    assert reader.get(f"{WEB}/studies/9.9").status_code == 404
    wrong = f"{STUDY}/series/1.2.9/instances/{one.SOPInstanceUID}"
    assert reader.get(wrong).status_code == 404, "a series that it is not in"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian,
                                    RLELossless, JPEG2000Lossless])  # fmt: skip
def test_what_is_stored_otherwise_leaves_as_it_is_asked_for(window: Window, reader: httpx.Client, syntax: str) -> None:
    words = pixels()
    big = words.byteswap() if syntax == ExplicitVRBigEndian else words
    one = ct(PixelData=big.tobytes(), StudyComments="x" * 50)
    hold(window, in_syntax(one, syntax))
    path = f"{STUDY}/series/1.2.1.1/instances/{one.SOPInstanceUID}"
    (kept,) = (file.read_bytes() for file in window.node.store.root.rglob("*.dcm"))
    ((kind, content),) = multipart(reader.get(path, headers={"accept": f"{DICOM}; transfer-syntax=*"}))
    assert content == kept
    assert kind.endswith(str(syntax))
    for wanted in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        accept = f"{DICOM}; transfer-syntax={wanted}"
        ((kind, content),) = multipart(reader.get(path, headers={"accept": accept}))
        read = dcmread(BytesIO(content))
        assert (kind.rpartition("=")[2], read.file_meta.TransferSyntaxUID) == (wanted, wanted)
        assert (read.pixel_array == words).all()
        assert read.SOPInstanceUID == one.SOPInstanceUID
    assert reader.get(path, headers={"accept": f"{DICOM}; transfer-syntax=1.2.840.10008.1.2.4.90"}).status_code in (
        200 if syntax == JPEG2000Lossless else 406,
    )
    ((_, frame),) = multipart(reader.get(f"{path}/frames/1", headers={"accept": FRAMES}))
    assert frame == words.tobytes(), "native frames are little endian, however they are stored"
    (said,) = reader.get(f"{path}/metadata").json()
    assert said["00280010"]["Value"] == [8]
    assert said["7FE00010"]["BulkDataURI"].endswith(f"{path}/bulkdata/7FE00010")


def test_frames_leave_one_by_one(window: Window, reader: httpx.Client) -> None:
    words = pixels(shape=(5, 8, 8))
    one = ct(NumberOfFrames=5, PixelData=words.tobytes())
    packed = in_syntax(ct(NumberOfFrames=5, PixelData=words.tobytes(), series_uid="1.2.1.2"), JPEG2000Lossless)
    hold(window, one, packed)
    path = f"{STUDY}/series/1.2.1.1/instances/{one.SOPInstanceUID}/frames"
    given = multipart(reader.get(f"{path}/4,1,4", headers={"accept": FRAMES}))
    assert [content for _, content in given] == [words[n].tobytes() for n in (3, 0, 3)]
    alone = reader.get(f"{path}/2", headers={"accept": "application/octet-stream"})
    assert alone.content == words[1].tobytes()
    for wrong in ("0", "6", "1,6", "x", "1,", "1,,2", "9999999999"):
        assert reader.get(f"{path}/{wrong}").status_code == 404, wrong
    path = f"{STUDY}/series/1.2.1.2/instances/{packed.SOPInstanceUID}/frames"
    for accept, kind in (
        (f"{FRAMES}; transfer-syntax=*", "application/octet-stream"),
        ('multipart/related; type="image/jp2"', "image/jp2"),
        ('multipart/related; type="image/jpeg", multipart/related; type="image/jp2"; q=0.5', "image/jp2"),
    ):
        (part, _) = multipart(reader.get(f"{path}/3,5", headers={"accept": accept}))
        import imagecodecs

        assert part[0] == f"{kind}; transfer-syntax={JPEG2000Lossless}"
        assert (imagecodecs.jpeg2k_decode(part[1]) == words[2]).all()
    assert reader.get(f"{path}/1", headers={"accept": 'multipart/related; type="image/jls"'}).status_code == 406


def test_frames_of_single_bits_begin_with_a_byte(window: Window, reader: httpx.Client) -> None:
    bits = np.random.default_rng(3).integers(0, 2, (3, 5, 7), dtype=np.uint8)
    one = ct(NumberOfFrames=3, Rows=5, Columns=7, BitsAllocated=1, BitsStored=1, HighBit=0, PixelRepresentation=0)
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = SegmentationStorage
    one.PixelData = np.packbits(bits.ravel(), bitorder="little").tobytes()
    hold(window, one)
    path = f"{STUDY}/series/1.2.1.1/instances/{one.SOPInstanceUID}"
    given = multipart(reader.get(f"{path}/frames/1,2,3"))
    read = [np.unpackbits(np.frombuffer(frame, np.uint8), bitorder="little")[:35].reshape(5, 7) for _, frame in given]
    assert (np.array(read) == bits).all()
    ((_, whole),) = multipart(reader.get(f"{path}/bulkdata/7FE00010"))
    assert whole.rstrip(b"\0") == one.PixelData.rstrip(b"\0")


def test_headers_say_what_the_file_says_and_odd_values_stop_nothing(window: Window, reader: httpx.Client) -> None:
    one = ct(name="Müller^Jörg=漢^字", SliceThickness="2.5", WindowCenter=["40", "-600"])
    one.SpecificCharacterSet = "ISO_IR 192"
    item = Dataset()
    item.ScheduledProcedureStepDescription = "inside"
    one.RequestAttributesSequence = Sequence([item])
    one.add_new(0x00091001, "UN", b"\1" * 5000)
    one.add_new(0x00091002, "FD", [1.5, float("nan")])
    one.add_new(0x00091003, "OB", b"\1\2\3\4")
    hold(window, one)
    (path,) = window.node.store.root.rglob("*.dcm")
    path.write_bytes(path.read_bytes().replace(b"2.5 ", b"2,5x"))  # no number
    (said,) = reader.get(f"{STUDY}/metadata").json()
    assert said["00100010"]["Value"] == [{"Alphabetic": "Müller^Jörg", "Ideographic": "漢^字"}]
    assert said["00281050"] == {"vr": "DS", "Value": [40.0, -600.0]}
    assert said["00400275"]["Value"] == [{"00400007": {"vr": "LO", "Value": ["inside"]}}]
    assert said["00180050"] == {"vr": "DS"}
    assert said["00091002"] == {"vr": "FD", "Value": [1.5, None]}
    assert said["00091003"] == {"vr": "OB", "InlineBinary": "AQIDBA=="}
    assert said["00080005"]["Value"] == ["ISO_IR 192"]
    ((_, value),) = multipart(reader.get(said["00091001"]["BulkDataURI"]))
    assert value == b"\1" * 5000
    for wrong in ("7FE0001", "zzzzzzzz", "00100020", "0009100F"):
        assert reader.get(said["00091001"]["BulkDataURI"][:-8] + wrong).status_code == 404, wrong


def test_a_file_that_is_gone_or_no_dicom_is_told_and_not_passed_over(window: Window, reader: httpx.Client) -> None:
    first, second = ct(number=1), ct(number=2)
    hold(window, first, second)
    files = {dcmread(path).SOPInstanceUID: path for path in window.node.store.root.rglob("*.dcm")}
    files[first.SOPInstanceUID].write_bytes(b"no DICOM at all")
    said = {one["00080018"]["Value"][0]: one for one in reader.get(f"{STUDY}/metadata").json()}
    assert set(said) == {first.SOPInstanceUID, second.SOPInstanceUID}
    assert "00100010" not in said[first.SOPInstanceUID]
    files[first.SOPInstanceUID].unlink()
    answer = reader.get(STUDY)
    assert answer.status_code == 206
    assert "1 files are missing" in answer.headers["warning"]
    assert len(multipart(answer)) == 1
    assert reader.get(f"{STUDY}/series/1.2.1.1/instances/{first.SOPInstanceUID}").status_code == 404


def test_only_what_was_released_is_there_for_others(window: Window, reader: httpx.Client) -> None:
    hold(window, ct())
    node = Answering(node=window.node, ae=None)
    shown = node.make("1.2.1", "segmentation", ct(Modality="SEG"))
    assert shown in reader.get(f"{WEB}/studies/1.2.1/instances").text
    assert len(multipart(reader.get(STUDY))) == 2
    with opened(window.node.store.root.parent / "other") as other:
        hold(other, ct())
        hidden = Answering(node=other.node, ae=None).make("1.2.1", "segmentation", ct(Modality="SEG"), state="held")
        program = other.program(Scope.READ)
        assert hidden not in program.get(f"{WEB}/studies/1.2.1/instances").text
        assert len(multipart(program.get(STUDY))) == 1


def test_who_asked_and_what_left_is_in_the_audit(window: Window, reader: httpx.Client) -> None:
    hold(window, ct(study_uid="1.2.77"))
    study = f"{WEB}/studies/1.2.77"
    person = window.log_in("operator")
    person.get(f"{WEB}/studies", params={"PatientName": "Doe*"})
    person.get(study)
    for _ in range(3):
        person.get(f"{study}/metadata")
    reader.get(f"{study}/metadata")
    rows = Answering(node=window.node, ae=None)
    (asked,) = rows.audited("study.queried")
    assert (asked["who"], asked["keys"], asked["level"]) == ("user:operator", ["PatientName"], "STUDY")
    (left,) = rows.audited("study.retrieved")
    assert (left["who"], left["study"], left["instances"]) == ("user:operator", "1.2.77", 1)
    assert [one["study"] for one in rows.audited("study.viewed")] == ["1.2.77", "1.2.77"]
    assert "Doe" not in json.dumps([rows.audited(act) for act in ("study.queried", "study.retrieved")])


def test_a_study_leaves_in_pieces_and_is_not_compressed(window: Window, reader: httpx.Client) -> None:
    hold(window, *(ct(number=n, Rows=512, Columns=512, PixelData=bytes(512 * 512 * 2)) for n in range(1, 9)))
    headers = {"accept-encoding": "gzip"}
    with reader.stream("GET", STUDY, headers=headers) as answer:
        assert "content-encoding" not in answer.headers
        assert "content-length" not in answer.headers
        assert sum(map(len, answer.iter_raw())) > 8 * 512 * 512 * 2
    said = reader.get(f"{STUDY}/metadata", headers=headers)
    assert said.headers.get("content-encoding") == "gzip", "headers shrink to a tenth"


def test_a_result_of_ours_leaves_in_the_transfer_syntax_of_its_file(window: Window, reader: httpx.Client) -> None:
    """Label maps lie in RLE, and the index does not say so."""
    hold(window, ct())
    words = pixels()
    made = in_syntax(ct(number=7, PixelData=words.tobytes()), RLELossless)
    uid = Answering(node=window.node, ae=None).make("1.2.1", "segmentation", made)
    path = f"{STUDY}/series/{uid}.0/instances/{uid}"
    ((kind, content),) = multipart(reader.get(path, headers={"accept": f"{DICOM}; transfer-syntax=*"}))
    assert kind.endswith(str(RLELossless))
    assert (dcmread(BytesIO(content)).pixel_array == words).all()
    ((_, frame),) = multipart(reader.get(f"{path}/frames/1", headers={"accept": FRAMES}))
    assert frame == words.tobytes()
