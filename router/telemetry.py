"""Logs: events with a name that never changes, then fields. Ids, never a patient's name, id, birth date or accession.

Written to standard error, since standard output is the answer of a command; pretty on a terminal, else one JSON
object a line. Bind the study and the job once, at the door of a step: `structlog.contextvars.bind_contextvars`.
"""

import logging
import sys
import threading
import traceback
import warnings

import structlog

from router.config import Log

CAUSES, FRAMES = 5, 30
"""So many errors and places of each are told."""


def impersonal(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Of an unforeseen error only kinds and places, the cause last: its text and variables may name a patient."""
    given = event.pop("exc_info", None)
    error = given[1] if isinstance(given, tuple) else sys.exc_info()[1] if given is True else given
    told: list[dict[str, object]] = []
    while isinstance(error, BaseException) and len(told) < CAUSES:
        frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
        where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        told.append({"kind": type(error).__name__, "where": where})
        error = error.__cause__ or error.__context__
    return {**event, "exception": told} if told else event


def as_text(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """The same for people: an error a paragraph, a place a line."""
    told = event.pop("exception", None)
    if told:
        event["exception"] = "\n".join("\n    ".join([one["kind"], *one["where"]]) for one in told)
    return event


class Impersonal(logging.Handler):
    """What libraries log: who, how bad and where in their source, and not the text, which may name a patient."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log it as an event of ours."""
        at = f"{record.pathname}:{record.lineno}"
        level = max(logging.DEBUG, min(record.levelno, logging.CRITICAL)) // 10 * 10
        structlog.get_logger().log(level, "library.said", library=record.name, at=at, exc_info=record.exc_info)


def configure(settings: Log, *, role: str) -> None:
    """Make every event of this process carry its role and go to standard error in the configured form."""
    pretty = settings.format == "pretty" or (settings.format == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer(ensure_ascii=True)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            impersonal,
            *([as_text] if pretty else []),
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
    logging.basicConfig(handlers=[Impersonal()], level=logging.WARNING, force=True)
    threading.excepthook = thread_ended
    structlog.contextvars.bind_contextvars(role=role)


def thread_ended(ended: threading.ExceptHookArgs) -> None:
    """A thread met an error that nobody foresaw."""
    name = ended.thread.name if ended.thread else None
    structlog.get_logger().error("thread.failed", thread=name, exc_info=ended.exc_value)


def take_over() -> None:
    """Let what imported libraries log come to us alone; they set handlers of their own when they are imported."""
    for name in logging.root.manager.loggerDict:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
