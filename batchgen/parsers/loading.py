"""From a parser's name to the parser."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from batchgen.errors import ConfigError, Remedy
from batchgen.parsers.function import function_parser
from batchgen.parsers.json_value import parse_json
from batchgen.parsers.parser import Parser
from batchgen.parsers.patterns import regex_parser, tag_parser
from batchgen.parsers.schema import schema_parser
from batchgen.text.json_text import is_storable
from batchgen.userfunctions import data_files_of, is_function_spec, load_function


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
