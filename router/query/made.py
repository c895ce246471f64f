"""What queries show of an object that we made: read once, when it is kept, by the reader that the door has, too."""

import struct

from pydicom.uid import ExplicitVRLittleEndian

from router.ingest import headers
from router.ingest.facts import Facts

META_LENGTH = 140
"""Where the value of FileMetaInformationGroupLength lies, the first element after preamble and prefix (PS3.10 7.1)."""


def header_of(part10: bytes) -> Facts:
    """Facts of a whole file of ours, Explicit VR Little Endian, for `router.db.holdings.describe`."""
    (length,) = struct.unpack_from("<I", part10, META_LENGTH)
    return headers.read(part10[META_LENGTH + 4 + length :], ExplicitVRLittleEndian).facts
