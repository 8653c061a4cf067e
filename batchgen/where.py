"""`--where`: a condition on a result, in a small part of Python's syntax. Nothing is executed.

    parsed.label == "positive" and parsed.score >= 0.8
    input.lang in ["de", "fr"] or metadata["source"] != "web"
    "sorry" not in response

The names are `id`, `input`, `metadata`, `response` and `parsed`, as in the export, or others that
the caller knows the values of. A value that is missing is null. The comparisons <, <=, > and >=
hold only between two numbers or two texts, and `in` searches a text, a list, or the names of an
object; anything else is false, never an error.
"""

import ast
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from keyword import iskeyword
from math import isfinite
from typing import Any

from batchgen.errors import UsageError

NAMES = ("id", "input", "metadata", "response", "parsed")
_MAX_CHARS = 10_000
_OPERATORS = "==, !=, <, <=, >, >=, in, and, or, not"
_CONSTANTS = {"null": None, "true": True, "false": False}

_Values = Mapping[str, Any]
_Evaluate = Callable[[_Values], Any]


class _Expression:
    """A compiled text, in which these names may be. Raises UsageError, with the place and after the
    `label`, for a text that is none."""

    _hint = f"there are {_OPERATORS}"

    def __init__(self, text: str, names: Collection[str], label: str) -> None:
        self.text = text.strip()
        self._known, self._label = names, label
        self._names: set[str] = set()
        self._looked_for: dict[str, bool] = {}  # paths, and whether something was there
        self._paths = set[tuple[str | int, ...]]()
        if not self.text:
            raise self._problem("is empty")
        if len(self.text) > _MAX_CHARS:
            raise self._problem(f"longer than {_MAX_CHARS:,} characters")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the parser warns of "\d", on stderr
                tree = ast.parse(self.text, mode="eval")
            self._evaluate = self._compiled(tree.body)
        except SyntaxError as exc:
            column = exc.offset or len(self.text) + 1
            problem = f"column {column}: {exc.msg}, in: {self.text} ({self._hint})"
            raise self._problem(problem) from None
        except (ValueError, RecursionError, MemoryError) as exc:
            raise self._problem(f"cannot be read ({exc or 'nested too deep'})") from None

    @property
    def names(self) -> frozenset[str]:
        """Those that are in it."""
        return frozenset(self._names)

    @property
    def paths(self) -> frozenset[tuple[str | int, ...]]:
        """Those that are in it: each a name, and what is looked for in its value."""
        return frozenset(self._paths)

    @property
    def absent(self) -> tuple[str, ...]:
        """The paths that were looked for, and were there in nothing that it was asked of."""
        return tuple(path for path, found in self._looked_for.items() if not found)

    def _value(self, value_of: Callable[[str], Any]) -> Any:
        return self._evaluate({name: value_of(name) for name in self._names})

    def _compiled(self, node: ast.expr) -> _Evaluate:
        match node:
            case ast.BoolOp(op=op, values=values):
                return _joined([self._compiled(value) for value in values], type(op))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                inner = self._compiled(operand)
                return lambda row: not inner(row)
            case ast.Compare(left=left, ops=ops, comparators=rest):
                return self._comparison(node, [left, *rest], ops)
            case ast.Name(id=name) if name in _CONSTANTS:
                constant = _CONSTANTS[name]
                return lambda _: constant
            case ast.Name(id=name):
                return self._field(node, name)
            case ast.Attribute(value=value, attr=name):
                return self._noting(node, _item_of(self._compiled(value), name))
            case ast.Subscript(value=value, slice=key):
                return self._noting(node, _item_of(self._compiled(value), self._key(key)))
            case ast.List(elts=elements) | ast.Tuple(elts=elements):
                parts = [self._compiled(element) for element in elements]
                return lambda row: [part(row) for part in parts]
            case _:
                literal = self._literal(node)
                return lambda _: literal

    def _field(self, node: ast.expr, name: str) -> _Evaluate:
        if name not in self._known:
            known = ", ".join(self._known)
            raise self._refused(node, f"there is no {name}; there is {known} (a text needs quotes)")
        self._names.add(name)
        return lambda row: row[name]

    def _noting(self, node: ast.expr, item: _Evaluate) -> _Evaluate:
        path, looked_for = ast.get_source_segment(self.text, node) or "", self._looked_for
        self._paths.add(self._keys(node))

        def noting(row: _Values) -> Any:
            value = item(row)
            if not looked_for.get(path):
                looked_for[path] = value is not None
            return value

        return noting

    def _keys(self, node: ast.expr) -> tuple[str | int, ...]:
        match node:
            case ast.Attribute(value=value, attr=name):
                return (*self._keys(value), name)
            case ast.Subscript(value=value, slice=key):
                return (*self._keys(value), self._key(key))
        return (node.id,) if isinstance(node, ast.Name) else ("",)

    def _comparison(self, node: ast.expr, sides: list[ast.expr], ops: list[ast.cmpop]) -> _Evaluate:
        tests = []
        for op in ops:
            if type(op) not in _COMPARISONS:
                raise self._refused(node, "`is` is not known; use == or !=")
            tests.append(_COMPARISONS[type(op)])
        parts = [self._compiled(side) for side in sides]

        def compare(row: _Values) -> bool:
            values = [part(row) for part in parts]
            pairs = zip(tests, values, values[1:], strict=False)
            return all(test(left, right) for test, left, right in pairs)

        return compare

    def _key(self, node: ast.expr) -> str | int:
        key = self._literal(node)
        if isinstance(key, bool) or not isinstance(key, str | int):
            raise self._refused(node, "what is in [ ] must be a text or a whole number")
        return key

    def _literal(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=value) if value is None or isinstance(value, str | int | float):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return -number
            case ast.Call():
                raise self._refused(node, "nothing can be called here")
        raise self._refused(node, f"not known here; there are {_OPERATORS}")

    def _refused(self, node: ast.expr, problem: str) -> UsageError:
        line = re.split(r"\r\n?|\n", self.text)[node.lineno - 1]
        column = len(line.encode()[: node.col_offset].decode()) + 1
        part = ast.get_source_segment(self.text, node)
        return self._problem(f"column {column}: `{part}`: {problem}")

    def _problem(self, problem: str) -> UsageError:
        return UsageError(f"{self._label}{problem}")


