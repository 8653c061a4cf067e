"""The parsers that answers were read with, and what is read again by another."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from batchgen.clock import now_ms
from batchgen.items import ParserVersion
from batchgen.store.transaction import Transaction
from batchgen.store.transactions import intake, repair
from batchgen.store.transactions.known_parsers import KnownParsers
from batchgen.store.transactions.watch import ParseWatch, watched
from batchgen.store.values import AnswerChoice, EndedAnswer, EndedItem, Reparsed

if TYPE_CHECKING:
    from batchgen.store.database import Database


class Parsers(KnownParsers):
    """The side of the store that is about parsers: each method is one transaction or snapshot."""

    def __init__(self, database: "Database") -> None:
        super().__init__(database)
        self._db: Database = database

    async def use(self, experiment_id: int, parser: ParserVersion) -> int:
        """The experiment has this parser from now on; its number."""
        return await self._db.write(_use, experiment_id, parser, now_ms())

    async def number(self, parser: ParserVersion) -> int:
        """The number that it has, or gets, whatever experiment uses it."""
        return await self._db.write(intake.parser_number, parser, now_ms())

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

    async def run_by_others(
        self, experiment_id: int, parser_id: int, after: int, limit: int = 5000
    ) -> list[EndedItem]:
        """Of a step that runs code: the next rows after row `after` whose result is by another
        function than this one; an empty page at the end."""
        return await self._db.read(repair.run_by_others, experiment_id, parser_id, after, limit)

    def watched(self, parser_id: int) -> AbstractAsyncContextManager[ParseWatch | None]:
        """While inside, answers are parsed again by code that may kill the process. None: another
        process does so too, and what it is at cannot be told from what killed one."""
        return watched(self._db, parser_id)

    async def write(self, reparsed: Sequence[Reparsed], parser_id: int) -> set[int]:
        """Replace what was parsed by what this parser makes of it, keeping the earlier results. The
        numbers of those items that were skipped, as something else became of them meanwhile."""
        return await self._db.write(repair.write_reparsed, reparsed, parser_id, now_ms())


def _use(db: Transaction, experiment_id: int, parser: ParserVersion, now: int) -> int:
    number = intake.parser_number(db, parser, now)
    intake.set_present_parser(db, experiment_id, number)
    return number
