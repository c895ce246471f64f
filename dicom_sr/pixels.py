"""From planes to one volume of rescaled values: int16 where that is exact, else float32.

Stored values are the bits up to HighBit, sign-extended where PixelRepresentation says so; whatever lies in unused bits
is dropped (PS3.5 8.1.1). Rescaling is per plane, since the slope of a PET series varies from slice to slice.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pydicom.pixels
from numpy.typing import NDArray

from dicom_sr.nouns import Volume
from dicom_sr.part10 import pixel_digest
from dicom_sr.planes import PixelForm, Plane
from dicom_sr.refusals import UnreadablePixels
from dicom_sr.source import SourceSeries

__all__ = ["load", "pixel_digest"]

Stored = NDArray[Any]


def load(series: SourceSeries, *, threads: int = 2) -> Volume:
    """The voxels of a series, rescaled (HU for CT), with its affine and a mask of voxels that were never measured.

    Raises:  UnreadablePixels, OSError
    Source:  PS3.5 8.1.1, PS3.3 C.7.6.3 (Image Pixel), C.11.1 (Modality LUT), C.7.5.1.1.2 (Pixel Padding Value)
    """
    if whole(series.planes):
        try:
            return filled(series, np.dtype(np.int16), threads)
        except OverflowError:
            pass
    return filled(series, np.dtype(np.float32), threads)


def whole(planes: tuple[Plane, ...]) -> bool:
    """Whether rescaled values are whole numbers throughout, of one slope, and may fit int16."""
    slope = planes[0].slope
    return slope.is_integer() and all(
        plane.slope == slope
        and plane.intercept.is_integer()
        and plane.pixels.keyword == "PixelData"
        and plane.pixels.bits_allocated <= 16
        for plane in planes
    )


def filled(series: SourceSeries, dtype: np.dtype[Any], threads: int) -> Volume:
    """The volume in this type, every plane read into its own slot by a few threads."""
    array = np.empty(series.shape, dtype)
    padding = np.zeros(series.shape, bool) if any(plane.pixels.padding for plane in series.planes) else None

    def fill(index: int) -> None:
        plane = series.planes[index]
        words = stored_words(plane)
        values, unmeasured = canonical(words, plane.pixels)
        rescale(values, unmeasured, plane, array[index])
        if padding is not None and unmeasured is not None:
            padding[index] = unmeasured

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(fill, range(len(series.planes))):
            pass
    return Volume(
        array=array,
        affine=series.affine,
        acquisition=series.acquisition,
        padding=padding if padding is not None and padding.any() else None,
    )


def stored_words(plane: Plane) -> Stored:
    """Stored values of one plane, unused bits and all, in the byte order of this machine."""
    try:
        words: Stored = pydicom.pixels.pixel_array(
            plane.path, index=plane.frame - 1, raw=True, correct_unused_bits=False
        )
    except (RuntimeError, ValueError, AttributeError, NotImplementedError) as fault:
        raise UnreadablePixels(
            f"{plane.name}: {fault}", remedy="Send the slices uncompressed, or install a codec for this transfer syntax"
        ) from None
    if words.shape != (plane.pixels.rows, plane.pixels.columns):
        raise UnreadablePixels(
            f"{plane.name} decodes to {words.shape}, not {plane.pixels.rows} x {plane.pixels.columns}",
            remedy="Send the slices uncompressed",
        )
    return words


def canonical(words: Stored, form: PixelForm) -> tuple[Stored, NDArray[np.bool_] | None]:
    """Stored values as numbers, and which of them stand for "not measured".

    A padding value that BitsStored cannot hold (seen: 63536 in 12 bits) is looked for before unused bits are dropped,
    and becomes the lowest value that can be stored.
    """
    if words.dtype.kind == "f":
        return words, None
    low, high = form.range
    wide = form.padding is not None and not low <= form.padding[0] <= form.padding[1] <= high
    before = between(words, form.padding) if wide and form.padding else None
    if form.bits_stored < form.bits_allocated:
        words = words.view(f"{'i' if form.signed else 'u'}{words.dtype.itemsize}")
        spare = 8 * words.dtype.itemsize - form.high_bit - 1
        words = words << spare >> (8 * words.dtype.itemsize - form.bits_stored)
    if before is not None:
        words = np.where(before, words.dtype.type(low), words)
        return words, before
    return words, between(words, form.padding) if form.padding else None


def between(words: Stored, bounds: tuple[int, int]) -> NDArray[np.bool_]:
    """Which values lie within bounds, inclusive."""
    low, high = bounds
    if low == high:
        equal: NDArray[np.bool_] = words == low
        return equal
    within: NDArray[np.bool_] = (words >= low) & (words <= high)
    return within


def rescale(
    values: Stored, unmeasured: NDArray[np.bool_] | None, plane: Plane, slot: NDArray[np.int16] | NDArray[np.float32]
) -> None:
    """Write slope * stored + intercept into the plane's slot.

    Raises:  OverflowError, when a measured value does not fit
    """
    if slot.dtype == np.float32:
        slot[...] = values.astype(np.float64) * plane.slope + plane.intercept
        return
    scaled = values.astype(np.int64) * int(plane.slope) + int(plane.intercept)
    clipped = scaled.clip(-32768, 32767)
    off = clipped != scaled
    if off.any() and (unmeasured is None or (off & ~unmeasured).any()):
        raise OverflowError
    slot[...] = clipped
