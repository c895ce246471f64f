"""Result sets of a run: what they are ordered as, kept as and recorded as, whoever builds them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from dicom_sr import uids
from dicom_sr.check import GateClosed
from dicom_sr.kinds import Built, Supersedes
from dicom_sr.problem import Problem
from router.db import holdings, instances, jobs, results
from router.db.engine import reading, writing
from router.db.findings import Kept
from router.db.instances import InstanceRow
from router.destinations import Profile
from router.domain.delivery import Result
from router.domain.job import Job
from router.domain.study import identity_digest
from router.node import Node
from router.query.made import header_of
from router.store import digest_of
from router.work.loop import Lost
from router.work.messages import Build, Naming, ToldProblem

SERIES_A_SET = 10
"""SeriesNumbers that are set aside for one result set."""

SETS_A_JOB = 8
"""Result sets for which a run has SeriesNumbers set aside."""


class HeldBack(Problem):
    """The gate closed before a result set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptSet:
    """A result set whose files are in the store already."""

    profile: str
    objects: tuple[tuple[Built, str], ...]
    """Each object with its path below the store's root."""


def inputs(node: Node, job: Job, of: Job) -> list[InstanceRow]:
    """The instances that the run `of` is about, if they are still what it was made for; else `job` is superseded.

    Raises:  Lost
    """
    series_instance_uid = of.series_instance_uid or ""
    with reading(node.engine) as connection:
        rows = instances.of_series(connection, of.study_instance_uid, series_instance_uid)
    if uids.pixels_digest((row.sop_instance_uid, row.pixel_digest or "") for row in rows) != of.pixels_digest or (
        of.identity_digest and identity_digest(row.header for row in rows) != of.identity_digest
    ):
        with writing(node.engine) as connection:
            jobs.overtaken(connection, job, reason="the series has changed since; a newer job will read it")
        raise Lost(f"series {series_instance_uid} has changed since", remedy="A newer job will read it")
    return rows


def paths(node: Node, rows: Sequence[InstanceRow]) -> tuple[Path, ...]:
    """Where the instances lie."""
    return tuple(node.store.path(row.path) for row in rows)


def series_numbers(connection: Connection, of: Job, places: Sequence[int], base: int) -> list[int]:
    """The first SeriesNumber of the run's result sets at these places: from `base` up, past those in use.

    Runs of a study come in the order of their jobs. Two of them never get the same, however they overlap and however
    often they are tried.
    """
    taken = results.foreign_series_numbers(connection, of.study_instance_uid)
    first = jobs.earlier_in_study(connection, of) * SETS_A_JOB
    free: list[int] = []
    number = base
    while len(free) <= first + max(places):
        if not taken & set(range(number, number + SERIES_A_SET)):
            free.append(number)
        number += SERIES_A_SET
    return [free[first + place] for place in places]


def order(
    node: Node,
    of: Job,
    kept: Kept,
    *,
    profile: Profile,
    rows: Sequence[InstanceRow],
    series_number: int,
    supersedes: Supersedes | None,
) -> Build:
    """What building one result set of the run takes."""
    identity = of.identity_digest or identity_digest(row.header for row in rows)
    made_at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=of.created_at)
    return Build(
        kinds=profile.kinds,
        settings=profile.settings,
        sr="comprehensive3d" if profile.sr == "none" else profile.sr,
        tracking=profile.tracking,
        uid=naming(node, of, identity, profile.canonical()),
        made_at=made_at.astimezone(ZoneInfo(node.settings.timezone)),
        series_number=series_number,
        pipeline=of.pipeline or "",
        title=kept.title,
        research=kept.research,
        completeness=of.completeness or kept.completeness,
        supersedes=supersedes,
    )


def naming(node: Node, of: Job, identity: str, canonical: str) -> Naming:
    """The UIDs of a set that the run gives in a profile."""
    return Naming(
        node=node.node_id,
        input_digest=uids.input_digest(of.pixels_digest or "", identity),
        pipeline=of.pipeline or "",
        version=of.pipeline_version or "",
        weights=of.weights_digest or "none",
        settings=of.settings_digest or "",
        encoding=canonical,
        run=of.run,
    )


def keep(node: Node, canonical: str, built: tuple[Built, ...]) -> KeptSet:
    """Put the objects into the store, durably, before any row speaks of them."""
    return KeptSet(profile=canonical, objects=tuple((one, node.store.keep(one.head, one.pixels)) for one in built))


@contextmanager
def looked_over(node: Node, job: Job) -> Iterator[None]:
    """While a set is built: one before which the gate closes is put where a person can look at it, with its faults.

    Raises:  HeldBack
    """
    try:
        yield
    except (GateClosed, ToldProblem) as closed:
        if not closed.objects:
            raise
        place = f"gate-{job.id}"
        for one in closed.objects:
            node.store.set_aside(f"{place}-{one.kind}-{one.ordinal}.dcm", one.head, one.pixels)
        node.store.set_aside(f"{place}.txt", closed.what.encode())
        raise HeldBack(
            closed.what,
            remedy=f"Nothing was sent. The objects and this reason are kept as {node.store.root}/quarantine/{place}*: "
            "report the defect of Isocenter or its pipeline with them",
        ) from closed


def record(connection: Connection, of: Job, kept: KeptSet) -> None:
    """Note a kept set and its objects as results of the run.

    Raises:  OtherBytes
    """
    set_id = results.add_set(
        connection,
        job_id=of.id,
        profile=kept.profile,
        study_instance_uid=of.study_instance_uid,
        generation=of.generation,
    )
    for ordinal, (built, path) in enumerate(kept.objects):
        results.add(connection, row(built, set_id, ordinal, path))
        holdings.describe(connection, built.sop_instance_uid, header_of(built.head))


def row(built: Built, set_id: int, ordinal: int, path: str) -> Result:
    """One kept object as its row."""
    return Result(
        sop_instance_uid=built.sop_instance_uid,
        result_set_id=set_id,
        ordinal=ordinal,
        kind=built.kind,
        sop_class_uid=built.sop_class_uid,
        series_instance_uid=built.series_instance_uid,
        path=path,
        digest=digest_of(path),
    )
