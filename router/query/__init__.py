"""What the node holds, asked for by others and asked of others: C-FIND, C-MOVE, C-GET, Storage Commitment, MPPS."""

from router.query.commitment import report_due
from router.query.service import contexts, handlers

__all__ = ["contexts", "handlers", "report_due"]
