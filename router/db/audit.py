"""Acts on patient data, written in the transaction of the act itself."""

from typing import Any

from sqlalchemy import Connection, insert

from router.db.engine import now
from router.db.tables import audit


def write(connection: Connection, who: str, act: str, study_instance_uid: str | None = None, **detail: Any) -> None:
    """Note that `who` did `act`; `detail` is JSON and never names a patient."""
    connection.execute(
        insert(audit).values(at=now(), who=who, act=act, study_instance_uid=study_instance_uid, detail=detail)
    )
