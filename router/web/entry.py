"""An entry of a rulebook (a source, a destination) as a form shows it: drawn from its settings model, typed as text.

What is as by default is not written; what a person typed stands in the entry as YAML reads it, and whether it makes
sense is the linter's matter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined


@dataclass(frozen=True, slots=True, kw_only=True)
class Blank:
    """One field of a form. `choices` are the words among which one is; of a switch they are true and false."""

    name: str
    about: str
    choices: tuple[str, ...]
    needed: bool
    default: str


def blanks(model: type[BaseModel]) -> list[Blank]:
    """The fields of this model's form, those that must be filled in first."""
    found = [_blank(name, one) for name, one in model.model_fields.items()]
    return sorted(found, key=lambda one: not one.needed)


def typed(entry: Mapping[str, Any], name: str) -> str:
    """What a form shows of an entry's field: nothing where it is as by default."""
    return shown(entry[name]) if name in entry else ""


def shown(value: Any) -> str:
    """A value as a person types it, on one line."""
    if isinstance(value, str) and yaml.safe_load(value or '""') == value:
        return value
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000).strip()
    return text.removesuffix("...").strip()


def entry_of(texts: Mapping[str, str], rest: Mapping[str, Any]) -> dict[str, Any]:
    """The entry that was typed, with what the form does not show put back.

    Raises:  yaml.YAMLError
    """
    made = {name: yaml.safe_load(text) for name, text in texts.items() if text.strip()}
    return made | {name: value for name, value in rest.items() if name not in texts}


def _blank(name: str, one: FieldInfo) -> Blank:
    default = "" if one.default is PydanticUndefined or one.default is None else one.default
    if isinstance(default, BaseModel):
        default = ""
    return Blank(
        name=name,
        about=one.description or "",
        choices=_choices(one.annotation),
        needed=one.is_required(),
        default=""
        if default == ""
        else shown(default if isinstance(default, bool | int | float | list) else str(default)),
    )


def _choices(annotation: Any) -> tuple[str, ...]:
    """The words of a Literal, or of a switch; none where anything may be typed."""
    if get_origin(annotation) in (Union, UnionType):
        several = [one for one in get_args(annotation) if one is not type(None)]
        return _choices(several[0]) if len(several) == 1 else ()
    if annotation is bool:
        return ("true", "false")
    return tuple(map(str, get_args(annotation))) if get_origin(annotation) is Literal else ()
