"""WADO-RS rendered: a frame as a picture, in the window that is asked for or that the object names; no text is drawn.

Source:  PS3.18 10.4.1.1.3 (Rendered Resources), 8.3.5 (Rendering Query Parameters)
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response
from numpy.typing import NDArray
from PIL import Image as Picture
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, pixel_array

from router.ingest.quiet import MALFORMED
from router.web.api.words import Asking
from router.web.dicomweb.asked import NotAcceptable, NotHeldHere, WrongQuery, accepted
from router.web.dicomweb.frames import Image, image_of
from router.web.dicomweb.model import UnreadableObject
from router.web.dicomweb.wanted import INSTANCE, Archive, target_of

FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG"}
"""The first one where anything is taken."""
FUNCTIONS = ("linear", "linear-exact", "sigmoid")
LARGEST = 4096
QUALITY = 90

Window = tuple[float, float, str]
"""Centre, width and function of a window."""


def routes(archive: Archive) -> APIRouter:
    """Of pictures."""
    router = APIRouter()

    @router.get(f"{INSTANCE}/rendered")
    def instance(request: Request, person: Asking) -> Response:
        """One picture of an instance: of several frames the one in the middle."""
        return answer(request, person, None)

    @router.get(f"{INSTANCE}/frames/{{number}}/rendered")
    def frame(request: Request, person: Asking, number: str) -> Response:
        """A frame as a picture."""
        if not number.isascii() or not number.isdecimal() or len(number) > 9:
            raise NotHeldHere("this is no number of a frame", remedy="Frames are numbered from 1")
        return answer(request, person, int(number))

    def answer(request: Request, person: Asking, number: int | None) -> Response:
        kind = next((kind for one in accepted(request) for kind in FORMATS if one.takes(kind)), None)
        if kind is None:
            raise NotAcceptable("pictures are given as JPEG or PNG", remedy=f"Accept {' or '.join(FORMATS)}")
        window, room, quality = _asked(request.query_params)
        one = archive.one(target_of(request))
        with archive.readable(one) as file:
            image = image_of(file, one)
            wanted = (image.number + 1) // 2 if number is None else number
            if not 1 <= wanted <= image.number:
                raise NotHeldHere(f"the image has frames 1 to {image.number}", remedy="Ask for those")
            picture = draw(image, wanted, window)
        archive.looked(person, one.study_instance_uid)
        if room is not None:
            picture.thumbnail(room)
        out = BytesIO()
        picture.save(out, FORMATS[kind], quality=quality)
        return Response(out.getvalue(), media_type=kind)

    return router


def _asked(query: Mapping[str, str]) -> tuple[Window | None, tuple[int, int] | None, int]:
    """Window, largest size and quality that a request wants.

    Raises:  WrongQuery
    """
    try:
        window: Window | None = None
        if "window" in query:
            centre, width, *function = query["window"].split(",")
            window = float(centre), float(width), (function or ["linear"])[0].lower()
            if window[1] <= 0 or not np.isfinite(window[:2]).all() or window[2] not in FUNCTIONS or len(function) > 1:
                raise ValueError
        room: tuple[int, int] | None = None
        if "viewport" in query:
            across, down = map(int, query["viewport"].split(",")[:2])
            room = across, down
            if not (0 < across <= LARGEST and 0 < down <= LARGEST):
                raise ValueError
        quality = int(query.get("quality", QUALITY))
        if not 1 <= quality <= 100:
            raise ValueError
    except ValueError:
        raise WrongQuery(
            "window, viewport or quality say nothing that can be understood",
            remedy=f"Write window=40,400,linear ({', '.join(FUNCTIONS)}), viewport=512,512 (to {LARGEST}), quality=90",
        ) from None
    return window, room, quality


def draw(image: Image, number: int, window: Window | None) -> Picture.Image:
    """A frame, numbered from 1, as a picture of 8 bits.

    Raises:  UnreadableObject, OSError
    Source:  PS3.3 C.7.6.3.1.2 (Photometric Interpretation), C.11.1 and C.11.2 (Modality LUT, VOI LUT)
    """
    try:
        image.file.seek(0)
        words: NDArray[Any] = pixel_array(image.file, index=number - 1)
        dataset = _of_frame(image.dataset, number)
        if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
            words = apply_color_lut(words, dataset)
        if words.ndim == 3:
            return Picture.fromarray(_bytes(words, 0.0, 255.0 if words.dtype == np.uint8 else 65535.0))
        values = apply_modality_lut(words, dataset).astype(np.float64)
        chosen = window or _named(dataset)
        if chosen is not None:
            grey = windowed(values, *chosen)
        else:
            if "VOILUTSequence" in dataset:
                values = apply_voi(words, dataset, index=0).astype(np.float64)
            low, high = np.percentile(values, (1, 99)) if values.size > 4 else (values.min(), values.max())
            if high <= low:
                low, high = values.min(), max(values.max(), values.min() + 1)
            grey = _bytes(values, float(low), float(high))
    except (*MALFORMED, RuntimeError) as error:
        raise UnreadableObject(
            f"the frame cannot be drawn ({type(error).__name__})", remedy="Retrieve the instance"
        ) from error
    inverted = dataset.get("PhotometricInterpretation") == "MONOCHROME1"
    return Picture.fromarray(255 - grey if inverted else grey)


def windowed(values: NDArray[np.float64], centre: float, width: float, function: str) -> NDArray[np.uint8]:
    """Values as grey, 0 to 255.

    Source:  PS3.3 C.11.2.1.2.1 (linear), C.11.2.1.3.1 (sigmoid), C.11.2.1.3.2 (linear exact)
    """
    if function == "sigmoid":
        grey = 255 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -60, 60)))
        return grey.round().astype(np.uint8)
    if function == "linear-exact":
        return _bytes(values, centre - width / 2, centre + width / 2)
    if width <= 1:
        return np.where(values > centre - 0.5, 255, 0).astype(np.uint8)
    return _bytes(values, centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2)


def _bytes(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    return np.clip((values.astype(np.float64) - low) / (high - low) * 255, 0, 255).round().astype(np.uint8)


def _named(dataset: Dataset) -> Window | None:
    """The first window that the object names."""
    centre, width = _first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth"))
    if centre is None or width is None or width <= 0:
        return None
    function = str(dataset.get("VOILUTFunction") or "linear").lower().replace("_", "-")
    return centre, width, function if function in FUNCTIONS else "linear"


def _first(value: Any) -> float | None:
    found = value[0] if isinstance(value, Sequence) and not isinstance(value, str) and value else value
    try:
        return None if found is None else float(found)
    except (TypeError, ValueError):
        return None


def _of_frame(dataset: Dataset, number: int) -> Dataset:
    """What is said of this frame, where an object says it by functional groups (PS3.3 C.7.6.16)."""
    groups = [*(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]]
    groups += [*(dataset.get("PerFrameFunctionalGroupsSequence") or [])[number - 1 : number]]
    if not groups:
        return dataset
    made = Dataset()
    made.update({element.tag: element for element in dataset if not element.tag.is_private and element.VR != "SQ"})
    for group in groups:
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            for item in (group.get(name) or [])[:1]:
                made.update({element.tag: element for element in item})
    return made
