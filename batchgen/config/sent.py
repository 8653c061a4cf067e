"""What the user wants sent with each request besides the key: headers, and a query of the URL.

A value may be a secret, so none is quoted in an error or shown in a representation. A variable of
the environment that is not set is an error only where something is to be sent: who exports answers
needs no key.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from typing import Any
from urllib.parse import parse_qsl

from msgspec import Struct, field

from batchgen.config.kinds import Kind, NestedError, ValueContext, named_variable, shown_key

_HEADER_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SET_BY_US = frozenset(
    {
        *("accept-encoding", "connection", "content-encoding", "content-length", "expect", "host"),
        *("keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer"),
        *("transfer-encoding", "upgrade"),
    }
)
_VARIABLE = r"(?a:\$\{(\w+)\})"
KEY_HEADERS = ("authorization", "api-key")
"""The headers that are a key: with one of them `api_key` is not sent, but what stands there."""


class SentValue(Struct, frozen=True):
    """A value as it is sent, the variables that it is made with, and what they are. `missing`: one
    that is not set, so that nothing can be sent."""

    text: str
    variables: Mapping[str, str] = field(default_factory=dict)
    missing: str | None = None

    def __repr__(self) -> str:
        """Without what may be secret."""
        return f"SentValue(missing={self.missing!r})"


SentValues = Mapping[str, SentValue | None]
"""By their names; None: not sent, where batchgen would send it by itself."""


def gives_key(headers: SentValues) -> bool:
    """Whether they decide what key is sent."""
    return any(name.lower() in KEY_HEADERS for name in headers)


def with_query_of(url: str, query: SentValues) -> tuple[str, SentValues]:
    """The URL without its query, which is added to the other one. Raises NestedError for what is in
    both."""
    place, _, own = url.partition("?")
    found = {name: SentValue(value) for name, value in parse_qsl(own, keep_blank_values=True)}
    if twice := [name for name in found if name in query]:
        raise NestedError(shown_key(twice[0]), "is in base_url too; give it once")
    return place.rstrip("/"), {**found, **query}


def merged(values: SentValues, over: SentValues) -> SentValues:
    """Those of `over` take the place of others, whatever their capitals."""
    names = {name.lower() for name in over}
    return {name: value for name, value in values.items() if name.lower() not in names} | dict(over)


def _sent_values(given: Any, context: ValueContext, check: Callable[[str, str], None]) -> Any:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ValueError("must be a mapping, lines of `name: value`")
    values = {}
    for name, value in given.items():
        shown = shown_key(name)
        if name is None or isinstance(name, (bool, tuple)) or not str(name):
            raise NestedError(shown, "must be a name")
        values[str(name)] = None if value is None else _sent_value(value, shown, context)
    seen = set()
    for name, value in values.items():
        if (known := name.lower()) in seen:
            raise NestedError(shown_key(name), "is there twice")
        seen.add(known)
        check(name, value.text if value else "")
    return values


def _sent_value(given: Any, name: str, context: ValueContext) -> SentValue:
    text = _text(given)
    if text is None:
        raise NestedError(name, "must be text, a number, or null, which means not sent")
    if (alone := named_variable(text)) is not None:
        text = f"${{{alone}}}"
    elif text.startswith("$") or "${" in re.sub(_VARIABLE, "", text):
        raise NestedError(name, "must be the value itself, or have variables as ${NAME}")
    used = {one: context.env.get(one, "").strip() for one in re.findall(_VARIABLE, text)}
    missing = next((one for one, value in used.items() if not value), None)
    sent = re.sub(_VARIABLE, lambda one: used[one[1]], text).strip()
    if not sent and missing is None:
        raise NestedError(name, "must not be empty; null: not sent")
    return SentValue(sent, used, missing)


def _text(given: Any) -> str | None:
    """A value of YAML, in which a date is one of an API's version."""
    if isinstance(given, str):
        return given
    if isinstance(given, bool):
        return "true" if given else "false"
    if isinstance(given, date) and not isinstance(given, datetime):
        return given.isoformat()
    return str(given) if isinstance(given, (int, float)) else None


def _check_header(name: str, value: str) -> None:
    shown = shown_key(name)
    if not re.fullmatch(_HEADER_NAME, name):
        raise NestedError(shown, "is not like the name of a header (letters, digits and -)")
    if name.lower() in _SET_BY_US:
        raise NestedError(shown, "cannot be set; it is made for every request")
    if name.lower() == "content-type" and not value.lower().startswith("application/json"):
        raise NestedError(shown, "must be application/json, which is what is sent")
    if not re.fullmatch(r"[\t -~]*", value):
        raise NestedError(
            shown, "has characters that no header can carry (a line break, or not ASCII)"
        )


def _check_parameter(name: str, value: str) -> None:
    if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", name + value):
        raise NestedError(shown_key(name), "has a line break or another control character")


HEADERS = Kind("a mapping or null", lambda v, context: _sent_values(v, context, _check_header))
QUERY = Kind("a mapping or null", lambda v, context: _sent_values(v, context, _check_parameter))


def missing_variables(values: SentValues) -> Iterator[tuple[str, str]]:
    """The names of the values that cannot be sent, and of their variables that are not set."""
    for name, value in values.items():
        if value is not None and value.missing is not None:
            yield name, value.missing
