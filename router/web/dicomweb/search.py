"""QIDO-RS: a search by address is the same query as C-FIND's, relational, with the same matching and the same audit.

Source:  PS3.18 10.6 (Search Transaction)
"""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydicom.datadict import dictionary_VR, keyword_for_tag

from router.db import audit, catalogue
from router.db.catalogue import Place, Values
from router.db.engine import reading, writing
from router.domain.matching import InItem, item_matches, items
from router.domain.query import KEYS, UNIQUE, IdentifierDoesNotMatch, Kind, Level, Query, Root
from router.node import Node
from router.query.elements import Elements
from router.query.identifier import Granted, tag_of, understood
from router.web.api.words import Asking
from router.web.dicomweb.asked import JSON, WrongQuery, root_of, takes_json
from router.web.dicomweb.model import UTF_8, Json, element, name_of
from router.web.dicomweb.wanted import target_of

MOST_MATCHES = 5000
"""Matches of one answer; who wants more asks for the next ones by `offset`."""
PAGE = 500
FARTHEST = 10_000_000
CONTROL = frozenset({"limit", "offset", "fuzzymatching", "includefield", "accept", "emptyvaluematching"})
"""Parameters that name no attribute."""

STUDY = (
    "StudyDate StudyTime AccessionNumber ModalitiesInStudy ReferringPhysicianName PatientName PatientID "
    "PatientBirthDate PatientSex StudyInstanceUID StudyID NumberOfStudyRelatedSeries NumberOfStudyRelatedInstances"
)
SERIES = "Modality SeriesDescription SeriesInstanceUID SeriesNumber NumberOfSeriesRelatedInstances"
INSTANCE = "SOPClassUID SOPInstanceUID InstanceNumber Rows Columns BitsAllocated NumberOfFrames"
ALWAYS: Mapping[Level, tuple[str, ...]] = {
    Level.STUDY: tuple(STUDY.split()),
    Level.SERIES: ("StudyInstanceUID", *SERIES.split()),
    Level.IMAGE: ("StudyInstanceUID", "SeriesInstanceUID", *INSTANCE.split()),
}
"""What is told of each match, asked for or not (PS3.18 10.6.3.3)."""
WHOLE: Mapping[Level, tuple[str, ...]] = {
    Level.STUDY: (),
    Level.SERIES: ALWAYS[Level.STUDY],
    Level.IMAGE: (*ALWAYS[Level.STUDY], *ALWAYS[Level.SERIES]),
}
"""What is told besides where the path names nothing above."""

PATHS: Mapping[str, Level] = {
    "/studies": Level.STUDY,
    "/series": Level.SERIES,
    "/instances": Level.IMAGE,
    "/studies/{study}/series": Level.SERIES,
    "/studies/{study}/instances": Level.IMAGE,
    "/studies/{study}/series/{series}/instances": Level.IMAGE,
}


def routes(node: Node) -> APIRouter:
    """Of searches."""
    router = APIRouter()

    def search(request: Request, person: Asking) -> Response:
        """What matches, as DICOM JSON."""
        takes_json(request)
        level = next(level for path, level in PATHS.items() if request.scope["route"].path.endswith(path))
        query, unsupported = _query(request, level)
        limit, offset = _number(request, "limit", MOST_MATCHES), _number(request, "offset", FARTHEST)
        limit = MOST_MATCHES if limit is None else limit
        with writing(node.engine) as connection:
            audit.write(
                connection,
                person.who,
                "study.queried",
                root=str(Root.STUDY),
                level=level.name,
                keys=sorted(query.conditions),
                by="QIDO-RS",
            )
        first = offset or 0
        found = list(islice(_matches(node, query, min(PAGE, first + limit + 1)), first, first + limit + 1))
        root = root_of(request)
        said = [_said(query, values, root) for values in found[:limit]]
        headers = _warnings(request, unsupported, more=len(found) > limit)
        return Response(json.dumps(said, separators=(",", ":")), media_type=JSON, headers=headers)

    for path in sorted(PATHS, key=len, reverse=True):
        router.add_api_route(path, search, methods=["GET"])
    return router


def _query(request: Request, level: Level) -> tuple[Query, list[str]]:
    """The query that the address is, and the keywords of conditions that the index does not know.

    Raises:  WrongQuery, NotHeldHere
    """
    elements: Elements = {
        tag_of("QueryRetrieveLevel"): level.name.encode(),
        tag_of("SpecificCharacterSet"): UTF_8.encode(),
    }
    asked = []
    for name, value in request.query_params.multi_items():
        if name not in CONTROL:
            asked.append((path := _path(name), value))
            _put(elements, path, value)
    wanted: list[str] = list(ALWAYS[level])
    for one in request.query_params.getlist("includefield"):
        wanted += _included(one, level)
    above = target_of(request).uids
    if level > Level.STUDY and not above:
        wanted += WHOLE[level]
    elif level is Level.IMAGE and "SeriesInstanceUID" not in above:
        wanted += ALWAYS[Level.SERIES]
    for keyword in wanted:
        elements.setdefault(tag_of(keyword), b"")
    for keyword, uid in above.items():
        elements[tag_of(keyword)] = uid.encode()
    try:
        query = understood(elements, root=Root.STUDY, granted=Granted(relational=True)).query
    except IdentifierDoesNotMatch as problem:
        raise WrongQuery(problem.what, remedy=problem.remedy) from None
    names = {keyword_for_tag(path[0]) or name_of(path[0]) for path, value in asked if value}
    return query, sorted(name for name in names if name not in KEYS or name in query.unsupported)


