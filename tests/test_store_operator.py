"""What people do to an experiment: retry its failures, rename it, delete it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from batchgen.errors import UsageError
from batchgen.items import Done, Fail, Item, KeepAnswer, Outcome, Reason, Retry
from batchgen.store import OtherRecipe, open_store, operator
from tests.store_kit import MAX_CRASHES, RECIPE, Table, answered, broken, open_table


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    with open_table(tmp_path / "batchgen.db") as opened:
        yield opened


def failing(item: Item, reason: Reason) -> Outcome:
    return Outcome(item, broken(reason), Fail(reason, f"why {item.id}"))


def with_failures(table: Table) -> int:
    """1, 3 and 5 fail with `server`, 2 with `parse`, 4 is done; the worker that did it."""
    table.enqueue(*"abcde")
    worker = table.join()
    one, two, three, four, five = table.claim(worker, 5)
    table.exchange(
        worker,
        [
            failing(one, Reason.SERVER),
            failing(two, Reason.PARSE),
            failing(three, Reason.SERVER),
            Outcome(four, answered(), Done()),
            failing(five, Reason.SERVER),
        ],
    )
    return worker


def test_failed_items_come_in_pages_in_the_order_of_the_pool(table: Table) -> None:
    with_failures(table)
    first = operator.failed_page(table.db, 1, None, 0, 3)
    assert first == [(1, 1, "server"), (2, 1, "parse"), (3, 1, "server")]
    assert operator.failed_page(table.db, 1, None, 3, 3) == [(5, 1, "server")]
    assert operator.failed_page(table.db, 1, None, 5, 3) == []


def test_failed_items_of_one_reason(table: Table) -> None:
    with_failures(table)
    assert operator.failed_page(table.db, 1, "parse", 0, 9) == [(2, 1, "parse")]
    assert operator.failed_page(table.db, 2, None, 0, 9) == []


def test_a_single_item_is_found_only_while_it_is_failed(table: Table) -> None:
    with_failures(table)
    assert operator.failed_item(table.db, 2) == (2, 1, "parse")
    assert operator.failed_item(table.db, 4) is None
    assert operator.failed_item(table.db, 99) is None


def test_reopened_items_have_all_their_tries_again_and_keep_their_attempts(table: Table) -> None:
    worker = with_failures(table)
    before = table.query("select * from attempts"), table.query("select * from results")
    assert table.reopen_all() == 4
    assert table.states() == {
        1: "pending", 2: "pending", 3: "pending", 4: "done", 5: "pending",
    }  # fmt: skip
    assert (table.query("select * from attempts"), table.query("select * from results")) == before
    assert table.work(1) == {
        "state": "pending", "available_at": None, "epoch": 2, "worker_id": None, "attempts": 0,
        "crashes": 0, "parse_failures": 0, "answer_seq": None, "result_seq": None,
    }  # fmt: skip
    assert [item.id for item in table.claim(worker, 9)] == [1, 2, 3, 5]


def test_a_reopened_item_has_its_crashes_and_parse_failures_forgiven(table: Table) -> None:
    table.enqueue("a")
    for _ in range(MAX_CRASHES):
        worker = table.join()
        (item,) = table.claim(worker, 1)
        table.finish(worker, item, Retry(None, charged=True, parse_failed=True), answered())
        table.claim(worker, 1)
        table.take_over(worker)
    assert table.states() == {1: "failed"}
    assert table.reopen_all() == 1
    (again,) = table.claim(table.join(), 1)
    assert (again.attempts, again.parse_failures, table.work(1)["crashes"]) == (0, 0, 0)


def test_only_the_failures_of_one_reason_are_reopened(table: Table) -> None:
    with_failures(table)
    assert table.reopen_all(reason="server") == 3
    assert table.counters() == {
        (1, "pending", ""): 3,
        (1, "failed", "parse"): 1,
        (1, "done", ""): 1,
    }


def test_an_item_that_failed_twice_counts_by_its_latest_result(table: Table) -> None:
    worker = with_failures(table)
    table.reopen_all(reason="parse")
    (item,) = table.claim(worker, 1)
    table.exchange(worker, [failing(item, Reason.REFUSAL)])
    assert operator.failed_item(table.db, 2) == (2, 1, "refusal")
    assert [outcome for *_, outcome, _ in table.attempts(2)] == ["failed", "failed"]


def test_an_item_that_is_not_failed_is_not_reopened(table: Table) -> None:
    with_failures(table)
    assert table.run(operator.reopen, [(4, 1, "server"), (99, 1, "server")]) == 0
    assert table.states()[4] == "done"


def test_two_retries_at_once_reopen_an_item_once(table: Table) -> None:
    with_failures(table)
    page = operator.failed_page(table.db, 1, "parse", 0, 9)
    assert table.run(operator.reopen, page) == 1
    assert table.run(operator.reopen, page) == 0


def test_an_item_that_failed_otherwise_since_it_was_listed_stays(table: Table) -> None:
    worker = with_failures(table)
    listed = operator.failed_page(table.db, 1, "parse", 0, 9)
    table.run(operator.reopen, listed)
    (item,) = table.claim(worker, 1)
    table.exchange(worker, [failing(item, Reason.REFUSAL)])
    assert table.run(operator.reopen, listed) == 0
    assert operator.failed_item(table.db, 2) == (2, 1, "refusal")


def test_a_reopened_item_forgets_the_outcome_of_its_old_claim(table: Table) -> None:
    worker = with_failures(table)
    late = Item(1, 1, 1, 1, None, "")
    table.reopen_all()
    assert len(table.finish(worker, late, Done(), answered("late")).lost) == 1
    assert table.states()[1] == "pending"


def test_a_renamed_experiment_keeps_its_items(table: Table) -> None:
    table.enqueue("a", experiment="old")
    table.run(operator.rename_experiment, 1, "new")
    assert table.query("select id, name from experiments") == [(1, "new")]
    assert table.enqueue("a", experiment="new") == [1]


def test_a_name_that_is_taken_is_refused(table: Table) -> None:
    table.enqueue("a", experiment="one")
    table.enqueue("a", experiment="two")
    with pytest.raises(UsageError) as caught:
        table.run(operator.rename_experiment, 1, "two")
    assert str(caught.value) == "experiment 'two' exists already; choose another name."
    assert table.query("select id, name from experiments") == [(1, "one"), (2, "two")]


def test_an_experiment_that_is_worked_on_is_not_deleted(table: Table) -> None:
    table.enqueue("a", "b")
    table.claim(table.join(), 1)
    with pytest.raises(UsageError) as caught:
        table.delete(1)
    assert str(caught.value) == (
        "1 of its items are being worked on; stop the worker first (batchgen status)."
    )
    assert table.states() == {1: "running", 2: "pending"}


# Recipes and workers belong to the database, not to an experiment.
OF_AN_EXPERIMENT = (
    "experiments", "experiment_recipes", "items", "item_keys", "work", "attempts", "results",
    "counters", "totals", "exports",
)  # fmt: skip


def test_a_deleted_experiment_is_gone_from_every_table(table: Table) -> None:
    worker = with_failures(table)
    table.enqueue("kept")
    (item,) = table.claim(worker, 1)
    table.finish(worker, item, KeepAnswer(), answered())
    table.leave(worker)
    table.run(operator.record_export, 1, Path("/out.jsonl"), 1, "ab", 1, table.now)
    assert all(table.one(f"select count(*) > 0 from {name}") for name in OF_AN_EXPERIMENT)
    table.delete(1)
    left = {name: table.one(f"select count(*) from {name}") for name in OF_AN_EXPERIMENT}
    assert left == dict.fromkeys(OF_AN_EXPERIMENT, 0)


def test_deleting_touches_no_other_experiment(table: Table) -> None:
    with_failures(table)
    table.enqueue("a", "b", experiment="other")
    kept = [
        table.query(f"select * from {name} where experiment_id = 2")
        for name in ("items", "work", "counters", "experiment_recipes")
    ]
    table.delete(1)
    assert [
        table.query(f"select * from {name} where experiment_id = 2")
        for name in ("items", "work", "counters", "experiment_recipes")
    ] == kept
    assert table.one("select count(*) from item_keys") == 2
    assert table.enqueue("a", "b", experiment="other") == [6, 7]


def test_a_name_can_be_used_again_after_deleting(table: Table) -> None:
    table.enqueue("a", experiment="e")
    table.delete(1)
    assert table.enqueue("a", experiment="e") == [2]
    assert table.query("select id, name from experiments") == [(2, "e")]


async def test_an_export_is_remembered_by_its_newest_state(tmp_path: Path) -> None:
    async with open_store(tmp_path / "door.db", create=True) as store:
        async with store.enqueueing("e", RECIPE, OtherRecipe.STOP):
            pass
        await store.record_export(1, tmp_path / "out.jsonl", 1, "ab", 5)
        await store.record_export(1, tmp_path / "out.jsonl", 2, "cd", 6)
        (record,) = await store.exports()
    assert (record.experiment, record.path, record.rows, record.sha256, record.result_seq) == (
        "e", str(tmp_path / "out.jsonl"), 2, "cd", 6,
    )  # fmt: skip
