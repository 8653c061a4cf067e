"""Jinja2 for templates that somebody else wrote: none gets at Python, or takes all memory or time.

Jinja2's own sandbox closes the way to Python's insides and limits `range`. But a few characters
still say "a text of ten gigabytes" or "ten billion turns of a loop". So each rendering has a budget
of steps (turns of loops, calls), and what is printed or made by an operator has a largest size.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any

from jinja2 import StrictUndefined, nodes
from jinja2.exceptions import SecurityError
from jinja2.filters import do_format
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import generate_lorem_ipsum

from batchgen.items import dump_json

MAX_STEPS = 1_000_000
MAX_CHARS = 64 << 20  # as for an item: no server takes a larger request
_MAX_BITS = 1_000_000
_WIDTH = re.compile(r"%[^a-zA-Z%]*(?:\d{7,}|\*)")
_FORMAT_WIDTH = re.compile(r":[^{}]*\d{7,}")
# Filters that pad or repeat by a number.
_PADDING = ("batch", "center", "indent", "slice", "tojson", "wordwrap")


class Sandbox(ImmutableSandboxedEnvironment):
    """For one template, which one thread renders. `begin` before each rendering."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            undefined=StrictUndefined,
            keep_trailing_newline=True,
            autoescape=False,
            finalize=self._printed,
        )
        self.begin()
        self.filters |= {name: _bounded(self.filters[name]) for name in _PADDING}
        self.filters |= {"format": _format}
        self.filters |= {"batchgen_turns": self._turns, "batchgen_joined": self._joined}

    def begin(self) -> None:
        self._steps_left = MAX_STEPS
        self._chars_left = MAX_CHARS

    def compiled(self, tree: nodes.Template) -> Any:
        """The template that `tree` is, with its loops and `~` under the budget."""
        for loop in list(tree.find_all(nodes.For)):
            loop.iter = _filtered(loop.iter, "batchgen_turns")
        return self.from_string(_without_concat(tree, self))

    def take_chars(self, count: int) -> None:
        self._chars_left -= count
        if self._chars_left < 0:
            raise _too_large("what it prints")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        _refuse_huge(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        __self._step()
        if isinstance(getattr(__obj, "__self__", None), str) or __obj is generate_lorem_ipsum:
            _refuse_huge_numbers(args, kwargs)
        return super().call(__context, __obj, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is not None and _FORMAT_WIDTH.search(value.__self__):
            raise _too_large("the result of format")
        return wrapped

    def _step(self) -> None:
        self._steps_left -= 1
        if self._steps_left < 0:
            raise SecurityError(f"more than {MAX_STEPS} turns of loops and calls")

    def _turns(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self._step()
            yield value

    def _joined(self, values: list[Any]) -> str:
        texts = [str(value) for value in values]
        if sum(map(len, texts)) > MAX_CHARS:
            raise _too_large("the result of ~")
        return "".join(texts)

    def _printed(self, value: Any) -> Any:
        """Text as it is, anything else as JSON."""
        if isinstance(value, bool | int | float | dict | list | tuple | None):
            value = dump_json(value)
        if isinstance(value, str):
            self.take_chars(len(value))
        return value


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _without_concat(tree: nodes.Template, environment: Sandbox) -> nodes.Template:
    from jinja2.visitor import NodeTransformer

    class Transformer(NodeTransformer):
        def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:  # noqa: N802
            self.generic_visit(node)
            values = nodes.List(node.nodes, lineno=node.lineno)
            return _filtered(values, "batchgen_joined")

    changed: nodes.Template = Transformer().visit(tree)
    changed.set_environment(environment)
    return changed


def _refuse_huge(operator: str, left: Any, right: Any) -> None:
    if operator == "**":
        huge = isinstance(left, int) and isinstance(right, int) and (
            left.bit_length() * right > _MAX_BITS
        )  # fmt: skip
    elif operator == "*":
        huge = _length(left) * _number(right) > MAX_CHARS or (
            _length(right) * _number(left) > MAX_CHARS
        )
    elif operator == "+":
        huge = _length(left) + _length(right) > MAX_CHARS
    else:
        huge = isinstance(left, str) and _WIDTH.search(left) is not None
    if huge:
        raise _too_large(f"the result of {operator}")


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple) else 0


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    value_at = 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        _refuse_huge_numbers(args[value_at + 1 :], kwargs)
        return function(*args, **kwargs)

    return call


def _format(text: str, *args: Any, **kwargs: Any) -> str:
    _refuse_huge("%", str(text), args)
    formatted: str = do_format(text, *args, **kwargs)
    return formatted


def _refuse_huge_numbers(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    for value in (*args, *kwargs.values()):
        if isinstance(value, int) and value > _MAX_BITS:
            raise SecurityError(f"{value} is too large a number here")


def _too_large(what: str) -> SecurityError:
    return SecurityError(f"{what} would be larger than {MAX_CHARS >> 20} MB")
