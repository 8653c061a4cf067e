"""Pages of rows: what a listing has, to and fro, and random rows."""

from collections.abc import Callable, Sequence
from math import comb

import pytest

from batchgen.errors import UsageError
from batchgen.items import (
    Done,
    Fail,
    Item,
    KeepAnswer,
    Outcome,
    ParserVersion,
    Reason,
    Retry,
    State,
)
from batchgen.store import AnswerChoice, Listing, Order, PageRow, Reparsed
from batchgen.store.transactions import intake, pages, random_rows, repair, stretches
from tests.kits.table import Table, answered, broken

ALL = (1,)


def finish(table: Table, worker: int, *outcomes: Outcome) -> None:
    table.exchange(worker, outcomes)


def done(item: Item, text: str = "an answer") -> Outcome:
    return Outcome(item, (answered(text),), Done())


def failed(item: Item, reason: Reason = Reason.SERVER) -> Outcome:
    return Outcome(item, (broken(reason),), Fail(reason, f"why {item.id}"))


def numbers(
    table: Table, listing: Listing, place: str | None = None, *, back: bool = False, limit: int = 50
) -> list[int]:
    found = stretches.stretch(table.transaction, listing, place, back=back, limit=limit)
    return [id_ for _, id_ in found.rows]


def all_pages(table: Table, listing: Listing, *, back: bool = False, limit: int = 2) -> list[int]:
    """Page by page, to the end."""
    place, ids = None, list[int]()
    while True:
        found = stretches.stretch(table.transaction, listing, place, back=back, limit=limit)
        ids += [id_ for _, id_ in found.rows]
        assert len(found.rows) <= limit
        if found.end is None:
            return ids
        place = found.end


def of_each_state(table: Table) -> int:
    """1, 3, 5 and 9 done (9 first, then 1, 3, 5), 2, 4, 6 failed, 7 and 8 running, 10 and 11 are
    tried again later, and 12 to 14 are pending, 14 with the highest priority."""
    table.enqueue(*range(11))
    worker = table.join(slots=20)
    items = table.claim(worker, 11)
    by_id = {item.id: item for item in items}
    finish(table, worker, done(by_id[9]))
    finish(table, worker, done(by_id[1]), failed(by_id[2], Reason.PARSE), done(by_id[3]))
    finish(table, worker, failed(by_id[4]), done(by_id[5]), failed(by_id[6]))
    later = [Outcome(by_id[n], (broken(),), Retry(table.now + 10_000 - n, charged=True))
             for n in (10, 11)]  # fmt: skip
    finish(table, worker, *later)
    table.enqueue(*range(20, 22))
    table.enqueue(30, priority=5)
    return worker


LISTINGS: list[tuple[Listing, list[int]]] = [
    (Listing(ALL), [6, 5, 4, 3, 2, 1, 9]),
    (Listing(ALL, state=State.DONE), [5, 3, 1, 9]),
    (Listing(ALL, state=State.FAILED), [6, 4, 2]),
    (Listing(ALL, Order.POOL), [*range(1, 15)]),
    (Listing(ALL, Order.POOL, State.DONE), [1, 3, 5, 9]),
    (Listing(ALL, Order.POOL, State.FAILED), [2, 4, 6]),
    (Listing(ALL, Order.POOL, State.FAILED, "parse"), [2]),
    (Listing(ALL, state=State.FAILED, reason="server"), [6, 4]),
    (Listing(ALL, state=State.RUNNING), [7, 8]),
    (Listing(ALL, state=State.PENDING), [11, 10, 14, 12, 13]),
    (Listing(ALL, state=State.STALE), []),
    (Listing((2,)), []),
]


@pytest.mark.quick("2", "50-listing0")
@pytest.mark.parametrize(("listing", "expected"), LISTINGS)
@pytest.mark.parametrize("limit", [1, 2, 3, 50])
def test_a_listing_has_its_rows_in_its_order_however_long_a_page_is(
    table: Table, listing: Listing, expected: list[int], limit: int
) -> None:
    of_each_state(table)
    assert all_pages(table, listing, limit=limit) == expected
    assert all_pages(table, listing, limit=limit, back=True) == expected[::-1]


