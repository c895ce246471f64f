"""The pixels of a SEG: of the length that its frames need, frame by frame, and held against label maps all at once.

Native BINARY pixels are never unpacked as a whole: the words that hold a bit are compared with the label map's, and the
number of all bits with the number of its voxels, which leaves no room for a voxel in a word that holds none.

Source:  PS3.5 8.1.1 (bits of native pixel data), PS3.3 C.8.20.2 (Segmentation Image)
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import UID, RLELossless

from dicom_sr.checks.fault import Fault, text
from dicom_sr.checks.seen import Seen
from dicom_sr.nouns import LabelMap

Placed = Sequence[tuple[int, int]]
"""Segment number and plane of each frame, in their order."""


AT_ONCE = 1 << 18
"""Words that are compared at once: few enough that what is made of them stays in the processor's cache."""


def shape(seen: Seen) -> tuple[int, int, int]:
    """Frames, rows and columns as its header has them."""
    frames, rows, columns = (int(seen.dataset.get(name) or 0) for name in ("NumberOfFrames", "Rows", "Columns"))
    return frames, rows, columns


def lengths(seen: Seen) -> Iterator[Fault]:
    """PixelData of the length that the frames need, its last bits zero; of compressed pixels only run lengths."""
    if encapsulated(seen):
        if seen.dataset.file_meta.TransferSyntaxUID == RLELossless and seen.run_lengths is None:
            yield Fault(f"{seen.place}.PixelData", "cannot be decoded to the frames that its header announces")
        return
    frames, rows, columns = shape(seen)
    bits = frames * rows * columns * int(seen.dataset.get("BitsAllocated") or 0)
    wanted, found = (bits + 15) // 16 * 2, len(seen.pixels)
    where = f"{seen.place}.PixelData"
    if found != wanted:
        yield Fault(where, f"has {found} bytes, {wanted} are needed")
    elif np.unpackbits(np.frombuffer(seen.pixels[bits // 8 :], np.uint8), bitorder="little")[bits % 8 :].any():
        yield Fault(where, "is not padded with zeros")


def encapsulated(seen: Seen) -> bool:
    """Whether the pixels are compressed."""
    syntax = getattr(seen.dataset, "file_meta", {}).get("TransferSyntaxUID")
    uid = UID(syntax or "")
    return bool(syntax) and not uid.is_private and uid.is_compressed


def values(seen: Seen) -> NDArray[Any]:
    """Stored values of all frames, shape (frame, row, column); BINARY ones are 0 and 1.

    Raises:  what pydicom raises for pixels that it cannot decode
    """
    if encapsulated(seen):
        if seen.run_lengths is not None:
            return seen.run_lengths.reshape(shape(seen))
        decoded: NDArray[Any] = seen.dataset.pixel_array
        return decoded.reshape(shape(seen))
    number = int(np.prod(shape(seen)))
    if text(seen.dataset, "SegmentationType") == "BINARY":
        packed = np.frombuffer(seen.pixels, np.uint8, (number + 7) // 8)
        return np.unpackbits(packed, count=number, bitorder="little").reshape(shape(seen))
    wide = "<u2" if seen.dataset.get("BitsAllocated") == 16 else "u1"
    return np.frombuffer(seen.pixels, wide, number).reshape(shape(seen))


def labelled(seen: Seen, placed: Sequence[int | None], wanted: LabelMap) -> Iterator[Fault]:
    """A LABELMAP's frames against the label map; planes without a frame must be empty."""
    stored, empty = values(seen), set(range(len(wanted)))
    for frame, plane in enumerate(placed):
        if plane is None:
            continue
        empty.discard(plane)
        wrong = int(np.count_nonzero(stored[frame] != wanted[plane]))
        if wrong:
            yield Fault(f"{seen.place}.PixelData", f"{wrong} pixels of plane {plane} are not the label map's")
    for plane in sorted(empty):
        if wanted[plane].any():
            yield Fault(f"{seen.place}.PixelData", f"plane {plane} has no frame, the label map is not empty there")


def binary(seen: Seen, placed: Placed, layers: Mapping[int, LabelMap], voxels: Mapping[int, int]) -> Iterator[Fault]:
    """A BINARY SEG's frames against the label maps: `layers` is the one in which each segment lies."""
    twice = [frame for frame, times in Counter(placed).items() if times > 1]
    for number, plane in twice:
        yield Fault(f"{seen.place}.PerFrameFunctionalGroupsSequence", f"segment {number} has plane {plane} twice")
    size = shape(seen)[1] * shape(seen)[2]
    strangers = sorted({number for number, _ in placed} - layers.keys())
    if twice or strangers or not size:
        return
    found: Counter[int] = Counter()
    step = next(width for width in (64, 8, 1) if size % width == 0)
    compared = _words if step > 1 else _bits
    for frame, wrong, bits in compared(seen, placed, layers, step):
        number, plane = placed[frame]
        found[number] += bits
        if wrong:
            yield Fault(
                f"{seen.place}.PixelData",
                f"{wrong} pixels of segment {number} in plane {plane} are not as found",
            )
    for number, count in voxels.items():
        if found[number] != count:
            yield Fault(
                f"{seen.place}.PixelData", f"segment {number} has {found[number]} pixels, {count} voxels were found"
            )


def _words(seen: Seen, placed: Placed, layers: Mapping[int, LabelMap], step: int) -> Iterator[tuple[int, int, int]]:
    """Of each frame that holds a bit: wrong bits in its words that are not zero, and bits in all."""
    per_frame = shape(seen)[1] * shape(seen)[2] // step
    words = np.frombuffer(seen.pixels, f"<u{step // 8}", len(placed) * per_frame)
    numbers = np.array([number for number, _ in placed], np.uint8)
    to_plane = (np.array([plane for _, plane in placed]) - np.arange(len(placed))) * per_frame
    layer_of, distinct = _by_layer(layers)
    blocks = [labels.reshape(-1, step) for labels in distinct]
    wrong, bits_in = np.zeros((2, len(placed)), np.int64)
    for first in range(0, len(words), AT_ONCE):
        filled = first + np.flatnonzero(words[first : first + AT_ONCE] != 0)
        if not filled.size:
            continue
        there = words[filled]
        frame_of = filled // per_frame
        own, at = numbers[frame_of], filled + to_plane[frame_of]
        wanted = np.zeros(len(filled), words.dtype)
        for layer, labels in enumerate(blocks):
            mine = np.flatnonzero(layer_of[own] == layer) if len(blocks) > 1 else slice(None)
            equal = np.take(labels, at[mine], axis=0) == own[mine, None]
            wanted[mine] = np.packbits(equal.ravel(), bitorder="little").view(words.dtype)
        begins = np.flatnonzero(np.diff(frame_of, prepend=-1))
        for total, bits in ((wrong, there ^ wanted), (bits_in, there)):
            total[frame_of[begins]] += np.add.reduceat(np.bitwise_count(bits), begins, dtype=np.int64)
    for frame in np.flatnonzero(bits_in):
        yield int(frame), int(wrong[frame]), int(bits_in[frame])


def _by_layer(layers: Mapping[int, LabelMap]) -> tuple[NDArray[np.int64], list[LabelMap]]:
    """The index of each segment's label map, and the label maps."""
    distinct: list[LabelMap] = []
    layer_of = np.zeros(256, np.int64)
    for number, labels in layers.items():
        place = next((index for index, known in enumerate(distinct) if known is labels), len(distinct))
        if place == len(distinct):
            distinct.append(labels)
        layer_of[number] = place
    return layer_of, distinct


def _bits(seen: Seen, placed: Placed, layers: Mapping[int, LabelMap], step: int) -> Iterator[tuple[int, int, int]]:
    """The same where frames begin within a byte: eight of them at a time, which always end on one."""
    _, rows, columns = shape(seen)
    size = rows * columns * step
    packed = np.frombuffer(seen.pixels, np.uint8)
    for first in range(0, len(placed), 8):
        eight = placed[first : first + 8]
        part = np.unpackbits(packed[first * size // 8 : (first + 8) * size // 8 + 1], bitorder="little")
        for offset, (number, plane) in enumerate(eight):
            bits = part[offset * size : (offset + 1) * size].reshape(rows, columns)
            count = int(np.count_nonzero(bits))
            wrong = int(np.count_nonzero(bits != (layers[number][plane] == number))) if count else 0
            yield first + offset, wrong, count
