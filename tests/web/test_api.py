"""The API: every route by role, what its document says, a person's word in the queue, revisions, and live changes."""

import json
import threading
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance
from sqlalchemy import update

from router import rulebook
from router.db import alerts, commands, jobs, outcomes, results, revisions, studies, tables
from router.db.engine import now, reading, writing
from router.db.revisions import Kind
from router.domain.access import Scope
from router.domain.delivery import MeasurementRow
from router.domain.job import Lane, Outcome
from router.node import Node
from router.web import doors
from tests.conftest import until
from tests.servers import free_port
from tests.web.conftest import Window
from tests.web.rows import arrive

BECAUSE = {"reason": "because a test wants it"}


def routes_of(window: Window) -> set[tuple[str, str]]:
    """Every route of the OpenAPI document, as the table writes them."""
    document = window.log_in("viewer").get(f"{doors.API}/openapi.json").json()
    return {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}


def test_every_route_is_in_the_table_of_doors(window: Window) -> None:
    routes = routes_of(window)
    assert len(routes) > 40
    walls = {
        (method, path) for method, path in routes if doors.door(path.replace("{", "").replace("}", ""), method) is None
    }
    assert not walls, f"put them into router/web/doors.py: {sorted(walls)}"
    described = {path.replace("{", "").replace("}", "") for _, path in routes}
    for one in doors.DOORS:
        if one.path.startswith(doors.API) and not one.path.endswith("openapi.json"):
            assert any(one.pattern.fullmatch(path) for path in described), f"{one.path} leads nowhere"


def test_a_token_has_only_its_scopes(window: Window) -> None:
    reader = window.program(Scope.READ)
    assert reader.get(f"{doors.API}/studies").status_code == 200
    assert reader.post(f"{doors.API}/jobs/1/retry", json=BECAUSE).status_code == 403
    assert window.bare(authorization="Bearer nonsense").get(f"{doors.API}/studies").status_code == 401


def test_a_person_has_a_word_in_the_queue_and_the_audit_says_why(window: Window) -> None:
    job_id = arrive(window.node)
    operator = window.log_in("operator")
    path = f"{doors.API}/jobs/{job_id}"
    assert operator.post(f"{path}/hold", json=BECAUSE).json()["state"] == "held"
    assert operator.post(f"{path}/hold", json=BECAUSE).status_code == 409
    assert operator.post(f"{path}/release", json=BECAUSE).json()["state"] == "queued"
    assert operator.post(f"{path}/cancel", json=BECAUSE).json()["reason"] == BECAUSE["reason"]
    again = operator.post(f"{path}/rerun", json=BECAUSE).json()
    assert again["id"] != job_id
    assert operator.post(f"{path}/retry", json={"reason": ""}).status_code == 422
    assert operator.post(f"{doors.API}/jobs/999/cancel", json=BECAUSE).json()["problem"] == "UnknownJob"
    assert [act for who, act in window.acts() if who == "user:operator" and act.startswith("job.")] == [
        "job.hold", "job.release", "job.cancel", "job.rerun",
    ]  # fmt: skip


def test_a_study_tells_its_story_and_who_looked_is_noted(window: Window) -> None:
    arrive(window.node)
    viewer = window.log_in("viewer")
    listed = viewer.get(f"{doors.API}/studies", params={"search": "1.2."}).json()
    assert listed["total"] == 1
    page = viewer.get(f"{doors.API}/studies/1.2.3").json()
    assert page["jobs"][0]["pipeline"] == "ct_lung"
    assert ("user:viewer", "study.viewed") in window.acts()
    operator = window.log_in("operator")
    assert operator.post(f"{doors.API}/studies/1.2.3/hold", json=BECAUSE).json()["state"] == "held"
    assert operator.post(f"{doors.API}/studies/1.2.3/release", json=BECAUSE).json()["state"] == "receiving"
    assert operator.post(f"{doors.API}/studies/1.2.3/release", json=BECAUSE).status_code == 409
    assert viewer.get(f"{doors.API}/studies/9.9.9").status_code == 404


def test_studies_are_sorted_as_one_asks(window: Window) -> None:
    for number, (description, patient) in enumerate((("Thorax", "3"), ("Abdomen", "1"), ("Head", "2"))):
        arrive(window.node, f"1.2.{number}", description=description, PatientID=patient)
    viewer = window.log_in("viewer")

    def listed(**asked: Any) -> list[str]:
        found = viewer.get(f"{doors.API}/studies", params=asked).json()["studies"]
        return [one["study_description"] for one in found]

    assert listed() == ["Head", "Abdomen", "Thorax"], "the last received first"
    assert listed(sort="study_description") == ["Abdomen", "Head", "Thorax"]
    assert listed(sort="-study_description", limit=2, offset=1) == ["Head", "Abdomen"]
    assert listed(sort="patient_id") == ["Abdomen", "Head", "Thorax"]
    assert viewer.get(f"{doors.API}/studies", params={"sort": "patient_name"}).status_code == 422


