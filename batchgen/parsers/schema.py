"""The parser json_schema:FILE: the JSON in an answer, if a JSON Schema allows it.

The schema decides what an item's answer is, so a recipe holds its text, not the file's name: the
parser's `spec` is `json_schema:{...}`, which `schema_parser` accepts as well. The order of the keys
is kept, since a model that is sent the schema writes the fields in that order.

Nothing is ever fetched: a `$ref` to anywhere outside the schema is refused. Patterns are matched by
`regex`, which gives up at the deadline and lets other threads run; the `re` that jsonschema uses
would stop the whole process for as long as a pattern backtracks.
"""

import copy
import json
import re
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchgen.errors import ConfigError, ParseError
from batchgen.parsers.json_value import parse_fitting_json
from batchgen.parsers.parser import Parser
from batchgen.parsers.problems import MAX_PROBLEMS, listed
from batchgen.text.encoding import utf8_problem
from batchgen.text.json_text import dump_json, strict_decoder

if TYPE_CHECKING:
    from jsonschema import FormatChecker
    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator

PREFIX = "json_schema:"
FORMATS = ("date", "email", "ipv4", "ipv6", "uuid")  # these and date-time are checked
_SHOWN_VALUE_CHARS = 60
_SHOWN_SPEC_CHARS = 80
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_TYPE_NAMES: Mapping[type, str] = {dict: "the object", list: "the list", str: "the text"}


def schema_parser(spec: str, source: str) -> Parser:
    """`source` is a file, or the schema itself as JSON. Raises ConfigError, in one line, when it is
    not a JSON Schema, or one that cannot be used."""
    inline = source.startswith("{")
    name = f"{spec[:_SHOWN_SPEC_CHARS]}..." if inline and len(spec) > _SHOWN_SPEC_CHARS else spec
    try:
        schema = _decode(source if inline else _read(Path(source)))
        text = dump_json(schema)
        validator = _validator(copy.deepcopy(schema))
    except RecursionError:
        raise ConfigError(f"parser {name!r}: nested too deep") from None
    except ValueError as exc:
        raise ConfigError(f"parser {name!r}: {exc}") from None

    def parse(answer: str, _item: Mapping[str, Any], timeout_s: float | None = None) -> Any:
        _deadline.set(None if timeout_s is None else (time.monotonic() + timeout_s, timeout_s))
        return parse_fitting_json(answer, problem_of)

    def problem_of(value: Any) -> str:
        try:
            problems = listed(map(_problem, validator.iter_errors(value)))
        except RecursionError:
            raise ParseError("the JSON in the answer is nested too deep") from None
        return f"the JSON in the answer does not fit the schema: {problems}" if problems else ""

    def sent() -> dict[str, Any]:
        return {name: part for name, part in schema.items() if name != "$schema"}

    return Parser(PREFIX + text, "function", parse, schema=sent)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        where = "" if path.is_absolute() else f" (in {Path.cwd()})"
        raise ValueError(f"no such file{where}") from None
    except IsADirectoryError:
        raise ValueError("is a directory") from None
    except OSError as exc:
        raise ValueError(f"cannot be read: {exc.strerror}") from None
    except UnicodeDecodeError as exc:
        raise ValueError(utf8_problem(exc)) from None


def _decode(text: str) -> dict[str, Any]:
    try:
        schema = strict_decoder.decode(text)
    except json.JSONDecodeError as exc:
        raise ValueError(f"not JSON: {exc}") from None
    if not isinstance(schema, dict):
        raise ValueError("a JSON Schema is an object")
    return schema


