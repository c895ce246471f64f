"""The declarative profile: a bundle's config read as a description, judged as a whole, and built from allowed parts.

Only what the nodes reach is ever built; the rest of the config (data sets, engines, handlers) is not run, yet a
config that names a way out of the profile anywhere is refused, since whoever wrote that means harm.

Source:  MONAI Bundle Specification (configs, references `@a::b`, expressions `$`, `_target_`)
"""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pipelines import allowed, expressions
from pipelines.trust import Untrusted

Config = dict[str, Any]

NODES = ("network_def", "preprocessing", "inferer", "postprocessing", "evaluator::_requires_")
"""What of a config is built; the last holds what a detector needs to be told before it runs."""
MAX_NODES = 200_000
MAX_DEPTH = 60
DEFAULTS: dict[str, dict[str, Any]] = {"Orientation": {"labels": (("L", "R"), ("P", "A"), ("I", "S"))}}
"""MONAI's defaults, given so that it does not warn of changing them."""
WORDS = ("_target_", "_disabled_", "_requires_", "_desc_", "_mode_")
REMEDY = "Have the bundle signed for isolation, or ask its author for plain configs"
DANGEROUS = re.compile(
    r"(__\w+__|eval|exec|compile|globals|locals|breakpoint|"
    r"os\.(system|popen|exec\w*|spawn\w*|fork\w*|kill\w*|remove\w*|unlink|rmdir|rename\w*|replace|chmod|chown|putenv)|"
    r"(subprocess|socket|shutil|pickle|marshal|shelve|ctypes|builtins|importlib|runpy|pty|code|codeop|urllib|requests|"
    r"http|ftplib|telnetlib|smtplib|multiprocessing|signal|webbrowser|posix|dill|cloudpickle)(\..*)?)"
)


@dataclass(frozen=True, slots=True)
class Objection:
    """One reason why a config is refused: where, what stands there, and why."""

    place: str
    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.place}: {self.why} ({self.what[:80]})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A transform as the config describes it, not built yet: `name` without its dictionary suffix."""

    name: str
    module: str
    keyed: bool
    arguments: Mapping[str, Any]

    def keys(self) -> tuple[str, ...]:
        """The dictionary keys that it works on; a box transform names its boxes."""
        keys = self.arguments.get("keys", self.arguments.get("box_keys", ()))
        return (keys,) if isinstance(keys, str) else tuple(str(key) for key in keys)

    def build(self, **changes: Any) -> Any:
        """The MONAI transform itself."""
        made = getattr(importlib.import_module(self.module), self.name + "d" * self.keyed)
        return made(**{**DEFAULTS.get(self.name, {}), **self.arguments, **changes})

    def lenient(self) -> Any:
        """The transform, passing over keys that are not there, such as labels that nobody gives."""
        transform = self.build()
        if hasattr(transform, "allow_missing_keys"):
            transform.allow_missing_keys = True
        return transform


@dataclass(frozen=True, slots=True)
class Dropped:
    """A reader or writer, or a channel mover, that the config asks for and we leave out."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(slots=True)
