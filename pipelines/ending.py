"""How a published chain ends, read from its steps: what happens on the network's grid, the way back, the decision.

Every zoo chain for segmentation is: activation, inverse, argmax or threshold, in one order or another. Those are told
apart here; a chain that is none of them has no Ending and runs as published.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Any, Literal

from pipelines.declared import Step

TYPES = frozenset(("CastToType", "EnsureType", "Identity", "ToDevice", "ToMetaTensor", "ToTensor"))
"""Steps that change how numbers are held and not what they are."""
PRED = "pred"

Decision = Literal["argmax", "threshold", "nearest", "linear"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Steps on the network's grid, then the way back with its decision, then steps on the source's grid.

    `activation` belongs to the first part, but may be put off until the values are inverted slab by slab. The decision
    "nearest" or "linear" means that the network's grid already has labels, which are inverted one way or the other.
    """

    coarse: tuple[Step, ...]
    activation: Literal["softmax", "sigmoid"] | None
    decision: Decision
    threshold: float = 0.5
    fine: tuple[Step, ...] = ()


def ending(steps: Sequence[Step], *, classes: int, moved: bool) -> Ending | None:
    """What these steps amount to, or None; `classes` the network gives, on a grid that was `moved` or not."""
    steps = [step for step in steps if step.name not in TYPES]
    turns = [index for index, step in enumerate(steps) if step.name == "Invert"]
    if len(turns) > 1:
        return None
    if not turns:
        if moved and any(step.name == "AsDiscrete" for step in steps):
            return _of_labels(steps, (), nearest=True)
        first = next((index for index, step in enumerate(steps) if step.name == "AsDiscrete"), len(steps))
        return _of_values(steps[:first], steps[first:], classes)
    before, after = steps[: turns[0]], steps[turns[0] + 1 :]
    if any(step.name == "AsDiscrete" for step in before):
        return _of_labels(before, after, nearest=bool(argument(steps[turns[0]], "nearest_interp", True)))
    return _of_values(before, after, classes)


def _of_labels(before: Sequence[Step], after: Sequence[Step], *, nearest: bool) -> Ending | None:
    """Labels on the network's grid."""
    discrete = next(step for step in before if step.name == "AsDiscrete")
    if argument(discrete, "argmax") is not True or argument(discrete, "to_onehot") is not None:
        return None
    decision: Decision = "nearest" if nearest else "linear"
    return Ending(coarse=tuple(before), activation=None, decision=decision, fine=tuple(after))


def _of_values(before: Sequence[Step], after: Sequence[Step], classes: int) -> Ending | None:
    """Values on the network's grid, decided upon on the source's."""
    own = _activation(before[0]) if before else None
    coarse, activation = (before[1:], own) if own and len(before) == 1 else (before, None)
    late = _activation(after[0]) if after and after[0].name == "Activations" else None
    rest = after[1:] if late else after
    if rest and rest[0].name != "AsDiscrete":
        return None
    sigmoid = "sigmoid" in (late, _activation(before[-1]) if before else None)
    decision, threshold = _decision(rest[0], classes) if rest else _default(sigmoid, classes)
    if decision is None or (decision == "threshold" and late == "softmax"):
        return None
    if decision == "threshold" and late == "sigmoid":
        threshold = log(threshold / (1 - threshold)) if 0 < threshold < 1 else threshold
    fine = tuple(rest[1:])
    if fine and rest and argument(rest[0], "to_onehot") is not None:
        return None
    return Ending(coarse=tuple(coarse), activation=activation, decision=decision, threshold=threshold, fine=fine)


def _decision(discrete: Step, classes: int) -> tuple[Decision | None, float]:
    argmax, threshold = argument(discrete, "argmax"), argument(discrete, "threshold")
    if argument(discrete, "rounding") is not None:
        return None, 0.0
    if argmax is True and threshold is None and classes > 1:
        return "argmax", 0.0
    if argmax is not True and isinstance(threshold, int | float) and not isinstance(threshold, bool):
        return "threshold", float(threshold)
    return None, 0.0


def _default(sigmoid: bool, classes: int) -> tuple[Decision, float]:
    """Of a chain that ends with values: the likeliest class, or where classes stand for themselves, each above half."""
    return ("threshold", 0.5) if sigmoid or classes == 1 else ("argmax", 0.0)


def _activation(step: Step) -> Literal["softmax", "sigmoid"] | None:
    if step.name != "Activations" or argument(step, "other") is not None:
        return None
    if argument(step, "softmax") is True:
        return "softmax"
    return "sigmoid" if argument(step, "sigmoid") is True else None


def argument(step: Step, name: str, default: Any = None) -> Any:
    """A step's argument for the network's answer, where one is given for each key."""
    value, keys = step.arguments.get(name, default), step.keys()
    if isinstance(value, list | tuple) and len(value) == len(keys) and PRED in keys:
        return value[keys.index(PRED)]
    return value
