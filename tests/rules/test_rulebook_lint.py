"""A rulebook that cannot be meant is refused with file, line, column and a suggestion; a good one round-trips."""

from typing import Any

import pytest
import yaml

from router import rulebook
from router.db.revisions import Kind
from router.errors import WrongRulebook
from router.rulebook import Known

pytestmark = pytest.mark.usefixtures("shelf")

GOOD = """\
rules:
  - name: chest ct lungs
    scope: series
    when:
      all:
        - Modality: CT
        - any: [ {BodyPartExamined: {matches: "(?i)chest|thorax"}}, {StudyDescription: {matches: "(?i)lung"}} ]
        - not: {ImageType: {contains: LOCALIZER}}
        - SliceThickness: {at_most: 5}
        - RequestAttributesSequence.ScheduledProcedureStepDescription: present
        - ProcedureCodeSequence: {contains: "24627-2:LN"}
        - GEMS_PARM_01 0043xx27: {contains: STD}
        - slice_spacing: {below: 3}
        - contrast: false
    pipelines: [always_one]
    destinations: [pacs]
"""


def known() -> Known:
    return Known(destinations=frozenset({"pacs"}))


def faults(text: str, **values: Any) -> list[str]:
    with pytest.raises(WrongRulebook) as caught:
        rulebook.parse(text, "r.yaml", known=Known(**{"destinations": frozenset({"pacs"}), **values}))
    return [str(fault) for fault in caught.value.faults]


def one_rule(when: str, rest: str = "pipelines: [always_one]\n    destinations: [pacs]") -> str:
    return f"rules:\n  - name: a\n    when: {when}\n    {rest}\n"


def test_a_rulebook_that_means_something_is_accepted_and_written_as_it_was() -> None:
    kind, body = rulebook.parse(GOOD, "r.yaml", known=known())
    assert kind is Kind.RULES
    assert rulebook.parse(rulebook.write(kind, body), "r.yaml", known=known()) == (kind, body)
    (rule,) = rulebook.rules(body)
    assert (rule.name, rule.pipelines[0].pipeline, rule.destinations) == ("chest ct lungs", "always_one", ("pacs",))


@pytest.mark.parametrize(
    ("when", "place", "says"),
    [
        ("{BodyPartExamine: CHEST}", "3:12", "did you mean BodyPartExamined?"),
        ("{slice_spacin: 3}", "3:12", "did you mean slice_spacing?"),
        ("{ProcedureCodeSequence.CodeMeanin: a}", "3:12", "did you mean CodeMeaning?"),
        ("{Modality.CodeMeaning: a}", "3:12", "Modality is not a sequence"),
        ("{SliceThickness: {at_mos: 3}}", "3:29", "did you mean at_most?"),
        ("{SliceThickness: thick}", "3:28", "is a number (DS)"),
        ("{SliceThickness: {matches: '5'}}", "3:38", "matches searches texts"),
        ("{StudyDescription: {at_least: 3}}", "3:41", "is a text (LO)"),
        ("{StudyDescription: {at_least: '3'}}", "3:41", "has no order"),
        ("{PatientAge: {at_least: '018Y'}}", "3:35", "use patient_age, in years"),
        ("{StudyID: 0123}", "3:21", "put 83 in quotes"),
        ("{Modality: NO}", "3:22", "put it in quotes"),
        ("{StudyDate: {at_least: 2024-01-31}}", "3:34", 'in quotes: "20240131"'),
        ("{Modality: ~}", "3:22", "write Modality: absent"),
        ("{PixelData: 3}", "3:23", "ask for present or absent"),
        ("{kind: axial}", "3:18", "did you mean axial volume?"),
        ("{all: [{Modality: CT}, {SliceThickness: {at_least: 5, at_most: 3}}]}", "3:51", "can never hold"),
        ("{contrast: CT}", "3:22", "is true or false"),
        ("{StudyDescription: {matches: '(chest'}}", "3:40", "not a pattern"),
        ("{StudyDescription: {matches: '(?=a)'}}", "3:40", "not a pattern"),
        ("{Modality: COMPUTEDTOMOGRAPHY}", "3:22", "at most 16 characters"),
        ("{SliceThickness: {at_least: 5, at_most: 3}}", "3:28", "can never hold"),
        ("{SliceThickness: {at_least: 5, below: 5}}", "3:28", "can never hold"),
        ("{all: [{Modality: CT}, {Modality: MR}]}", "3:17", "can never hold"),
        ("{all: [{Modality: CT}, {all: [{Modality: absent}]}]}", "3:17", "can never hold"),
        ("{any: []}", "3:17", "at least one condition"),
        ("{not: [{Modality: CT}]}", "3:17", "write not: {any: [...]}"),
        ("{Modality: []}", "3:22", "an empty list is never met"),
        ("{Modality: {equals: [CT, MR]}}", "3:31", "equals takes one value"),
        ("CT", "3:11", "a condition is"),
        ("{ProcedureCodeSequence: chest}", "3:35", "value:scheme"),
    ],
)
def test_what_cannot_be_meant_is_refused_where_it_stands(when: str, place: str, says: str) -> None:
    (fault,) = faults(one_rule(when))
    assert fault.startswith(f"r.yaml:{place}: rules[0].when")
    assert says in fault


