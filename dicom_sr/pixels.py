"""From planes to one volume of rescaled values: int16 where that is exact, else float32.

Native pixels go from their place in the file straight into the volume's slot; compressed frames are decoded side by
side; anything unusual takes the way through pydicom and gives the same bits. Stored values are the bits up to HighBit,
sign-extended where PixelRepresentation says so; whatever lies in unused bits is dropped (PS3.5 8.1.1). Rescaling is per
plane, since the slope of a PET series varies from slice to slice.
"""

import math
import mmap
import os
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.pixels
from numpy.typing import NDArray

from dicom_sr.codecs import CODECS, decode, frame_spans
from dicom_sr.nouns import Volume
from dicom_sr.part10 import head, pixel_digest
from dicom_sr.planes import Plane
from dicom_sr.refusals import NotDicom, UnreadablePixels
from dicom_sr.source import Policy, SourceSeries, read
from dicom_sr.traits import PixelForm
from dicom_sr.walk import UnusualError

__all__ = ["load", "pixel_digest", "read_volume"]

Words = NDArray[Any]
Mask = NDArray[np.bool_]

INT16 = np.iinfo(np.int16)


def load(series: SourceSeries, *, threads: int = 2, room: Words | None = None) -> Volume:
    """The voxels of a series, rescaled (HU for CT), with its affine and a mask of voxels that were never measured.

    `room` is memory to put them into, as shared memory: one axis of bytes; too small a room is left alone.

    Raises:  UnreadablePixels, OSError
    Source:  PS3.5 8.1.1, PS3.3 C.7.6.3 (Image Pixel), C.11.1 (Modality LUT), C.7.5.1.1.2 (Pixel Padding Value)
    """
    if whole(series.planes):
        try:
            return filled(series, roomy(series, np.dtype(np.int16), room), threads)
        except OverflowError:  # some rescaled value is beyond 16 bits
            pass
    return filled(series, roomy(series, np.dtype(np.float32), room), threads)


def read_volume(paths: Iterable[Path], *, policy: Policy = Policy(), threads: int = 2) -> tuple[SourceSeries, Volume]:
    """`source.read` and `load` in one: memory for the voxels is made ready while the headers are read.

    Raises:  a subclass of UnusableSeries, OSError
    """
    files = list(paths)
    with ThreadPoolExecutor(1) as pool:
        room = pool.submit(ready_room, files)
        series = read(files, policy=policy)
    return series, load(series, threads=threads, room=room.result())


def ready_room(files: Sequence[Path]) -> Words | None:
    """Memory for as many native slices as there are files, its pages already given by the kernel; None for others.

    A page is given on its first touch, which costs as much as reading a slice into it.
    """
    try:
        slice_bytes = head(files[0]).pixel_length or 0
        there = sum(os.stat(file).st_size for file in files)
    except (IndexError, NotDicom, OSError):  # read will say it
        return None
    room = np.empty(min(slice_bytes * len(files), there), np.uint8)
    room[:: mmap.PAGESIZE] = 0
    return room


def roomy(series: SourceSeries, dtype: np.dtype[Any], room: Words | None) -> Words:
    """An array of the series' shape, in the room if it is large enough."""
    size = math.prod(series.shape) * dtype.itemsize
    if room is None or room.nbytes < size:
        return np.empty(series.shape, dtype)
    return room[:size].view(dtype).reshape(series.shape)


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


def filled(series: SourceSeries, array: Words, threads: int) -> Volume:
    """The volume, planes read into their slots of the array by a few threads.

    Raises:  UnreadablePixels, OSError, OverflowError when a value does not fit int16
    """
    padding = np.zeros(series.shape, bool) if any(plane.pixels.padding for plane in series.planes) else None
    spans = fragments(series.planes)
    waiting = deque(range(len(series.planes)))

    def fill() -> None:
        while waiting:
            try:
                index = waiting.popleft()
            except IndexError:  # another thread took the last one
                return
            try:
                unmeasured = fill_slot(series.planes[index], array[index], spans)
            except BaseException:
                waiting.clear()
                raise
            if padding is not None and unmeasured is not None:
                padding[index] = unmeasured

    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(fill) for _ in range(threads)]:
            done.result()
    return Volume(
        array=array,
        affine=series.affine,
        acquisition=series.acquisition,
        padding=padding if padding is not None and padding.any() else None,
    )


Spans = dict[tuple[Path, int], list[tuple[int, int]]]
"""Where the fragments of a compressed frame lie in its file, by file and frame."""


