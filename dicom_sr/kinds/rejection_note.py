"""Result kind `rejection_note`: a Key Object Selection that rejects objects which no longer hold.

As a part of a result set it rejects the objects whose place the set takes. `alone` writes one for objects whose images
have left their study: what takes their place, if anything does, is in another one, and a note lies in the study of what
it rejects.

An archive that knows Imaging Object Change Management hides what such a note points at, so that a radiologist does
not find an old result beside the new one. It is sent before the rest of its set, and only where the destination asks
for it. UIDs of an order used here: "rejection_note", "rejection_note.series".

Source:  PS3.16 TID 2010, CID 7010; IHE Radiology TF, Imaging Object Change Management (IOCM)
"""

from collections.abc import Callable, Iterable
from datetime import datetime

from pydicom.dataset import Dataset

from dicom_sr.header import letterhead, letterhead_like
from dicom_sr.kinds import NOTE, Built, Order, Replaced
from dicom_sr.kinds.key_objects import Reference, Selection, document


def build(order: Order) -> Built | None:
    """The note; None where nothing that a destination has is superseded.

    Results under data that were corrected since were given to the wrong patient or procedure; results of other images
    than there are now are not good enough.
    """
    earlier = order.supersedes
    if earlier is None or not earlier.rejected:
        return None
    selection = rejecting(earlier.rejected, earlier.change, correction=earlier.correction)
    return document(letterhead(order, NOTE), selection, kind=NOTE)


def alone(
    one_of_them: Dataset,
    rejected: Iterable[Replaced],
    *,
    description: str,
    uid: Callable[[str, int], str],
    made_at: datetime,
    series_number: int,
    weights_digest: str | None,
) -> Built:
    """A note in no result set, about objects whose images were moved elsewhere; it says of itself what they say.

    Raises:  NothingSelected
    """
    head = letterhead_like(
        one_of_them,
        sop_instance_uid=uid(NOTE, 0),
        series_instance_uid=uid(f"{NOTE}.series", 0),
        series_number=series_number,
        made_at=made_at,
        weights_digest=weights_digest,
    )
    return document(head, rejecting(rejected, description, correction=True), kind=NOTE)


def rejecting(rejected: Iterable[Replaced], description: str, *, correction: bool) -> Selection:
    """What is rejected, and why."""
    return Selection(
        title="incorrect_modality_worklist_entry" if correction else "rejected_for_quality_reasons",
        references=tuple(
            Reference(
                study_instance_uid=one.study_instance_uid,
                series_instance_uid=one.series_instance_uid,
                sop_class_uid=one.sop_class_uid,
                sop_instance_uid=one.sop_instance_uid,
            )
            for one in rejected
        ),
        description=description,
    )