class Declaration:
    """A config, its chosen nodes built on demand; each item once, however often it is referenced."""

    config: Config
    device: str = "cpu"
    _built: dict[str, Any] = field(default_factory=dict)
    _building: list[str] = field(default_factory=list)

    def has(self, place: str) -> bool:
        """Whether the config has something there."""
        return at(self.config, place) is not None

    def get(self, place: str) -> Any:
        """What stands at `place` (`a::b::0`), built.

        Raises:  Untrusted
        """
        if place in self._built:
            return self._built[place]
        if place in self._building:
            raise Untrusted(f"the config's item {place} refers to itself", remedy="Mend the config")
        self._building.append(place)
        try:
            self._built[place] = self._make(at(self.config, place, needed=True), place)
        finally:
            self._building.pop()
        return self._built[place]

    def _make(self, item: Any, place: str) -> Any:
        if isinstance(item, dict):
            if "_target_" in item:
                return self._component(item, place)
            return {key: self.get(f"{place}::{key}") for key in item}
        if isinstance(item, list):
            made = [(part, self.get(f"{place}::{index}")) for index, part in enumerate(item)]
            return [value for part, value in made if value is not None or not _is_component(part)]
        if isinstance(item, str) and item.startswith("$"):
            return self._computed(item, place)
        if isinstance(item, str) and (match := expressions.REFERENCE.fullmatch(item)) and match[1]:
            return self.get(match[1].replace("#", "::"))
        return item

    def _computed(self, text: str, place: str) -> Any:
        parsed = expressions.parse(text)
        if isinstance(parsed, str):
            raise Untrusted(f"{place}: {parsed}", remedy=REMEDY)
        return expressions.compute(parsed, expressions.Surroundings(self.get, self.device, _call))

    def _component(self, item: Config, place: str) -> Any:
        if "_disabled_" in item and is_true(self.get(f"{place}::_disabled_")):
            return None
        found = allowed.find(str(item["_target_"]))
        if isinstance(found, str):
            raise Untrusted(f"{place}: {found}", remedy=REMEDY)
        if "_requires_" in item:
            self.get(f"{place}::_requires_")
        arguments = {name: self.get(f"{place}::{name}") for name in _wanted(item, found)}
        if found.kind == "dropped":
            return Dropped(found.name, arguments)
        if found.kind == "transform":
            return Step(name=found.name, module=found.module, keyed=found.keyed, arguments=arguments)
        if item.get("_mode_", "default") != "default":
            return partial(_call, found, (), arguments)
        return _call(found, (), arguments)


def _call(found: allowed.Allowed, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """An allowed class or function called: nothing downloaded, retired arguments forgotten or renamed."""
    made = getattr(importlib.import_module(found.module), found.name)
    known = inspect.signature(made).parameters
    retired: Mapping[str, str | None] = allowed.RETIRED.get(found.name, {})
    for old, new in retired.items():
        if old in keywords and old not in known:
            value = keywords.pop(old)
            if new is not None:
                keywords[new] = value
    if found.name == "TorchVisionFCModel" and not allowed.TORCHVISION_MODEL.fullmatch(str(keywords.get("model_name"))):
        raise Untrusted(f"{keywords.get('model_name')!r} is no torchvision network", remedy=REMEDY)
    bound = inspect.signature(made).bind(*arguments, **keywords).arguments
    more = bound.pop("kwargs", {})
    given = {name: value for name, value in {**bound, **more}.items() if name not in allowed.DOWNLOADS}
    return made(**given, **({"pretrained": False} if "pretrained" in known else {}))


# ---------------------------------------------------------------- judged before anything is built


def objections(config: Config, *, network: bool = True) -> tuple[Objection, ...]:
    """Every reason why a config does not run in the declarative profile; none, and it does.

    Without `network`, the network comes from elsewhere and its definition is not built.
    """
    try:
        everywhere = list(_dangers(config))
        return (*everywhere, *_reached(config, [node for node in NODES if network or node != "network_def"]))
    except Untrusted as refused:
        return (Objection("config", refused.what, refused.what),)


def _dangers(config: Config) -> Iterator[Objection]:
    """Ways out of the profile, wherever they stand."""
    for place, item in walk(config):
        if place.endswith("::_target_") and isinstance(item, str) and DANGEROUS.fullmatch(item):
            yield Objection(place, item, f"names {item}")
        elif isinstance(item, str) and item.startswith("$"):
            for name in _names(item):
                if DANGEROUS.fullmatch(name):
                    yield Objection(place, item, f"names {name}")


def _names(text: str) -> Iterator[str]:
    """Every name, dotted name and import in an expression; what does not parse as Python names nothing."""
    try:
        tree = ast.parse(expressions.REFERENCE.sub("_", text[1:].strip()))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name):
                yield name
            case ast.Attribute(attr=attribute):
                yield ast.unparse(node)
                yield attribute if attribute.startswith("__") else ""
            case ast.Import(names=aliases):
                yield from (alias.name for alias in aliases)
            case ast.ImportFrom(module=module, names=aliases):
                yield str(module)
                yield from (f"{module}.{alias.name}" for alias in aliases)


