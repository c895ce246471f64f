"""Studies: the list, and the timeline of one, which is what `isocenter why` tells."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel

from router import views
from router.db import audit
from router.db import studies as index
from router.db.engine import now, reading, writing
from router.domain.study import StudyState
from router.node import Node
from router.web.api.words import Asking, NoControl, Reason, Uid, may_answer
from router.why import explain


class StudyLine(BaseModel):
    """A study in a list."""

    study_instance_uid: str
    state: StudyState
    generation: int
    patient_id: str
    study_date: str
    study_description: str
    calling_ae_title: str
    last_instance: str
    completed: str
    needs_person: str | None
    note: str


class StudyPage(BaseModel):
    """A page of studies, the last received first."""

    studies: list[StudyLine]
    total: int


SORTED = f"^-?({'|'.join(index.ORDERS)})$"
NEWEST = "-last_instance_at"


def routes(node: Node) -> APIRouter:
    """Of studies."""
    router = APIRouter(tags=["studies"])

    @router.get("/studies", responses=may_answer())
    def list_(
        state: StudyState | None = None,
        search: Annotated[str, Query(max_length=64, pattern=NoControl, description="UID, or how a text begins")] = "",
        attention: Annotated[bool, Query(description="Only those that a person should look at")] = False,
        sort: Annotated[str, Query(pattern=SORTED, description="What by; a minus begins with the last")] = NEWEST,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    ) -> StudyPage:
        """Studies, the last received first unless `sort` says otherwise."""
        with reading(node.engine) as connection:
            found = index.list_(
                connection, state=state, search=search, attention=attention, sort=sort, limit=limit, offset=offset
            )
            total = index.count(connection, state=state, search=search)
        return StudyPage(studies=[StudyLine(**views.study(one)) for one in found], total=total)

    @router.get("/studies/{study_instance_uid}", responses=may_answer(404))
    def show(study_instance_uid: Uid, person: Asking) -> dict[str, Any]:
        """Everything that happened to a study: witnesses, facts, every rule's answer, jobs, deliveries."""
        with writing(node.engine) as connection:
            (page, *_) = explain(connection, study_instance_uid)
            audit.write(connection, person.who, "study.viewed", study_instance_uid)
        return page.as_json()

    @router.post("/studies/{study_instance_uid}/hold", responses=may_answer(404, 409))
    def hold(study_instance_uid: Uid, why: Reason, person: Asking) -> StudyLine:
        """Keep a study from being routed until it is released."""
        with writing(node.engine) as connection:
            index.held_by(connection, study_instance_uid, who=person.who, reason=why.reason)
        return line(study_instance_uid)

    @router.post("/studies/{study_instance_uid}/release", responses=may_answer(404, 409))
    def release(study_instance_uid: Uid, why: Reason, person: Asking) -> StudyLine:
        """Let a held study go on."""
        with writing(node.engine) as connection:
            index.released_by(connection, study_instance_uid, now(), who=person.who, reason=why.reason)
        node.bell.ring("decide")
        return line(study_instance_uid)

    def line(study_instance_uid: str) -> StudyLine:
        with reading(node.engine) as connection:
            (found, *_) = index.search(connection, study_instance_uid)
        return StudyLine(**views.study(found))

    return router