def test_alerts_are_listed_and_ended_with_a_reason(window: Window) -> None:
    with writing(window.node.engine) as connection:
        alerts.raise_(connection, "destination.down", "pacs", what="pacs is silent", remedy="Look there")
    (one,) = window.log_in("viewer").get(f"{doors.API}/alerts").json()
    assert (one["kind"], one["what"], one["ended"]) == ("destination.down", "pacs is silent", "")
    operator = window.log_in("operator")
    assert operator.post(f"{doors.API}/alerts/{one['id']}/end", json=BECAUSE).status_code == 204
    assert operator.get(f"{doors.API}/alerts").json() == []
    assert operator.get(f"{doors.API}/alerts", params={"ended": True}).json()[0]["ended"]
    assert operator.post(f"{doors.API}/alerts/{one['id']}/end", json=BECAUSE).json()["problem"] == "NoSuchAlert"
    assert ("user:operator", "alert.ended") in window.acts()


def test_the_doctor_looks_at_a_destination(window: Window) -> None:
    port = free_port()
    with writing(window.node.engine) as connection:
        away = {"name": "pacs", "kind": "dicom", "ae_title": "PACS", "host": "127.0.0.1", "port": port}
        revisions.add(connection, Kind.DESTINATIONS, [away], author="test")
        revisions.add(connection, Kind.SOURCES, [], author="test")
    operator = window.log_in("operator")
    found, *_ = operator.post(f"{doors.API}/destinations/pacs/examine").json()
    assert (found["verdict"], found["about"]) == ("fault", "destination pacs")
    assert str(port) in found["what"]
    assert found["remedy"]
    assert operator.post(f"{doors.API}/destinations/nowhere/examine").status_code == 404


def test_what_pipelines_have_come_to_is_told_in_few_numbers(window: Window) -> None:
    for number in range(30):
        job_id = arrive(window.node, f"1.2.{number}")
        with writing(window.node.engine) as connection:
            held = jobs.claim(connection, Lane.INFER, "test", 60)
            assert held is not None
            jobs.finish(connection, held, Outcome.RESULT if number < 25 else Outcome.REFUSED, reason="contrast")
            volume = {"label": "Left lung", "name": "Volume", "unit": "ml", "remark": None}
            results.add_measurements(connection, job_id, [MeasurementRow(ordinal=1, value=float(number), **volume)])
    with reading(window.node.engine) as connection:
        assert outcomes.took(connection, 0)["ct_lung"].count == 30
        assert outcomes.refusals(connection, 0) == {"ct_lung": [("contrast", 5)]}
        ((what, groups),) = outcomes.distributions(connection, 0)["ct_lung"].items()
        assert outcomes.distributions(connection, now() + 1) == {}
    assert what == ("Left lung, Volume", "ml")
    assert {name.partition(" ")[0] for name in groups} == {"in", "from"}
    one = groups["from SCANNER"]
    assert (one.count, one.middle) == (30, 14.5)
    assert 0 < one.low < 2 < 27 < one.high < 29


def test_rules_are_linted_imported_compared_and_rolled_back(window: Window) -> None:
    admin = window.log_in("admin")
    path = f"{doors.API}/rules"
    before = admin.get(path).json()
    wrong = before["text"].replace("Modality: CT", "Modalty: CT")
    assert wrong != before["text"]
    (fault,) = admin.post(f"{path}/lint", json={"text": wrong}).json()
    assert fault["line"] > 1
    assert "Modality" in fault["message"]
    answer = admin.post(path, json={"text": wrong})
    assert answer.status_code == 422
    assert "Modalty" in answer.json()["faults"][0]
    changed = before["text"].replace("at_least: 10", "at_least: 20")
    made = admin.post(path, json={"text": changed, "note": "fewer"}).json()
    assert made["number"] == before["number"] + 1
    assert "at_least: 20" in "\n".join(admin.get(f"{path}/diff", params={"old": before["number"]}).json()["lines"])
    back = admin.post(f"{path}/rollback", json={"number": before["number"], **BECAUSE}).json()
    assert back["entries"] == before["entries"]
    assert BECAUSE["reason"] in back["note"]
    shadow = {"name": "chest ct lungs", "mode": "shadow", **BECAUSE}
    assert admin.post(f"{path}/promote", json=shadow).json()["entries"][0]["mode"] == "shadow"
    assert [one["number"] for one in admin.get(f"{path}/history").json()] == [4, 3, 2, 1]


