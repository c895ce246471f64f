"""The conformance statement says what a running listener negotiates: everything is proposed, and compared."""

import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from pydicom.uid import UID, ExplicitVRLittleEndian, UID_dictionary
from pynetdicom import AE, sop_class
from pynetdicom.presentation import PresentationContext, build_context, build_role

from router import conformance, statement
from router.db import revisions
from router.db.engine import reading, writing
from router.ingest.status import Rejection
from router.query.rights import Service
from tests.ingest.conftest import SENDER, Door, listening

PRIVATE = "1.3.12.2.1107.5.9.1"
AT_ONCE = 128
Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("statement")
    with listening(folder, private_sop_classes=[PRIVATE], max_pdu_bytes=65536) as made:
        every = {"ae_title": SENDER, "addresses": ["127.0.0.1"], "services": [str(one) for one in Service]}
        made.accept(every, {"ae_title": "A|B", "addresses": ["10.0.0.0/8"], "notes": "<b>"})
        with writing(made.node.engine) as connection:
            pacs = {"name": "<i>pacs</i>", "kind": "dicom", "ae_title": "PACS", "host": "pacs.example", "port": 104}
            revisions.add(connection, revisions.Kind.DESTINATIONS, [pacs], author="test")
        yield made


@pytest.fixture(scope="module")
def page(door: Door) -> str:
    with reading(door.node.engine) as connection:
        found = conformance.running(door.node.settings, connection)
    return statement.markdown(conformance.statement(found), "Statement")


def tables(page: str, number: str) -> Rows:
    """Rows of the tables in one section of the Markdown."""
    (text,) = re.findall(rf"^#+ {re.escape(number)} .*?\n(.*?)(?=^#|\Z)", page, re.M | re.S)
    text = re.sub(r"\\([^|])", r"\1", text)
    lines = [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in text.splitlines() if line.startswith("|")]
    return [dict(zip(lines[0], row, strict=True)) for row in lines[2:]]


def negotiated(door: Door, contexts: list[PresentationContext], *, turned: bool = False) -> list[PresentationContext]:
    """What is accepted of these, proposed in as many associations as it takes."""
    accepted = []
    for first in range(0, len(contexts), AT_ONCE):
        batch = contexts[first : first + AT_ONCE]
        roles = {str(one.abstract_syntax) for one in batch} if turned else set()
        ae = AE(ae_title=SENDER)
        negotiation = [build_role(UID(one), scu_role=True, scp_role=True) for one in sorted(roles)]
        association = ae.associate("127.0.0.1", door.port, contexts=batch, ae_title="ISOCENTER", ext_neg=negotiation)
        accepted += association.accepted_contexts
        assert association.is_established or not association.accepted_contexts
        if association.is_established:
            association.release()
    return accepted


def known_sop_classes() -> list[str]:
    """Every SOP class that pydicom or pynetdicom knows, stored or not."""
    ours = {str(value) for value in vars(sop_class).values() if isinstance(value, UID)}
    return sorted(ours | {uid for uid, entry in UID_dictionary.items() if entry[1] == "SOP Class"} | {PRIVATE, "1.2.3"})


def known_syntaxes() -> list[str]:
    return sorted(uid for uid, entry in UID_dictionary.items() if entry[1] == "Transfer Syntax")


def uids(cell: str) -> set[str]:
    return set(re.findall(r"\(([\d.]+)\)", cell))


def stated(page: str) -> dict[str, set[str]]:
    """Accepted transfer syntaxes by SOP class, as the statement says."""
    of_storage = {row["UID"] for row in tables(page, "4.2.1.4")}
    return {
        row["UID"]: of_storage if row["Transfer syntaxes"] == "See 4.2.1.4" else uids(row["Transfer syntaxes"])
        for row in tables(page, "4.2.1.3")
    }


def test_every_sop_class_is_accepted_or_refused_as_it_says(door: Door, page: str) -> None:
    classes, said = known_sop_classes(), stated(page)
    assert len(classes) > 250
    proposed = [build_context(uid, sorted(said.get(uid, {str(ExplicitVRLittleEndian)}))[0]) for uid in classes]
    accepted = {str(one.abstract_syntax) for one in negotiated(door, proposed)}
    assert accepted == set(said)
    assert PRIVATE in accepted
    assert "1.2.3" not in accepted


