"""Parsers: they turn the text of an answer into a value.

This is the door. Behind it:

    parser                 the type that all parsers have
    patterns, json_value   the built-in parsers
    thoughts               what they leave out: what a model thought before its answer
    json_search            where in a text JSON is
    schema                 JSON that a JSON Schema allows
    function, model        the user's own functions and pydantic models
    fingerprint            what a function does, as a hash: another one is another parser
    problems               how an error names a place in a value
    runner                 runs parsers; exits keeps the exit code when one ends the process
    response_format        asks the server for what a parser's schema allows

A parser's `kind` says what it can do to the process, and so when it may run:

    inline     built in, and linear in the text: may run anywhere, before the answer is durable too
    regex      the user's pattern, which may backtrack for ever: it has a time limit of its own
    function   the user's code, a model or a schema: it may raise, hang or crash the process, so it
               runs only after the raw answer is durable

`ParserRunner.run` runs a parser of any kind. Whatever goes wrong is a ParseError, which costs the
item and nothing else.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from batchgen.errors import ConfigError, Remedy
from batchgen.parsers.fingerprint import file_digest
from batchgen.parsers.function import function_parser, parser_from_callable
from batchgen.parsers.json_value import parse_json
from batchgen.parsers.parser import Parser, to_json
from batchgen.parsers.patterns import regex_parser, tag_parser
from batchgen.parsers.response_format import response_format
from batchgen.parsers.runner import ParserRunner
from batchgen.parsers.schema import schema_parser
from batchgen.text.json_text import is_storable
from batchgen.userfunctions import data_files_of, is_function_spec, load_function

__all__ = [
    "Parser", "ParserRunner", "file_digest", "is_function_parser",
    "is_script_parser", "load_parser", "parser_from_callable", "response_format", "shown_spec",
    "to_json",
]  # fmt: skip

_LONGEST_SHOWN = 80


def is_script_parser(spec: str) -> bool:
    """Whether it is a function that only a Python script has."""
    return spec.startswith("python:")


def is_function_parser(spec: str) -> bool:
    """Whether the user's code is behind it, which may change while the spec stays."""
    prefix, colon, _ = spec.partition(":")
    return spec not in ("raw", "json") and not (colon and prefix in _FACTORIES)


def shown_spec(spec: str) -> str:
    """For messages: short, and a path as it is seen from the current directory."""
    source, colon, name = (spec, "", "") if spec.endswith(".py") else spec.rpartition(":")
    with suppress(ValueError, OSError):  # it is no path, or not below it
        if Path(source).is_absolute():
            spec = f"{Path(source).relative_to(Path.cwd())}{colon}{name}"
    return spec if len(spec) <= _LONGEST_SHOWN else f"{spec[: _LONGEST_SHOWN - 3]}..."


def load_parser(spec: str, folder: Path | None = None) -> Parser:
    """The parser that `spec` names; a module is looked for in `folder`, that of the config, and in
    the current one. Raises ConfigError, in one line, when there is none."""
    if not is_storable(spec):
        raise ConfigError(f"parser {spec!r}: must be valid Unicode")
    prefix, colon, rest = spec.partition(":")
    if spec == "raw":
        return Parser(spec, "inline", _parse_raw, needs_whole=False)
    if spec == "json":
        return Parser(spec, "inline", parse_json)
    if colon and prefix in _FACTORIES:
        return _FACTORIES[prefix](spec, rest)
    if is_function_spec(spec):
        try:
            function = load_function(spec, "parse_response", folder)
        except ConfigError as exc:
            raise ConfigError(f"parser {spec!r}: {exc}") from exc
        return function_parser(function, spec, data_files_of(function, spec))
    raise ConfigError(
        f"unknown parser {spec!r}; there are raw, tag:NAME, regex:PATTERN, json, "
        "json_schema:FILE, module:function and path/to/file.py:function"
    )


def _parse_raw(text: str, _item: Mapping[str, Any], _timeout_s: float | None = None) -> Any:
    return text


def _refuse_python(spec: str, name: str) -> NoReturn:
    raise ConfigError(
        f"parser {spec!r}: only the Python script that enqueued these items has its {name}.",
        Remedy.GIVE_FUNCTION,
    )


_FACTORIES: dict[str, Callable[[str, str], Parser]] = {
    "tag": tag_parser,
    "regex": regex_parser,
    "json_schema": schema_parser,
    "python": _refuse_python,
}
