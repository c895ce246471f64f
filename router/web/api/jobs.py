"""Jobs: what runs, ran or failed, and a person's word in it."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel

from router import views
from router.db import commands
from router.db import jobs as queue
from router.db.engine import reading, writing
from router.domain.job import Lane, Outcome, State
from router.node import Node
from router.web.api.words import Asking, Number, Reason, may_answer


class JobLine(BaseModel):
    """A job in a list."""

    id: int
    lane: Lane
    state: State
    outcome: Outcome | None
    work: str
    study_instance_uid: str
    series_instance_uid: str | None
    generation: int
    run: int
    attempt: int
    max_attempts: int
    phase: str | None
    percent: int | None
    wanted_by: str
    late: bool
    reason: str | None
    superseded: str
    problem: str | None
    created: str
    started: str
    finished: str


def routes(node: Node) -> APIRouter:
    """Of jobs."""
    router = APIRouter(tags=["jobs"])

    @router.get("/jobs", responses=may_answer())
    def list_(
        state: State | None = None,
        lane: Lane | None = None,
        study: Annotated[str | None, Query(pattern=r"^[0-9.]{1,64}$", description="A StudyInstanceUID")] = None,
        before: Annotated[int | None, Query(ge=1, le=2**53, description="Only smaller numbers: the next page")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> list[JobLine]:
        """Jobs, the newest first."""
        with reading(node.engine) as connection:
            found = queue.list_(
                connection, state=state, lane=lane, study_instance_uid=study, before=before, limit=limit
            )
        return [JobLine(**views.job(one)) for one in found]

    @router.get("/jobs/{job_id}", responses=may_answer(404))
    def show(job_id: Number) -> dict[str, Any]:
        """One job: phase, attempts, reason, settings, measurements, objects, and what each destination answered."""
        with reading(node.engine) as connection:
            return views.job_in_full(connection, job_id)

    def command(verb: str, act: commands.Command, says: str) -> None:
        def route(job_id: Number, why: Reason, person: Asking) -> JobLine:
            with writing(node.engine) as connection:
                done = act(connection, job_id, who=person.who, why=why.reason)
                found = queue.find(connection, done if isinstance(done, int) else job_id)
            assert found is not None
            node.bell.ring(str(found.lane))
            return JobLine(**views.job(found))

        route.__doc__ = says
        path = f"/jobs/{{job_id}}/{verb}"
        router.post(path, responses=may_answer(404, 409), name=f"{verb}_job")(route)

    for verb, (act, says) in COMMANDS.items():
        command(verb, act, says)
    return router


COMMANDS: dict[str, tuple[commands.Command, str]] = {
    "retry": (commands.revive, "Give a failed job all its attempts again."),
    "cancel": (commands.cancel, "End a job, also one that is running."),
    "hold": (commands.hold, "Keep a queued job from starting."),
    "release": (commands.release, "Let a held job go on."),
    "rerun": (commands.rerun, "Do the same work once more as a new job, whose objects get UIDs of their own."),
}
"""A person's words in the queue; the console has the same."""
