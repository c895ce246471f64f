"""pydicom without its warnings, which quote values: a patient's name does not belong into a log.

Python's warning filters belong to the whole process, so only one thread at a time may change them.
"""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_ONE_AT_A_TIME = threading.Lock()


@contextmanager
def quietly() -> Iterator[list[str]]:
    """No warnings from within, but afterwards what they said. Other threads wait, as they do for the interpreter."""
    said: list[str] = []
    with _ONE_AT_A_TIME, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield said
        said += [str(warning.message) for warning in caught]
