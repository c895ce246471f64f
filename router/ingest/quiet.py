"""pydicom as a receiver needs it: what it raises has one name, and it does not warn, since its warnings
quote values: a patient's name does not belong into a log.

Python's warning filters belong to the whole process, so only one thread at a time may change them.
"""

import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pydicom import config
from pydicom.errors import BytesLengthException

MALFORMED = (
    ArithmeticError, AssertionError, AttributeError, BytesLengthException, EOFError, LookupError, NotImplementedError,
    OSError, RecursionError, TypeError, ValueError, struct.error,
)  # fmt: skip
"""What pydicom and pynetdicom have been seen to raise on bytes that are not what they should be."""

_ONE_AT_A_TIME = threading.Lock()


@contextmanager
def quietly() -> Iterator[list[str]]:
    """No warnings from within, but afterwards what they said. Other threads wait, as they do for the interpreter."""
    said: list[str] = []
    with _ONE_AT_A_TIME, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield said
        said += [str(warning.message) for warning in caught]


@contextmanager
def unvalidated() -> Iterator[None]:
    """For the life of a listener pydicom does not judge the form of values that it reads, nor warn of them."""
    before = config.settings.reading_validation_mode
    config.settings.reading_validation_mode = config.IGNORE
    try:
        yield
    finally:
        config.settings.reading_validation_mode = before
