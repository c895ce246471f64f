"""What destinations refuse: SOP classes that a destination has said it does not take, until its settings change."""

from collections.abc import Iterable

from sqlalchemy import Connection, delete, select

from router.db.engine import insert_into, now
from router.db.tables import refusal


def note(connection: Connection, destination: str, form: str, sop_class_uids: Iterable[str]) -> None:
    """The destination of these settings (`form` is their digest) refuses these SOP classes."""
    connection.execute(delete(refusal).where(refusal.c.destination == destination, refusal.c.form != form))
    for uid in sop_class_uids:
        values = {"destination": destination, "sop_class_uid": uid, "form": form, "noted_at": now()}
        connection.execute(insert_into(connection, refusal).values(values).on_conflict_do_nothing())


def of(connection: Connection, destination: str, form: str) -> frozenset[str]:
    """The SOP classes that the destination has refused under these settings."""
    found = select(refusal.c.sop_class_uid).where(refusal.c.destination == destination, refusal.c.form == form)
    return frozenset(connection.execute(found).scalars())
