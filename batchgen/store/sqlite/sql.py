"""The statements of queries.sql, by name."""

import sqlite3
from pathlib import Path

_HEAD = "\n-- name: "
_RULE = "\n--------------------"


def load_queries(text: str) -> dict[str, str]:
    """Split a file of `-- name: ...` statements. Raises ValueError on a name given twice."""
    queries: dict[str, str] = {}
    for part in f"\n{text}".split(_HEAD)[1:]:
        name, _, statement = part.partition("\n")
        if name in queries:
            raise ValueError(f"the query name {name} is given twice in queries.sql")
        queries[name] = statement.partition(_RULE)[0].strip()
    return queries


QUERIES = load_queries(Path(__file__).with_name("queries.sql").read_text(encoding="utf-8"))


def last_id(db: sqlite3.Connection, table: str) -> int:
    """The highest id ever given out in a table, also to rows deleted since."""
    (seq,) = db.execute(QUERIES["last_id"], {"name": table}).fetchone()
    return int(seq)
