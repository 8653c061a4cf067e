"""What is browsed: pages of rows out of very many, and one row with all that came of it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from batchgen.store.page_records import (
    AttemptText,
    FormerResult,
    Listing,
    Origin,
    PageRow,
    RandomRows,
    ResultValue,
    Sample,
    ShownAttempt,
    Stretch,
)
from batchgen.store.records import ResultRow
from batchgen.store.transactions.random_rows import random_done
from batchgen.store.transactions.results import results_in_order
from batchgen.store.transactions.rows import listed, row_of, rows_of
from batchgen.store.transactions.stretches import stretch
from batchgen.store.values import EndedItem

if TYPE_CHECKING:
    from batchgen.store.chain_records import ChainRow
    from batchgen.store.database import Reads
    from batchgen.store.transaction import Transaction

_CHARS = 240
_SHOWN_CHARS = 64 << 10  # of what came back from a call


class Pages:
    """The side of the store that is browsed: each method is one snapshot, and takes milliseconds
    however many rows there are."""

    def __init__(self, database: "Reads") -> None:
        self._db = database

    async def stretch(
        self, listing: Listing, place: str | None = None, *, back: bool = False, limit: int = 50
    ) -> Stretch:
        """What comes after a place in a listing (None: from its beginning), or before it when it
        goes `back` (None: from its end): `limit` rows at most, and none if there are none nearby.
        Raises UsageError for a place that is none."""
        return await self._db.read(stretch, listing, place, back=back, limit=limit)

    async def rows(self, item_ids: Sequence[int]) -> list[PageRow]:
        """Chosen rows as a table shows them, in their order."""
        return await self._db.read(page_rows, item_ids)

    async def with_text(self, item_ids: Sequence[int], text: str) -> list[int]:
        """Those of chosen rows that have the text in their id, input, answer, value or error, in
        whatever case as far as the engine knows of it."""
        return await self._db.read(with_text, item_ids, text)

    async def results(self, item_ids: Sequence[int]) -> tuple[list[ResultRow], list[int]]:
        """The results of those of chosen rows that have ended, in their order; and the numbers of
        those for another time, when they are big."""
        return await self._db.read(results_in_order, item_ids)

    async def chain_page(self, first_id: int, after: int, limit: int) -> "list[ChainRow]":
        """As `Chains.chain_page`."""
        from batchgen.store.transactions.chain_rows import chain_page  # here: most have no steps

        return await self._db.read(chain_page, first_id, after, limit)

    async def random_done(
        self, experiment_id: int, n: int, seed: int, upto: int | None = None
    ) -> RandomRows:
        """Up to `n` done rows of an experiment, drawn at random; as many of them as can be found in
        a few hundred milliseconds, where nearly all results are those of others."""
        return await self._db.read(random_done, experiment_id, n, seed, upto)

    async def failed(self, experiment_id: int, after: int, limit: int) -> list[EndedItem]:
        """The next failed rows after row `after`, of whatever reason; an empty page at the end."""
        which = {"experiment_id": experiment_id, "reason": None, "after": after, "limit": limit}
        return await self._db.read(_failed, which)

    async def attempts(self, item_id: int, limit: int = 100) -> list[ShownAttempt]:
        """The newest calls for an item, the oldest of them first, without the rest of long
        texts."""
        return await self._db.read(shown_attempts, item_id, limit)

    async def attempt(self, seq: int) -> AttemptText | None:
        """A call by its number, whatever item it was for."""
        which = {"seq": seq}
        return await self._db.read(row_of, "attempt_text", AttemptText, which)

    async def result(self, seq: int) -> ResultValue | None:
        """A result by its number, whatever item it is, or once was, of."""
        return await self._db.read(row_of, "result_value", ResultValue, {"seq": seq})

    async def former_results(self, item_id: int, limit: int = 20) -> list[FormerResult]:
        """The newest results that an item has no more, the newest first."""
        return await self._db.read(former_results, item_id, limit)

    async def samples(self, item_id: int) -> list[Sample]:
        """All samples of an item, by the row of whatever one; none of an ordinary item."""
        return await self._db.read(samples, item_id)


def _failed(db: "Transaction", which: Mapping[str, object]) -> list[EndedItem]:
    return list(rows_of(db, "failed_items", EndedItem, which))


def page_rows(db: "Transaction", item_ids: Sequence[int]) -> list[PageRow]:
    which = {"ids": listed(list(item_ids)), "chars": _CHARS}
    rows = [_shown(row) for row in rows_of(db, "page_rows", PageRow, which)]
    origins = _origins(db, [row.id for row in rows if row.custom_id is None])
    return [replace(row, origin=origins.get(row.id)) for row in rows] if origins else rows


def _origins(db: "Transaction", item_ids: Sequence[int]) -> dict[int, Origin]:
    """By row, of those that were made of others."""
    if not item_ids:
        return {}
    found, ways = dict[int, Origin](), dict[int, list[tuple[int, int]]]()
    for made, experiment_id, element, *item in db.execute(
        "origins_of_rows", {"ids": listed(list(item_ids)), "chars": _CHARS}
    ):
        ways.setdefault(made, []).append((experiment_id, element))
        id_, custom_id, sample, given = item
        if given is not None:
            way = tuple(reversed(ways[made]))
            found[made] = Origin(id_, custom_id, sample, _begun(given, _CHARS) or "", way)
    return {made: one for made, one in found.items() if len(one.way) > 1}


def _shown(row: PageRow) -> PageRow:
    return replace(
        row, error=_begun(row.error, _CHARS), input=_begun(row.input, _CHARS) or "",
        answer=_begun(row.answer, _CHARS), parsed=_begun(row.parsed, 4 * _CHARS),
    )  # fmt: skip


def _begun(text: str | bytes | None, chars: int) -> str | None:
    """The bytes may end in the middle of a character."""
    if isinstance(text, bytes):
        text = text.decode(errors="ignore")
    return None if text is None else text[:chars]


def shown_attempts(db: "Transaction", item_id: int, limit: int) -> list[ShownAttempt]:
    which = {"item_id": item_id, "chars": _SHOWN_CHARS, "limit": limit}
    found = [
        replace(
            one, response=_begun(one.response, _SHOWN_CHARS), body=_begun(one.body, _SHOWN_CHARS)
        )
        for one in rows_of(db, "shown_attempts", ShownAttempt, which)
    ]
    return found[::-1]


def former_results(db: "Transaction", item_id: int, limit: int) -> list[FormerResult]:
    which = {"item_id": item_id, "chars": _CHARS, "limit": limit}
    return list(rows_of(db, "former_results", FormerResult, which))


def samples(db: "Transaction", item_id: int) -> list[Sample]:
    row = db.execute("first_sample", {"item_id": item_id}).fetchone()
    return [] if row is None else [*rows_of(db, "samples_of_first", Sample, {"first": row[0]})]


def with_text(db: "Transaction", item_ids: Sequence[int], text: str) -> list[int]:
    quoted, escaped = _in_json(text)
    which = {
        "ids": listed(list(item_ids)), "text": text, "quoted": quoted, "escaped": escaped,
        "fold": int(any(one.lower() != one.upper() for one in (text, quoted, escaped))),
    }  # fmt: skip
    return [int(id_) for (id_,) in db.execute("rows_with_text", which)]


def _in_json(text: str) -> tuple[str, str]:
    """As it may stand in a pool: as it is, or in ASCII alone."""
    import json  # here, and not msgspec: it can do both

    return json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1]
