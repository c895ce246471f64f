"""What the database knows of a study's arrival: the evidence that completeness is decided from."""

from sqlalchemy import Connection, case, func, select

from router.db.tables import association, instance
from router.domain.completeness import Evidence
from router.domain.study import Study


def of(connection: Connection, study: Study) -> Evidence:
    """Evidence on what has arrived since the study was last complete; where nothing has, its times are the study's."""
    mine = (
        instance.c.study_instance_uid == study.study_instance_uid,
        instance.c.status == "current",
        instance.c.ours.is_(False),
    )
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
