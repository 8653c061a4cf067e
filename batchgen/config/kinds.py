"""The kinds of values: each has a phrase for people and a check. Pure.

Neither the API key nor a base_url, in which somebody may have hidden one, is ever quoted.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from msgspec import Struct

from batchgen.parameters import ENDPOINT_PATHS, LARGEST_MAX_TOKENS, OPENAI, OTHERS, VENDORS

if TYPE_CHECKING:
    from batchgen.database_address import DatabaseAddress

_MAX_NAME_BYTES = 200  # a file name holds 255, and a time stamp and a suffix follow
_MAX_SECONDS = 100_000_000  # in milliseconds this still fits wherever times are kept
# Patterns as text: `re` compiles one when it is used, and most are not.
_VARIABLE = r"(?a:\$(?:(\w+)|\{(\w+)\}))"
_CONNECTION_WORDS = r"\s*(?:host|hostaddr|port|dbname|user|password|service) ?="  # as psql takes
_URL_VARIABLE = r"\$\{(\w+)\}"
# Parts of a request that batchgen sets.
NOT_SETTINGS = ("messages", "input", "prompt", "stream_options")
_FUNCTION_FILE = r"(?s:(.+\.py)(|:[\w.]+))"
_CONTROL = "[\x00-\x1f\x7f-\x9f\u2028\u2029]"


class ValueContext(Struct, frozen=True):
    """What a value may refer to: variables, and the directory that a relative path starts from."""

    env: Mapping[str, str]
    directory: Path


class Kind(Struct, frozen=True):
    """A kind of value.

    `check` returns the value as it is kept. It raises ValueError with what is wrong, or without a
    message when that is simply "must be `phrase`". In an environment variable the value of a `text`
    kind is taken as it is, that of any other kind is read as YAML.
    """

    phrase: str
    check: Callable[[Any, ValueContext], Any]
    text: bool = False


class NestedError(ValueError):
    """What is wrong with a value within another: `path` leads there."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(problem)
        self.path = path


def shown_value(value: Any) -> str:
    """`value` in a message, short and on one line."""
    if isinstance(value, str):
        return f"the text {value[:60]!r}"
    if isinstance(value, (list, tuple, Mapping)):
        return "a mapping" if isinstance(value, Mapping) else "a list"
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a huge number"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)[:60]


def shown_key(key: Any) -> str:
    """An unknown key as far as it looks like one: `api_key:sk-...` lacks a space, and is secret."""
    shown = re.match(r"[\w.-]{0,60}", str(key))[0]  # type: ignore[index]  # matches always
    return shown if shown == str(key) else f"{shown}..."


def _check_text(value: Any, _: ValueContext) -> str:
    if not isinstance(value, str):
        hint = "" if value is None or isinstance(value, (list, Mapping)) else "; put it in quotes"
        raise ValueError(f"must be text, not {shown_value(value)}{hint}")
    if not value.strip():
        raise ValueError("must not be empty")
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise ValueError("must be valid Unicode")
    return value


def _kind(
    phrase: str, accepts: Callable[[Any], bool], keep: Callable[[Any], Any] = lambda value: value
) -> Kind:
    def check(value: Any, _: ValueContext) -> Any:
        if not accepts(value):
            raise ValueError
        return keep(value)

    return Kind(phrase, check)


def _integer(phrase: str, low: int = -(2**63), high: int = 2**63 - 1) -> Kind:
    return _kind(phrase, lambda value: type(value) is int and low <= value <= high)


def _number(phrase: str, above: float = -1e300, most: float = 1e300) -> Kind:
    """A finite number, kept as a float, so that 1 and 1.0 make the same recipe."""
    return _kind(phrase, lambda v: type(v) in (int, float) and above < v <= most, float)


def _json(phrase: str, *types: type) -> Kind:
    return _kind(phrase, lambda value: isinstance(value, types), _as_json)


def _as_json(value: Any) -> Any:
    """`value` as JSON holds it: keys are text, a tuple is a list."""
    from batchgen.text.json_text import dump_json, load_json  # here: most settings are no JSON

    try:
        return load_json(dump_json(value))
    except (TypeError, ValueError) as exc:
        raise ValueError(f"cannot be sent as JSON: {exc}") from None


def _check_n(value: Any, _: ValueContext) -> Any:
    if type(value) is not int or value != 1:
        raise ValueError(
            f"must be 1, not {shown_value(value)}: "
            "of several answers to a call all are paid for, but only the first is kept"
        )
    return value


