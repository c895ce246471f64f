"""Alembic's way in: always on the connection that `router.db.migrate` hands over, never by a URL of its own."""

from alembic import context

from router.db.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    compare_type=True,
    render_as_batch=True,
)
context.run_migrations()
