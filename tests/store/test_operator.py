"""What people do to an experiment: retry its failures, rename it, delete it."""

import math
from pathlib import Path

import pytest
from msgspec.structs import replace

from batchgen.database_address import DatabaseAddress
from batchgen.errors import Remedy, UsageError
from batchgen.items import (
    Done,
    Fail,
    Item,
    KeepAnswer,
    Outcome,
    ParserVersion,
    Reason,
    Recipe,
    Retry,
)
from batchgen.store import (
    AnswerChoice,
    EndedAnswer,
    EndedItem,
    FailureGroup,
    OtherRecipe,
    Reparsed,
    open_store,
)
from batchgen.store.sqlite import item_keys
from batchgen.store.transactions import admin, intake, look, repair
from tests.kits.engines import SqliteEngine
from tests.kits.table import MAX_CRASHES, RECIPE, Table, answered, broken


def failing(item: Item, reason: Reason) -> Outcome:
    return Outcome(item, (broken(reason),), Fail(reason, f"why {item.id}"))


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
            Outcome(four, (answered(),), Done()),
            failing(five, Reason.SERVER),
        ],
    )
    return worker


def test_failed_items_come_in_pages_in_the_order_of_the_pool(table: Table) -> None:
    with_failures(table)
    first = repair.failed_page(table.transaction, 1, None, None, 0, 3)
    assert first == [
        EndedItem(1, 1, "server", "why 1"), EndedItem(2, 1, "parse", "why 2"),
        EndedItem(3, 1, "server", "why 3"),
    ]  # fmt: skip
    assert repair.failed_page(table.transaction, 1, None, None, 3, 3) == [
        EndedItem(5, 1, "server", "why 5")
    ]
    assert repair.failed_page(table.transaction, 1, None, None, 5, 3) == []


def test_failed_items_of_one_reason(table: Table) -> None:
    with_failures(table)
    assert repair.failed_page(table.transaction, 1, "parse", None, 0, 9) == [
        EndedItem(2, 1, "parse", "why 2")
    ]
    assert repair.failed_page(table.transaction, 2, None, None, 0, 9) == []


def test_failed_items_by_their_message_however_far_apart(table: Table) -> None:
    with_failures(table)
    assert [
        item.item_id for item in repair.failed_page(table.transaction, 1, None, "HY 5", 0, 1)
    ] == [5]
    assert repair.failed_page(table.transaction, 1, "parse", "why 5", 0, 1) == []


