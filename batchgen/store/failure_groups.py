"""How failed items are grouped: by reason and message, without what differs from item to item."""

import re
from collections.abc import Iterable

from batchgen.store.records import FailureGroup

# A word with a digit in it: an id, a time, a count. A long run of letters is looked at once.
_WITH_DIGIT = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]*\d[A-Za-z0-9_.:,-]*")
_ID = re.compile(r"((?:request|trace|correlation)[ _-]?id\W{1,4})[\w-]+", re.IGNORECASE)
_STATUS = re.compile(r"\d{3}\b")
_MOST_KINDS = 10_000  # in memory; the messages of a server's own words are far fewer


def kind_of_message(message: str) -> str:
    """The message with `#` in place of ids and digits; an HTTP status in front stays."""
    status = _STATUS.match(message)
    start = status.end() if status else 0
    return message[:start] + _WITH_DIGIT.sub("#", _ID.sub(r"\1#", message[start:]))


def literal_parts(message: str) -> list[str]:
    """What all messages of its kind have: it, cut where an id or a digit stands."""
    return kind_of_message(message).split("#")


def grouped(
    messages: Iterable[FailureGroup], limit: int | None = None
) -> list[FailureGroup]:  # fmt: skip
    """Groups of the same kind of message as one, the largest first: its message and its example are
    those of its first item. Of `messages` the frequent come first; where there are too many kinds,
    the rare ones are in no group."""
    found: dict[tuple[str, str], FailureGroup] = {}
    for one in messages:
        kind = one.reason, kind_of_message(one.error)
        known = found.get(kind)
        if known is not None:
            found[kind] = _together(known, one)
        elif len(found) < _MOST_KINDS:
            found[kind] = one
    return sorted(found.values(), key=lambda group: -group.n)[:limit]


def _together(one: FailureGroup, other: FailureGroup) -> FailureGroup:
    first = min(one, other, key=lambda group: group.example)
    return FailureGroup(first.reason, first.error, one.n + other.n, first.example)
