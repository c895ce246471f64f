"""The `$` expressions of a bundle's config, checked and computed without ever calling `eval`.

An expression is parsed and walked; what is not in the tables below has no meaning here. So `$@bundle_root + '/eval'`
and `$[1.5, 1.5, 1.5] if @highres else [3, 3, 3]` are computed, and `$__import__('os')` is a reason to refuse.
"""

import ast
import operator
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines import allowed
from pipelines.trust import Untrusted

REFERENCE = re.compile(r"@(\w*(?:(?:::|#)\w+)*)")
PLACE = "_reference_{}_"
MAX_ITEMS = 100_000
MAX_BITS = 256
MAX_LENGTH = 10_000
REMEDY = "Write it as plain values, or have the bundle signed for isolation"

OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda one, many: one in many,
    ast.NotIn: lambda one, many: one not in many,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    f.__name__: f for f in (abs, bool, float, int, len, list, max, min, range, round, set, sorted, str, sum, tuple)
}
CONSTANTS = {
    f"monai.utils.{module}CommonKeys.{key}": key.lower()
    for key in ("IMAGE", "LABEL", "PRED", "LOSS", "METADATA")
    for module in ("", "enums.")
}
DTYPE = re.compile(
    r"(torch|np|numpy)\.(float16|float32|float64|bfloat16|half|float|double|uint8|int8|int16|int32|int64|int|long|bool)"
)
DEVICE_CALLS = ("torch.device", "torch.cuda.is_available")
PURE_CALLS: dict[str, Callable[..., Any]] = {"os.path.join": posixpath.join}
METHODS = {
    "to": "state_dict",
    "eval": "state_dict",
    "get": "keys",
    "keys": "keys",
    "values": "keys",
    "items": "keys",
    "set_target_keys": "anchor_generator",
    "set_box_selector_parameters": "anchor_generator",
    "set_sliding_window_inferer": "anchor_generator",
    "set_box_coder_weights": "anchor_generator",
}
"""Methods that may be called on a referenced object, each with an attribute that shows its owner to be fit for it."""


KNOWN = (
    ast.Constant,
    ast.List,
    ast.Tuple,
    ast.Dict,
    ast.Set,
    ast.BinOp,
    ast.UnaryOp,
    ast.BoolOp,
    ast.Compare,
    ast.IfExp,
    ast.Subscript,
    ast.Slice,
    ast.expr_context,
    ast.boolop,
    *OPERATORS,
)


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression: its tree, and the config item behind each placeholder in it."""

    tree: ast.expr
    references: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an expression may ask for: a referenced item, the device we chose, and the call of an allowed name."""

    reference: Callable[[str], Any]
    device: str
    call: Callable[[allowed.Allowed, tuple[Any, ...], dict[str, Any]], Any]