def test_past_studies_are_asked_before_rules_are_saved(window: Window) -> None:
    admin = window.log_in("admin")
    path = f"{doors.API}/rules"
    text = admin.get(path).json()["text"]
    asked = admin.post(f"{path}/backtest", json={"text": text, "days": 7}).json()
    assert (asked["studies"], asked["different"]) == (0, 0)
    wrong = admin.post(f"{path}/backtest", json={"text": text.replace("Modality", "Modalty")})
    assert wrong.status_code == 422
    assert admin.get(path).json()["number"] == 1, "nothing is changed by asking"


def test_what_a_rule_did_in_shadow_is_told_before_it_is_switched_on(window: Window) -> None:
    path = f"{doors.API}/rules/shadow"
    viewer = window.log_in("viewer")
    nothing = {"studies": 0, "fired": 0, "ended": {}, "refusals": {}, "sends_to": []}
    arrive(window.node)
    assert viewer.get(path, params={"name": "chest ct lungs"}).json() == nothing, "it is on"
    with writing(window.node.engine) as connection:
        connection.execute(update(tables.decision).values(mode="shadow"))
        held = jobs.claim(connection, Lane.INFER, "test", 60)
        assert held is not None
        jobs.finish(connection, held, Outcome.REFUSED, reason="contrast agent was given")
    assert viewer.get(path, params={"name": "chest ct lungs"}).json() == {
        "studies": 1, "fired": 1, "ended": {"refused": 1}, "refusals": {"contrast agent was given": 1},
        "sends_to": ["pacs"],
    }  # fmt: skip
    assert viewer.get(path, params={"name": "another"}).json() == nothing


def test_each_change_is_told_within_a_second(window: Window) -> None:
    heard: list[tuple[str, dict[str, Any]]] = []
    ready = threading.Event()

    def listen() -> None:
        with (
            httpx.Client(base_url=window.url, headers=dict(viewer.headers), cookies=viewer.cookies) as own,
            own.stream("GET", f"{doors.API}/events") as answer,
        ):
            event = ""
            for line in answer.iter_lines():
                if line.startswith(": following"):
                    ready.set()
                elif line.startswith("event:"):
                    event = line.partition(": ")[2]
                elif line.startswith("data:"):
                    heard.append((event, json.loads(line.partition(": ")[2])))
                    if heard[-1][1].get("state") == "cancelled":
                        return

    viewer = window.log_in("viewer")
    listener = threading.Thread(target=listen)
    listener.start()
    assert ready.wait(10)
    job_id = arrive(window.node)
    until(lambda: {event for event, _ in heard} == {"study", "job"}, deadline_s=60, what="both events")
    with writing(window.node.engine) as connection:
        commands.cancel(connection, job_id, who="test")
    listener.join(10)
    assert heard[-1][1] == heard[-1][1] | {"id": job_id, "state": "cancelled"}


@pytest.fixture
def filled(window: Window) -> Window:
    """A node with something of everything, and two users that may be changed."""
    arrive(window.node)
    return window


@pytest.mark.long
def test_schemathesis_finds_no_failure_of_ours_and_no_undocumented_answer(filled: Window) -> None:
    document = filled.log_in("viewer").get(f"{doors.API}/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document).exclude(path_regex="/events$")
    program = filled.program(*Scope)
    quick = settings(
        max_examples=15,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
        database=None,
    )
    checks = [not_a_server_error, status_code_conformance, response_schema_conformance]
    called = 0
    failures: list[str] = []
    for operation in schema.get_all_operations():
        found = operation.ok()

        @quick
        @given(case=found.as_strategy())
        def attack(case: Any) -> None:
            nonlocal called
            called += 1
            response = case.call(base_url=filled.url, headers=dict(program.headers))
            case.validate_response(response, checks=checks)

        try:
            attack()
        except FailureGroup as group:
            failures.append(f"{found.label}: {[str(one) for one in group.exceptions]}")
    assert not failures, "\n".join(failures)
    assert called > 200


def node_with_rules(node: Node) -> None:
    """A first rulebook, a source and a destination."""
    with writing(node.engine) as connection:
        for kind, body in rulebook.starter(ae_title="PACS", host="127.0.0.1", port=104).items():
            revisions.add(connection, Kind(kind), body, author="test")


@pytest.fixture(autouse=True)
def rules(request: pytest.FixtureRequest) -> None:
    if "window" in request.fixturenames:
        node_with_rules(request.getfixturevalue("window").node)


def test_time_is_told_in_utc(window: Window) -> None:
    arrive(window.node)
    with writing(window.node.engine) as connection:
        studies.complete(connection, "1.2.3", now=now(), witnesses={"sentence": "All came."})
    (one,) = window.log_in("viewer").get(f"{doors.API}/studies").json()["studies"]
    assert one["completed"].endswith("Z")
    assert one["note"] == "All came."