@pytest.mark.parametrize("kind", ["CT", "other services"])
def test_every_transfer_syntax_is_accepted_or_refused_as_it_says(door: Door, page: str, kind: str) -> None:
    said = stated(page)
    storage = {row["UID"] for row in tables(page, "4.2.1.3") if row["Transfer syntaxes"] == "See 4.2.1.4"}
    asked: Iterable[str] = [sop_class.CTImageStorage, PRIVATE] if kind == "CT" else set(said) - storage
    for uid in sorted(map(str, asked)):
        proposed = [build_context(uid, syntax) for syntax in known_syntaxes()]
        assert len(proposed) > 40
        accepted = negotiated(door, proposed)
        assert {str(one.transfer_syntax[0]) for one in accepted} == said[uid], uid


def test_of_several_syntaxes_the_first_in_its_order_is_taken(door: Door, page: str) -> None:
    order = [row["UID"] for row in tables(page, "4.2.1.4")]
    for number in range(len(order)):
        (one,) = negotiated(door, [build_context(sop_class.CTImageStorage, order[number:][::-1])])
        assert str(one.transfer_syntax[0]) == order[number]


def test_roles_are_as_it_says(door: Door, page: str) -> None:
    said = stated(page)
    turning = {row["UID"] for row in tables(page, "4.2.1.3") if "SCU" in row["Role"]}
    proposed = [build_context(uid, sorted(said[uid])[0]) for uid in said]
    accepted = negotiated(door, proposed, turned=True)
    assert {str(one.abstract_syntax) for one in accepted} == set(said)
    assert {str(one.abstract_syntax) for one in accepted if one.as_scp} == turning
    assert all(one.as_scu for one in accepted)


def test_limits_and_names_are_as_it_says(door: Door, page: str) -> None:
    names = {row["Item"]: row["Value"] for row in tables(page, "4.1")}
    limits = {row["Limit"]: row["Value"] for row in tables(page, "4.2.1")}
    ae = AE(ae_title=SENDER)
    ae.add_requested_context(sop_class.Verification)
    association = ae.associate("127.0.0.1", int(limits["Port"]), ae_title=names["AE title (called)"])
    assert association.is_established
    told = association.acceptor
    assert limits["Largest PDU received"] == f"{told.maximum_length} bytes"
    assert names["Implementation class UID"] == told.implementation_class_uid
    assert names["Implementation version name"] == told.implementation_version_name
    assert told.asynchronous_operations in ((1, 1), None)
    association.release()
    ae.ae_title = "NOBODY"
    refused = ae.associate("127.0.0.1", door.port, ae_title="ISOCENTER")
    said = {row["Meaning"]: (row["Result"], row["Source"], row["Reason"]) for row in tables(page, "4.2.1.2")}
    answer = refused.acceptor.primitive
    given = str(answer.result), str(answer.result_source), str(answer.diagnostic)
    assert said["Calling ae title not recognized"] == given
    assert len(said) == len(Rejection)


def test_it_names_the_configuration_in_force_as_text(door: Door, page: str) -> None:
    assert [row["Calling AE title"] for row in tables(page, "4.2.1.1")] == [SENDER, "A\\|B"]
    (pacs,) = tables(page, "4.2.2")
    assert (pacs["Destination"], pacs["AE title"], pacs["Port"]) == ("&lt;i&gt;pacs&lt;/i&gt;", "PACS", "104")

    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.tags: list[str] = []
            self.text = ""

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.tags.append(tag)

        def handle_data(self, data: str) -> None:
            self.text += data

    with reading(door.node.engine) as connection:
        found = conformance.running(door.node.settings, connection)
    sections = conformance.statement(found)
    reader = Reader()
    reader.feed(statement.html(sections, "Statement <script>"))
    assert not {"script", "b", "i"} & set(reader.tags)
    assert "<i>pacs</i>" in reader.text
    assert reader.tags.count("table") == sum(not isinstance(block, str) for one in sections for block in one.blocks)
    numbers = [one.number for one in sections]
    assert len(set(numbers)) == len(numbers)


def test_what_it_says_of_results_is_what_profiles_can_ask_for(page: str, tmp_path: Path) -> None:
    from dicom_sr import kinds
    from router.destinations import Profile
    from router.destinations._profile import FIELDS, READY

    said = {row["UID"] for row in tables(page, "4.2.2.1")}
    assert said == set(FIELDS)
    wanted = {kind for profile in READY.values() for kind in profile.kinds} | set(Profile(seg="labelmap").kinds)
    assert wanted <= set(kinds.names())