@pytest.mark.parametrize(
    "when",
    [
        "{SliceThickness: {at_least: 5, at_most: 5, above: 3}}",
        "{all: [{Modality: [CT, MR]}, {Modality: [MR, PT]}]}",
        "{StudyDate: {at_least: '20240131'}}",
        "{any: [{Modality: CT}, {Modality: MR}]}",
        "{Modality: CT, kind: [axial volume, volume]}",
        "[{Modality: CT}, {kind: axial volume}]",
    ],
)
def test_what_can_be_meant_is_accepted(when: str) -> None:
    rulebook.parse(one_rule(when), "r.yaml", known=known())


def test_every_fault_comes_at_once() -> None:
    text = one_rule("{Modalit: CT}", "pipelines: [always_two]\n    destinations: [pac]\n    prority: stat")
    assert [fault.partition(": ")[0] for fault in faults(text)] == [
        "r.yaml:3:12", "r.yaml:4:17", "r.yaml:5:20", "r.yaml:6:5",
    ]  # fmt: skip


def test_unknown_pipelines_destinations_and_settings_are_named_with_what_there_is() -> None:
    text = one_rule(
        "{Modality: CT}", "pipelines: [{name: always_one, settings: {levl: 2}}, always_on]\n    destinations: [pac]"
    )
    found = faults(text)
    assert "there is no such setting: did you mean level?" in found[0]
    assert found[0].startswith("r.yaml:4:47: rules[0].pipelines[0].settings.levl: ")
    assert "did you mean always_one?" in found[1]
    assert "there is no destination pac: did you mean pacs?" in found[2]


def test_a_rule_that_asks_a_pipeline_for_what_it_does_not_read_is_refused() -> None:
    (fault,) = faults(one_rule("{Modality: US}"))
    assert "always_one reads CT, MR, this rule asks for US" in fault


@pytest.mark.parametrize(
    ("rest", "says"),
    [
        ("pipelines: [always_one]", "go nowhere"),
        ("destinations: [pacs]", "runs nothing and stops nothing"),
        ("pipelines: [always_one, always_one]\n    destinations: [pacs]", "stands here twice"),
        ("scope: study\n    pipelines: [always_one]\n    destinations: [pacs]", "`take`"),
        ("scope: study\n    forward: true", "forwards studies to nowhere"),
        ("forward: true\n    destinations: [pacs]", "`forward` sends whole studies: write scope: study"),
        ("take: {when: {Modality: CT}}\n    pipelines: [always_one]\n    destinations: [pacs]", "`take`"),
    ],
)
def test_a_rule_that_does_nothing_is_refused(rest: str, says: str) -> None:
    assert any(says in fault for fault in faults(one_rule("{Modality: CT}", rest)))


def test_a_rule_may_do_nothing_but_forward() -> None:
    rest = "scope: study\n    forward: true\n    destinations: [pacs]"
    rulebook.parse(one_rule("{Modality: CT}", rest), "r.yaml", known=known())


