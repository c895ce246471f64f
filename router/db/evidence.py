"""What the database knows of a study's arrival: the evidence that completeness is decided from."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, and_, case, func, select

from router.db import steps
from router.db.tables import association, commitment_request, instance, result, result_set, series
from router.domain.arrival import Arrived
from router.domain.counting import restore
from router.domain.study import Study
from router.domain.witnesses import Told

MOST_UIDS = 10_000
"""UIDs of one statement; both databases take so many parameters."""


def arrived(connection: Connection, study: Study) -> list[Arrived]:
    """What has arrived of each series, our own results left out."""
    mine = _mine(study)
    first = instance.c.received_at > (study.completed_at or 0)
    fresh = and_(first, instance.c.received_at > func.coalesce(series.c.completed_at, 0))
    of_series = and_(
        series.c.series_instance_uid == instance.c.series_instance_uid,
        series.c.study_instance_uid == instance.c.study_instance_uid,
    )
    counted = connection.execute(
        select(
            instance.c.series_instance_uid,
            func.count().label("instances"),
            func.count(case((instance.c.pixel_digest.is_(None), 1))).label("undigested"),
            func.max(instance.c.received_at).label("last_at"),
            func.min(case((first, instance.c.received_at))).label("first_at"),
            func.min(case((fresh, instance.c.received_at))).label("fresh_at"),
        )
        .select_from(instance.outerjoin(series, of_series))
        .where(*mine)
        .group_by(instance.c.series_instance_uid)
        .order_by(func.min(instance.c.received_at), instance.c.series_instance_uid)
    ).all()
    carried: dict[str, list[Any]] = {}
    carriers = select(instance.c.series_instance_uid, instance.c.association_id).where(*mine, first).distinct()
    pairs = carriers.subquery()
    for row in connection.execute(
        select(pairs.c.series_instance_uid, association.c.id, association.c.closed_at).join(
            association, association.c.id == pairs.c.association_id
        )
    ):
        carried.setdefault(row.series_instance_uid, []).append(row)
    return [_arrived(row, carried.get(row.series_instance_uid, [])) for row in counted]


def _arrived(row: Any, carriers: list[Any]) -> Arrived:
    return Arrived(
        **row._mapping,
        open=frozenset(one.id for one in carriers if one.closed_at is None),
        released_at=max((one.closed_at for one in carriers if one.closed_at is not None), default=None),
    )


def told(connection: Connection, study: Study, trusted: Collection[str]) -> Told:
    """What was said of how many instances there should be, as far as this source is trusted with it."""
    count = restore(study.announced) if "count" in trusted else None
    performed = steps.of_study(connection, study.study_instance_uid) if "mpps" in trusted else []
    to_commit = _asked_to_commit(connection, study) if "commitment" in trusted else frozenset()
    named = to_commit.union(uid for step in performed for made in step.series.values() for uid in made)
    here = _here(connection, study) if named else {}
    missing = named.difference(*here.values())
    return Told(
        counted=count.witness(study.last_instance_at) if count is not None else None,
        steps=performed,
        to_commit=to_commit,
        here=here,
        elsewhere=_elsewhere(connection, missing),
        headers=_first_headers(connection, study) if {"announced", "series", "every_series"} & set(trusted) else {},
    )


def _asked_to_commit(connection: Connection, study: Study) -> frozenset[str]:
    since = commitment_request.c.received_at >= study.first_instance_at
    requests = connection.execute(
        select(commitment_request.c.requested).where(
            commitment_request.c.calling_ae_title == study.calling_ae_title, since
        )
    ).scalars()
    return frozenset(str(sop_instance_uid) for requested in requests for _, sop_instance_uid in requested)


def _here(connection: Connection, study: Study) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for row in connection.execute(
        select(instance.c.series_instance_uid, instance.c.sop_instance_uid).where(*_mine(study))
    ):
        found.setdefault(row.series_instance_uid, set()).add(row.sop_instance_uid)
    return {uid: frozenset(uids) for uid, uids in found.items()}


def _elsewhere(connection: Connection, sop_instance_uids: Collection[str]) -> frozenset[str]:
    """Those of these instances that the node has in other studies, or as something that is not counted."""
    uids, known = list(sop_instance_uids), instance.c.sop_instance_uid
    return frozenset(
        uid
        for at in range(0, len(uids), MOST_UIDS)
        for uid in connection.execute(select(known).where(known.in_(uids[at : at + MOST_UIDS]))).scalars()
    )


def _first_headers(connection: Connection, study: Study) -> dict[str, tuple[dict[str, Any], int]]:
    """Header of one instance of each series, and how many instances the series has."""
    chosen = (
        select(func.min(instance.c.sop_instance_uid).label("uid"), func.count().label("instances"))
        .where(*_mine(study))
        .group_by(instance.c.series_instance_uid)
        .subquery()
    )
    rows = connection.execute(
        select(instance.c.series_instance_uid, instance.c.header, chosen.c.instances)
        .join(chosen, instance.c.sop_instance_uid == chosen.c.uid)
        .where(*_mine(study))
    )
    return {row.series_instance_uid: (row.header, row.instances) for row in rows}


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
