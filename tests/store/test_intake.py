"""Enqueueing: each item of a pool once, whatever was enqueued before and wherever it stopped."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from batchgen.database_address import DatabaseAddress
from batchgen.errors import UsageError
from batchgen.items import Done, Fail, KeepAnswer, ParserVersion, Reason, Retry
from batchgen.store import (
    Added,
    NewRows,
    OtherRecipe,
    RecipeChoice,
    open_store,
)
from batchgen.store.transaction import Transaction
from batchgen.text.json_text import canonical_json, content_of, dump_json
from tests.kits.table import (
    OTHER_RECIPE,
    RECIPE,
    Table,
    answered,
    broken,
    new_item,
)
from tests.store.conftest import NewTable


def enqueue_in_chunks(
    table: Table, pool: list[Any], chunk: int, upto: int | None = None
) -> list[int]:
    """One pass over a pool, cut off after `upto` chunks; the numbers of its items."""
    into = table.begin()
    ids: list[int] = []
    for start in range(0, len(pool), chunk)[:upto]:
        ids += table.add(into, [new_item(each) for each in pool[start : start + chunk]]).ids
    return ids


def test_items_are_numbered_in_the_order_of_the_pool(table: Table) -> None:
    assert table.enqueue("a", "b", "c") == [1, 2, 3]
    assert table.inputs() == ["a", "b", "c"]
    assert table.states() == {1: "pending", 2: "pending", 3: "pending"}


def test_the_same_pool_again_adds_nothing(table: Table) -> None:
    first = table.add(table.begin(), [new_item("a"), new_item("b")])
    again = table.add(table.begin(), [new_item("a"), new_item("b")])
    assert (first, again) == (Added([1, 2], 2), Added([1, 2], 0))
    assert table.inputs() == ["a", "b"]


def test_a_pool_that_grew_by_one_row_adds_one_item(table: Table) -> None:
    table.enqueue("a", "b")
    assert table.add(table.begin(), [new_item(each) for each in "axb"]) == Added([1, 3, 2], 1)


def test_a_second_copy_is_a_second_item_once(table: Table) -> None:
    pool = [new_item(each) for each in "aaba"]
    assert table.add(table.begin(), pool) == Added([1, 2, 3, 4], 4)
    assert table.add(table.begin(), pool) == Added([1, 2, 3, 4], 0)
    assert table.add(table.begin(), [*pool, new_item("a")]) == Added([1, 2, 3, 4, 5], 1)


def test_fewer_copies_than_before_are_the_first_ones(table: Table) -> None:
    table.enqueue("a", "a", "a")
    assert table.enqueue("a", "a") == [1, 2]
    assert table.enqueue("a", "a", "a") == [1, 2, 3]


@pytest.mark.quick("2")
@pytest.mark.parametrize("chunk", [1, 2, 3, 5])
def test_copies_are_counted_over_the_edges_of_chunks(table: Table, chunk: int) -> None:
    pool = list("aabaa")
    assert enqueue_in_chunks(table, pool, chunk) == [1, 2, 3, 4, 5]
    assert enqueue_in_chunks(table, pool, chunk) == [1, 2, 3, 4, 5]
    assert table.inputs() == pool


@pytest.mark.quick("1")
@pytest.mark.parametrize("chunks_done", [0, 1, 2, 3])
def test_a_pass_that_was_cut_off_is_completed_by_the_next(table: Table, chunks_done: int) -> None:
    pool = list("aabaa")
    done = enqueue_in_chunks(table, pool, 2, upto=chunks_done)
    assert enqueue_in_chunks(table, pool, 2) == [1, 2, 3, 4, 5]
    assert done == [1, 2, 3, 4, 5][: 2 * chunks_done]
    assert table.inputs() == pool


@pytest.mark.quick("sqlite")
@given(
    pool=st.lists(st.sampled_from("abc"), max_size=12),
    chunks=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    upto=st.integers(0, 4),
)
def test_any_pool_cut_anywhere_ends_as_if_enqueued_at_once(
    new_table: NewTable, pool: list[str], chunks: tuple[int, int], upto: int
) -> None:
    with new_table() as table:
        enqueue_in_chunks(table, pool, chunks[0], upto=upto)
        numbers = list(range(1, len(pool) + 1))
        assert enqueue_in_chunks(table, pool, chunks[1]) == numbers
        assert enqueue_in_chunks(table, pool, chunks[0]) == numbers
        assert table.inputs() == pool


def test_the_order_of_json_keys_does_not_matter(table: Table) -> None:
    one, other = {"a": 1, "b": [2, {"c": 3, "d": 4}]}, {"b": [2, {"d": 4, "c": 3}], "a": 1}
    assert table.enqueue(one) == table.enqueue(other) == [1]


def test_the_order_of_a_list_matters(table: Table) -> None:
    assert table.enqueue({"a": [1, 2]}, {"a": [2, 1]}) == [1, 2]


JSON = st.recursive(
    st.text(max_size=5)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
    | st.none(),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
)


@given(JSON, JSON)
def test_equal_contents_are_those_whose_canonical_json_is_equal(one: Any, other: Any) -> None:
    """`content_of` is what identity hangs on, and several times as fast."""
    one, other = json.loads(dump_json(one)), json.loads(dump_json(other))
    assert (content_of(one) == content_of(other)) == (canonical_json(one) == canonical_json(other))
    shuffled = json.loads(json.dumps(one, sort_keys=True))
    assert content_of(shuffled) == content_of(one)


def test_equal_content_in_two_experiments_is_two_items(table: Table) -> None:
    assert table.enqueue("a", experiment="one") == [1]
    assert table.enqueue("a", experiment="two") == [2]
    assert table.counters() == {(1, "pending", ""): 1, (2, "pending", ""): 1}


def test_the_same_id_and_content_adds_nothing(table: Table) -> None:
    given_, reordered = {"id": "x", "v": 1}, {"v": 1, "id": "x"}
    assert table.add(table.begin(), [new_item(given_, custom_id="x")]) == Added([1], 1)
    again = [new_item(given_, custom_id="x"), new_item(reordered, custom_id="x")]
    assert table.add(table.begin(), again) == Added([1, 1], 0)
    assert table.inputs() == [given_]


def test_the_same_id_twice_in_a_new_chunk_is_one_item(table: Table) -> None:
    pool = [
        new_item({"v": 1}, custom_id="x"),
        new_item({"v": 2}, custom_id="y"),
        new_item({"v": 1}, custom_id="x"),
    ]
    assert table.add(table.begin(), pool) == Added([1, 2, 1], 2)


def test_another_content_under_a_known_id_is_a_conflict_that_names_the_item(table: Table) -> None:
    table.add(table.begin(), [new_item({"v": 1}, custom_id="x")])
    pool = [new_item("before"), new_item({"v": 2}, custom_id="x"), new_item("after")]
    assert table.add(table.begin(), pool) == Added([2], 1, conflict=1)
    assert table.inputs() == [{"v": 1}, "before"]


def test_a_conflict_within_a_chunk_keeps_the_rows_before_it(table: Table) -> None:
    pool = [
        new_item({"v": 1}, custom_id="x"),
        new_item("a"),
        new_item({"v": 2}, custom_id="x"),
        new_item("b"),
    ]
    into = table.begin()
    assert table.add(into, pool) == Added([1, 2], 2, conflict=1)
    assert table.add(into, pool[3:]) == Added([3], 1)
    assert table.inputs() == [{"v": 1}, "a", "b"]


def test_an_id_and_equal_content_without_id_are_two_items(table: Table) -> None:
    pool = [new_item({"v": 1}, custom_id="x"), new_item({"v": 1})]
    assert table.add(table.begin(), pool) == Added([1, 2], 2)


def test_a_chunk_that_was_rolled_back_was_never_there(table: Table) -> None:
    table.enqueue("a")
    into = table.begin()
    pool = [new_item("a"), new_item("b"), new_item("c")]

    def add_and_fail(db: Transaction) -> None:
        table.engine.add_items(db, into, pool, 0)
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        table.run(add_and_fail)
    added = table.add(into, pool)
    assert (added.ids[0], added.new) == (1, 2)
    assert table.inputs() == ["a", "b", "c"]


def test_numbers_of_known_items_leave_no_gap(table: Table) -> None:
    table.enqueue("a", "b")
    assert table.enqueue("b", "c", "a", "d") == [2, 3, 1, 4]


def test_priority_is_kept_with_the_items_of_that_pass(table: Table) -> None:
    table.enqueue("a", "b")
    table.enqueue("b", "c", priority=5)
    assert table.query("select item_id, priority from work") == [(1, 0), (2, 0), (3, 5)]


def test_a_finished_item_is_not_enqueued_again(table: Table) -> None:
    table.enqueue("a")
    worker = table.join()
    (item,) = table.claim(worker, 1)
    table.finish(worker, item, Done(), answered())
    assert table.enqueue("a") == [1]
    assert table.states() == {1: "done"}


# Another recipe


def test_another_recipe_stops_and_says_what_each_way_asks(table: Table) -> None:
    with_an_item_in_each_state(table)
    before = table.query("select * from work"), table.query("select * from items")
    stopped = table.begin(recipe=OTHER_RECIPE)
    assert (stopped.choice, stopped.first) == (RecipeChoice(RECIPE, 5, replace=3, again=5), 0)
    assert (table.query("select * from work"), table.query("select * from items")) == before
    assert table.begin(recipe=RECIPE).choice is None


def test_another_recipe_added_asks_each_item_once_more(table: Table) -> None:
    assert table.enqueue("a", recipe=RECIPE) == [1]
    assert table.enqueue("a", recipe=OTHER_RECIPE) == [2]
    for recipe, number in ((RECIPE, 1), (OTHER_RECIPE, 2)):
        assert table.begin(recipe=recipe, mode=OtherRecipe.STOP).choice is None
        assert table.enqueue("a", recipe=recipe) == [number]
    assert table.query("select variant, recipe_id from items order by id") == [(1, 1), (2, 2)]


def with_an_item_in_each_state(table: Table) -> None:
    """1 done, 2 failed, 3 waits for a retry, 4 waits with an answer not parsed yet, 5 pending."""
    table.enqueue("done", "failed", "retried", "answered", "fresh")
    worker = table.join()
    done, failed, retried, kept = table.claim(worker, 4)
    table.finish(worker, done, Done(), answered())
    table.finish(worker, failed, Fail(Reason.REJECTED, "no"), broken(Reason.REJECTED))
    table.finish(worker, retried, Retry(table.now + 1000, charged=True), broken())
    table.finish(worker, kept, KeepAnswer(), answered("paid for"))
    table.leave(worker)


def recipes_of_items(table: Table) -> dict[int, int]:
    return dict(table.query("select id, recipe_id from items order by id"))


POOL = ("done", "failed", "retried", "answered", "fresh")


def test_replace_asks_what_is_not_done_and_has_no_answer(table: Table) -> None:
    with_an_item_in_each_state(table)
    into = table.begin(recipe=OTHER_RECIPE, mode=OtherRecipe.REPLACE)
    assert (into.asked_anew, into.running, into.choice) == (3, 0, None)
    assert recipes_of_items(table) == {1: 1, 2: 2, 3: 2, 4: 1, 5: 2}
    assert table.states() == {1: "done", **dict.fromkeys((2, 3, 4, 5), "pending")}
    assert table.counters() == {(1, "done", ""): 1, (1, "pending", ""): 4}
    assert table.work(3)["tries"] == 0
    assert table.work(3)["available_at"] is None
    assert table.work(4)["answer_seq"] is not None
    assert [len(table.attempts(number)) for number in range(1, 6)] == [1, 1, 1, 1, 0]
    assert table.enqueue(*POOL, "new", recipe=OTHER_RECIPE) == [1, 2, 3, 4, 5, 6]


def test_again_asks_all(table: Table) -> None:
    with_an_item_in_each_state(table)
    into = table.begin(recipe=OTHER_RECIPE, mode=OtherRecipe.AGAIN)
    assert into.asked_anew == 5
    assert set(recipes_of_items(table).values()) == {2}
    assert table.counters() == {(1, "pending", ""): 5}
    assert table.parser_counters() == {}
    assert table.one("select count(*) from work where answer_seq is not null") == 0
    assert table.one("select superseded_results from experiments") == 1
    assert table.query("select response from attempts where response is not null") == [
        ("an answer",), ("paid for",),
    ]  # fmt: skip
    assert table.enqueue(*POOL, recipe=OTHER_RECIPE) == [1, 2, 3, 4, 5]


def test_again_leaves_what_is_done_with_that_very_recipe(table: Table) -> None:
    """The first recipe, another for the rest, and the first one after all."""
    with_an_item_in_each_state(table)
    table.begin(recipe=OTHER_RECIPE, mode=OtherRecipe.REPLACE)
    assert table.begin(recipe=RECIPE).choice == RecipeChoice(OTHER_RECIPE, 5, replace=3, again=4)
    assert table.begin(recipe=RECIPE, mode=OtherRecipe.AGAIN).asked_anew == 4
    assert table.states()[1] == "done"


@pytest.mark.parametrize("mode", [OtherRecipe.REPLACE, OtherRecipe.AGAIN])
def test_the_same_command_once_more_asks_nothing_anew(table: Table, mode: OtherRecipe) -> None:
    with_an_item_in_each_state(table)
    table.begin(recipe=OTHER_RECIPE, mode=mode)
    before = table.query("select * from work")
    assert table.begin(recipe=OTHER_RECIPE, mode=mode).asked_anew == 0
    assert table.query("select * from work") == before


def test_items_with_an_id_keep_it_whatever_the_recipe(table: Table) -> None:
    table.add(table.begin(), [new_item({"v": 1}, custom_id="x")])
    into = table.begin(recipe=OTHER_RECIPE, mode=OtherRecipe.REPLACE)
    assert table.add(into, [new_item({"v": 2}, custom_id="x")]) == Added([], 0, conflict=1)


def test_replace_is_about_the_newest_variant(table: Table) -> None:
    table.enqueue("a", "b", recipe=RECIPE)
    table.enqueue("a", recipe=OTHER_RECIPE)
    third = replace(RECIPE, model="third")
    assert table.begin(recipe=third, mode=OtherRecipe.REPLACE).asked_anew == 1
    assert recipes_of_items(table) == {1: 1, 2: 1, 3: 3}
    assert table.begin(recipe=OTHER_RECIPE).choice is not None
    assert table.begin(recipe=RECIPE).choice is None


def test_replace_touches_no_other_experiment(table: Table) -> None:
    table.enqueue("a", experiment="one")
    table.enqueue("a", experiment="two")
    table.begin("one", OTHER_RECIPE, OtherRecipe.REPLACE)
    assert recipes_of_items(table) == {1: 2, 2: 1}
    assert table.begin("two", RECIPE).choice is None


@pytest.mark.parametrize("mode", [OtherRecipe.REPLACE, OtherRecipe.AGAIN])
def test_nothing_is_asked_anew_while_items_are_in_flight(table: Table, mode: OtherRecipe) -> None:
    table.enqueue("a", "b")
    table.claim(table.join(), 1)
    into = table.begin(recipe=OTHER_RECIPE, mode=mode)
    assert (into.running, into.first) == (1, 0)
    assert table.states() == {1: "running", 2: "pending"}
    choice = table.begin(recipe=OTHER_RECIPE).choice
    assert choice == RecipeChoice(RECIPE, 2, replace=2, again=2)


def test_the_present_recipe_goes_on_while_items_are_in_flight(table: Table) -> None:
    table.enqueue("a")
    table.claim(table.join(), 1)
    into = table.begin(recipe=RECIPE, mode=OtherRecipe.REPLACE)
    assert (into.running, into.asked_anew, into.first) == (0, 0, 2)


@pytest.mark.quick("sqlite")
@given(
    known=st.lists(st.sampled_from("abc"), max_size=6),
    pool=st.lists(st.sampled_from("abcd"), max_size=8),
    samples=st.integers(1, 3),
)
def test_what_would_be_new_is_counted_as_it_would_be_added(
    new_table: NewTable, known: list[str], pool: list[str], samples: int
) -> None:
    with new_table() as table:
        table.add(table.begin(samples=2), [new_item(each) for each in known])
        into = table.begin(samples=samples)
        rows = [new_item(each) for each in pool]
        first, new = table.engine.begin_count(), NewRows(0, 0)
        into = replace(into, first=first)
        for row in rows:
            new += table.engine.count_new(into, [row], first + new.rows)
        into = table.begin(samples=samples)
        assert new.rows == table.add(into, rows).new
        added = "select count(*) from items where id >= ? and sample_of is null"
        assert new.items == table.one(added, first)


# The parser


def test_a_new_parser_is_the_experiment_s_and_asks_nothing(table: Table) -> None:
    table.enqueue("a")
    into = table.begin(parser=ParserVersion("json"))
    assert (into.choice, table.add(into, [new_item("a")])) == (None, Added([1], 0))
    present = "select spec from parsers join experiments e on e.parser_id = parsers.id"
    assert table.query(present) == [("json",)]
    assert table.enqueue("a") == [1]
    assert table.query(present) == [("raw",)]


# The door


async def test_two_processes_enqueue_one_after_the_other(database: DatabaseAddress) -> None:
    waits = asyncio.Event()
    told: list[str] = []

    def say(message: str) -> None:
        told.append(message)
        waits.set()

    async def second() -> Added:
        async with store.enqueueing("f", RECIPE, OtherRecipe.STOP, say=say) as into:
            return await store.add_items(into, [new_item("a", into.experiment_id)])

    async with open_store(database, create=True) as store:
        async with store.enqueueing("e", RECIPE, OtherRecipe.STOP):
            with pytest.raises(UsageError, match=r"another batchgen is enqueueing into it \(pid "):
                async with store.enqueueing("f", RECIPE, OtherRecipe.STOP, patience_s=0):
                    pass
            waiting = asyncio.create_task(second())
            await waits.wait()
            assert not waiting.done()
        added = await waiting
    assert [message.partition("(")[0] for message in told] == [
        f"{store.name}: another batchgen is enqueueing into it "
    ]
    assert added == Added([1], 1)
    if isinstance(database, Path):
        assert not database.with_name("batchgen.db-enqueue").exists()


async def test_an_enqueueing_that_is_cancelled_lets_the_next_one_in(
    database: DatabaseAddress,
) -> None:
    async with open_store(database, create=True) as store:
        begun = asyncio.Event()

        async def enqueue_for_ever() -> None:
            async with store.enqueueing("e", RECIPE, OtherRecipe.STOP):
                begun.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(enqueue_for_ever())
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
        async with store.enqueueing("e", RECIPE, OtherRecipe.STOP) as into:
            assert into.first == 1