def parse(text: str) -> Expression | str:
    """The expression behind `$`, or the reason why it is none."""
    references: dict[str, str] = {}

    def placed(match: re.Match[str]) -> str:
        references[PLACE.format(len(references))] = match[1].replace("#", "::")
        return PLACE.format(len(references) - 1)

    if len(text) > MAX_LENGTH:
        return "it is too long"
    try:
        tree = ast.parse(REFERENCE.sub(placed, text[1:].strip()), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "imports are not run" if "import" in text else "it is not an expression"
    return Expression(tree, references)


def faults(expression: Expression) -> Iterator[str]:
    """Everything in an expression that has no meaning here, in words."""
    todo: list[ast.AST] = [expression.tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Call):
            if reason := _wrong_call(node, expression):
                yield reason
            if isinstance(node.func, ast.Attribute) and not _dotted(node.func):
                todo.append(node.func.value)
            todo += [*node.args, *(keyword.value for keyword in node.keywords)]
        elif isinstance(node, ast.Attribute):
            name = _dotted(node)
            if name not in CONSTANTS and not DTYPE.fullmatch(name):
                yield f"{name or f'.{node.attr}'} is not on the allow-list"
        elif isinstance(node, ast.Name):
            if node.id not in expression.references:
                yield f"{node.id} is not on the allow-list"
        elif not isinstance(node, KNOWN):
            yield f"{type(node).__name__} is not computed"
        else:
            todo += ast.iter_child_nodes(node)


def _wrong_call(node: ast.Call, expression: Expression) -> str | None:
    if any(isinstance(argument, ast.Starred) for argument in node.args) or any(k.arg is None for k in node.keywords):
        return "starred arguments are not computed"
    name = _dotted(node.func)
    if isinstance(node.func, ast.Attribute) and (not name or name.split(".")[0] in expression.references):
        return None if node.func.attr in METHODS else f"the method {node.func.attr}() is not on the allow-list"
    if name in FUNCTIONS or name in DEVICE_CALLS or name in PURE_CALLS:
        return None
    if not name.startswith("monai."):
        return f"{name or 'a computed function'}() is not on the allow-list"
    found = allowed.find(name)
    return found if isinstance(found, str) else None


def compute(expression: Expression, around: Surroundings) -> Any:
    """The value of an expression.

    Raises:  Untrusted
    """
    reasons = list(faults(expression))
    if reasons:
        raise Untrusted(f"an expression is refused: {reasons[0]}", remedy=REMEDY)
    return _Computation(expression, around).of(expression.tree)


@dataclass(frozen=True, slots=True)
class _Computation:
    expression: Expression
    around: Surroundings

    def of(self, node: ast.AST | None) -> Any:
        match node:
            case None:
                return None
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return self.around.reference(self.expression.references[name])
            case ast.Attribute():
                return self._constant(_dotted(node))
            case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
                kind = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)]
                return kind([self.of(part) for part in parts])
            case ast.Dict(keys=keys, values=values):
                return {self.of(key): self.of(value) for key, value in zip(keys, values, strict=True)}
            case ast.UnaryOp(op=op, operand=operand):
                return OPERATORS[type(op)](self.of(operand))
            case ast.BinOp(left=left, op=op, right=right):
                return _bounded(op, self.of(left), self.of(right))
            case ast.BoolOp(op=op, values=values):
                return self._either(values, until=isinstance(op, ast.Or))
            case ast.Compare(left=left, ops=ops, comparators=others):
                terms = [self.of(left), *(self.of(other) for other in others)]
                return all(OPERATORS[type(op)](terms[i], terms[i + 1]) for i, op in enumerate(ops))
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self.of(body) if self.of(test) else self.of(orelse)
            case ast.Slice(lower=lower, upper=upper, step=step):
                return slice(self.of(lower), self.of(upper), self.of(step))
            case ast.Subscript(value=value, slice=key):
                return self.of(value)[self.of(key)]
            case ast.Call():
                return self._call(node)
        raise Untrusted(f"{type(node).__name__} is not computed", remedy=REMEDY)

    def _either(self, values: list[ast.expr], *, until: bool) -> Any:
        value: Any = None
        for part in values:
            value = self.of(part)
            if bool(value) is until:
                return value
        return value

    def _constant(self, name: str) -> Any:
        if name in CONSTANTS:
            return CONSTANTS[name]
        import numpy
        import torch

        library, kind = name.split(".")
        return getattr(torch if library == "torch" else numpy, kind)

    def _call(self, node: ast.Call) -> Any:
        name = _dotted(node.func)
        arguments = tuple(self.of(argument) for argument in node.args)
        keywords = {str(keyword.arg): self.of(keyword.value) for keyword in node.keywords}
        if isinstance(node.func, ast.Attribute) and (not name or name.split(".")[0] in self.expression.references):
            return self._method(self.of(node.func.value), node.func.attr, arguments, keywords)
        if name == "range" and len(range(*arguments)) > MAX_ITEMS:
            raise Untrusted("an expression makes too long a list", remedy=REMEDY)
        if name in FUNCTIONS:
            return FUNCTIONS[name](*arguments, **keywords)
        if name in PURE_CALLS:
            return PURE_CALLS[name](*arguments)
        if name in DEVICE_CALLS:
            import torch

            return torch.device(self.around.device) if name == "torch.device" else self.around.device != "cpu"
        found = allowed.find(name)
        if isinstance(found, str):
            raise Untrusted(found, remedy=REMEDY)
        return self.around.call(found, arguments, keywords)

    def _method(self, owner: Any, method: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if not hasattr(owner, METHODS[method]):
            raise Untrusted(f"the method {method}() is called on a {type(owner).__name__}", remedy=REMEDY)
        return getattr(owner, method)(*arguments, **keywords)


def _bounded(op: ast.operator, left: Any, right: Any) -> Any:
    """A sum, product or quotient; nothing that would fill the memory, and no text formatting."""
    numbers = isinstance(left, int | float) and isinstance(right, int | float)
    if isinstance(op, ast.Mod) and not numbers:
        raise Untrusted("an expression formats text", remedy=REMEDY)
    if isinstance(op, ast.Mult) and not numbers:
        many, times = (left, right) if isinstance(right, int) else (right, left)
        if not isinstance(times, int) or len(many) * times > MAX_ITEMS:
            raise Untrusted("an expression makes too long a list", remedy=REMEDY)
    value = OPERATORS[type(op)](left, right)
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise Untrusted("an expression makes too large a number", remedy=REMEDY)
    return value


def _dotted(node: ast.AST) -> str:
    """The dotted name that this node spells, or nothing when it is not a plain one."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return ""
