"""Items as Python objects, from a list or from a function of the user's."""

import inspect
import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from batchgen.errors import UsageError
from batchgen.pool.plain import plain_text
from batchgen.pool.shapes import BadLine, Entries, entry_of, shown_kind
from batchgen.pool.strict_json import read_json
from batchgen.userfunctions import describe, load_function


def read_objects(objects: Iterable[Any], name: str = "data_pool") -> Entries:
    """Items from Python objects, whatever JSON can hold of them. Each is copied through JSON, as it
    will be stored, so that an object that is changed later changes no item."""
    for index, obj in enumerate(objects):
        where = f"{name}[{index}]"
        try:
            text = plain_text(obj)
        except ValueError as exc:
            yield BadLine(where, f"cannot be stored as JSON: {exc}", reprlib.repr(obj))
        else:
            yield entry_of(read_json(text), where, text, is_json=True)


def read_function(source: str) -> Entries:
    function = load_function(source)
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise UsageError(f"{source} is async; a data pool must be a plain function or generator")
    return _called(function, source)


def _called(function: Callable[[], Any], source: str) -> Entries:
    count = 0
    try:
        objects = function()
        if isinstance(objects, str | bytes | Mapping) or not isinstance(objects, Iterable):
            problem = f"returned {shown_kind(objects)}; it must return or yield items"
            yield BadLine(source, problem, fatal=True)
            return
        for entry in read_objects(objects, source):
            yield entry
            count += 1
    except (Exception, SystemExit) as exc:  # the user's code may raise anything
        yield BadLine(f"{source}[{count}]", f"the function raised {describe(exc)}", fatal=True)
