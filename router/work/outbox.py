"""Deliveries as rows: which result set goes where, worked out from the decisions that share a run.

Called in the transaction that finishes a run, and again in the one that writes a later decision for a run which is
done already. Both lock the run's row first, so whichever comes second sees what the other has written.
"""

from collections.abc import Collection

from sqlalchemy import Connection

from router import rulebook
from router.db import beats, commands, decisions, findings, jobs, refusals, results, revisions
from router.destinations import Destination, Profile, folder
from router.domain import heartbeat
from router.domain.delivery import note_for
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
    wishes = [profile_of(connection, known[name]) for name in wanted(connection, job) if name in known]
    found = [profile for profile in wishes if profile is not None] or [Profile()]
    return {profile.canonical(): profile for profile in sorted(found, key=Profile.canonical)}


def rejecting(connection: Connection, job: Job, canonical: str) -> frozenset[str]:
    """Destinations of this run that get this result set and want a note with it that rejects what it supersedes."""
    if not Profile.model_validate_json(canonical).reject_superseded:
        return frozenset()
    known = in_force(connection)
    to = {name: profile_of(connection, known[name]) for name in wanted(connection, job) if name in known}
    return frozenset(name for name, profile in to.items() if profile is not None and profile.canonical() == canonical)


def plan(connection: Connection, job_id: int, *, max_attempts: int) -> list[int]:
    """Make the deliveries that are wanted and not there yet of a run that is done, and the builds before them.

    A destination that is no longer in force gets a delivery too, which then says so; one that refuses all that there
    is gets none. One whose profile has not been built gets it from the kept findings by a job of its own, which plans
    again when it is done. One that has the results from before a correction gets a delivery that is held. Gives the
    new jobs.
    """
    job = jobs.lock(connection, job_id)
    sets = {one.profile: one for one in results.sets_of_job(connection, job_id)}
    if not sets:
        return []
    known, aside = in_force(connection), supersede.held_for(connection, job)
    made = []
    for name in wanted(connection, job):
        wish = profile_of(connection, known[name]) if name in known else None
        if name in known and wish is None:
            continue
        profile = wish.canonical() if wish else next(iter(sets))
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
                commands.hold(connection, delivery, who="decide", why=aside[name])
            made.append((delivery, new))
        elif findings.find(connection, job_id) is not None:
            made.append(jobs.add_build(connection, job, profile=profile, max_attempts=BUILD_ATTEMPTS))
    return [made_id for made_id, new in made if new]


def profile_of(connection: Connection, destination: Destination) -> Profile | None:
    """What a destination gets: its profile without what it has refused; None where nothing of it is left."""
    refused = refusals.of(connection, destination.name, form(destination))
    return destination.profile.without(refused) if refused else destination.profile


def form(destination: Destination) -> str:
    """Digest of a destination's settings: what it has refused under other ones is not held against it."""
    return revisions.digest(destination.model_dump(mode="json"))


def refuse(
    connection: Connection, delivery: Job, sop_class_uids: Collection[str], *, max_attempts: int
) -> list[int] | None:
    """The destination of a delivery does not take these SOP classes: it gets another result set instead, built whole.

    Gives the new jobs (a build, or the delivery where such a set is there already): none where they exist already. None
    where without those classes nothing is left to send, or the run has kept no findings. From now on every result
    for this destination is built so, until its settings change.
    """
    known = in_force(connection)
    found = results.find_set(connection, delivery.result_set_id or 0)
    if found is None or delivery.destination not in known or note_for(found.profile) is not None:
        return None
    destination = known[delivery.destination]
    refusals.note(connection, destination.name, form(destination), sop_class_uids)
    profile = profile_of(connection, destination)
    built = {one.profile for one in results.sets_of_job(connection, found.job_id)}
    if profile is None or profile.canonical() == found.profile:
        return None
    if profile.canonical() not in built and findings.find(connection, found.job_id) is None:
        return None
    return plan(connection, found.job_id, max_attempts=max_attempts)


def in_force(connection: Connection) -> dict[str, Destination]:
    """The destinations of the revision in force, by name, and the heartbeat's own."""
    body = revisions.current(connection, revisions.Kind.DESTINATIONS).body
    known = {one.name: one for one in rulebook.destinations(body)}
    path = beats.folder(connection)
    if path is not None:
        known[heartbeat.DESTINATION] = folder.Settings(kind="folder", name=heartbeat.DESTINATION, path=path)
    return known
