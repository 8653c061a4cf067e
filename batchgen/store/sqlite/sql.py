"""The statements of queries.sql, by name."""

import re
import sqlite3
from pathlib import Path

_HEAD = re.compile(r"^-- name: ([a-z_]+)\n", re.MULTILINE)
_RULE = re.compile(r"^-{20,}.*\n", re.MULTILINE)


def load_queries(text: str) -> dict[str, str]:
    """Split a file of `-- name: ...` statements. Raises ValueError on a name given twice."""
    _, *parts = _HEAD.split(_RULE.sub("", text))
    names, statements = parts[::2], [part.strip() for part in parts[1::2]]
    if len(set(names)) != len(names):
        raise ValueError("a query name is given twice in queries.sql")
    return dict(zip(names, statements, strict=True))


QUERIES = load_queries(Path(__file__).with_name("queries.sql").read_text(encoding="utf-8"))


def last_id(db: sqlite3.Connection, table: str) -> int:
    """The highest id ever given out in a table, also to rows deleted since."""
    (seq,) = db.execute(QUERIES["last_id"], {"name": table}).fetchone()
    return int(seq)
