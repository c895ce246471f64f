"""What the door accepts: Verification and every Storage SOP class, each with the transfer syntaxes in our order.

pynetdicom takes, of what the sender proposes, the first in the acceptor's order; so this order decides.
"""

from collections.abc import Iterable

from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import ALL_TRANSFER_SYNTAXES
from pynetdicom.presentation import AllStoragePresentationContexts, PresentationContext, build_context
from pynetdicom.sop_class import Verification

from router import query

UNCOMPRESSED = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
)
BY_REFERENCE = ("JPIP", "SMPTE")
"""Transfer syntaxes whose pixels lie elsewhere, or are a live stream: nothing that could be stored."""


def transfer_syntaxes() -> list[UID]:
    """Every transfer syntax that we store, the most welcome first.

    Explicit VR, then lossless compression, since implicit VR loses the VRs of private attributes; lossy forms come
    last: an object that is proposed in another form, too, is not lossy.
    """
    known = [UID(syntax) for syntax in ALL_TRANSFER_SYNTAXES]
    compressed = [
        syntax
        for syntax in known
        if syntax not in UNCOMPRESSED and not any(word in syntax.name for word in BY_REFERENCE)
    ]
    lossless = [syntax for syntax in compressed if is_lossless(syntax)]
    lossy = [syntax for syntax in compressed if syntax not in lossless]
    return [UNCOMPRESSED[0], *lossless, *UNCOMPRESSED[1:], *lossy]


def is_lossless(syntax: UID) -> bool:
    """Whether this compressed transfer syntax gives back every pixel, as its name in the standard says."""
    return "Deflated" in syntax.name or ("Lossless" in syntax.name and "Lossy" not in syntax.name)


def contexts(private_sop_classes: Iterable[str] = ()) -> list[PresentationContext]:
    """What an association may be negotiated for; these private SOP classes are stored like all others."""
    syntaxes: list[str | UID] = [*transfer_syntaxes()]
    known = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
    storage = [build_context(one, syntaxes) for one in dict.fromkeys([*known, *private_sop_classes])]
    for context in storage:
        context.scu_role = context.scp_role = True  # a C-GET makes its requestor the receiver
    echo = build_context(Verification, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    return [*storage, echo, *query.contexts()]