def _reached(config: Config, nodes: list[str]) -> Iterator[Objection]:
    """What these nodes reach and the profile does not know."""
    for needed in ("network_def", "inferer"):
        if needed in nodes and at(config, needed) is None:
            yield Objection(needed, "", f"the config has no {needed}")
    todo = [node for node in nodes if at(config, node) is not None]
    seen: set[str] = set()
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            if at(config, node) is None:
                yield Objection(node, f"@{node}", "refers to nothing")
            yield from _judge(at(config, node), node, todo)


def _judge(item: Any, place: str, todo: list[str]) -> Iterator[Objection]:
    """Objections to one item and what it holds; what it refers to is put on the list."""
    if _is_component(item):
        yield from _judge_component(item, place, todo)
    elif isinstance(item, str):
        yield from _judge_text(item, place, todo)
    else:
        for key, part in _inside(item):
            yield from _judge(part, f"{place}::{key}", todo)


def _judge_component(item: Config, place: str, todo: list[str]) -> Iterator[Objection]:
    if is_true(item.get("_disabled_", False)):
        return
    found = allowed.find(str(item["_target_"]))
    if isinstance(found, str):
        yield Objection(place, str(item["_target_"]), found)
        return
    if item.get("_mode_", "default") not in ("default", "callable"):
        yield Objection(place, str(item["_mode_"]), "only the modes default and callable are known")
    for name in (*_wanted(item, found), *(word for word in ("_disabled_", "_requires_") if word in item)):
        yield from _judge(item[name], f"{place}::{name}", todo)


def _judge_text(item: str, place: str, todo: list[str]) -> Iterator[Objection]:
    if item.startswith("%"):
        yield Objection(place, item, "macros read files")
    elif item.startswith("$"):
        parsed = expressions.parse(item)
        if isinstance(parsed, str):
            yield Objection(place, item, parsed)
            return
        yield from (Objection(place, item, why) for why in expressions.faults(parsed))
        todo += parsed.references.values()
    elif (match := expressions.REFERENCE.fullmatch(item)) and match[1]:
        todo.append(match[1].replace("#", "::"))


def walk(item: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every item of a config with its place, itself first.

    Raises:  Untrusted when there are too many, or they nest too deep
    """
    todo, count = [(place, item, 0)], 0
    while todo:
        here, value, depth = todo.pop()
        count += 1
        if count > MAX_NODES or depth > MAX_DEPTH:
            raise Untrusted("the config is too large or nests too deep", remedy="Mend the config")
        yield here, value
        todo += [(f"{here}::{key}" if here else str(key), part, depth + 1) for key, part in _inside(value)]


def at(config: Any, place: str, *, needed: bool = False) -> Any:
    """What stands at a place, or None."""
    item = config
    for key in place.split("::"):
        if isinstance(item, dict) and key in item:
            item = item[key]
        elif isinstance(item, list) and key.isdecimal() and int(key) < len(item):
            item = item[int(key)]
        elif needed:
            raise Untrusted(f"the config refers to {place}, which it does not have", remedy="Mend the config")
        else:
            return None
    return item


def _is_component(item: Any) -> bool:
    return isinstance(item, dict) and "_target_" in item


def is_true(disabled: Any) -> bool:
    return disabled is True or str(disabled).strip().lower() == "true"


def _wanted(item: Config, found: allowed.Allowed) -> tuple[str, ...]:
    return found.arguments(name for name in item if name not in WORDS)


def _inside(item: Any) -> list[tuple[Any, Any]]:
    if isinstance(item, dict):
        return list(item.items())
    return list(enumerate(item)) if isinstance(item, list) else []
