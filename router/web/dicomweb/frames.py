"""WADO-RS of what lies inside an instance: frames, and values that are too large for its header.

A frame leaves as it lies in the file where the request takes that, else its words, little endian. Pixels are read from
their place in the file, one frame at a time.

Source:  PS3.18 10.4.1.1.6 (Frame Resources), 10.4.1.1.5 (Bulk Data)
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array

from dicom_sr.codecs import frame_spans
from dicom_sr.walk import UnusualError
from router.db.holdings import Holding
from router.domain.access import Person
from router.ingest.quiet import MALFORMED
from router.web.api.words import Asking
from router.web.dicomweb import model, parts
from router.web.dicomweb.asked import Media, NotAcceptable, NotHeldHere, accepted, root_of
from router.web.dicomweb.model import PixelElement, UnreadableObject
from router.web.dicomweb.parts import Part
from router.web.dicomweb.wanted import INSTANCE, Archive, at, target_of

OCTETS = "application/octet-stream"
NATIVE = str(uid.ExplicitVRLittleEndian)
PLAIN = frozenset({NATIVE, str(uid.ImplicitVRLittleEndian), str(uid.DeflatedExplicitVRLittleEndian)})
"""Transfer syntaxes whose native pixels are little endian."""
MOST_FRAMES = 10_000

IMAGES: dict[str, str] = {
    **dict.fromkeys(map(str, (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit)), "image/jpeg"),
    **dict.fromkeys(map(str, (uid.JPEGLossless, uid.JPEGLosslessSV1)), "image/jpeg"),
    **dict.fromkeys(map(str, (uid.JPEGLSLossless, uid.JPEGLSNearLossless)), "image/jls"),
    **dict.fromkeys(map(str, (uid.JPEG2000Lossless, uid.JPEG2000)), "image/jp2"),
    **dict.fromkeys(map(str, (uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)), "image/jphc"),
    str(uid.RLELossless): "image/dicom-rle",
}
"""Media type of a frame in each compressed transfer syntax (PS3.18 8.7.3.3.2)."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """The pixels of an instance. `syntax` is that of the open file."""

    file: BinaryIO
    dataset: Dataset
    element: PixelElement
    syntax: str

    @property
    def number(self) -> int:
        """How many frames there are."""
        try:
            return max(1, int(self.dataset.get("NumberOfFrames") or 1))
        except (TypeError, ValueError):
            return 1

    @property
    def bits(self) -> int:
        """Bits of one frame, native.

        Raises:  UnreadableObject
        """
        try:
            words = [int(self.dataset[name].value) for name in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")]
        except (KeyError, TypeError, ValueError):
            raise UnreadableObject("the image does not say how large it is", remedy="Ask its maker") from None
        whole = int(np.prod(words, dtype=np.int64))
        return whole * 2 // 3 if self.dataset.get("PhotometricInterpretation") == "YBR_FULL_422" else whole

    def stored(self, number: int) -> Iterator[bytes]:
        """A frame as it lies in the file; numbers begin with 1.

        Raises:  UnreadableObject, OSError
        """
        if self.element.length is None:
            for offset, length in self._fragments[number - 1]:
                yield from parts.pieces(self.file, offset, length)
        elif self.bits % 8:
            yield self._bits(number)
        else:
            size = self.bits // 8
            self._check(number * size)
            yield from parts.pieces(self.file, self.element.offset + (number - 1) * size, size)

    def native(self, number: int) -> Iterator[bytes]:
        """A frame's words, little endian.

        Raises:  UnreadableObject, OSError
        """
        if self.element.length is not None and self.syntax in PLAIN:
            yield from self.stored(number)
            return
        try:
            self.file.seek(0)
            words: Any = pixel_array(self.file, index=number - 1, raw=True)
        except (*MALFORMED, RuntimeError) as error:
            raise UnreadableObject(
                f"the frame cannot be decoded ({type(error).__name__})", remedy="Accept transfer-syntax=*"
            ) from error
        yield words.astype(words.dtype.newbyteorder("<"), copy=False).tobytes()

    def _bits(self, number: int) -> bytes:
        """A frame that does not begin or end with a byte, moved to where it does (PS3.5 8.1.1)."""
        first, last = (number - 1) * self.bits, number * self.bits
        self._check((last + 7) // 8)
        self.file.seek(self.element.offset + first // 8)
        content = np.frombuffer(self.file.read((last + 7) // 8 - first // 8), np.uint8)
        bits = np.unpackbits(content, bitorder="little")[first % 8 : first % 8 + self.bits]
        return np.packbits(bits, bitorder="little").tobytes()

    def _check(self, end: int) -> None:
        if end > (self.element.length or 0):
            raise UnreadableObject("the pixel data ends before this frame does", remedy="Send the object again")

    @cached_property
    def _fragments(self) -> list[list[tuple[int, int]]]:
        end = self.file.seek(0, 2)
        try:
            return frame_spans(self.file.fileno(), self.element.offset, end, self.number)
        except UnusualError as error:
            raise UnreadableObject(f"frames cannot be told apart: {error}", remedy="Retrieve the instance") from None


def image_of(file: BinaryIO, one: Holding) -> Image:
    """The pixels of an open file.

    Raises:  UnreadableObject, NotHeldHere, OSError
    """
    dataset = model.read(file)
    element = model.pixels_at(file, dataset)
    if element is None:
        raise NotHeldHere("this object has no pixels", remedy="Retrieve the instance")
    inflated = one.transfer_syntax_uid == uid.DeflatedExplicitVRLittleEndian
    return Image(file=file, dataset=dataset, element=element, syntax=NATIVE if inflated else one.transfer_syntax_uid)


def routes(archive: Archive) -> APIRouter:
    """Of what lies inside an instance."""
    router = APIRouter()

    @router.get(f"{INSTANCE}/frames/{{numbers}}")
    def frames(request: Request, person: Asking, numbers: str) -> Response:
        """These frames, each in a part of its own; one frame also as it is."""
        one = archive.one(target_of(request))
        file = archive.readable(one)
        try:
            image = image_of(file, one)
            wanted = _numbers(numbers, image.number)
            media, content, as_stored = _agreed(accepted(request), image, alone=len(wanted) == 1)
            archive.looked(person, one.study_instance_uid)
            taken = image.stored if as_stored else image.native
            first = list(taken(wanted[0]))  # what cannot be given is told before the answer begins
        except BaseException:
            file.close()
            raise
        label = _label(image, content, as_stored=as_stored)
        if not media.is_multipart and media.kind != "*/*":
            file.close()
            return Response(b"".join(first), media_type=label)
        return parts.answer(_parts(file, image, wanted, first, as_stored, label, at(root_of(request), one)), content)

    @router.get(f"{INSTANCE}/bulkdata/{{tag}}")
    def bulkdata(request: Request, person: Asking, tag: str) -> Response:
        """The value of this element as it lies in the file; pixels that are compressed, frame by frame."""
        one = archive.one(target_of(request))
        if tag.upper() in map(model.name_of, model.PIXELS):
            return _pixels(archive, one, person, request)
        media = next((media for media in accepted(request) if media.takes(OCTETS)), None)
        if media is None:
            raise NotAcceptable("values are given as octets", remedy=f"Accept {OCTETS}")
        content = _value(archive, one, tag)
        archive.looked(person, one.study_instance_uid)
        if media.is_multipart or media.kind == "*/*":
            return parts.answer([Part(content=[content], media_type=OCTETS)], OCTETS)
        return Response(content, media_type=OCTETS)

    return router


def _pixels(archive: Archive, one: Holding, person: Person, request: Request) -> Response:
    """All pixels as they lie in the file: native ones in one part, compressed ones in a part for each frame."""
    file = archive.readable(one)
    try:
        image = image_of(file, one)
        archive.looked(person, one.study_instance_uid)
        place = at(root_of(request), one)
    except BaseException:
        file.close()
        raise
    if image.element.length is None:
        own = IMAGES.get(image.syntax, OCTETS)
        every = list(range(1, image.number + 1))
        label = _label(image, own, as_stored=True)
        return parts.answer(_parts(file, image, every, list(image.stored(1)), True, label, place), own)
    whole = parts.pieces(file, image.element.offset, image.element.length)
    label = _label(image, OCTETS, as_stored=image.syntax not in PLAIN)
    return parts.answer(_closing(file, Part(content=whole, media_type=label, location=place)), OCTETS)


def _closing(file: BinaryIO, part: Part) -> Iterator[Part]:
    with file:
        yield part


def _numbers(said: str, most: int) -> list[int]:
    """The frames that are named, from 1.

    Raises:  NotHeldHere
    """
    words = said.split(",")
    if len(words) > MOST_FRAMES or not all(word.isascii() and word.isdecimal() and len(word) < 10 for word in words):
        raise NotHeldHere("this is no list of frame numbers", remedy="Give them as 1,2,3")
    if any(not 1 <= int(word) <= most for word in words):
        raise NotHeldHere(f"the image has frames 1 to {most}", remedy="Ask for those")
    return [int(word) for word in words]


def _agreed(wanted: Sequence[Media], image: Image, *, alone: bool) -> tuple[Media, str, bool]:
    """What is answered: the media range, the type of each part, and whether frames leave as they lie in the file.

    Raises:  NotAcceptable
    """
    compressed = image.element.length is None
    own = IMAGES.get(image.syntax, OCTETS) if compressed else OCTETS
    for media in wanted:
        syntax = media.transfer_syntax_uid
        if not (media.is_multipart or media.kind == "*/*" or alone):
            continue
        if own != OCTETS and media.takes(own) and media.content != "*/*" and syntax in ("", "*", image.syntax):
            return media, own, True
        if media.takes(OCTETS) and compressed and syntax in ("*", image.syntax):
            return media, OCTETS, True
        if media.takes(OCTETS) and syntax in ("", "*", *PLAIN):
            return media, OCTETS, False
    raise NotAcceptable(
        "none of the media types that are taken can be given",
        remedy=f'Accept multipart/related; type="{OCTETS}"; transfer-syntax=*',
    )


def _label(image: Image, content: str, *, as_stored: bool) -> str:
    return f"{content}; transfer-syntax={image.syntax if as_stored else NATIVE}"


def _parts(
    file: BinaryIO, image: Image, wanted: list[int], first: list[bytes], as_stored: bool, label: str, place: str
) -> Iterator[Part]:
    with file:
        for index, number in enumerate(wanted):
            taken = image.stored(number) if as_stored else image.native(number)
            yield Part(content=taken if index else first, media_type=label, location=f"{place}/frames/{number}")


def _value(archive: Archive, one: Holding, said: str) -> bytes:
    """A value that is no pixels.

    Raises:  NotHeldHere, UnreadableObject
    """
    tag = int(said, 16) if re.fullmatch("[0-9A-Fa-f]{8}", said) else 0
    try:
        with archive.readable(one) as file:
            found = dcmread(file, stop_before_pixels=True, specific_tags=[tag]).get_item(tag)
    except MALFORMED as error:
        raise UnreadableObject(
            f"the value cannot be read ({type(error).__name__})", remedy="Retrieve the instance"
        ) from None
    value = found.value if found is not None else None
    if not isinstance(value, bytes) or model.vr_of(found) not in model.BINARY:
        raise NotHeldHere("the object has no such value", remedy="See its metadata")
    return value
