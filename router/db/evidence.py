"""What the database knows of a study's arrival: the evidence that completeness is decided from."""

from typing import Any

from sqlalchemy import Connection, case, func, select

from router.db import steps
from router.db.tables import association, commitment_request, instance, result, result_set
from router.domain import procedure_step
from router.domain.completeness import Announced, Evidence
from router.domain.procedure_step import named_by
from router.domain.study import Study

MOST_UIDS = 10_000
"""UIDs of one statement; both databases take so many parameters."""


def of(connection: Connection, study: Study) -> Evidence:
    """Evidence on what has arrived since the study was last complete; where nothing has, its times are the study's."""
    mine = _mine(study)
    fresh = instance.c.received_at > (study.completed_at or 0)
    counted = connection.execute(
        select(
            func.count().label("instances"),
            func.count(case((instance.c.pixel_digest.is_(None), 1))).label("undigested"),
            func.min(case((fresh, instance.c.received_at))).label("first_at"),
            func.max(case((fresh, instance.c.received_at))).label("last_at"),
        ).where(*mine)
    ).one()
    carriers = select(instance.c.association_id).where(*mine, fresh).distinct()
    ends = connection.execute(
        select(
            func.count(case((association.c.closed_at.is_(None), 1))).label("open"),
            func.max(association.c.closed_at).label("released_at"),
        ).where(association.c.id.in_(carriers))
    ).one()
    return Evidence(
        instances=counted.instances,
        undigested=counted.undigested,
        first_at=counted.first_at or study.last_instance_at,
        last_at=counted.last_at or study.last_instance_at,
        open_associations=ends.open,
        released_at=ends.released_at,
    )


def asked_to_commit(connection: Connection, study: Study) -> Announced | None:
    """How many instances the sender's storage commitment requests name, once they name all that has come.

    What they name and nobody has sent us is missing from this study.
    """
    since = commitment_request.c.received_at >= study.first_instance_at
    requests = connection.execute(
        select(commitment_request.c.requested).where(
            commitment_request.c.calling_ae_title == study.calling_ae_title, since
        )
    ).scalars()
    named = {str(sop_instance_uid) for requested in requests for _, sop_instance_uid in requested}
    here = _here(connection, study)
    return named_by(named, here, _elsewhere(connection, named - here), "storage commitment")


def performed(connection: Connection, study: Study) -> Announced | None:
    """How many instances the modalities' performed procedure steps name, once they are over and name all that came."""
    told = steps.of_study(connection, study.study_instance_uid)
    here = _here(connection, study)
    named = {uid for step in told for made in step.series.values() for uid in made}
    return procedure_step.announced(told, here, _elsewhere(connection, named - here))


def _here(connection: Connection, study: Study) -> set[str]:
    return set(connection.execute(select(instance.c.sop_instance_uid).where(*_mine(study))).scalars())


def _elsewhere(connection: Connection, sop_instance_uids: set[str]) -> set[str]:
    """Those of these instances that the node has in other studies, or as something that is not counted."""
    uids = list(sop_instance_uids)
    if not uids:
        return set()
    known = instance.c.sop_instance_uid
    return {
        uid
        for at in range(0, len(uids), MOST_UIDS)
        for uid in connection.execute(select(known).where(known.in_(uids[at : at + MOST_UIDS]))).scalars()
    }


def first_headers(connection: Connection, study: Study) -> list[tuple[dict[str, Any], int]]:
    """Header of one instance of each series, and how many instances the series has."""
    chosen = (
        select(func.min(instance.c.sop_instance_uid).label("uid"), func.count().label("instances"))
        .where(*_mine(study))
        .group_by(instance.c.series_instance_uid)
        .subquery()
    )
    rows = connection.execute(
        select(instance.c.header, chosen.c.instances)
        .join(chosen, instance.c.sop_instance_uid == chosen.c.uid)
        .where(*_mine(study))
    )
    return [(row.header, row.instances) for row in rows]


def own_series(connection: Connection, study_instance_uid: str) -> frozenset[str]:
    """Series of this study that hold results, made here or by another Isocenter."""
    made = (
        select(result.c.series_instance_uid)
        .join(result_set, result.c.result_set_id == result_set.c.id)
        .where(result_set.c.study_instance_uid == study_instance_uid)
    )
    came = select(instance.c.series_instance_uid).where(
        instance.c.study_instance_uid == study_instance_uid, instance.c.ours.is_(True)
    )
    return frozenset(connection.execute(made.union(came)).scalars())


def _mine(study: Study) -> tuple[Any, ...]:
    return (
        instance.c.study_instance_uid == study.study_instance_uid,
        instance.c.status == "current",
        instance.c.ours.is_(False),
    )
