"""The user's own functions as parsers, and the user's own models."""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from batchgen.errors import ConfigError
from batchgen.parsers.fingerprint import fingerprint
from batchgen.parsers.model import is_model, model_parser
from batchgen.parsers.parser import Parser


def parser_from_callable(function: Callable[..., Any]) -> Parser:
    """A parser for a function object. Its spec names the function, but cannot load it again."""
    named = function if hasattr(function, "__qualname__") else type(function)
    module = getattr(named, "__module__", None) or "builtins"  # a method in C has none
    return function_parser(function, f"python:{module}.{named.__qualname__}")


def function_parser(
    function: Callable[..., Any], spec: str, data_files: Collection[str] = ()
) -> Parser:
    """A parser for a function or a model; `data_files` are what its constants may be made of."""
    if is_model(function):
        return model_parser(function, spec, data_files)
    if inspect.isclass(function):
        raise ConfigError(f"parser {spec!r}: a class must be a pydantic model; or give a function")
    call = caller(function, ("response", "item"), f"parser {spec!r}")

    def parse(text: str, item: Mapping[str, Any], _timeout_s: float | None = None) -> Any:
        return call(text, item)

    known = fingerprint(function, data_files=data_files)
    return Parser(
        spec, "function", parse, is_async=is_async(function), fingerprint=known.digest,
        unknown=known.unknown, sources=known.sources,
    )  # fmt: skip


def is_async(function: Callable[..., Any]) -> bool:
    """Whether a call of it returns an awaitable at once."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object with `async def __call__`
    )


def caller(
    function: Callable[..., Any], names: tuple[str, str], what: str
) -> Callable[[Any, Any], Any]:
    """`function` as a function of two arguments, which are called by these `names`. Its second
    parameter gets the second one, unless it has a default and another name than that: then it is an
    option of the user's own, such as `strict=True`. Raises ConfigError, which begins with `what`,
    for one that takes neither both nor the first alone."""
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # some functions written in C have none
        return lambda first, _second: function(first)
    check = _Check(signature, names, what)
    in_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = list(signature.parameters.values())
    second = [param for param in parameters if param.kind in in_place][1:2]
    name = names[1]
    if second and (second[0].default is inspect.Parameter.empty or second[0].name == name):
        return check.takes(lambda one, two: function(one, two), (0, 1), {})
    if any(param.kind is param.KEYWORD_ONLY and param.name == name for param in parameters):
        return check.takes(lambda one, two: function(one, **{name: two}), (0,), {name: 1})
    return check.takes(lambda one, _two: function(one), (0,), {})


class _Check(NamedTuple):
    signature: inspect.Signature
    names: tuple[str, str]
    what: str

    def takes(
        self, call: Callable[[Any, Any], Any], args: tuple[int, ...], kwargs: dict[str, int]
    ) -> Callable[[Any, Any], Any]:
        """The call, if the function can be called so."""
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as exc:
            first, second = self.names
            raise ConfigError(
                f"{self.what} must take ({first}) or ({first}, {second}), "
                f"not {self.signature}: {exc}"
            ) from exc
        return call