@pytest.mark.parametrize("at_once", [1, 2, 9])
def test_the_last_failed_items_are_grouped_part_by_part_as_all_at_once(
    table: Table, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    with_failures(table)
    monkeypatch.setattr(look, "_FAILED_AT_ONCE", at_once)
    groups = look.failures(table.transaction, 1, None, 50)
    assert look.last_failures(table.transaction, 1, 50, None, math.inf) == (groups, 4)
    some = look.last_failures(table.transaction, 1, 50, 2, math.inf)
    assert some == ([FailureGroup("server", "why 3", 2, 3)], 2)
    found, looked_at = look.last_failures(table.transaction, 1, 50, None, 0.0)
    assert looked_at == sum(one.n for one in found) == min(4, at_once)
    assert look.last_failures(table.transaction, 2, 50, None, math.inf) == ([], 0)


def test_a_single_item_is_found_only_while_it_has_ended(table: Table) -> None:
    worker = with_failures(table)
    assert repair.ended_item(table.transaction, 2) == EndedItem(2, 1, "parse", "why 2")
    assert repair.ended_item(table.transaction, 4) == EndedItem(4, 1, None, None, 1)
    assert repair.ended_item(table.transaction, 99) is None
    table.reopen_all(reason="parse")
    assert repair.ended_item(table.transaction, 2) is None
    table.claim(worker, 1)
    assert repair.ended_item(table.transaction, 2) is None


def test_reopened_items_have_all_their_tries_again_and_keep_their_attempts(table: Table) -> None:
    worker = with_failures(table)
    before = table.query("select * from attempts"), table.query("select * from results")
    assert table.reopen_all() == 4
    assert table.states() == {
        1: "pending", 2: "pending", 3: "pending", 4: "done", 5: "pending",
    }  # fmt: skip
    assert (table.query("select * from attempts"), table.query("select * from results")) == before
    assert table.work(1) == {
        "state": "pending", "available_at": None, "epoch": 2, "worker_id": None, "tries": 0,
        "second_call": 0,
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
    assert (again.tries, again.parse_failures, table.work(1)["crashes"]) == (0, 0, 0)


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
    assert repair.ended_item(table.transaction, 2) == EndedItem(2, 1, "refusal", "why 2")
    assert [outcome for *_, outcome, _ in table.attempts(2)] == ["failed", "failed"]


def test_an_item_that_is_not_failed_is_not_reopened(table: Table) -> None:
    with_failures(table)
    items = [EndedItem(4, 1, "server", ""), EndedItem(99, 1, "server", "")]
    assert table.run(repair.reopen, items, None, table.now) == 0
    assert table.states()[4] == "done"


def test_two_retries_at_once_reopen_an_item_once(table: Table) -> None:
    with_failures(table)
    page = repair.failed_page(table.transaction, 1, "parse", None, 0, 9)
    assert table.run(repair.reopen, page, None, table.now) == 1
    assert table.run(repair.reopen, page, None, table.now) == 0


def test_an_item_that_failed_otherwise_since_it_was_listed_stays(table: Table) -> None:
    worker = with_failures(table)
    listed = repair.failed_page(table.transaction, 1, "parse", None, 0, 9)
    table.run(repair.reopen, listed, None, table.now)
    (item,) = table.claim(worker, 1)
    table.exchange(worker, [failing(item, Reason.REFUSAL)])
    assert table.run(repair.reopen, listed, None, table.now) == 0
    assert repair.ended_item(table.transaction, 2) == EndedItem(2, 1, "refusal", "why 2")


def test_a_reopened_item_forgets_the_outcome_of_its_old_claim(table: Table) -> None:
    worker = with_failures(table)
    late = Item(1, 1, 1, 1, None, "")
    table.reopen_all()
    assert len(table.finish(worker, late, Done(), answered("late")).lost) == 1
    assert table.states()[1] == "pending"


# Another recipe for some items

LONGER = replace(RECIPE, params={"max_tokens": 9})


def longer(recipe: Recipe) -> Recipe:
    return replace(recipe, params={**recipe.params, "max_tokens": 9})


def recipe_of(table: Table, item_id: int) -> Recipe:
    which = "select body from recipes join items on recipe_id = recipes.id where items.id = ?"
    return Recipe.from_json(table.one(which, item_id))


def test_reopened_items_get_another_recipe_and_stay_the_same_items(table: Table) -> None:
    with_failures(table)
    page = repair.failed_page(table.transaction, 1, "server", None, 0, 9)
    assert table.run(repair.reopen, page, longer, table.now) == 3
    recipes = {item_id: recipe_of(table, item_id) for item_id in range(1, 6)}
    assert recipes == {1: LONGER, 2: RECIPE, 3: LONGER, 4: RECIPE, 5: LONGER}
    assert table.enqueue(*"abcde") == [1, 2, 3, 4, 5]
    choice = table.begin(recipe=LONGER).choice  # nobody asked for it for the rest
    assert choice is not None
    assert choice.present == RECIPE


def test_a_done_item_is_reopened_when_it_is_given_as_done(table: Table) -> None:
    worker = with_failures(table)
    done = repair.ended_item(table.transaction, 4)
    assert done is not None
    assert table.run(repair.reopen, [done], None, table.now) == 1
    assert table.states()[4] == "pending"
    assert [(outcome, text) for _, _, outcome, text in table.attempts(4)] == [
        ("answered", "an answer")
    ]
    (item,) = table.claim(worker, 1)
    table.finish(worker, item, Done(), answered("a better one"))
    assert table.query("select item_id, state from results where item_id = 4") == [(4, "done")] * 2


# Parsed again


def with_answers(table: Table) -> int:
    """1 and 3 failed at their parser, 2 is done, 4 was cut off, 5 never answered; the worker."""
    table.enqueue(*"abcde")
    worker = table.join()
    one, two, three, four, five = table.claim(worker, 5)
    no_json = Fail(Reason.PARSE, "no JSON")
    outcomes = [
        Outcome(one, (answered("1"),), no_json),
        Outcome(two, (answered("2"),), Done('"two"')),
        Outcome(three, (answered("3"),), no_json),
        Outcome(four, (answered("4"),), Fail(Reason.TRUNCATED, "cut off")),
        failing(five, Reason.SERVER),
    ]
    table.exchange(worker, outcomes)
    return worker


def answers(
    table: Table, *, done_too: bool = False, cut_off_too: bool = False
) -> list[EndedAnswer]:
    return repair.answer_page(table.transaction, 1, AnswerChoice(done_too, cut_off_too), 0, 9)


def outdated(table: Table, parser: str) -> list[int]:
    """The items whose result is by another parser."""
    number = table.run(intake.parser_number, ParserVersion(parser), table.now)
    return [one.item_id for one in repair.outdated_page(table.transaction, 1, number, 0, 9)]


def parsed(table: Table, item_id: int) -> tuple[str, str | None, str | None]:
    """(state, reason, parsed) as exported."""
    which = (
        "select w.state, reason, parsed from work w join results r on seq = result_seq"
        " where w.item_id = ?"
    )
    ((state, reason, value),) = table.query(which, item_id)
    return state, reason, value


def reparse(
    table: Table, page: list[EndedAnswer], now: Done | Fail | None, parser: str = "json"
) -> set[int]:
    reparsed = [Reparsed(was, now) for was in page]
    number = table.run(intake.parser_number, ParserVersion(parser), table.now)
    return table.run(repair.write_reparsed, reparsed, number, table.now)


def test_answers_to_parse_again_are_those_that_a_parser_had(table: Table) -> None:
    with_answers(table)
    assert [(one.item_id, one.response, one.reason) for one in answers(table)] == [
        (1, "1", "parse"), (3, "3", "parse"),
    ]  # fmt: skip
    assert [(one.item_id, one.parsed) for one in answers(table, done_too=True)] == [
        (1, None), (2, '"two"'), (3, None),
    ]  # fmt: skip
    assert [one.item_id for one in answers(table, cut_off_too=True)] == [1, 3, 4]
    assert [one.item_id for one in answers(table, done_too=True, cut_off_too=True)] == [1, 2, 3, 4]
    everything = AnswerChoice(done_too=True)
    assert [one.item_id for one in repair.answer_page(table.transaction, 1, everything, 1, 1)] == [
        2
    ]
    assert repair.answer_page(table.transaction, 2, everything, 0, 9) == []
    assert [repair.answer_of(table.transaction, number) is not None for number in range(7)] == [
        False, True, True, True, True, False, False,
    ]  # fmt: skip


def test_an_answer_whose_parser_killed_its_worker_can_be_parsed_again(table: Table) -> None:
    table.enqueue("a")
    for _ in range(MAX_CRASHES):
        worker = table.join()
        (item,) = table.claim(worker, 1)
        if item.answer_seq is None:
            table.finish(worker, item, KeepAnswer(), answered("deadly"))
        table.take_over(worker)
    found = repair.answer_of(table.transaction, 1)
    assert found is not None
    assert (found.reason, found.response) == ("crash", "deadly")
    assert answers(table) == [found]
    assert reparse(table, [found], Done("1")) == set()
    assert parsed(table, 1) == ("done", None, "1")


def test_a_new_result_stands_beside_the_old_one(table: Table) -> None:
    with_answers(table)
    calls = table.query("select * from attempts")
    assert reparse(table, answers(table), Done("7")) == set()
    assert [parsed(table, item_id) for item_id in (1, 2, 3)] == [
        ("done", None, "7"), ("done", None, '"two"'), ("done", None, "7"),
    ]  # fmt: skip
    assert table.query("select state, error, parsed from results where item_id = 1") == [
        ("failed", "no JSON", None), ("done", None, "7"),
    ]  # fmt: skip
    assert table.query("select * from attempts") == calls
    assert table.counters() == {
        (1, "done", ""): 3, (1, "failed", "truncated"): 1, (1, "failed", "server"): 1,
    }  # fmt: skip


def test_a_done_item_that_cannot_be_parsed_any_more_fails_and_keeps_what_it_had(
    table: Table,
) -> None:
    with_answers(table)
    reparse(table, [answers(table, done_too=True)[1]], Fail(Reason.PARSE, "no number"))
    assert parsed(table, 2) == ("failed", "parse", None)
    assert table.query("select parsed from results where item_id = 2") == [('"two"',), (None,)]
    assert [one.item_id for one in answers(table)] == [1, 2, 3]


def test_the_same_value_by_another_parser_is_no_new_result(table: Table) -> None:
    with_answers(table)
    before = table.query("select seq, item_id, parsed, reparsed from results order by seq")
    assert reparse(table, answers(table, done_too=True), None) == set()
    assert table.query("select seq, item_id, parsed, reparsed from results order by seq") == before
    assert table.query("select item_id from results where parser_id = 2") == [(1,), (2,), (3,)]
    assert table.one("select superseded_results from experiments") == 0


def test_what_another_parser_has_read_is_outdated_until_it_is_parsed_again(table: Table) -> None:
    with_answers(table)
    assert outdated(table, "raw") == []
    assert outdated(table, "json") == [1, 2, 3, 4]
    reparse(table, answers(table)[:1], Done("7"))
    reparse(table, answers(table, done_too=True)[1:2], None)
    assert outdated(table, "json") == [3, 4]
    assert outdated(table, "raw") == [1, 2]


def test_an_item_that_is_asked_again_is_read_by_nobody(table: Table) -> None:
    with_answers(table)
    table.reopen_all(reason="parse")
    assert outdated(table, "json") == [2, 4]
    assert table.parser_counters() == {(1, 1): 2}


def test_items_that_moved_on_since_they_were_read_are_left(table: Table) -> None:
    worker = with_answers(table)
    read = answers(table, done_too=True)
    table.reopen_all(reason="parse")
    (again, _) = table.claim(worker, 2)
    table.finish(worker, again, Done("8"), answered("8"))
    assert reparse(table, read, Done("7")) == {1, 3}
    assert [parsed(table, item_id)[2] for item_id in (1, 2)] == ["8", "7"]
    assert table.states()[3] == "running"
    assert reparse(table, read, Done("7")) == {1, 2, 3}


# Experiments


def test_a_renamed_experiment_keeps_its_items(table: Table) -> None:
    table.enqueue("a", experiment="old")
    table.run(admin.rename_experiment, 1, "new")
    assert table.query("select id, name from experiments") == [(1, "new")]
    assert table.enqueue("a", experiment="new") == [1]


def test_a_name_that_is_taken_is_refused(table: Table) -> None:
    table.enqueue("a", experiment="one")
    table.enqueue("a", experiment="two")
    with pytest.raises(UsageError) as caught:
        table.run(admin.rename_experiment, 1, "two")
    assert str(caught.value) == "experiment 'two' exists already; choose another name."
    found = table.query("select id, name from experiments order by id")
    assert found == [(1, "one"), (2, "two")]


def test_an_experiment_that_is_worked_on_is_not_deleted(table: Table) -> None:
    table.enqueue("a", "b")
    table.claim(table.join(), 1)
    with pytest.raises(UsageError) as caught:
        table.delete(1)
    assert str(caught.value) == "1 of its items are being worked on."
    assert caught.value.remedy is Remedy.STOP_WORKERS
    assert table.states() == {1: "running", 2: "pending"}


# Recipes and workers belong to the database, not to an experiment.
OF_AN_EXPERIMENT = (
    "experiments", "variants", "items", "item_keys", "work", "attempts", "results", "counters",
    "parser_counters", "totals", "failed_calls", "minutes", "exports",
)  # fmt: skip


def sort_some_keys_in(table: Table) -> None:
    """Where keys wait for that: some stand in both tables then."""
    if isinstance(table.engine, SqliteEngine):
        table.run(item_keys.sort_in, b"", None)


def count_keys(table: Table) -> int:
    waiting = isinstance(table.engine, SqliteEngine) and table.one(
        "select count(*) from new_item_keys where item_id not in (select item_id from item_keys)"
    )
    return int(table.one("select count(*) from item_keys") + waiting)


def test_a_deleted_experiment_is_gone_from_every_table(table: Table) -> None:
    worker = with_failures(table)
    table.enqueue("kept")
    (item,) = table.claim(worker, 1)
    table.finish(worker, item, KeepAnswer(), answered())
    table.leave(worker)
    table.run(admin.record_export, 1, Path("/out.jsonl"), 1, "ab", 1, table.now)
    sort_some_keys_in(table)
    assert all(table.one(f"select count(*) > 0 from {name}") for name in OF_AN_EXPERIMENT)
    table.delete(1)
    left = {name: table.one(f"select count(*) from {name}") for name in OF_AN_EXPERIMENT}
    assert left == dict.fromkeys(OF_AN_EXPERIMENT, 0)
    assert count_keys(table) == 0


def test_deleting_touches_no_other_experiment(table: Table) -> None:
    with_failures(table)
    table.enqueue("a", "b", experiment="other")
    kept = [
        table.query(f"select * from {name} where experiment_id = 2")
        for name in ("items", "work", "counters", "variants")
    ]
    table.delete(1)
    assert [
        table.query(f"select * from {name} where experiment_id = 2")
        for name in ("items", "work", "counters", "variants")
    ] == kept
    assert count_keys(table) == 2
    assert table.enqueue("a", "b", experiment="other") == [6, 7]


def test_a_name_can_be_used_again_after_deleting(table: Table) -> None:
    table.enqueue("a", experiment="e")
    table.delete(1)
    assert table.enqueue("a", experiment="e") == [2]
    assert table.query("select id, name from experiments") == [(2, "e")]


async def test_an_export_is_remembered_by_its_newest_state(
    database: DatabaseAddress, tmp_path: Path
) -> None:
    async with open_store(database, create=True) as store:
        async with store.enqueueing("e", RECIPE, OtherRecipe.STOP):
            pass
        await store.files.record_export(1, tmp_path / "out.jsonl", 1, "ab", 5)
        await store.files.record_export(1, tmp_path / "out.jsonl", 2, "cd", 6)
        (record,) = await store.files.exports()
    assert (record.experiment, record.path, record.rows, record.sha256, record.result_seq) == (
        "e", str(tmp_path / "out.jsonl"), 2, "cd", 6,
    )  # fmt: skip
