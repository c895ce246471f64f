"""A config built with whatever it names: code of the bundle's own, expressions that Python evaluates.

Only in a process that has walled itself in (`pipelines.confinement`), for a bundle that an administrator has signed
for. What the declarative profile knows is built as it builds it, so that such a bundle goes the same ways.
"""

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from pipelines import allowed, confinement, expressions
from pipelines.declared import Config, Declaration, Step, at, is_true
from pipelines.trust import Untrusted

NOT_ARGUMENTS = ("_target_", "_disabled_", "_requires_", "_desc_", "_mode_")


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnStep(Step):
    """A transform of the bundle's own, on dictionaries."""

    def build(self, **changes: Any) -> Any:
        """The transform itself."""
        return getattr(importlib.import_module(self.module), self.name)(**{**self.arguments, **changes})


class Free(Declaration):
    """A declaration without a profile."""

    def _computed(self, text: str, place: str) -> Any:
        parsed = expressions.parse(text)
        if not isinstance(parsed, str) and not list(expressions.faults(parsed)):
            return super()._computed(text, place)
        _walled(place)
        values: dict[str, Any] = {}

        def name(match: Any) -> str:
            values[f"_item_{len(values)}_"] = self.get(match[1].replace("#", "::"))
            return f"_item_{len(values) - 1}_"

        return eval(expressions.REFERENCE.sub(name, text[1:].strip()), self._imports() | values)

    def _component(self, item: Config, place: str) -> Any:
        target = str(item["_target_"])
        if not isinstance(allowed.find(target), str):
            return super()._component(item, place)
        _walled(place)
        if "_disabled_" in item and is_true(self.get(f"{place}::_disabled_")):
            return None
        arguments = {name: self.get(f"{place}::{name}") for name in item if name not in NOT_ARGUMENTS}
        module, _, name = target.rpartition(".")
        made = getattr(importlib.import_module(module or "builtins"), name)
        if _is_transform(made):
            return OwnStep(name=name, module=module, keyed=True, arguments=arguments)
        return made(**arguments)

    def _imports(self) -> dict[str, ModuleType]:
        """What the config's `imports` bring."""
        names: dict[str, Any] = {}
        for line in at(self.config, "imports") or ():
            if isinstance(line, str) and line.startswith("$"):
                exec(line[1:].strip(), names)
        return names


def _is_transform(made: Any) -> bool:
    from monai.transforms import MapTransform

    return isinstance(made, type) and issubclass(made, MapTransform)


def _walled(place: str) -> None:
    if not confinement.is_confined():
        raise Untrusted(f"{place} runs code of the bundle", remedy="Such code runs in a process of its own only")