@pytest.mark.quick("listing1", "listing4", "listing8")
@pytest.mark.parametrize(("listing", "expected"), LISTINGS)
def test_from_any_place_a_listing_goes_on_both_ways(
    table: Table, listing: Listing, expected: list[int]
) -> None:
    of_each_state(table)
    found = stretches.stretch(table.transaction, listing, None, back=False, limit=50)
    for n, (place, id_) in enumerate(found.rows):
        assert id_ == expected[n]
        assert numbers(table, listing, place) == expected[n + 1 :]
        assert numbers(table, listing, place, back=True) == expected[:n][::-1]


@pytest.mark.parametrize("place", ["x", "1.2", "", "fresh.1.x.3", "9" * 19, "none.1.2.3", "Ⅻ"])
@pytest.mark.parametrize("state", [None, State.FAILED, State.PENDING, State.RUNNING])
def test_what_is_no_place_is_told(table: Table, place: str, state: State | None) -> None:
    with pytest.raises(UsageError, match="is no place in this list"):
        numbers(table, Listing(ALL, state=state), place)


def test_a_place_beyond_the_ends_is_an_end(table: Table) -> None:
    of_each_state(table)
    assert numbers(table, Listing(ALL), "1000000") == [6, 5, 4, 3, 2, 1, 9]
    assert numbers(table, Listing(ALL), "-5") == []
    assert numbers(table, Listing(ALL, Order.POOL), "1000000") == []


def test_rows_of_others_in_between_are_passed_over_in_bounded_stretches(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stretches, "_BY_RESULTS", stretches._BY_RESULTS._replace(span=3))
    monkeypatch.setattr(stretches, "_BY_ROWS", stretches._BY_ROWS._replace(span=3))
    (one,) = table.enqueue("a", experiment="mine")
    table.enqueue(*range(10), experiment="others")
    (two,) = table.enqueue("b", experiment="mine")
    worker = table.join(slots=20)
    finish(table, worker, *map(done, table.claim(worker, 20)))
    for listing in (Listing(ALL), Listing(ALL, Order.POOL, State.DONE)):
        for back in (False, True):
            place, ids, looked_at, steps = None, [], 0, 0
            while True:
                found = stretches.stretch(table.transaction, listing, place, back=back, limit=9)
                ids += [id_ for _, id_ in found.rows]
                assert found.looked_at <= 3
                looked_at, steps = looked_at + found.looked_at, steps + 1
                if found.end is None:
                    break
                place = found.end
            assert sorted(ids) == [one, two]
            assert (looked_at, steps) == (12, 4)


def test_a_row_stands_once_however_often_it_has_ended(table: Table) -> None:
    worker = of_each_state(table)
    table.run(repair.reopen, repair.failed_page(table.transaction, 1, "parse", None, 0, 9), None, 0)
    (item,) = (one for one in table.claim(worker, 2) if one.id == 2)
    finish(table, worker, done(item))
    assert all_pages(table, Listing(ALL)) == [2, 6, 5, 4, 3, 1, 9]


def test_several_experiments_are_listed_together(table: Table) -> None:
    a, b = table.enqueue("a", "b", experiment="one")
    c, d = table.enqueue("c", "d", experiment="two")
    worker = table.join()
    finish(table, worker, *(failed(one) for one in table.claim(worker, 4)))
    for listing in (Listing((1, 2), Order.POOL, State.FAILED), Listing((2, 1), Order.POOL)):
        assert all_pages(table, listing) == [a, b, c, d]
        assert all_pages(table, listing, back=True) == [d, c, b, a]


def test_a_row_at_which_a_worker_died_stands_among_the_pending(table: Table) -> None:
    table.enqueue("a", "b")
    worker = table.join()
    (item,) = table.claim(worker, 1)
    finish(table, worker, Outcome(item, (answered(),), KeepAnswer()))
    table.take_over(worker)
    listing = Listing(ALL, state=State.PENDING)
    assert all_pages(table, listing) == [1, 2]
    assert all_pages(table, listing, back=True) == [2, 1]


# What a row shows


