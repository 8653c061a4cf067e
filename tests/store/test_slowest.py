"""The calls that took longest, without a look at all of them."""

from typing import Any

import pytest
from msgspec.structs import replace

from batchgen.items import Done, Item, Outcome
from batchgen.store import Slowest, open_store
from batchgen.store.transactions import slowest
from tests.kits.table import START, Table, answered

MINUTE = START // 60_000


def take(table: Table, *calls: tuple[int, int], experiment: str = "e") -> None:
    """Each in so many ms, so many minutes after the start."""
    pool = (f"{experiment}{n}" for n, _ in enumerate(calls))
    first, *_ = table.enqueue(*pool, experiment=experiment)
    worker = table.join()
    while items := table.claim(worker, len(calls)):  # few until the first answer
        table.exchange(worker, [_took(item, *calls[item.id - first]) for item in items])


def _took(item: Item, ms: int, later: int) -> Outcome:
    return Outcome(item, (replace(answered("a", START + 60_000 * later), latency_ms=ms),), Done())


def times(found: Slowest) -> list[int | None]:
    return [one.latency_ms for one in found.calls]


async def ask(database: Any, ids: list[int], limit: int, first: int | None = None) -> Slowest:
    async with open_store(database) as store:
        return await store.minutes.slowest(ids, first, limit)


async def test_of_a_short_run_they_are_those_that_there_are(table: Table, database: Any) -> None:
    take(table, *((100 * n, 0) for n in range(1, 13)))
    take(table, (5000, 0), (450, 0), experiment="f")
    take(table, (1150, 7), (20, 7), experiment="g")
    found = await ask(database, [1, 3], 5)
    assert (times(found), found.is_whole) == ([1200, 1150, 1100, 1000, 900], True)
    assert times(await ask(database, [2], 5)) == [5000, 450]
    assert times(await ask(database, [1, 3], 5, MINUTE + 1)) == [1150, 20]
    assert (await ask(database, [4], 5)) == Slowest([], is_whole=True)


async def test_of_minutes_with_very_many_there_is_one_of_each(
    table: Table, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(table, *((100 * n, 0) for n in range(1, 13)), (1050, 3), (1000, 3), (30, 9))
    monkeypatch.setattr(slowest, "MOST_LOOKED_AT", 0)
    found = await ask(database, [1], 5)
    assert (times(found), found.is_whole) == ([1200, 1050, 30], False)
    found = await ask(database, [1], 2)
    assert (times(found), found.is_whole) == ([1200, 1050], False)
