"""The user's own functions as parsers, and the user's own models."""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

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
    call = _caller(function, spec)
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object with `async def __call__`
    )

    def parse(text: str, item: Mapping[str, Any], _timeout_s: float | None = None) -> Any:
        return call(text, item)

    known = fingerprint(function, data_files=data_files)
    return Parser(
        spec, "function", parse, is_async=is_async, fingerprint=known.digest,
        unknown=known.unknown, sources=known.sources,
    )  # fmt: skip


def _caller(function: Callable[..., Any], spec: str) -> Callable[[str, Mapping[str, Any]], Any]:
    """`function` as a function of (response, item). Its second parameter gets the item, unless it
    has a default and another name than `item`: then it is an option of the user's own, such as
    `strict=True`."""
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # some functions written in C have none
        return lambda text, _item: function(text)
    in_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = list(signature.parameters.values())
    second = [param for param in parameters if param.kind in in_place][1:2]
    if second and (second[0].default is inspect.Parameter.empty or second[0].name == "item"):
        return _checked_call(signature, spec, lambda text, item: function(text, item), (0, 1), {})
    if any(param.kind is param.KEYWORD_ONLY and param.name == "item" for param in parameters):
        return _checked_call(
            signature, spec, lambda text, item: function(text, item=item), (0,), {"item": 1}
        )
    return _checked_call(signature, spec, lambda text, _item: function(text), (0,), {})


def _checked_call(
    signature: inspect.Signature,
    spec: str,
    call: Callable[[str, Mapping[str, Any]], Any],
    args: tuple[int, ...],
    kwargs: dict[str, int],
) -> Callable[[str, Mapping[str, Any]], Any]:
    try:
        signature.bind(*args, **kwargs)
    except TypeError as exc:
        raise ConfigError(
            f"parser {spec!r} must take (response) or (response, item), not {signature}: {exc}"
        ) from exc
    return call
