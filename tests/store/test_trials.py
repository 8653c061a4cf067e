"""Recipes on trial, in the table: who may ask while the server answers nobody, and for what."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from batchgen.items import Fail, Item, Outcome, Reason, Retry
from batchgen.store import Trial
from tests.kits.table import Table, broken, claims, open_table

NOT_SERVED = Retry(None, charged=False)
ON_TRIAL = Trial("", calls=16)


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    with open_table(tmp_path / "batchgen.db") as opened:
        yield opened


def claim(
    table: Table, worker: int, want: int, outcomes: Sequence[Outcome] = (), experiment: int = 1
) -> list[Item]:
    wanted = claims(want, (experiment,), trial=ON_TRIAL)
    return table.exchange_want(worker, wanted, outcomes).items


def not_served(items: Sequence[Item]) -> list[Outcome]:
    return [Outcome(item, (broken(),), NOT_SERVED) for item in items]


def test_the_worker_that_finds_the_server_down_asks_on_alone(table: Table) -> None:
    table.enqueue(*range(50))
    one, other = table.join(), table.join()
    failed = claim(table, one, 2)
    assert len(claim(table, one, 9, not_served(failed))) == 4
    assert claim(table, other, 9) == []


def test_when_it_has_gone_another_takes_its_place_after_a_while(table: Table) -> None:
    table.enqueue(*range(50))
    one, other, third = table.join(), table.join(), table.join()
    claim(table, one, 0, not_served(claim(table, one, 2)))
    table.leave(one)
    assert [len(claim(table, worker, 9)) for worker in (other, third, other)] == [0, 0, 0]
    table.now += 5000
    assert [len(claim(table, worker, 9)) for worker in (third, other)] == [0, 4]


def test_when_it_has_nothing_left_to_ask_it_makes_way(table: Table) -> None:
    table.enqueue(1, experiment="a")
    table.enqueue(*range(9), experiment="b")
    one, other = table.join(), table.join()
    claim(table, one, 0, not_served(claim(table, one, 1)))
    assert claim(table, other, 9, experiment=2) == []
    (item,) = claim(table, one, 1)
    claim(table, one, 1, [Outcome(item, (broken(),), Fail(Reason.SERVER, "it broke"))])
    assert len(claim(table, other, 9, experiment=2)) == 9


def test_probes_are_for_items_from_all_over_the_pool(table: Table) -> None:
    table.enqueue(*range(100))
    worker = table.join()
    claimed = table.exchange_want(worker, claims(5, probes=0)).items
    assert sorted(item.id for item in claimed) == [16, 39, 53, 76, 100]
    assert all(item.probe for item in claimed)


def test_probes_take_the_lowest_priority_and_what_waits_last(table: Table) -> None:
    table.enqueue("urgent", priority=9)
    table.enqueue("a", "b")
    worker = table.join()
    again = table.claim(worker, 1)[0]
    table.finish(worker, again, Retry(table.now, charged=True), broken())
    table.now += 1
    claimed = [table.exchange_want(worker, claims(1, probes=n)).items for n in range(3)]
    assert [item.id for items in claimed for item in items] == [3, 2, 1]
