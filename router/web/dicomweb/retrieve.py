"""WADO-RS of whole objects and of their headers: files leave as they lie in the store, or rewritten one at a time.

Source:  PS3.18 10.4 (Retrieve Transaction)
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydicom.uid import ExplicitVRLittleEndian

from dicom_sr.transcode import CannotTranscode
from router.db.holdings import Holding
from router.domain.query import Level
from router.web.api.words import Asking
from router.web.dicomweb import model, parts
from router.web.dicomweb.asked import JSON, Media, NotAcceptable, NotHeldHere, accepted, root_of, takes_json
from router.web.dicomweb.parts import Part
from router.web.dicomweb.wanted import LEVELS, WAYS, Archive, at, target_of

DICOM = "application/dicom"
ANY = "*"


def routes(archive: Archive) -> APIRouter:
    """Of whole objects and headers."""
    router = APIRouter()

    def retrieve(request: Request, person: Asking) -> Response:
        """All of it, each object in a part of its own; one instance also as it is."""
        target = target_of(request)
        found = archive.find(target)
        media, syntax = _agreed(accepted(request), found, alone=target.level is Level.IMAGE)
        present = archive.present(found)
        archive.retrieved(person, target, len(present))
        if not media.is_multipart and media.kind == DICOM:
            return _alone(archive, present[0], syntax)
        missing = len(found) - len(present)
        headers = {"warning": f'299 isocenter "{missing} files are missing in the store"'} if missing else None
        some = (_part(archive, one, syntax, at(root_of(request), one)) for one in present)
        return parts.answer(some, DICOM, headers=headers, status=206 if missing else 200)

    def metadata(request: Request, person: Asking) -> Response:
        """The headers of all of it, an array with an object for each instance."""
        takes_json(request)
        target = target_of(request)
        present = archive.present(archive.find(target))
        archive.looked(person, target.study)
        return StreamingResponse(_headers(archive, present, root_of(request)), media_type=JSON)

    for level in LEVELS:
        router.add_api_route(level, retrieve, methods=["GET"])
        router.add_api_route(f"{level}/metadata", metadata, methods=["GET"])
    return router


def _agreed(wanted: Sequence[Media], found: Sequence[Holding], *, alone: bool) -> tuple[Media, str]:
    """What is answered: the dearest media range in which all of it can leave, and the transfer syntax, `*` for its own.

    Raises:  NotAcceptable
    """
    for media in wanted:
        several = media.is_multipart or media.kind == "*/*"
        if not media.takes(DICOM) or not (several or alone):
            continue
        syntax = media.transfer_syntax_uid or str(ExplicitVRLittleEndian)
        if syntax == ANY or syntax in WAYS or all(one.transfer_syntax_uid == syntax for one in found):
            return media, syntax
    raise NotAcceptable(
        "none of the media types that are taken can be given",
        remedy=f'Accept multipart/related; type="{DICOM}"; transfer-syntax=*',
    )


def _left_in(one: Holding, syntax: str) -> str:
    return one.transfer_syntax_uid if syntax == ANY else syntax


def _part(archive: Archive, one: Holding, syntax: str, location: str) -> Part:
    left_in, content = one.transfer_syntax_uid, _content(archive, one)
    if _left_in(one, syntax) != left_in:
        with suppress(CannotTranscode):  # all of it has to arrive: its part then says in what it is
            left_in, content = syntax, iter([archive.rewritten(one, syntax)])
    return Part(content=content, media_type=f"{DICOM}; transfer-syntax={left_in}", location=location)


def _alone(archive: Archive, one: Holding, syntax: str) -> Response:
    """One object, in no multipart.

    Raises:  CannotTranscode
    """
    media_type = f"{DICOM}; transfer-syntax={_left_in(one, syntax)}"
    if _left_in(one, syntax) != one.transfer_syntax_uid:
        return Response(archive.rewritten(one, syntax), media_type=media_type)
    return StreamingResponse(_content(archive, one), media_type=media_type)


def _content(archive: Archive, one: Holding) -> Iterator[bytes]:
    """The Part 10 file as it lies there, piece by piece."""
    with archive.open(one) as file:
        yield from parts.pieces(file, 0, file.seek(0, 2))


def _headers(archive: Archive, found: Sequence[Holding], root: str) -> Iterator[bytes]:
    """The array, object by object; one that cannot be read is told by its UIDs alone."""
    start = b"["
    for one in found:
        place = at(root, one)
        try:
            with archive.readable(one) as file:
                said = model.header(file, partial(_bulk, place))
        except (model.UnreadableObject, NotHeldHere, CannotTranscode):
            said = model.uids(one)
        yield start + said
        start = b",\n"
    yield b"]"


def _bulk(place: str, tag: int) -> str:
    return f"{place}/bulkdata/{model.name_of(tag)}"
