"""`isocenter destinations`: where results go."""

from router.cli._books import shelf
from router.db.revisions import Kind

destinations = shelf(
    Kind.DESTINATIONS, "Where results go", ("name", "kind", "ae_title", "host", "port", "path"), example="pacs"
)
