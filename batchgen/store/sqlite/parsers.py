"""The parsers that answers were read with, and what is read again by another."""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from batchgen.clock import now_ms
from batchgen.items import ParserVersion
from batchgen.store.sqlite import intake, repair
from batchgen.store.sqlite.connection import Database
from batchgen.store.sqlite.rows import rows_of
from batchgen.store.sqlite.sql import QUERIES
from batchgen.store.sqlite.watch import ParseWatch, watched
from batchgen.store.values import AnswerChoice, EndedAnswer, ParserCount, Reparsed, StoredParser


class Parsers:
    """The side of the store that is about parsers: each method is one transaction or snapshot."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def present(self, experiment_id: int) -> StoredParser:
        """The one that the experiment has, as it was when that was stored."""
        return await self._db.read(_present, experiment_id)

    async def use(self, experiment_id: int, parser: ParserVersion) -> int:
        """The experiment has this parser from now on; its number."""
        return await self._db.write(_use, experiment_id, parser, now_ms())

    async def number(self, parser: ParserVersion) -> int:
        """The number that it has, or gets, whatever experiment uses it."""
        return await self._db.write(intake.parser_number, parser, now_ms())

    async def find(self, parser: ParserVersion) -> int | None:
        """The number that it has; None: it is not stored."""
        return await self._db.read(_find, parser)

    async def counts(self) -> list[ParserCount]:
        """How many items have a result by which parser, by experiment; constant time."""
        return await self._db.read(_counts)

    async def answer_page(
        self, experiment_id: int, choice: AnswerChoice, after: int, limit: int = 500
    ) -> list[EndedAnswer]:
        """The next of the chosen items after item `after` with their answers; an empty page at the
        end."""
        return await self._db.read(repair.answer_page, experiment_id, choice, after, limit)

    async def outdated_page(
        self, experiment_id: int, parser_id: int, after: int, limit: int = 500
    ) -> list[EndedAnswer]:
        """The same of the items whose result is by another parser than this one."""
        return await self._db.read(repair.outdated_page, experiment_id, parser_id, after, limit)

    async def answer_of(self, item_id: int) -> EndedAnswer | None:
        """The same of one item. None when it has not ended with an answer that was for a parser."""
        return await self._db.read(repair.answer_of, item_id)

    def watched(self, parser_id: int) -> AbstractAsyncContextManager[ParseWatch | None]:
        """While inside, answers are parsed again by code that may kill the process. None: another
        process does so too, and what it is at cannot be told from what killed one."""
        return watched(self._db, parser_id)

    async def write(self, reparsed: Sequence[Reparsed], parser_id: int) -> set[int]:
        """Replace what was parsed by what this parser makes of it, keeping the earlier results. The
        numbers of those items that were skipped, as something else became of them meanwhile."""
        return await self._db.write(repair.write_reparsed, reparsed, parser_id, now_ms())


def _present(db: sqlite3.Connection, experiment_id: int) -> StoredParser:
    which = {"experiment_id": experiment_id}
    id_, spec, fingerprint, sources = db.execute(QUERIES["present_parser"], which).fetchone()
    return StoredParser(id_, ParserVersion(spec, fingerprint, json.loads(sources)))


def _use(db: sqlite3.Connection, experiment_id: int, parser: ParserVersion, now: int) -> int:
    number = intake.parser_number(db, parser, now)
    intake.set_present_parser(db, experiment_id, number)
    return number


def _find(db: sqlite3.Connection, parser: ParserVersion) -> int | None:
    named = {"spec": parser.spec, "fingerprint": parser.fingerprint}
    row = db.execute(QUERIES["find_parser"], named).fetchone()
    return None if row is None else int(row[0])


def _counts(db: sqlite3.Connection) -> list[ParserCount]:
    return list(rows_of(db, "parser_counters", ParserCount))
