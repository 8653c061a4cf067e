"""The user's own functions as steps: code that ends the rows of a step, without a call."""

import inspect
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from batchgen.errors import ConfigError, Remedy
from batchgen.items import ParserVersion
from batchgen.parsers.fingerprint import fingerprint
from batchgen.parsers.function import caller, is_async
from batchgen.parsers.specs import is_script_parser
from batchgen.userfunctions import data_files_of, load_function


class StepFunction(Struct, frozen=True):
    """`call(item, values)` returns what JSON can hold, or an awaitable, or raises anything. `item`
    is that of the pool, and `values` are what the steps before it are called by.

    `spec` names it, and the other fields are those of a parser that is a function.
    """

    spec: str
    call: Callable[[Mapping[str, Any], Mapping[str, Any]], Any]
    is_async: bool = False
    fingerprint: str = ""
    unknown: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def version(self) -> ParserVersion:
        """How results name it."""
        return ParserVersion(self.spec, self.fingerprint, self.sources)


def load_step_function(spec: str, folder: Path | None = None) -> StepFunction:
    """The function that `spec` names; a module is looked for in `folder`, that of the config, and
    in the current one. Raises ConfigError, in one line, when there is none."""
    if is_script_parser(spec):
        raise ConfigError(
            f"function {spec!r}: only the Python script that enqueued these items has it.",
            Remedy.GIVE_FUNCTION,
        )
    try:
        function = load_function(spec, folder=folder)
    except ConfigError as exc:
        raise ConfigError(f"function {spec!r}: {exc}") from exc
    return _step_function(function, spec, data_files_of(function, spec))


def step_function_from_callable(function: Callable[..., Any]) -> StepFunction:
    """For a function object. Its spec names the function, but cannot load it again."""
    named = function if hasattr(function, "__qualname__") else type(function)
    module = getattr(named, "__module__", None) or "builtins"  # a method in C has none
    return _step_function(function, f"python:{module}.{named.__qualname__}")


def _step_function(
    function: Callable[..., Any], spec: str, data_files: Collection[str] = ()
) -> StepFunction:
    if inspect.isclass(function):
        raise ConfigError(f"function {spec!r}: is a class; give a function")
    call = caller(function, ("item", "values"), f"function {spec!r}")
    known = fingerprint(function, data_files=data_files)
    return StepFunction(
        spec, call, is_async(function), known.digest, known.unknown, known.sources
    )  # fmt: skip
