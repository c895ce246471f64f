"""Notes alone: what a destination has of results whose images have left their study is rejected there.

Where a result set takes the place of another one in the same series, the note is its first object (`rejection_note`).
Where the images were moved, nothing takes the old set's place in its study, and the note is a set of its own: built
like a further profile of the old run, and delivered before what the same images give where they are now.
"""

from sqlalchemy import Connection

from dicom_sr.kinds import NOTE
from router.db import jobs, results
from router.domain.delivery import note_for, note_to
from router.domain.job import Job, Lane, State
from router.domain.rules import Priority
from router.work import outbox

ATTEMPTS = 3
UNFINISHED = (State.QUEUED, State.RUNNING, State.WAITING)


def ask(connection: Connection, run: Job) -> list[int]:
    """New jobs: a note to every destination that has results of this run and wants what no longer holds rejected."""
    takers = sorted({name for name, one in results.delivered_of(connection, run.id) if one.kind != NOTE})
    if not takers:
        return []
    known = outbox.in_force(connection)
    made = []
    for name in takers:
        profile = outbox.profile_of(connection, known[name]) if name in known else None
        if profile is not None and profile.reject_superseded:
            made.append(
                jobs.add_build(connection, run, profile=note_to(name), max_attempts=ATTEMPTS, priority=Priority.STAT)
            )
    return [made_id for made_id, new in made if new]


def is_asked(connection: Connection, run: Job) -> bool:
    """Whether what was delivered of this run is rejected, or about to be: if its images come back, it runs anew."""
    return any(note_for(one.profile) is not None for one in jobs.builds_of(connection, run.id))


def is_due(connection: Connection, delivery: Job) -> bool:
    """Whether this destination is still to get a note about the same images' results, before this set of them."""
    found = results.find_set(connection, delivery.result_set_id or 0)
    run = jobs.find(connection, found.job_id) if found is not None and note_for(found.profile) is None else None
    wanted = note_to(delivery.destination or "")
    for earlier in jobs.on_same_images(connection, run) if run is not None else ():
        if any(one.profile == wanted and one.state in UNFINISHED for one in jobs.builds_of(connection, earlier.id)):
            return True
        notes = {one.id for one in results.sets_of_job(connection, earlier.id) if one.profile == wanted}
        sent = jobs.list_(connection, lane=Lane.DELIVER, study_instance_uid=earlier.study_instance_uid, limit=10_000)
        if any(one.result_set_id in notes and one.state in UNFINISHED for one in sent):
            return True
    return False