def _validator(schema: dict[str, Any]) -> "Validator":
    """The validator of `schema`, which it may change. Raises ValueError."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for
    from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]

    dialect = schema.get("$schema")
    kind: Any = Draft202012Validator
    if dialect is not None:
        unknown: Any = None
        kind = validator_for(schema, unknown) if isinstance(dialect, str) else unknown
    if kind is None:
        raise ValueError(f"$schema: unknown: {dump_json(dialect)[:_SHOWN_VALUE_CHARS]}")
    _check_schema(schema, kind)
    _check_parts(schema, kind)
    validator: Validator = _with_deadline(kind)(
        schema, registry=REGISTRY, format_checker=_formats()
    )
    try:
        validator.is_valid(None)
    except RecursionError:
        raise ValueError("its $refs go round in a circle") from None
    return validator


def _check_schema(schema: Any, kind: Any) -> None:
    from jsonschema.exceptions import SchemaError

    try:
        kind.check_schema(schema, format_checker=_patterns_compile())
    except SchemaError as exc:
        raise ValueError(f"not a valid JSON Schema: {listed([_problem(exc)])}") from None


def _check_parts(schema: dict[str, Any], kind: Any) -> None:
    """Check every part of the schema, and whatever a reference leads to. Raises ValueError for a
    reference that leads outside, and for what would get around `_with_deadline`."""
    from jsonschema_specifications import REGISTRY
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import specification_with

    specification = specification_with(str(kind.META_SCHEMA["$schema"]))
    dialect = schema.pop("$schema", None)  # with it, jsonschema would use a validator of its own
    root = specification.create_resource(schema)
    waiting = [(root, REGISTRY.resolver_with_root(root))]
    seen = set()
    while waiting:
        resource, resolver = waiting.pop()
        part: Any = resource.contents
        if not isinstance(part, dict) or id(part) in seen:
            continue
        seen.add(id(part))
        if part.pop("$schema", dialect) != dialect:
            raise ValueError("$schema: only the whole schema may have one, not a part of it")
        if "unevaluatedProperties" in part and "patternProperties" in dump_json(schema):
            raise ValueError("unevaluatedProperties together with patternProperties: not supported")
        for keyword in _REFERENCES:
            reference = part.get(keyword)
            if not isinstance(reference, str):
                continue
            try:
                found = resolver.lookup(reference)
            except (Unresolvable, ValueError, TypeError):  # TypeError: it leads into a text
                raise ValueError(_leads_nowhere(keyword, reference)) from None
            if reference.partition("#")[0] in REGISTRY:  # a draft's own schema, which is known
                continue
            if id(found.contents) not in seen:  # it need not be where a schema is looked for
                _check_schema(found.contents, kind)
            waiting.append((specification.create_resource(found.contents), found.resolver))
        parts = resource.subresources()
        waiting.extend((inner, resolver.in_subresource(inner)) for inner in parts)


def _leads_nowhere(keyword: str, reference: str) -> str:
    shown = reference[:_SHOWN_VALUE_CHARS]
    if reference.startswith("#"):
        return f"{keyword}: there is no {shown} in it"
    return f"{keyword}: {shown} is outside of the schema; put it under $defs, nothing is fetched"


# --- what replaces jsonschema's own ------------------------------------------------------------

_deadline: ContextVar[tuple[float, float] | None] = ContextVar("deadline", default=None)


def _with_deadline(kind: Any) -> Any:
    from jsonschema import validators

    extend: Any = validators.extend  # it has no types
    return extend(
        kind,
        {
            "pattern": _pattern,
            "patternProperties": _pattern_properties,
            "additionalProperties": _additional_properties,
        },
    )


@lru_cache(maxsize=1000)
def _compiled(pattern: str) -> Any:
    import regex  # type: ignore[import-untyped]

    return regex.compile(pattern)


def _matches(pattern: str, text: str) -> bool:
    deadline = _deadline.get()
    left = None if deadline is None else max(deadline[0] - time.monotonic(), 0.001)
    try:
        return _compiled(pattern).search(text, timeout=left, concurrent=True) is not None
    except TimeoutError:
        assert deadline is not None
        raise ParseError(f"took longer than {deadline[1]:g} s") from None


Problems = Iterator["ValidationError"]


def _pattern(_validator: Any, pattern: str, value: Any, _schema: Any) -> Problems:
    from jsonschema.exceptions import ValidationError

    if isinstance(value, str) and not _matches(pattern, value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Any, value: Any, _schema: Any) -> Problems:
    if not isinstance(value, dict):
        return
    for pattern, schema in patterns.items():
        for name, inner in value.items():
            if _matches(pattern, name):
                yield from validator.descend(inner, schema, path=name, schema_path=pattern)


def _additional_properties(validator: Any, allowed: Any, value: Any, schema: Any) -> Problems:
    from jsonschema.exceptions import ValidationError

    if not isinstance(value, dict):
        return
    patterns = schema.get("patternProperties", {})
    for name, inner in value.items():
        if name in schema.get("properties", {}) or any(_matches(one, name) for one in patterns):
            continue
        if allowed is False:
            yield ValidationError(
                f"{name[:_SHOWN_VALUE_CHARS]!r} is not a property that it may have"
            )
        else:
            yield from validator.descend(inner, allowed, path=name)


def _formats() -> "FormatChecker":
    """Checks the same formats whatever else is installed, unlike jsonschema's own checker."""
    from jsonschema import FormatChecker

    checker = FormatChecker(formats=FORMATS)
    checker.checks("date-time", raises=ValueError)(_is_date_time)
    return checker


def _is_date_time(value: object) -> bool:
    if not isinstance(value, str):
        return True
    return bool(_DATE_TIME.fullmatch(value) and datetime.fromisoformat(value.upper()))


def _patterns_compile() -> "FormatChecker":
    import regex
    from jsonschema import FormatChecker

    def compiles(pattern: object) -> bool:
        return not isinstance(pattern, str) or bool(_compiled(pattern))

    checker = FormatChecker(formats=())
    wrong = (regex.error, RecursionError, OverflowError, ValueError)
    checker.checks("regex", raises=wrong)(compiles)
    return checker


def _problem(error: Any) -> tuple[list[str | int], str]:
    """Where a value is wrong, and how. If it fits no part of an `anyOf`: what is wrong with the
    part that fits best or, if several fit equally well, with each."""
    from jsonschema.exceptions import relevance

    while error.context:
        best, *others = sorted(error.context, key=relevance)[:2]
        if others and relevance(best) == relevance(others[0]):
            break
        error = best
    message = _message(error)
    if error.context:
        message += f" ({'; '.join(map(_message, error.context[:MAX_PROBLEMS]))})"
    return list(error.absolute_path), message


def _message(error: Any) -> str:
    """The validator's message, without the value that it begins with when that is long."""
    whole, message = repr(error.instance), str(error.message)
    if len(whole) > _SHOWN_VALUE_CHARS and message.startswith(whole):
        return _TYPE_NAMES.get(type(error.instance), "it") + message[len(whole) :]
    return message
