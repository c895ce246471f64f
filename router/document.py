"""A YAML document with addresses: every fault of a model found in it comes as file:line:column, all at once.

The node tree is composed beside the values; pydantic's `loc` walks the tree to a line. Aliases are refused (a rulebook
must say what it says), and so is a key that stands twice.
"""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from router.errors import Fault, UnreadableFile, WrongFile

LARGEST_BYTES = 1 << 20
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Safe either way; the one in C, where PyYAML was built with it, is ten times as fast."""
Loc = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What one YAML text says, and where it says it."""

    name: str
    value: Any
    root: yaml.Node | None

    def fault(self, loc: Loc, message: str, *, at_key: bool = False) -> Fault:
        """A fault at the deepest place on the path `loc` that the file has."""
        mark = _mark_of(self.root, loc, at_key=at_key)
        return Fault(
            file=self.name,
            line=mark.line + 1 if mark else 0,
            column=mark.column + 1 if mark else 0,
            where=_dotted(loc),
            message=message,
        )

    def faults(self, error: ValidationError, model: type[BaseModel], *, below: Loc = ()) -> list[Fault]:
        """Each of a model's errors as a fault; `below` is where in the document the model was read."""
        return [self._fault_of(detail, model, below) for detail in error.errors()]

    def _fault_of(self, detail: ErrorDetails, model: type[BaseModel], below: Loc) -> Fault:
        loc = tuple(detail["loc"])
        message = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "extra_forbidden":
            known = _fields_at(model, loc[:-1])
            message = f"there is no such setting{suggestion(str(loc[-1]), known)}"
        elif detail["type"] == "string_type":
            message += self._quoting_hint((*below, *loc))
        return self.fault((*below, *self._in_file(loc, below)), message, at_key=detail["type"] == "extra_forbidden")

    def _in_file(self, loc: Loc, below: Loc) -> Loc:
        """`loc` without the steps that exist only in the model, such as a union's tag."""
        node, kept = _node_of(self.root, below), []
        for index, step in enumerate(loc):
            following = _step(node, step)
            if following is None and index < len(loc) - 1 and not isinstance(step, int):
                continue
            node = following if following is not None else node
            kept.append(step)
        return tuple(kept)

    def _quoting_hint(self, loc: Loc) -> str:
        node = _node_of(self.root, loc)
        if isinstance(node, yaml.ScalarNode) and node.tag != "tag:yaml.org,2002:str" and node.value:
            kind = node.tag.rpartition(":")[2]
            return f': unquoted {node.value} is read as {kind} by YAML; write "{node.value}" in quotes'
        return ""


def parse(text: str, name: str, *, wrong: type[WrongFile]) -> Document:
    """The document in this text.

    Raises:  `wrong`, when it is not YAML, too large, has an alias or says a key twice
    """
    if len(text.encode()) > LARGEST_BYTES:
        raise wrong([Fault(file=name, line=0, column=0, where="", message="larger than 1 MiB")])
    try:
        loader = LOADER(text)
        try:
            root = loader.get_single_node()
            faults = list(_aliases(text, name)) or list(_odd_nodes(root, name))
            if faults:
                raise wrong(faults)
            return Document(name=name, value=None if root is None else loader.construct_document(root), root=root)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        message = f"not YAML: {error.problem or error.context}"
        raise wrong([Fault(file=name, line=place[0], column=place[1], where="", message=message)]) from None
    except (yaml.YAMLError, ValueError) as error:  # a forbidden character, or a date such as 2024-13-45
        raise wrong([Fault(file=name, line=0, column=0, where="", message=f"not YAML: {error}")]) from None


def read(path: Path, *, wrong: type[WrongFile]) -> Document:
    """The document in this file.

    Raises:  UnreadableFile, `wrong`
    """
    try:
        return parse(path.read_text("utf-8"), str(path), wrong=wrong)
    except OSError as error:
        raise UnreadableFile(
            f"{path} cannot be read ({error.strerror})", remedy="Check the path and its permissions"
        ) from None
    except UnicodeDecodeError as error:
        raise wrong(
            [Fault(file=str(path), line=0, column=0, where="", message=f"not UTF-8 text (byte {error.start})")]
        ) from None


def suggestion(word: str, known: Iterable[str], *, cutoff: float = 0.7) -> str:
    """ ": did you mean X?" where a known word is near, else nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    if not near:
        folded = {candidate.casefold(): candidate for candidate in known}
        near = [folded[word.casefold()]] if word.casefold() in folded else []
    return f": did you mean {near[0]}?" if near else ""


def _aliases(text: str, name: str) -> Iterator[Fault]:
    """Where the text repeats what stands elsewhere."""
    if "*" in text:
        for event in yaml.parse(text, Loader=LOADER):
            if isinstance(event, yaml.AliasEvent):
                yield _at(event, name, "aliases are not allowed: write it out")


def _odd_nodes(node: yaml.Node | None, name: str) -> Iterator[Fault]:
    """Doubled keys, in a tree without aliases."""
    if isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in keys:
                yield _at(key, name, f"{key.value} stands here twice")
            keys.add(str(key.value))
            yield from _odd_nodes(value, name)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _odd_nodes(item, name)


def _at(node: yaml.Node | yaml.AliasEvent, name: str, message: str) -> Fault:
    mark: yaml.Mark = node.start_mark  # type: ignore[assignment]  # events and nodes of a text have one
    return Fault(file=name, line=mark.line + 1, column=mark.column + 1, where="", message=message)


def _step(node: yaml.Node | None, step: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == str(step)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        item: yaml.Node = node.value[step]
        return item
    return None


def _node_of(node: yaml.Node | None, loc: Sequence[str | int]) -> yaml.Node | None:
    """Deepest node on the path `loc`; a step that the file does not have is passed over."""
    for step in loc:
        node = _step(node, step) or node
    return node


def _mark_of(root: yaml.Node | None, loc: Loc, *, at_key: bool) -> Any:
    node = _node_of(root, loc[:-1] if at_key else loc)
    if at_key and isinstance(node, yaml.MappingNode):
        node = next((key for key, _ in node.value if key.value == str(loc[-1])), node)
    return node.start_mark if node is not None else None


def _dotted(loc: Loc) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc).removeprefix(".")


def _fields_at(annotation: Any, loc: Loc) -> list[str]:
    """Field names of the model at `loc` below this type, so that a wrong name can be compared with the right ones."""
    if get_origin(annotation) is Annotated:
        return _fields_at(get_args(annotation)[0], loc)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not loc:
            return [field.alias or name for name, field in annotation.model_fields.items()]
        for name, field in annotation.model_fields.items():
            if loc[0] in (name, field.alias):
                return _fields_at(field.annotation, loc[1:])
        return _fields_at(annotation, loc[1:])  # the tag of the union that this model belongs to
    names: list[str] = []
    union = get_origin(annotation) in (Union, UnionType)
    for argument in get_args(annotation):
        names += _fields_at(argument, loc if union else loc[1:])
    return names
