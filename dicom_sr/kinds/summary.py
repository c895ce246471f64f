"""Result kind `summary`: one page with the measurements and key slices, as a Secondary Capture.

For systems that show neither SR nor PDF. UIDs of an order used here: "summary", "summary.series".
"""

from dicom_sr import drawing, page
from dicom_sr.capture import captured
from dicom_sr.kinds import Built, Order

KIND = "summary"


def build(order: Order) -> Built | None:
    """The page; there is always something to say."""
    words = f"{drawing.claim(order)}: measurements and key images"
    return captured(order, KIND, page.page(order), ordinal=0, plane=None, words=words)
