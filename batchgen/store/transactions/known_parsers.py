"""Which parsers answers were read with: what is only read of it."""

from typing import TYPE_CHECKING

from batchgen.items import ParserVersion
from batchgen.store.records import ParserCount, StoredParser
from batchgen.store.transactions.rows import rows_of

if TYPE_CHECKING:
    from batchgen.store.database import Reads
    from batchgen.store.transaction import Transaction
    from batchgen.store.values import EndedAnswer


class KnownParsers:
    """The side of `Parsers` that only reads."""

    def __init__(self, database: "Reads") -> None:
        self._db = database

    async def present(self, experiment_id: int) -> StoredParser:
        """The one that the experiment has, as it was when that was stored."""
        return await self._db.read(_present, experiment_id)

    async def find(self, parser: ParserVersion) -> int | None:
        """The number that it has; None: it is not stored."""
        return await self._db.read(_find, parser)

    async def counts(self) -> list[ParserCount]:
        """How many items have a result by which parser, by experiment; constant time."""
        return await self._db.read(_counts)

    async def answer_of(self, item_id: int) -> "EndedAnswer | None":
        """An item and the answer that it ended with. None when it has not ended with an answer
        that was for a parser."""
        from batchgen.store.transactions import (
            repair,  # here: nothing else that only reads needs it
        )

        return await self._db.read(repair.answer_of, item_id)


def _present(db: "Transaction", experiment_id: int) -> StoredParser:
    which = {"experiment_id": experiment_id}
    id_, spec, fingerprint, sources = db.execute("present_parser", which).fetchone()
    return StoredParser(id_, ParserVersion(spec, fingerprint, _files(sources)))


def _files(sources: str) -> dict[str, str]:
    if sources == "{}":  # so it is of nearly all parsers
        return {}
    import json  # and not msgspec: the name of a file need not be UTF-8

    found: dict[str, str] = json.loads(sources)
    return found


def _find(db: "Transaction", parser: ParserVersion) -> int | None:
    named = {"spec": parser.spec, "fingerprint": parser.fingerprint}
    row = db.execute("find_parser", named).fetchone()
    return None if row is None else int(row[0])


def _counts(db: "Transaction") -> list[ParserCount]:
    return list(rows_of(db, "parser_counters", ParserCount))