def test_a_rule_that_is_never_reached_is_refused() -> None:
    stops = "  - {name: s, when: {Modality: CT}, stop: true}\n"
    text = one_rule("{Modality: CT, SliceThickness: 5}").replace("rules:\n", f"rules:\n{stops}")
    (fault,) = faults(text)
    assert fault.startswith("r.yaml:3:5: rules[1]: never reached: s stops everything")
    rulebook.parse(text.replace("stop: true", "stop: true, mode: off").replace("off", "'off'"), "r", known=known())


def test_names_are_unique() -> None:
    text = GOOD + GOOD.removeprefix("rules:\n")
    assert any("chest ct lungs stands here twice" in fault for fault in faults(text))


def test_aliases_and_large_documents_are_refused() -> None:
    (fault,) = faults("rules: [&a {name: a, when: {Modality: CT}, stop: true}, *a]")
    assert fault == "r.yaml:1:57: aliases are not allowed: write it out"
    assert "larger than 1 MiB" in faults("# " + "x" * (1 << 20))[0]


def test_the_document_must_say_what_it_is() -> None:
    assert "begins with rules:, sources: or destinations:: did you mean rules?" in faults("rule: []")[0]


SOURCES = "sources:\n  - ae_title: {}\n    addresses: [{}]\n"


@pytest.mark.parametrize(
    ("title", "address", "says"),
    [
        ("ON", "any", 'write "ON" in quotes'),
        ("SEVENTEEN_LETTERS", "any", "1 to 16"),
        ("CT1", "10.0.0.300", "an IP address, a network"),
        ("CT1", "", "at least 1 item"),
    ],
)
def test_wrong_sources_are_refused(title: str, address: str, says: str) -> None:
    assert says in " ".join(faults(SOURCES.format(title, address)))


def test_a_source_admits_its_own_ae_title_from_its_own_addresses() -> None:
    _, body = rulebook.parse(SOURCES.format("CT1", "10.1.0.0/16, '::1'"), "s.yaml")
    (source,) = rulebook.sources(body)
    assert source.admits(" CT1 ", "10.1.2.3")
    assert source.admits("CT1", "::ffff:10.1.2.3")
    assert not source.admits("ct1", "10.1.2.3")
    assert not source.admits("CT1", "10.2.2.3")


def test_faults_inside_a_destination_have_their_own_address() -> None:
    text = (
        "destinations:\n  - {name: pacs, kind: dicom, ae_title: NO, host: a, prt: 104, port: 104}\n"
        "  - {name: b, kind: folder, path: 3}\n  - {name: c, kind: dicm}\n"
    )
    found = faults(text)
    assert found[0].startswith("r.yaml:2:41: destinations[0].ae_title: ")
    assert 'write "NO" in quotes' in found[0]
    assert found[1].startswith("r.yaml:2:54: destinations[0].prt: there is no such setting: did you mean port?")
    assert found[2].startswith("r.yaml:3:35: destinations[1].path: ")
    assert found[3].startswith("r.yaml:4:5: destinations[2]")


def test_a_destination_that_rules_send_to_cannot_go() -> None:
    (fault,) = faults("destinations:\n  - {name: b, kind: folder, path: /tmp}\n", used=frozenset({"pacs"}))
    assert "the rules in force send to pacs" in fault


def test_a_rulebook_of_200_rules_is_read_whole() -> None:
    entry = yaml.safe_load(GOOD)["rules"][0]
    text = rulebook.write(Kind.RULES, [{**entry, "name": f"rule {number}"} for number in range(200)])
    _, body = rulebook.parse(text, "r.yaml", known=known())
    assert len(rulebook.rules(body)) == 200


def test_the_first_rules_of_a_new_node_are_accepted_and_let_in_the_pacs_and_this_machine() -> None:
    made = rulebook.starter(ae_title="ORTHANC", host="127.0.0.1", port=4242)
    assert set(made) == set(Kind)
    for kind, body in made.items():
        text = rulebook.write(kind, body).replace("ct_lung", "always_one")
        rulebook.parse(text, f"{kind}.yaml", known=known())
    admitted = rulebook.sources(made[Kind.SOURCES])
    assert any(source.admits("ORTHANC", "127.0.0.1") for source in admitted)
    assert any(source.admits("ISOCENTER_SEND", "::1") for source in admitted)
    assert not any(source.admits("ISOCENTER_SEND", "10.0.0.1") for source in admitted)
