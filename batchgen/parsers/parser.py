"""What a parser is, and what it may return."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from msgspec import Struct, field

from batchgen.errors import ParseError
from batchgen.items import ParserVersion
from batchgen.text.json_text import dump_json
from batchgen.userfunctions import text_of

Parse = Callable[[str, Mapping[str, Any], float | None], Any]


class Parser(Struct, frozen=True):
    """`parse(text, item, timeout_s)` returns what JSON can hold (a function may return anything, or
    an awaitable) or raises ParseError (a function may raise anything). Only patterns use
    `timeout_s`.

    `spec` names it: `load_parser(spec)` makes the parser again, and the same one, even if a schema
    file that it was made from has changed. The code of a function may change: `fingerprint` is
    another one then ("": the spec says all), `unknown` names what it refers to whose changes cannot
    be seen, and `sources` are its files, their SHA-256 by path. `needs_whole` is False when an
    answer that was cut off at max_tokens can be used. `schema` returns the JSON Schema of the
    values that it accepts.
    """

    spec: str
    kind: Literal["inline", "regex", "function"]
    parse: Parse
    needs_whole: bool = True
    is_async: bool = False
    schema: Callable[[], dict[str, Any]] | None = None
    fingerprint: str = ""
    unknown: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def version(self) -> ParserVersion:
        """How results name it."""
        return ParserVersion(self.spec, self.fingerprint, self.sources)


def to_json(value: Any, what: str = "the parser") -> str:
    """What a parser, or `what` it is, returned, as JSON. Raises ParseError when JSON cannot hold
    it."""
    try:
        return dump_json(value)
    except UnicodeEncodeError:
        problem = "a lone surrogate in a text"
    except Exception as exc:  # a subclass of dict or list may run the user's code
        problem = text_of(exc)
    raise ParseError(f"{what} returned a {type(value).__name__} JSON cannot hold: {problem}")
