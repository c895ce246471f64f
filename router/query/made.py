"""What queries show of an object that we made: read once, when it is kept, by the reader that the door has, too."""

import struct

from pydicom.uid import ExplicitVRLittleEndian

from router.ingest import headers
from router.ingest.facts import Facts

META_LENGTH = 140
"""Where the value of FileMetaInformationGroupLength lies, the first element after preamble and prefix (PS3.10 7.1)."""


def header_of(head: bytes) -> Facts:
    """Facts of a file of ours, Explicit VR Little Endian, for `router.db.holdings.describe`.

    Its bytes may end where native pixels begin.
    """
    (length,) = struct.unpack_from("<I", head, META_LENGTH)
    at = META_LENGTH + 4 + length
    walk = headers.beginning(head[at:])
    return headers.header_of(walk).facts if walk else headers.read(head, ExplicitVRLittleEndian, start=at).facts