def one_row(table: Table, given: object, *outcomes: Callable[[Item], Outcome]) -> PageRow:
    (id_,) = table.enqueue(given)
    worker = table.join()
    for outcome in outcomes:
        (item,) = table.claim(worker, 1)
        finish(table, worker, outcome(item))
    (row,) = pages.page_rows(table.transaction, [id_])
    return row


def test_a_row_shows_the_beginnings_of_its_texts_and_how_long_they_are(table: Table) -> None:
    text = "é" * 1000
    row = one_row(table, {"word": text}, lambda item: done(item, text))
    assert (row.answer, row.answer_bytes) == ("é" * 240, 2000)
    assert row.input == f'{{"word": "{text}'[:240]
    assert row.input_bytes == 2000 + len('{"word": ""}')
    assert (row.state, row.tries, row.latency_ms) == ("done", 1, 700)
    assert (row.prompt_tokens, row.completion_tokens, row.parsed) == (10, 20, None)


def test_a_text_goes_on_after_a_nul(table: Table) -> None:
    row = one_row(table, "w", lambda item: done(item, "a\0b"))
    assert row.answer in ("a\0b", "a\ufffdb")  # PostgreSQL has no NUL
    assert pages.with_text(table.transaction, [row.id], "b") == [row.id]


def test_a_row_without_an_answer_shows_its_input(table: Table) -> None:
    row = one_row(table, {"word": "w"})
    assert (row.state, row.input, row.answer, row.reason) == (
        "pending",
        '{"word": "w"}',
        None,
        None,
    )


def test_a_failed_row_shows_why(table: Table) -> None:
    row = one_row(table, "w", failed)
    assert (row.state, row.reason, row.error) == ("failed", "server", f"why {row.id}")


def test_rows_come_in_the_order_in_which_they_are_asked_for(table: Table) -> None:
    table.enqueue(*range(5))
    rows = pages.page_rows(table.transaction, [3, 1, 5, 99])
    assert [row.id for row in rows] == [3, 1, 5]


# Text


@pytest.mark.parametrize(
    ("text", "found"),
    [("SORRY", [1]), ("sorry, I", [1]), ("请问", [2, 3]), ('say "hi"', [4]), ("a\nb", [5]),
     ("why", [6]), ("my-own-id", []), ("%", []), ("_", []), ("nothing like it", [])],
)  # fmt: skip
def test_a_text_is_found_wherever_it_stands(table: Table, text: str, found: list[int]) -> None:
    table.enqueue("one", {"word": "请问 here"}, "three", {"word": 'say "hi"'}, "a\nb", "six")
    worker = table.join()
    one, two, three, four, _five, six = table.claim(worker, 6)
    finish(table, worker, done(one, "Sorry, I cannot."), done(two), done(three, "再请问一次"),
           done(four), failed(six))  # fmt: skip
    assert pages.with_text(table.transaction, range(1, 7), text) == found


def test_a_text_is_found_in_a_pool_of_ascii_alone(table: Table) -> None:
    from batchgen.items import NewItem
    from batchgen.store import key_of_content

    into = table.begin()
    key = key_of_content(into.experiment_id, into.variant, b"x")
    table.add(into, [NewItem(key, '{"word": "\\u8bf7\\u95ee"}', "My-Own-Id", "pool.jsonl:1")])
    assert pages.with_text(table.transaction, [1], "请问") == [1]
    assert pages.with_text(table.transaction, [1], "my-own") == [1]


# Random rows


def many_done(table: Table, n: int, experiment: str = "e") -> list[int]:
    ids = table.enqueue(*range(n), experiment=experiment)
    worker = table.join(slots=n)
    finish(table, worker, *map(done, table.claim(worker, n)))
    table.leave(worker)
    return ids


def drawn(table: Table, n: int, seed: int, experiment_id: int = 1) -> Sequence[int]:
    return random_rows.random_done(table.transaction, experiment_id, n, seed).item_ids


def test_a_random_sample_is_of_done_rows_none_twice_and_the_same_again(table: Table) -> None:
    ids = many_done(table, 200)
    table.enqueue("pending")
    sample = drawn(table, 50, seed=7)
    assert len(set(sample)) == 50
    assert set(sample) <= set(ids)
    assert drawn(table, 50, seed=7) == sample
    assert drawn(table, 50, seed=8) != sample
    assert drawn(table, 20, seed=7) == sample[:20]


