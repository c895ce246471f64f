"""What stored words mean: the bits that count, the values that were never measured, slope and intercept.

Arrays here are of any shape; what can be done in place is.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicom_sr.traits import PixelForm

Words = NDArray[Any]
Mask = NDArray[np.bool_]

INT16 = np.iinfo(np.int16)


def canonical(words: Words, form: PixelForm) -> tuple[Words, Mask | None]:
    """Stored values as numbers, corrected in place where possible, and which of them stand for "not measured".

    A padding value that BitsStored cannot hold (seen: 63536 in 12 bits) is looked for before unused bits are dropped,
    and becomes the lowest value that can be stored.
    """
    if words.dtype.kind == "f":
        return words, None
    low, high = form.range
    foreign = form.padding is not None and not low <= form.padding[0] <= form.padding[1] <= high
    before = between(words, form.padding) if form.padding and foreign else None
    if form.bits_stored < form.bits_allocated:
        words = without_unused_bits(words if words.flags.writeable else words.copy(), form)
    if before is not None:
        words[before] = low
        return words, before
    return words, between(words, form.padding) if form.padding else None


def without_unused_bits(words: Words, form: PixelForm) -> Words:
    """The words with only the bits from HighBit down, sign-extended if signed, in place.

    Source:  PS3.5 8.1.1
    """
    words = words.view(f"{'i' if form.signed else 'u'}{words.dtype.itemsize}")
    width = 8 * words.dtype.itemsize
    if not form.signed and form.high_bit == form.bits_stored - 1:
        return np.bitwise_and(words, (1 << form.bits_stored) - 1, out=words)
    np.left_shift(words, width - 1 - form.high_bit, out=words)
    return np.right_shift(words, width - form.bits_stored, out=words)


def between(words: Words, bounds: tuple[int, int]) -> Mask:
    """Which values lie within bounds, inclusive."""
    low, high = bounds
    within: Mask = words == low if low == high else (words >= low) & (words <= high)
    return within


def rescale(
    values: Words, unmeasured: Mask | None, form: PixelForm, slope: float, intercept: float, slot: Words
) -> None:
    """Write slope * stored + intercept into a slot of float32 or int16.

    Raises:  OverflowError, when a measured value does not fit int16; one that was never measured is clipped
    """
    if slot.dtype == np.float32:
        slot[...] = values.astype(np.float64) * slope + intercept
    else:
        rescale_whole(values, unmeasured, form, int(slope), int(intercept), slot)


def rescale_whole(
    values: Words, unmeasured: Mask | None, form: PixelForm, slope: int, intercept: int, slot: NDArray[np.int16]
) -> None:
    """Rescale into int16 modulo 2^16, which is exact since the result fits.

    Raises:  OverflowError
    """
    if not fits(form.range, slope, intercept):
        measured = values if unmeasured is None else values[~unmeasured]
        if measured.size and not fits((int(measured.min()), int(measured.max())), slope, intercept):
            raise OverflowError
        if unmeasured is not None:
            slot[...] = (values.astype(np.int64) * slope + intercept).clip(INT16.min, INT16.max)
            return
    if values.dtype.itemsize == 1 or not np.may_share_memory(values, slot):
        slot[...] = values if values.dtype.itemsize == 1 else values.view(np.int16)
    if slope != 1:
        np.multiply(slot, wrapped(slope), out=slot)
    if intercept:
        np.add(slot, wrapped(intercept), out=slot)


def fits(bounds: tuple[int, int], slope: int, intercept: int) -> bool:
    """Whether all rescaled values between these stored ones fit int16."""
    ends = [bound * slope + intercept for bound in bounds]
    return bool(INT16.min <= min(ends) and max(ends) <= INT16.max)


def wrapped(value: int) -> np.int16:
    """The int16 that equals a whole number modulo 2^16."""
    return np.int16((value + 0x8000) % 0x10000 - 0x8000)
