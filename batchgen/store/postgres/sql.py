"""The statements that PostgreSQL runs, by name: the common ones, and its own of postgres.sql.

In the files a parameter is `:name`, as SQLite has it; to the server it is `$1`, the first of those
that the statement names. So a statement goes out as it is, without being looked through again.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from batchgen.store.transactions import queries_of

# What is no parameter: texts, comments, casts; and last what is one.
_TOKENS = re.compile(r"'(?:[^']|'')*'|--[^\n]*|::|:([A-Za-z_]\w*)")
_SPAN = re.compile(r":texts::bytea, \((\w+) >> 32\)")


class Statement(NamedTuple):
    text: bytes
    names: tuple[str, ...]  # of its parameters, from $1 on
    takes_own: bool  # some of them are the engine's to give: `this_...`
    takes_rows: bool  # `:rows::json`, a list of objects
    spans: tuple[str, ...]  # of the rows, those texts that stand in `:texts`

    def values(self, parameters: Mapping[str, object]) -> list[object]:
        """Raises KeyError on one that is missing."""
        return [parameters[name] for name in self.names]


def respelled(text: str) -> Statement:
    """A statement of the files, without its comments."""
    names: list[str] = []

    def spell(found: re.Match[str]) -> str:
        name = found[1]
        if name is None:
            return "" if found[0].startswith("--") else found[0]
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    spelled = _TOKENS.sub(spell, text).strip().removesuffix(";")
    takes_own = any(name.startswith("this_") for name in names)
    takes_rows = ":rows::json" in text
    spans = tuple(_SPAN.findall(text)) if takes_rows else ()
    return Statement(spelled.encode(), tuple(names), takes_own, takes_rows, spans)


STATEMENTS = {
    name: respelled(text)
    for name, text in queries_of(Path(__file__).with_name("postgres.sql")).items()
}
