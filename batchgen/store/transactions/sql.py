"""Statements in files, by name; those that all engines take as they are stand in common.sql."""

from pathlib import Path

_HEAD = "\n-- name: "
_RULE = "\n--------------------"


def load_queries(text: str) -> dict[str, str]:
    """Split a file of `-- name: ...` statements. Raises ValueError on a name given twice."""
    queries: dict[str, str] = {}
    for part in f"\n{text}".split(_HEAD)[1:]:
        name, _, statement = part.partition("\n")
        if name in queries:
            raise ValueError(f"the query name {name} is given twice")
        queries[name] = statement.partition(_RULE)[0].strip()
    return queries


def queries_of(engine: Path) -> dict[str, str]:
    """The statements of common.sql and of an engine's file. Raises ValueError on a name that both
    have."""
    common = Path(__file__).with_name("common.sql")
    texts = [file.read_text(encoding="utf-8") for file in (common, engine)]
    return load_queries("\n".join(texts))