class Where(_Expression):
    """A compiled condition; see `_Expression`."""

    def __init__(
        self, text: str, names: Collection[str] = NAMES, *, label: str = "where: "
    ) -> None:
        super().__init__(text, names, label)

    def holds(self, value_of: Callable[[str], Any]) -> bool:
        """Whether the condition holds. `value_of` gives the value of a name; it is called only for
        the names in the condition, as a value may have to be parsed."""
        return bool(self._value(value_of))


class Path(_Expression):
    """A compiled path to one value, and nothing else: `parsed[0]`, `critique.faults`. Raises as
    `Where` does."""

    _hint = "write a name, and what is in it: name, name.field, name[0]"

    def __init__(self, text: str, names: Collection[str], *, label: str = "") -> None:
        super().__init__(text, names, label)

    def value(self, value_of: Callable[[str], Any]) -> Any:
        """What is there; None where nothing is. `value_of` gives the value of a name."""
        return self._value(value_of)

    def _compiled(self, node: ast.expr) -> _Evaluate:
        match node:
            case ast.Name(id=name) if name not in _CONSTANTS:
                return self._field(node, name)
            case ast.Attribute() | ast.Subscript():
                return super()._compiled(node)
        raise self._refused(node, f"is no path; {self._hint}")


def path_text(name: str, keys: Iterable[str]) -> str:
    """How a condition names what is in the value of a name: `parsed.label`, `parsed["a b"]`."""
    return name + "".join(f".{key}" if _is_plain(key) else f"[{_quoted(key)}]" for key in keys)


def literal_text(value: Any) -> str | None:
    """How a condition has a value of JSON; None: it cannot have it, as an object."""
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case str():
            return _quoted(value)
        case int():
            return repr(value)
        case float():
            return repr(value) if isfinite(value) else None
        case list():
            parts = [literal_text(one) for one in value]
            known = [one for one in parts if one is not None]
            return f"[{', '.join(known)}]" if len(known) == len(parts) else None
    return None


def _is_plain(key: str) -> bool:
    """Python takes other letters for each other in names, as the ligature of fi for f and i."""
    return key.isascii() and key.isidentifier() and not iskeyword(key)


def _quoted(text: str) -> str:
    """What cannot be seen is named by its number."""
    if not text.isprintable():
        return repr(text)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _joined(parts: list[_Evaluate], op: type[ast.boolop]) -> _Evaluate:
    if op is ast.And:
        return lambda row: all(part(row) for part in parts)
    return lambda row: any(part(row) for part in parts)


def _item_of(container: _Evaluate, key: str | int) -> _Evaluate:
    def item(row: _Values) -> Any:
        value = container(row)
        if isinstance(value, dict):
            return value.get(key)
        if isinstance(value, list) and isinstance(key, int) and -len(value) <= key < len(value):
            return value[key]
        return None

    return item


def _equal(left: Any, right: Any) -> bool:
    """Equality as in JSON, where true is not 1."""
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def _ordered(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare(left: Any, right: Any) -> bool:
        if isinstance(left, bool) or isinstance(right, bool):
            return False
        for kind in (str, (int, float)):
            if isinstance(left, kind) and isinstance(right, kind):
                return test(left, right)
        return False

    return compare


def _within(left: Any, right: Any) -> bool:
    if isinstance(right, str | dict):
        return isinstance(left, str) and left in right
    return isinstance(right, list) and any(_equal(left, one) for one in right)


_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: _equal,
    ast.NotEq: lambda left, right: not _equal(left, right),
    ast.Lt: _ordered(lambda left, right: bool(left < right)),
    ast.LtE: _ordered(lambda left, right: bool(left <= right)),
    ast.Gt: _ordered(lambda left, right: bool(left > right)),
    ast.GtE: _ordered(lambda left, right: bool(left >= right)),
    ast.In: _within,
    ast.NotIn: lambda left, right: not _within(left, right),
}