def _check_extra_body(value: Any, context: ValueContext) -> Any:
    """It goes into the request last, as it is, so what is refused elsewhere is refused here too."""
    if not isinstance(value, dict):
        raise ValueError
    for name in NOT_SETTINGS:
        if name in value:
            raise ValueError(f"{name} cannot be set; batchgen decides it for every request")
    if "stream" in value:
        raise ValueError("stream does not belong here; set model.stream")
    if value.get("background"):
        raise ValueError("background must not be set: answers are not fetched later")
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        try:
            or_null(MAX_TOKENS).check(value.get(name), context)
        except ValueError:
            problem = f"{name} must be {MAX_TOKENS.phrase}, not {shown_value(value[name])}"
            raise ValueError(problem) from None
    if value.get("n") is not None:
        try:
            _check_n(value["n"], context)
        except ValueError as exc:
            raise ValueError(f"n {exc}") from None
    return _as_json(value)


def _is_stop(value: Any) -> bool:
    texts = [value] if isinstance(value, str) else value
    return isinstance(texts, (list, tuple)) and all(isinstance(text, str) for text in texts)


def or_null(kind: Kind) -> Kind:
    def check(value: Any, context: ValueContext) -> Any:
        return None if value is None else kind.check(value, context)

    return Kind(f"{kind.phrase} or null", check, kind.text)


def _check_path(value: Any, context: ValueContext) -> Path:
    text = _check_text(os.fspath(value) if isinstance(value, os.PathLike) else value, context)
    if "\0" in text:
        raise ValueError("must not contain NUL")
    try:
        return context.directory / Path(text).expanduser()
    except RuntimeError:
        raise ValueError("starts with a home directory that is not known") from None


def _check_database(value: Any, context: ValueContext) -> "DatabaseAddress":
    if isinstance(value, str) and "${" in value:
        value = _with_variables(value, context)
    if isinstance(value, str) and ("://" in value or re.match(_CONNECTION_WORDS, value)):
        from batchgen.database_address import address_of  # here: most are files

        return address_of(value.strip())
    return _check_path(value, context)


def _with_variables(address: str, context: ValueContext) -> str:
    """Each in its place; a user, a password or an option may have any characters."""

    def plain(named: re.Match[str]) -> str:
        return _value_of(named[1], context)

    def quoted(named: re.Match[str]) -> str:
        return quote(_value_of(named[1], context), safe="")

    user_info, at, rest = address.rpartition("@")
    place, mark, options = rest.partition("?")
    parts = ((user_info, quoted), (at + place + mark, plain), (options, quoted))
    return "".join(re.sub(_URL_VARIABLE, spelled, part) for part, spelled in parts)


def _value_of(variable: str, context: ValueContext) -> str:
    if not (found := context.env.get(variable)):
        raise ValueError(f"the environment variable {variable} is not set")
    return found


def _check_text_or_none(value: Any, context: ValueContext) -> str | None:
    return value if value is None or value == "" else _check_text(value, context)


def _check_parser(value: Any, context: ValueContext) -> str:
    """The text as it is, but the path in it, of a schema or of a function's file, starts where the
    config's other paths do."""
    spec = _check_text(value, context)
    file = file_of_parser(spec)
    if file is None:
        return spec
    if not file.strip():
        raise ValueError("names no file; write json_schema:FILE")
    before, _, after = spec.rpartition(file)
    return f"{before}{_check_path(file, context)}{after}"


def file_of_parser(spec: str) -> str | None:
    """The file that a parser's spec names, of a schema or a function, if it names one."""
    prefix, _, source = spec.partition(":")
    if prefix == "json_schema":
        return None if source.startswith("{") else source
    named = re.fullmatch(_FUNCTION_FILE, spec)
    return named[1] if named and prefix not in ("tag", "regex", "python") else None


def _check_path_or_none(value: Any, context: ValueContext) -> Path | None:
    return None if value is None or value == "" else _check_path(value, context)


def _check_provider(value: Any, _: ValueContext) -> str:
    if value not in ("openai", "mistral"):
        raise ValueError(
            'must be "openai", which means any OpenAI-compatible server: set model.base_url'
        )
    return str(value)


def named_variable(value: Any) -> str | None:
    """The name in `value` when it is $NAME or ${NAME}."""
    if not isinstance(value, str) or "$" not in value:
        return None
    named = re.fullmatch(_VARIABLE, value.strip())
    return named and (named[1] or named[2])


def _check_api_key(value: Any, context: ValueContext) -> str | None:
    if not isinstance(value, str | None):
        raise ValueError("must be text")
    key = (value or "").strip()
    if variable := named_variable(key):
        key = context.env.get(variable, "").strip()
    elif key.startswith("$"):
        raise ValueError("must be the key itself, ${NAME} or $NAME")
    key = key or context.env.get("OPENAI_API_KEY", "").strip()
    if not re.fullmatch(r"[!-~]*", key):
        raise ValueError("has characters that a key cannot have (spaces, control, not ASCII)")
    return key or None