def fragments(planes: tuple[Plane, ...]) -> Spans:
    """The fragments of every compressed frame that is decoded here; what is missing is left to pydicom."""
    found: Spans = {}
    for path, plane in {plane.path: plane for plane in planes}.items():
        if plane.fragments_offset is None or plane.transfer_syntax_uid not in CODECS:
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            size = os.fstat(descriptor).st_size
            each = frame_spans(descriptor, plane.fragments_offset, size, plane.number_of_frames)
        except UnusualError:
            continue
        finally:
            os.close(descriptor)
        found.update({(path, index + 1): spans for index, spans in enumerate(each)})
    return found


def fill_slot(plane: Plane, slot: Words, spans: Spans) -> Mask | None:
    """Read, correct and rescale one plane into its slot; gives the mask of what was never measured.

    Raises:  UnreadablePixels, OSError, OverflowError
    """
    words = stored_words(plane, slot, spans)
    values, unmeasured = canonical(words, plane.pixels)
    if slot.dtype == np.float32:
        slot[...] = values.astype(np.float64) * plane.slope + plane.intercept
    else:
        rescale(values, unmeasured, plane, slot)
    return unmeasured


def stored_words(plane: Plane, slot: Words, spans: Spans) -> Words:
    """Stored values of one plane, unused bits and all, in this machine's byte order; they may lie in the slot itself.

    Raises:  UnreadablePixels, OSError
    """
    if plane.pixel_offset is not None and plane.pixels.keyword == "PixelData":
        if plane.pixels.bits_allocated == 16:
            return native_words(plane, slot if slot.dtype == np.int16 else np.empty(slot.shape, np.int16))
        if plane.pixels.bits_allocated == 8 and not plane.pixels.big_endian:
            return native_words(plane, np.empty(slot.shape, np.int8))
    if (plane.path, plane.frame) in spans:
        try:
            return decode(compressed(plane, spans[plane.path, plane.frame]), plane.pixels)
        except UnusualError:
            pass
    return words_by_pydicom(plane)


def native_words(plane: Plane, room: Words) -> Words:
    """Uncompressed words, read into this room."""
    descriptor = os.open(plane.path, os.O_RDONLY)
    try:
        got = os.preadv(descriptor, [room.data.cast("B")], plane.pixel_offset or 0)
    finally:
        os.close(descriptor)
    if got != room.nbytes:
        raise UnreadablePixels(
            f"{plane.name}: {got} of {room.nbytes} bytes of pixel data", remedy="The file was cut short; send it again"
        )
    if plane.pixels.big_endian:
        room.byteswap(inplace=True)
    return room.view(f"{'i' if plane.pixels.signed else 'u'}{room.dtype.itemsize}")


def compressed(plane: Plane, spans: list[tuple[int, int]]) -> bytes:
    """The compressed bytes of one frame, its fragments joined."""
    descriptor = os.open(plane.path, os.O_RDONLY)
    try:
        return b"".join([os.pread(descriptor, length, offset) for offset, length in spans])
    finally:
        os.close(descriptor)


def words_by_pydicom(plane: Plane) -> Words:
    """Stored words as pydicom and its plugins give them: slower, and knows more.

    Raises:  UnreadablePixels
    """
    placed = plane.pixel_offset is not None or plane.fragments_offset is not None
    source = plane.path if placed else pydicom.dcmread(plane.path)
    try:
        words: Words = pydicom.pixels.pixel_array(source, index=plane.frame - 1, raw=True, correct_unused_bits=False)
    except (RuntimeError, ValueError, AttributeError, NotImplementedError) as fault:
        raise UnreadablePixels(
            f"{plane.name}: {fault}", remedy="Send the slices uncompressed, or in a common lossless transfer syntax"
        ) from None
    if words.shape != (plane.pixels.rows, plane.pixels.columns):
        raise UnreadablePixels(
            f"{plane.name} decodes to {words.shape}, not {plane.pixels.rows} x {plane.pixels.columns}",
            remedy="Send the slices uncompressed",
        )
    return words.astype(words.dtype.newbyteorder("="), copy=False)


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


def rescale(values: Words, unmeasured: Mask | None, plane: Plane, slot: NDArray[np.int16]) -> None:
    """Write slope * stored + intercept into an int16 slot, modulo 2^16, which is exact since the result fits.

    Raises:  OverflowError, when a measured value does not fit; one that was never measured is clipped
    """
    slope, intercept = int(plane.slope), int(plane.intercept)
    if not fits(plane.pixels.range, slope, intercept):
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
