"""Logs: events with a name that never changes, then fields. Ids, never a patient's name, id, birth date or accession.

Written to standard error, since standard output is the answer of a command; pretty on a terminal, else one JSON
object a line. Bind the study and the job once, at the door of a step: `structlog.contextvars.bind_contextvars`.
"""

import logging
import sys
import warnings

import structlog

from router.config import Log

TRACEBACK = structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=30)
"""Where an unforeseen error happened, without local variables: those hold headers, and headers hold patients."""


def configure(settings: Log, *, role: str) -> None:
    """Make every event of this process carry its role and go to standard error in the configured form."""
    pretty = settings.format == "pretty" or (settings.format == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if pretty
        else structlog.processors.JSONRenderer(ensure_ascii=True)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            *([] if pretty else [structlog.processors.ExceptionRenderer(TRACEBACK)]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    warnings.simplefilter("ignore")  # pydicom's quote values, and values name patients
    # pynetdicom and pydicom log data sets, patients included, at DEBUG and sometimes above: only their worst passes.
    for name in ("pynetdicom", "pydicom", "highdicom", "alembic", "apscheduler"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    structlog.contextvars.bind_contextvars(role=role)
