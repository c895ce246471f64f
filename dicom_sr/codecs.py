"""Compressed frames: where their fragments lie in the file, and the codecs that turn them into stored words.

Codecs are those of imagecodecs, which release the GIL, so a few threads decode side by side. Frames whose fragments
cannot be told apart here, and codestreams that a codec does not take, are left to pydicom.
"""

import os
import struct
import zlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.pixels.utils import get_j2k_parameters

from dicom_sr.traits import PixelForm
from dicom_sr.walk import DEFLATED_FRAMES, ITEM, UNDEFINED, UnusualError

Words = NDArray[Any]
Decode = Callable[[bytes, PixelForm], Words]

_ITEM_HEADER = struct.Struct("<II").unpack


def jpeg_ls(frame: bytes, form: PixelForm) -> Words:
    """JPEG-LS, lossless or near (PS3.5 8.2.3); the codestream knows no sign, so the precision tells where it is."""
    words: Words = imagecodecs.jpegls_decode(frame)
    at = frame.find(b"\xff\xf7")
    return signed_from(words, frame[at + 4]) if form.signed and at >= 0 else words


def jpeg_2000(frame: bytes, form: PixelForm) -> Words:
    """JPEG 2000 (PS3.5 8.2.4); where the codestream's sign is not PixelRepresentation's the latter is right."""
    return as_represented(imagecodecs.jpeg2k_decode(frame, numthreads=1), frame, form)


def high_throughput(frame: bytes, form: PixelForm) -> Words:
    """HTJ2K (PS3.5 8.2.14)."""
    return as_represented(imagecodecs.htj2k_decode(frame), frame, form)


def jpeg(frame: bytes, form: PixelForm) -> Words:
    """JPEG: baseline, extended 12 bit, lossless of any predictor up to 16 bit (PS3.5 8.2.1)."""
    words: Words = imagecodecs.jpeg8_decode(frame)
    return words


def run_length(frame: bytes, form: PixelForm) -> Words:
    """RLE Lossless (PS3.5 annex G)."""
    dtype = np.dtype(f"<u{form.bits_allocated // 8}")
    return np.frombuffer(imagecodecs.dicomrle_decode(frame, dtype), dtype)


def deflated(frame: bytes, form: PixelForm) -> Words:
    """Deflated Image Frame Compression (PS3.5 8.2.16): each frame a deflate stream of its own."""
    try:
        inflated = zlib.decompress(frame, -zlib.MAX_WBITS, bufsize=form.frame_bytes)
    except zlib.error as fault:
        raise ValueError(str(fault)) from None
    return np.frombuffer(inflated, f"<u{form.bits_allocated // 8}", form.rows * form.columns)


CODECS: dict[str, Decode] = {
    str(uid.JPEGBaseline8Bit): jpeg,
    str(uid.JPEGExtended12Bit): jpeg,
    str(uid.JPEGLossless): jpeg,
    str(uid.JPEGLosslessSV1): jpeg,
    str(uid.JPEGLSLossless): jpeg_ls,
    str(uid.JPEGLSNearLossless): jpeg_ls,
    str(uid.JPEG2000Lossless): jpeg_2000,
    str(uid.JPEG2000): jpeg_2000,
    str(uid.HTJ2KLossless): high_throughput,
    str(uid.HTJ2KLosslessRPCL): high_throughput,
    str(uid.HTJ2K): high_throughput,
    str(uid.RLELossless): run_length,
    DEFLATED_FRAMES: deflated,
}


def decode(frame: bytes, form: PixelForm) -> Words:
    """Stored words of one compressed frame, as wide as BitsAllocated says.

    Raises:  UnusualError, when the codec does not take it or gives another matrix
    """
    try:
        words = CODECS[form.transfer_syntax_uid](frame, form)
    except (KeyError, RuntimeError, ValueError, NotImplementedError) as fault:
        raise UnusualError(str(fault)) from None
    if words.size != form.rows * form.columns or words.dtype.itemsize * 8 > form.bits_allocated:
        raise UnusualError(f"{words.shape} {words.dtype}")
    wide = np.dtype(f"{'i' if form.signed else 'u'}{form.bits_allocated // 8}")
    return words.reshape(form.rows, form.columns).astype(wide, copy=False)


def as_represented(words: Words, frame: bytes, form: PixelForm) -> Words:
    """JPEG 2000 words under PixelRepresentation's sign, which the codestream's own may contradict."""
    stream = get_j2k_parameters(frame)
    if stream.get("is_signed", form.signed) == form.signed:
        return words
    if form.signed:
        return signed_from(words, stream["precision"])
    unsigned: Words = words.view(f"u{words.dtype.itemsize}") & ((1 << stream["precision"]) - 1)
    return unsigned


def signed_from(words: Words, precision: int) -> Words:
    """Words whose sign is bit `precision - 1`, extended to their full width."""
    spare = 8 * words.dtype.itemsize - precision
    extended: Words = words.view(f"i{words.dtype.itemsize}") << spare >> spare
    return extended


def frame_spans(descriptor: int, offset: int, size: int, frames: int) -> list[list[tuple[int, int]]]:
    """Where each frame's fragments lie in an open file: (offset, length) of each.

    Raises:  UnusualError, when the fragments do not say which frame they belong to
    Source:  PS3.5 A.4 (Encapsulated Pixel Data), table A.4-2 (Basic Offset Table)
    """
    items = []
    at = offset
    while at + 8 <= size:
        word, length = _ITEM_HEADER(os.pread(descriptor, 8, at))
        if word != ITEM or length == UNDEFINED:
            break
        items.append((at + 8, length))
        at += 8 + length
    if not items:
        raise UnusualError("no fragments")
    table, fragments = items[0], items[1:]
    if at > size or len(fragments) < frames:
        raise UnusualError("fragments are missing")
    if frames == 1:
        return [fragments]
    if len(fragments) == frames:
        return [[fragment] for fragment in fragments]
    if table[1] != 4 * frames:
        raise UnusualError("no offset table")
    starts = [fragments[0][0] - 8 + start for start in struct.unpack(f"<{frames}I", os.pread(descriptor, *table[::-1]))]
    bounds = [*starts, at]
    spans = [[span for span in fragments if low <= span[0] - 8 < high] for low, high in pairwise(bounds)]
    if not all(spans):
        raise UnusualError("the offset table points nowhere")
    return spans
