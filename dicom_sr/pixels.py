"""From planes to one volume of rescaled values: int16 where that is exact, else float32.

Native pixels go from their place in the file straight into the volume's slot; compressed frames are decoded side by
side; anything unusual takes the way through pydicom and gives the same bits. Stored values are the bits up to HighBit,
sign-extended where PixelRepresentation says so; whatever lies in unused bits is dropped (PS3.5 8.1.1). Rescaling is per
plane, since the slope of a PET series varies from slice to slice.
"""

import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.pixels

from dicom_sr.codecs import CODECS, decode, frame_spans
from dicom_sr.nouns import Volume
from dicom_sr.part10 import pixel_digest
from dicom_sr.planes import Plane
from dicom_sr.refusals import UnreadablePixels
from dicom_sr.source import SourceSeries
from dicom_sr.stored import Mask, Words, canonical, rescale
from dicom_sr.walk import UnusualError

__all__ = ["load", "pixel_digest"]

BLOCK = 4
"""Slices of a block: 2 MiB of 512 x 512."""


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
    waiting = deque(blocks(series.planes))

    def fill() -> None:
        while waiting:
            try:
                block = waiting.popleft()
            except IndexError:  # another thread took the last one
                return
            unmeasured = fill_block(series.planes[block], array[block], spans)
            if padding is not None and unmeasured is not None:
                padding[block] = unmeasured

    with ThreadPoolExecutor(threads) as pool:
        tasks = [pool.submit(fill) for _ in range(threads)]
        wait(tasks, return_when=FIRST_EXCEPTION)
        waiting.clear()
        for task in tasks:
            task.result()
    return Volume(
        array=array,
        affine=series.affine,
        acquisition=series.acquisition,
        padding=padding if padding is not None and padding.any() else None,
    )


def blocks(planes: Sequence[Plane]) -> Iterator[slice]:
    """Runs of neighbours that are read and rescaled in one go: threads meet less often, a block still fits the cache.

    Only native planes of one form and rescaling go together.
    """
    start = 0
    for index in range(1, len(planes) + 1):
        if index == len(planes) or index - start == BLOCK or not alike(planes[start], planes[index]):
            yield slice(start, index)
            start = index


def alike(one: Plane, other: Plane) -> bool:
    """Whether two planes can be read and rescaled together."""
    rescaled = one.slope == other.slope and one.intercept == other.intercept
    return rescaled and one.pixels is other.pixels and is_native(one) and is_native(other)


def is_native(plane: Plane) -> bool:
    """Whether a plane's words lie in its file as they lie in memory, or with their bytes turned."""
    bits, lies_there = plane.pixels.bits_allocated, plane.pixel_offset is not None
    usual = bits == 16 or (bits == 8 and not plane.pixels.big_endian)
    return lies_there and usual and plane.pixels.keyword == "PixelData"


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


def fill_block(planes: Sequence[Plane], slots: Words, spans: Spans) -> Mask | None:
    """Read, correct and rescale a block of planes into its slots; gives the mask of what was never measured.

    Raises:  UnreadablePixels, OSError, OverflowError
    """
    first = planes[0]
    words = native_words(planes, slots) if is_native(first) else stored_words(first, spans)[np.newaxis]
    values, unmeasured = canonical(words, first.pixels)
    rescale(values, unmeasured, first.pixels, first.slope, first.intercept, slots)
    return unmeasured


def native_words(planes: Sequence[Plane], slots: Words) -> Words:
    """Uncompressed words, read into the slots themselves where they are as wide.

    Raises:  UnreadablePixels, OSError
    """
    form = planes[0].pixels
    width = form.bits_allocated // 8
    room = slots if slots.dtype == np.int16 and width == 2 else np.empty(slots.shape, f"i{width}")
    for plane, place in zip(planes, room, strict=True):
        descriptor = os.open(plane.path, os.O_RDONLY)
        try:
            got = os.preadv(descriptor, [place.data.cast("B")], plane.pixel_offset or 0)
        finally:
            os.close(descriptor)
        if got != place.nbytes:
            raise UnreadablePixels(
                f"{plane.name}: {got} of {place.nbytes} bytes of pixel data",
                remedy="The file was cut short; send it again",
            )
    if form.big_endian:
        room.byteswap(inplace=True)
    return room.view(f"{'i' if form.signed else 'u'}{width}")


def stored_words(plane: Plane, spans: Spans) -> Words:
    """Stored words of one plane that is compressed or unusual, in this machine's byte order.

    Raises:  UnreadablePixels, OSError
    """
    if (plane.path, plane.frame) in spans:
        try:
            return decode(compressed(plane, spans[plane.path, plane.frame]), plane.pixels)
        except UnusualError:
            pass
    return words_by_pydicom(plane)


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
