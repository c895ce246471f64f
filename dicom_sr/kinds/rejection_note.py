"""Result kind `rejection_note`: a Key Object Selection that rejects the objects whose place a result set takes.

An archive that knows Imaging Object Change Management hides what such a note points at, so that a radiologist does
not find an old result beside the new one. It is sent before the rest of its set, and only where the destination asks
for it. UIDs of an order used here: "rejection_note", "rejection_note.series".

Source:  PS3.16 TID 2010, CID 7010; IHE Radiology TF, Imaging Object Change Management (IOCM)
"""

from dicom_sr.header import letterhead
from dicom_sr.kinds import NOTE, Built, Order
from dicom_sr.kinds.key_objects import Reference, Selection, document


def build(order: Order) -> Built | None:
    """The note; None where nothing that a destination has is superseded.

    Results under data that were corrected since were given to the wrong patient or procedure; results of other images
    than there are now are not good enough.
    """
    earlier = order.supersedes
    if earlier is None or not earlier.rejected:
        return None
    selection = Selection(
        title="incorrect_modality_worklist_entry" if earlier.correction else "rejected_for_quality_reasons",
        references=tuple(
            Reference(
                study_instance_uid=one.study_instance_uid,
                series_instance_uid=one.series_instance_uid,
                sop_class_uid=one.sop_class_uid,
                sop_instance_uid=one.sop_instance_uid,
            )
            for one in earlier.rejected
        ),
        description=earlier.change,
    )
    return document(letterhead(order, NOTE), selection, kind=NOTE)