def url_variables(value: Any, env: Mapping[str, str]) -> dict[str, str]:
    """The variables that a base_url is made with, and what they are, as it has them."""
    names = re.findall(_URL_VARIABLE, value) if isinstance(value, str) and "$" in value else ()
    found = {name: env.get(name, "").strip().partition("?")[0].rstrip("/") for name in names}
    return {name: value for name, value in found.items() if value}


def _check_base_url(value: Any, context: ValueContext) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    url = value.strip()
    if "$" in url:
        url = re.sub(_URL_VARIABLE, lambda named: _value_of(named[1], context), url)
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # its text quotes the URL
        usable = False
    if not (usable and url.isascii() and url.isprintable()) or " " in url:
        raise ValueError("must be http://host... or https://host...")
    if "@" in parts.netloc:
        raise ValueError("must not have a user or password; the key belongs in model.api_key")
    if "#" in url:
        raise ValueError("must not have a part after #")
    for path in ENDPOINT_PATHS.values():
        if parts.path.rstrip("/").endswith(path):
            raise ValueError(f"leave off {path}, it is added to every request")
    return url if parts.query else url.rstrip("/?")


def _check_endpoint(value: Any, _: ValueContext) -> str:
    if value not in ENDPOINT_PATHS:
        raise ValueError(f"must be one of {', '.join(ENDPOINT_PATHS)}, not {shown_value(value)}")
    return str(value)


def _check_experiment(value: Any, context: ValueContext) -> str:
    name = _check_text(value, context)
    if "/" in name or "\\" in name or (not name.isprintable() and re.search(_CONTROL, name)):
        raise ValueError(r"must not contain / or \ or control characters")
    if name in (".", "..") or name.startswith("-"):
        raise ValueError('must not be "." or ".." or start with "-"')
    if len(name.encode()) > _MAX_NAME_BYTES:
        raise ValueError(f"must not be longer than {_MAX_NAME_BYTES} bytes in UTF-8")
    return name


TEXT = Kind("text", _check_text, text=True)
TEXT_OR_NULL = Kind("text or null", _check_text_or_none, text=True)
BOOL = _kind("true or false", lambda value: isinstance(value, bool))
PATH = Kind("a path", _check_path, text=True)
PATH_OR_NULL = Kind("a path or null", _check_path_or_none, text=True)
DATABASE = Kind("a path, or postgresql://...", _check_database, text=True)
PARSER = Kind("text", _check_parser, text=True)
PROVIDER = Kind('"openai" or "mistral"', _check_provider, text=True)
API_KEY = Kind("text or null", _check_api_key, text=True)
BASE_URL = Kind("a URL", _check_base_url, text=True)
ENDPOINT = Kind("a name", _check_endpoint, text=True)
EXPERIMENT = Kind("text", _check_experiment, text=True)
MOST_SLOTS = 10_000
CONCURRENCY = _integer(f"an integer from 1 to {MOST_SLOTS}", 1, MOST_SLOTS)
COUNT = _integer("an integer >= 0", 0)
RATE_LIMIT = Kind(
    "an integer >= 0 or null", lambda value, context: or_null(COUNT).check(value, context) or None
)
POSITIVE = _integer("an integer >= 1", 1)
BATCH_REQUESTS = _integer("an integer from 1 to 50000", 1, 50_000)  # what OpenAI takes in a file
BATCH_MB = _integer("an integer from 1 to 1000", 1, 1000)
MAX_TOKENS = _integer(f"an integer from 1 to {LARGEST_MAX_TOKENS}", 1, LARGEST_MAX_TOKENS)
SECONDS = _number(f"a number > 0 and <= {_MAX_SECONDS}", 0, _MAX_SECONDS)
_MAPPING = _json("a mapping", dict)
_LIST = _json("a list", list, tuple)
_CHOICE = _json("text or a mapping", str, dict)

_PARAMETER_KINDS: Mapping[str, Kind] = {
    "max_tokens": MAX_TOKENS,
    "one": Kind("1", _check_n),
    "count": COUNT,
    "positive": POSITIVE,
    "integer": _integer("an integer"),
    "number": _number("a finite number"),
    "flag": BOOL,
    "text": TEXT,
    "stop": _kind("text or a list of texts", _is_stop, _as_json),
    "text_or_mapping": _CHOICE,
    "list": _LIST,
    "extra_body": Kind("a mapping", _check_extra_body),
    "mapping": _MAPPING,
}
PARAMETERS = {
    name: or_null(kind)
    for names_by_kind in (OPENAI, OTHERS, VENDORS)
    for word, kind in _PARAMETER_KINDS.items()
    for name in names_by_kind.get(word, ())
}
"""Every parameter of a request that a config may set, and extra_body for all others."""
