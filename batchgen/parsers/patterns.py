"""The parsers tag:NAME and regex:PATTERN."""

import re
from collections.abc import Mapping
from typing import Any

from batchgen.errors import ConfigError, ParseError
from batchgen.parsers.parser import Parser
from batchgen.userfunctions import describe


def tag_parser(spec: str, name: str) -> Parser:
    """The content of every `<NAME>...</NAME>`, without the white space around it. An element goes
    from an opening tag to the nearest closing one, so an opening tag within it is text. `<NAME/>`
    does not count."""
    if not re.fullmatch(r"\w[\w.:-]*", name):
        raise ConfigError(f"parser {spec!r}: {name!r} is not the name of a tag; write tag:draft")
    # One pass from tag to tag, where `<NAME>(.*?)</NAME>` would be quadratic in unclosed tags.
    tag = re.compile(rf"<(/?){re.escape(name)}(?=[\s/>])[^<>]*>", re.IGNORECASE)

    def parse(text: str, _item: Mapping[str, Any], _timeout_s: float | None = None) -> list[str]:
        from batchgen.parsers.thoughts import answer_after_thought  # here: no call needs it

        found, start = [], None
        text = answer_after_thought(text, name)
        for match in tag.finditer(text):
            if match[1]:
                if start is not None:
                    found.append(text[start : match.start()].strip())
                start = None
            elif start is None and not match[0].endswith("/>"):
                start = match.end()
        if not found:
            unclosed = "" if start is None else f" (<{name}> is opened, but not closed)"
            raise ParseError(f"no <{name}>...</{name}> in the answer{unclosed}")
        return found

    return Parser(spec, "inline", parse)


def regex_parser(spec: str, source: str) -> Parser:
    """The first match: its named groups as an object, or its groups as a list (null for a group
    that did not take part), or, without groups, its text. Flags stand in the pattern: `(?s)`."""
    import regex  # type: ignore[import-untyped]

    try:
        pattern = regex.compile(source)
    except regex.error as exc:
        raise ConfigError(f"parser {spec!r}: {exc}") from exc
    except (RecursionError, OverflowError, ValueError) as exc:
        raise ConfigError(f"parser {spec!r}: {describe(exc)}") from exc

    def parse(text: str, _item: Mapping[str, Any], timeout_s: float | None = None) -> Any:
        from batchgen.parsers.thoughts import answer_after_thought

        text = answer_after_thought(text, source)
        try:
            # `concurrent` releases the GIL, so that a pattern that backtracks stops no other thread
            match = pattern.search(text, timeout=timeout_s, concurrent=True)
        except TimeoutError:
            raise RegexTimeoutError(f"the pattern took longer than {timeout_s:g} s") from None
        if match is None:
            raise ParseError(f"no match for {source} in the answer")
        return match.groupdict() or (list(match.groups()) if pattern.groups else match[0])

    return Parser(spec, "regex", parse)


class RegexTimeoutError(ParseError):
    """The time for the pattern was over before it was known whether it matches."""