def test_a_sample_is_told_to_be_all(table: Table) -> None:
    ids = many_done(table, 20)
    all_of_them = random_rows.random_done(table.transaction, 1, 100, seed=1)
    assert (sorted(all_of_them.item_ids), all_of_them.is_all) == (ids, True)
    assert random_rows.random_done(table.transaction, 1, 19, seed=1).is_all is False
    assert random_rows.random_done(table.transaction, 9, 5, seed=1).item_ids == ()


def test_a_sample_stays_while_others_are_done(table: Table) -> None:
    many_done(table, 50)
    sample = random_rows.random_done(table.transaction, 1, 20, seed=3)
    many_done(table, 50)
    again = random_rows.random_done(table.transaction, 1, 20, seed=3, upto=sample.upto)
    assert again.item_ids == sample.item_ids


@pytest.mark.quick("10")
@pytest.mark.parametrize("most_drawn", [20_000, 10])
def test_every_row_is_as_likely(
    table: Table, monkeypatch: pytest.MonkeyPatch, most_drawn: int
) -> None:
    """Of six rows two: each pair comes about equally often. Also where few draws hit."""
    monkeypatch.setattr(random_rows, "_MOST_DRAWN", most_drawn)
    many_done(table, 30, "others")
    mine = many_done(table, 6, "mine")
    seen = [tuple(sorted(drawn(table, 2, seed, 2))) for seed in range(600)]
    assert {len(pair) for pair in seen} == {2}
    assert {one for pair in seen for one in pair} == set(mine)
    counts = [seen.count(pair) for pair in set(seen)]
    expected = 600 / comb(6, 2)
    assert len(counts) == comb(6, 2)
    # The seeds are fixed, so that it comes out the same each time.
    assert sum((n - expected) ** 2 / expected for n in counts) < 36  # 14 degrees, p = 0.001


def test_a_row_whose_result_was_replaced_is_drawn_by_its_own_alone(table: Table) -> None:
    many_done(table, 5)
    ended = table.run(lambda db: [repair.ended_item(db, 3)])
    table.run(repair.reopen, [one for one in ended if one], None, table.now)
    assert sorted(drawn(table, 50, seed=1)) == [1, 2, 4, 5]
    worker = table.join()
    finish(table, worker, *map(done, table.claim(worker, 1)))
    assert sorted(drawn(table, 50, seed=1)) == [1, 2, 3, 4, 5]


# Former results


def ask_again(table: Table, item_id: int) -> None:
    ended = repair.ended_item(table.transaction, item_id)
    assert ended is not None
    table.run(repair.reopen, [ended], None, table.now)


def parse_again(table: Table, item_id: int, parsed: str) -> None:
    choice = AnswerChoice(done_too=True)
    (was,) = repair.answer_page(table.transaction, 1, choice, item_id - 1, 1)
    number = table.run(intake.parser_number, ParserVersion("json"), table.now)
    table.run(repair.write_reparsed, [Reparsed(was, Done(parsed))], number, table.now)


def former(table: Table, item_id: int) -> list[tuple[str, str | None, str | None, str | None]]:
    found = pages.former_results(table.transaction, item_id, 20)
    return [(one.state, one.reason, one.parser, one.text) for one in found]


def test_what_an_item_ended_with_before_is_found_the_newest_first(table: Table) -> None:
    table.enqueue("a", "b")
    worker = table.join()
    one, two = table.claim(worker, 2)
    finish(table, worker, failed(one), Outcome(two, (answered("[2]"),), Done()))
    assert former(table, 1) == former(table, 2) == []
    ask_again(table, 1)
    (one,) = table.claim(worker, 1)
    finish(table, worker, Outcome(one, (answered("[1]"),), Done()))
    assert former(table, 1) == [("failed", "server", None, None)]
    parse_again(table, 1, "[1]")
    parse_again(table, 1, "1")
    parsers = table.one("select spec from parsers where id = 1")
    assert former(table, 1) == [
        ("done", None, "json", "[1]"), ("done", None, parsers, "[1]"),
        ("failed", "server", None, None),
    ]  # fmt: skip
    assert former(table, 2) == []
    assert table.problems() == []