def _path(name: str) -> list[int]:
    """The tags that a parameter's name gives, from the outermost sequence inwards.

    Raises:  WrongQuery
    """
    try:
        return [_tag(word) for word in name.split(".")]
    except LookupError:
        raise WrongQuery(
            "a parameter is neither a keyword nor a tag of eight hexadecimal digits", remedy="See PS3.18 8.3.4"
        ) from None


def _tag(word: str) -> int:
    if len(word) == 8 and all(letter in "0123456789abcdefABCDEF" for letter in word):
        return int(word, 16)
    return tag_of(word)


def _put(elements: Elements, path: list[int], value: str) -> None:
    """Set the value of a key, in the one item of each sequence on its way.

    Raises:  WrongQuery
    """
    for tag in path[:-1]:
        items = elements.setdefault(tag, [{}])
        if not isinstance(items, list):
            raise WrongQuery("a sequence has a value of its own", remedy="Give its attributes, joined by points")
        elements = items[0]
    content = value.encode("utf-8", "replace")
    if _vr_of(path[-1]) == "UI":
        content = content.replace(b",", b"\\")
    elements[path[-1]] = content


def _vr_of(tag: int) -> str:
    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return "UN"


def _included(said: str, level: Level) -> Iterator[str]:
    """Keywords that are to be told; what we do not know is left out of the answer."""
    for word in said.split(","):
        if word.strip().lower() == "all":
            yield from (name for name, key in KEYS.items() if key.level <= level and not _of_patient(name))
        elif word.strip():
            yield keyword_for_tag(_path(word.strip())[0]) or "StudyInstanceUID"


def _of_patient(name: str) -> bool:
    return KEYS[name].kind is Kind.COUNT and KEYS[name].level is Level.PATIENT


def _number(request: Request, name: str, most: int) -> int | None:
    """A number of the address.

    Raises:  WrongQuery
    """
    said = request.query_params.get(name)
    if said is None or said == "":
        return None
    if not said.isascii() or not said.isdecimal() or len(said) > 12:
        raise WrongQuery(f"{name} is no number from 0 on", remedy=f"Send one up to {most}")
    return min(int(said), most)


def _matches(node: Node, query: Query, page: int) -> Iterator[Values]:
    """Match by match; no page's transaction is open while the next is waited for."""
    place: Place | None = Place()
    while place is not None:
        with reading(node.engine) as connection:
            found, place = catalogue.page(connection, query, place, page)
        yield from found


def _said(query: Query, values: Mapping[str, Any], root: str) -> Json:
    said = {
        "SpecificCharacterSet": element("CS", UTF_8),
        "InstanceAvailability": element("CS", "ONLINE"),
        "RetrieveURL": element("UR", _place(query, values, root)),
    }
    for keyword in query.wanted:
        if keyword in KEYS and keyword not in query.unsupported:
            vr, value = KEYS[keyword].vr, values.get(keyword, "")
            said[keyword] = element(vr, _items(query, keyword, value) if vr == "SQ" else value)
    return {name_of(tag): one for tag, one in sorted((tag_of(keyword), one) for keyword, one in said.items())}


def _items(query: Query, keyword: str, value: Any) -> list[Mapping[str, Any]]:
    """The items that match."""
    match = query.conditions.get(keyword)
    return [one for one in items(value) if not isinstance(match, InItem) or item_matches(match, one)]


def _place(query: Query, values: Mapping[str, Any], root: str) -> str:
    words = {Level.STUDY: "studies", Level.SERIES: "series", Level.IMAGE: "instances"}
    steps = [f"/{word}/{values[UNIQUE[level]]}" for level, word in words.items() if level <= query.level]
    return root + "".join(steps)


def _warnings(request: Request, unsupported: list[str], *, more: bool) -> dict[str, str] | None:
    said = []
    if more:
        said.append("there are more matches that can be asked for by offset")
    if request.query_params.get("fuzzymatching", "false").lower() == "true":
        said.append("fuzzy matching is not supported; only literal matching has been done")
    if unsupported:
        said.append(f"not matched: {', '.join(unsupported[:20])}")
    return {"warning": ", ".join(f'299 isocenter "{one}"' for one in said)} if said else None
