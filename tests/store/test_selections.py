"""A selection: claims of chosen items, and of no others."""

from collections.abc import Sequence

import pytest

from batchgen.database_address import DatabaseAddress
from batchgen.items import Done, Fail, Item, Outcome, Reason, Release, Retry
from batchgen.store import Exchange, OtherRecipe, Selection, open_store
from batchgen.store.transactions import look, queue, selections
from tests.kits.table import RECIPE, Table, answered, broken, claims, new_item


def select(table: Table, *items: int) -> Selection:
    return table.run(selections.begin_selection, 1, items, table.now)


def exchange(
    table: Table, worker: int, slots: int, selection: Selection | None, *outcomes: Outcome
) -> Exchange:
    want = claims(slots, (1,), selection=selection)
    return table.run(queue.exchange, worker, outcomes, want, table.now)


def numbers(items: Sequence[Item]) -> list[int]:
    return sorted(item.id for item in items)


def test_only_chosen_items_are_claimed_and_others_stay(table: Table) -> None:
    table.enqueue(*range(10))
    worker, selection = table.join(), select(table, 3, 5, 9)
    claimed = exchange(table, worker, 10, selection)
    assert (numbers(claimed.items), claimed.open) == ([3, 5, 9], 3)
    ended = [
        Outcome(claimed.items[0], (answered(),), Done()),
        Outcome(claimed.items[1], (broken(),), Fail(Reason.SERVER, "no")),
        Outcome(claimed.items[2], (), Release()),
    ]
    again = exchange(table, worker, 10, selection, *ended)
    assert (numbers(again.items), again.open) == ([9], 1)
    last = exchange(table, worker, 10, selection, Outcome(again.items[0], (answered(),), Done()))
    assert (last.items, last.open) == ([], 0)
    assert sorted(table.states().values()) == ["done", "done", "failed", *["pending"] * 7]
    assert numbers(exchange(table, worker, 2, None).items) == [1, 2]


def test_an_item_that_waits_for_another_try_is_claimed_when_it_is_due(table: Table) -> None:
    table.enqueue(*range(4))
    worker, selection = table.join(), select(table, 2)
    (item,) = exchange(table, worker, 4, selection).items
    due = table.now + 5000
    waits = Outcome(item, (broken(),), Retry(due, charged=True))
    none = exchange(table, worker, 4, selection, waits)
    assert (none.items, none.open, none.next_at) == ([], 1, due)
    table.now = due
    assert numbers(exchange(table, worker, 4, selection).items) == [2]


@pytest.mark.parametrize(
    ("chosen", "is_marked"),
    [((3, 4), False), ((1, 2, 3, 4), False), ((1, 3), True), ((1, 2), True)],
    ids=["all_that_are_open", "all", "one_of_two_open", "none_open"],
)
def test_there_are_no_marks_where_nothing_else_could_be_claimed(
    table: Table, chosen: tuple[int, ...], is_marked: bool
) -> None:
    table.enqueue(*range(4))
    worker = table.join()
    for item in table.claim(worker, 2):
        table.finish(worker, item, Done(), answered())
    selection = select(table, *chosen)
    assert (selection.number is not None) == is_marked
    counts = look.counts(table.transaction, [1], selection)
    done = len({1, 2} & set(chosen))
    assert (counts.done, counts.pending, counts.total) == (
        done,
        len(chosen) - done,
        len(chosen),
    )


def test_without_marks_it_ends_when_others_come(table: Table) -> None:
    table.enqueue(*range(4))
    worker, selection = table.join(), select(table, 1, 2, 3, 4)
    assert numbers(exchange(table, worker, 2, selection).items) == [1, 2]
    table.enqueue("elsewhere", experiment="another")
    assert numbers(exchange(table, worker, 1, selection).items) == [3]
    table.enqueue("later")
    ended = exchange(table, worker, 1, selection)
    assert (ended.items, ended.enough) == ([], True)
    marked = select(table, 1, 2, 3, 4)
    assert numbers(exchange(table, worker, 9, marked).items) == [4]


def test_its_counts_are_those_of_its_items_whatever_they_were_before(table: Table) -> None:
    table.enqueue(*range(8))
    worker = table.join()
    done, failed = table.claim(worker, 2)
    table.finish(worker, done, Done(), answered())
    table.finish(worker, failed, Fail(Reason.SERVER, "no"), broken())
    selection = select(table, 1, 2, 4, 5, 6)
    (four,) = exchange(table, worker, 1, selection).items
    exchange(table, worker, 1, selection, Outcome(four, (answered(),), Done()))
    counts = look.counts(table.transaction, [1], selection)
    assert (counts.pending, counts.running, counts.done, counts.failed) == (1, 1, 2, 1)
    assert counts.calls == 3


def test_until_counts_the_chosen_ones(table: Table) -> None:
    table.enqueue(*range(8))
    worker = table.join()
    (first,) = table.claim(worker, 1)
    table.finish(worker, first, Done(), answered())
    selection = select(table, 1, 3, 4, 5)
    want = claims(8, (1,), until=2, selection=selection)
    (three,) = table.run(queue.exchange, worker, [], want, table.now).items
    ended = [Outcome(three, (answered(),), Done())]
    done = table.run(queue.exchange, worker, ended, want, table.now)
    assert (three.id, done.items, done.enough) == (3, [], True)


def test_an_item_that_two_runs_chose_is_the_newer_ones(table: Table) -> None:
    table.enqueue(*range(5))
    worker = table.join()
    older, newer = select(table, 1, 2), select(table, 2, 3)
    assert numbers(exchange(table, worker, 9, older).items) == [1]
    assert numbers(exchange(table, worker, 9, newer).items) == [2, 3]


def test_when_it_ends_nothing_is_left_of_it(table: Table) -> None:
    table.enqueue(*range(3))
    number = select(table, 2).number
    assert number is not None
    table.run(selections.end_selection, number)
    assert table.query("select selection from work") == [(None,)] * 3
    assert table.query("select * from selections") == []


def test_an_experiment_that_is_deleted_takes_its_selections_along(table: Table) -> None:
    table.enqueue(*range(3))
    select(table, 2)
    table.delete(1)
    assert table.query("select * from selections") == []


async def test_the_store_gives_the_rows_of_items_with_the_samples_wanted(
    database: DatabaseAddress,
) -> None:
    async with open_store(database, create=True) as store:
        async with store.enqueueing("e", RECIPE, OtherRecipe.STOP, 3) as into:
            await store.add_items(into, [new_item(n) for n in range(2)])
        assert await store.rows_of_items([4, 1], 3) == [4, 5, 6, 1, 2, 3]
        assert await store.rows_of_items([4, 1], 2) == [4, 5, 1, 2]
        assert await store.rows_of_items([4], 1) == [4]
        async with store.selecting(1, [1, 2]) as selection:
            counts = await store.counts([1], selection)
            assert (counts.pending, counts.total) == (2, 2)
