"""What a DICOMweb request says that it takes, and the troubles that it may be told.

Source:  PS3.18 8.7 (Media Types), RFC 9110 12.5.1 (Accept)
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from fastapi import Request

from dicom_sr.problem import Problem
from router.web.doors import DICOMWEB as ROOT

PIECE = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^,;="]+)|([,;=]))')
"""Quoted words, plain words and delimiters of a header."""
JSON = "application/dicom+json"
LONGEST = 2000
"""Characters of an Accept header that are read."""


class NotHeldHere(Problem):
    """The node holds nothing under this name, or its file is gone."""


class NotAcceptable(Problem):
    """Nothing that the request takes can be made of what it asks for."""


class WrongQuery(Problem):
    """A parameter of a search, or of a picture, says nothing that can be understood."""


class NotMultipart(Problem):
    """A body to be stored is not what STOW-RS sends."""


class TooManyAtOnce(Problem):
    """So many requests store at this moment that another one has to wait."""

    retryable = True


class Broken(Problem):
    """A body that is no multipart message of the boundary that its header names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """One media range: a type in lower case and its parameters."""

    kind: str
    parameters: dict[str, str] = field(default_factory=dict)

    @property
    def is_multipart(self) -> bool:
        """Whether several parts are taken."""
        return self.kind == "multipart/related"

    @property
    def content(self) -> str:
        """The type of each part, or of the whole; `*/*` takes any."""
        return self.parameters.get("type", "*/*").lower() if self.is_multipart else self.kind

    @property
    def transfer_syntax_uid(self) -> str:
        """The one that is asked for: a UID, `*` for any, or nothing."""
        return self.parameters.get("transfer-syntax", "")

    def takes(self, content: str) -> bool:
        """Whether parts of this type are taken."""
        main = content.partition("/")[0]
        return self.content in (content, f"{main}/*", "*/*")


def accepted(request: Request) -> list[Media]:
    """What the request takes, the dearest first; anything where it does not say. A query parameter outweighs."""
    said = request.query_params.get("accept") or request.headers.get("accept") or "*/*"
    found = list(_ranges(said[:LONGEST]))
    return sorted(found, key=_weight, reverse=True) or [Media(kind="*/*")]


def _ranges(said: str) -> Iterator[Media]:
    """The media ranges of a header, one by one."""
    for one in _split(list(_words(said)), ","):
        kind, *parameters = _split(one, ";")
        pairs = [_split(words, "=") for words in parameters]
        yield Media(
            kind="".join(kind).strip().lower(),
            parameters={"".join(p[0]).strip().lower(): "".join(p[1]).strip() for p in pairs if len(p) == 2},
        )


def _words(said: str) -> Iterator[str]:
    """The words; a delimiter is told apart from the same sign in quotes by a leading NUL."""
    for quoted, plain, delimiter in PIECE.findall(said):
        yield f"\0{delimiter}" if delimiter else (quoted or plain)


def _split(words: list[str], at: str) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for word in words:
        if word == f"\0{at}":
            parts.append([])
        elif word:
            parts[-1].append(word)
    return [part for part in parts if part]


def _weight(media: Media) -> float:
    try:
        return float(media.parameters.get("q", "1"))
    except ValueError:
        return 0.0


def takes_json(request: Request) -> None:
    """Whether JSON is taken.

    Raises:  NotAcceptable
    """
    if not any(
        not one.is_multipart and (one.takes(JSON) or one.takes("application/json")) for one in accepted(request)
    ):
        raise NotAcceptable("this is given as JSON alone", remedy=f"Accept {JSON}")


def root_of(request: Request) -> str:
    """The address of our DICOMweb as the one who asks has reached it."""
    return f"{request.url.scheme}://{request.url.netloc}{ROOT}"
