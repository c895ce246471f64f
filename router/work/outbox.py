"""Deliveries as rows: which result set goes where, worked out from the decisions that share a run.

Called in the transaction that finishes a run, and again in the one that writes a later decision for a run which is
done already. Both lock the run's row first, so whichever comes second sees what the other has written.
"""

from sqlalchemy import Connection

from router import rulebook
from router.db import decisions, findings, jobs, results, revisions
from router.destinations import Destination, Profile
from router.domain.job import Job
from router.work import supersede

BUILD_ATTEMPTS = 3
"""A set is built from kept findings; what fails so often is a fault."""


def wanted(connection: Connection, job: Job) -> tuple[str, ...]:
    """Names of the destinations to which firing rules in mode `on` send this run, its earlier and its later ones."""
    made = [one for run in jobs.runs_of(connection, job) for one in decisions.of_job(connection, run.id)]
    names = (name for one in made if one.fires and one.mode == "on" for name in one.destinations)
    return tuple(sorted(set(names)))


def profiles(connection: Connection, job: Job) -> dict[str, Profile]:
    """Every result set that this run must give, by its canonical name; one for us alone when nothing leaves."""
    known = in_force(connection)
    found = [known[name].profile for name in wanted(connection, job) if name in known] or [Profile()]
    return {profile.canonical(): profile for profile in sorted(found, key=Profile.canonical)}


def plan(connection: Connection, job_id: int, *, max_attempts: int) -> list[int]:
    """Make the deliveries that are wanted and not there yet of a run that is done, and the builds before them.

    A destination that is no longer in force gets a delivery too, which then says so. One whose profile has not been
    built gets it from the kept findings by a job of its own, which plans again when it is done. One that has the
    results from before a correction gets a delivery that is held. Gives the new jobs.
    """
    job = jobs.lock(connection, job_id)
    sets = {one.profile: one for one in results.sets_of_job(connection, job_id)}
    if not sets:
        return []
    known, aside = in_force(connection), supersede.held_for(connection, job)
    made = []
    for name in wanted(connection, job):
        profile = known[name].profile.canonical() if name in known else next(iter(sets))
        one = sets.get(profile)
        if one is not None:
            delivery, new = jobs.add_delivery(
                connection,
                study_instance_uid=job.study_instance_uid,
                generation=job.generation,
                result_set_id=one.id,
                destination=name,
                priority=job.priority,
                max_attempts=max_attempts,
            )
            if new and name in aside:
                jobs.hold(connection, delivery, who="decide", reason=aside[name])
            made.append((delivery, new))
        elif findings.find(connection, job_id) is not None:
            made.append(jobs.add_build(connection, job, profile=profile, max_attempts=BUILD_ATTEMPTS))
    return [made_id for made_id, new in made if new]


def in_force(connection: Connection) -> dict[str, Destination]:
    """The destinations of the revision in force, by name."""
    body = revisions.current(connection, revisions.Kind.DESTINATIONS).body
    return {one.name: one for one in rulebook.destinations(body)}
