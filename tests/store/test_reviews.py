"""What people say of answers: of one result each, and never of another."""

from typing import Any

import pytest
from msgspec.structs import asdict

from batchgen.errors import UsageError
from batchgen.items import Done, Fail, Outcome, Reason
from batchgen.store import (
    EndedItem,
    Review,
    ReviewChange,
    ReviewCounts,
    ReviewFilter,
    Verdict,
)
from batchgen.store.transactions import repair, reviews
from tests.kits.table import START, Table, answered, broken

ACCEPT, REJECT = ReviewChange(Verdict.ACCEPTED), ReviewChange(Verdict.REJECTED)
ALL = ReviewFilter()


def with_answers(table: Table) -> int:
    """1, 2 and 3 are done, by the results of their numbers, 4 has failed, 5 is pending; the
    worker. The second answer is its parsed value."""
    table.enqueue(*"abcde")
    worker = table.join()
    one, two, three, four = table.claim(worker, 4)
    table.exchange(
        worker,
        [
            Outcome(one, (answered(),), Done('{"n": 1}')),
            Outcome(two, (answered(),), Done()),
            Outcome(three, (answered(),), Done("[3]")),
            Outcome(four, (broken(Reason.REJECTED),), Fail(Reason.REJECTED, "no")),
        ],
    )
    return worker


def say(table: Table, item_id: int, change: ReviewChange, seq: int | None = None) -> Review | None:
    return table.run(
        reviews.put_review, item_id, item_id if seq is None else seq, change, table.now
    )


def undo(table: Table, item_id: int, seq: int | None = None) -> Review | None:
    return table.run(reviews.undo_review, item_id, item_id if seq is None else seq, table.now)


def said(table: Table, item_id: int) -> tuple[str | None, str | None, str | None] | None:
    review = reviews.reviews_of(table.transaction, [item_id]).get(item_id)
    return None if review is None else (review.verdict, review.note, review.edited)


def counts(table: Table, *experiment_ids: int) -> ReviewCounts:
    return reviews.count_reviews(table.transaction, experiment_ids or [1])


def page(
    table: Table, which: ReviewFilter = ALL, after: int = 0, limit: int = 9
) -> list[tuple[int, str | None]]:
    found = reviews.review_page(table.transaction, [1], which, after, limit)
    return [(one.item_id, one.verdict) for one in found]


def ask_again(table: Table, worker: int, item_id: int, parsed: str) -> None:
    """It gets another answer."""
    done = repair.ended_item(table.transaction, item_id)
    assert done is not None
    assert table.run(repair.reopen, [done], None, table.now) == 1
    claimed = {item.id: item for item in table.claim(worker, 9)}
    table.finish(worker, claimed[item_id], Done(parsed), answered("another"))


def test_a_verdict_is_there_for_the_result_that_was_seen(table: Table) -> None:
    with_answers(table)
    before = table.query("select * from results"), table.query("select * from attempts")
    assert say(table, 1, ACCEPT) == Review(1, 1, "accepted", None, None, START)
    assert say(table, 3, REJECT) == Review(3, 3, "rejected", None, None, START)
    assert reviews.reviews_of(table.transaction, [1, 2, 3, 99]) == {
        1: Review(1, 1, "accepted", None, None, START),
        3: Review(3, 3, "rejected", None, None, START),
    }
    assert counts(table) == ReviewCounts(accepted=1, rejected=1)
    assert (table.query("select * from results"), table.query("select * from attempts")) == before


def test_no_more_reviews_are_counted_than_are_wanted(table: Table) -> None:
    with_answers(table)
    for item_id, change in ((1, ACCEPT), (2, ACCEPT), (3, REJECT)):
        say(table, item_id, change)
    whole = ReviewCounts(accepted=2, rejected=1)
    assert counts(table) == reviews.count_reviews(table.transaction, [1], 3) == whole
    part = reviews.count_reviews(table.transaction, [1], 2)
    assert part == ReviewCounts(accepted=2, is_part=True)


def test_what_is_not_said_stays_and_an_empty_note_is_none(table: Table) -> None:
    with_answers(table)
    say(table, 1, ReviewChange(note="so so"))
    assert counts(table) == ReviewCounts(undecided=1)
    say(table, 1, ReviewChange(edited='{"n": 2}'))
    assert said(table, 1) == (None, "so so", '{"n": 2}')
    say(table, 1, ACCEPT)
    assert said(table, 1) == ("accepted", "so so", '{"n": 2}')
    say(table, 1, ReviewChange(note=""))
    assert said(table, 1) == ("accepted", None, '{"n": 2}')
    assert counts(table) == ReviewCounts(accepted=1, edited=1)
    say(table, 1, ReviewChange(verdict=None))
    assert say(table, 1, ReviewChange(edited=None)) is None
    assert said(table, 1) is None
    assert counts(table) == ReviewCounts()


def test_undo_takes_back_the_last_and_then_all(table: Table) -> None:
    with_answers(table)
    say(table, 1, ReviewChange(note="first"))
    say(table, 1, ACCEPT)
    say(table, 1, ReviewChange(Verdict.REJECTED, "second", '"x"'))
    undone = undo(table, 1)
    assert undone is not None
    assert said(table, 1) == ("accepted", "first", None) == tuple(asdict(undone).values())[2:5]
    assert undo(table, 1) is None
    assert said(table, 1) is None
    with pytest.raises(UsageError, match="item 1: nothing was said of it"):
        undo(table, 1)


def test_what_is_said_twice_is_taken_back_once(table: Table) -> None:
    with_answers(table)
    say(table, 1, REJECT)
    say(table, 1, ACCEPT)
    table.now += 1000
    again = say(table, 1, ACCEPT)
    assert again == Review(1, 1, "accepted", None, None, START)
    undo(table, 1)
    assert said(table, 1) == ("rejected", None, None)


@pytest.mark.parametrize(
    ("item_id", "seq", "change", "words"),
    [
        (1, 2, ACCEPT, "item 1 has another answer by now than the one that was looked at; nothing "
                       "was noted. Look at it again."),
        (4, 4, ACCEPT, "item 4 is failed: it has no answer that can be reviewed."),
        (5, 0, REJECT, "item 5 is pending: it has no answer that can be reviewed."),
        (99, 1, ACCEPT, "item 99 is not there (any more)."),
        (2, 2, ReviewChange(edited="[1]"),
         "item 2: its answer is a text (parser raw), so what takes its place must be one: as JSON, "
         '"in quotes".'),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_refused_with_words(
    table: Table, item_id: int, seq: int, change: ReviewChange, words: str
) -> None:
    with_answers(table)
    with pytest.raises(UsageError) as caught:
        say(table, item_id, change, seq)
    assert str(caught.value) == words
    assert table.query("select * from reviews") == []


def test_a_text_takes_the_place_of_an_answer(table: Table) -> None:
    with_answers(table)
    say(table, 2, ReviewChange(edited='"better\\u0000"', note="半 \ud83d\ude00 '"))
    assert said(table, 2) == (None, "半 😀 '", '"better\\u0000"')


def test_a_review_of_an_earlier_answer_is_kept_and_does_not_count(table: Table) -> None:
    worker = with_answers(table)
    say(table, 1, ReviewChange(Verdict.ACCEPTED, "good"))
    say(table, 2, REJECT)
    ask_again(table, worker, 1, '{"n": 7}')
    assert counts(table) == ReviewCounts(rejected=1, earlier=1)
    (review,) = reviews.reviews_of(table.transaction, [1]).values()
    assert (review.verdict, bool(review.is_current)) == ("accepted", False)
    assert page(table, ReviewFilter(Verdict.ACCEPTED, current=True)) == []
    assert page(table, ReviewFilter(current=False)) == [(1, "accepted")]
    with pytest.raises(UsageError, match="has another answer by now"):
        say(table, 1, ACCEPT)
    (seq,) = table.query("select result_seq from work where item_id = 1")[0]
    with pytest.raises(UsageError, match="is of another answer"):
        undo(table, 1, seq)
    say(table, 1, REJECT, seq)  # what was said of the other answer is over
    assert said(table, 1) == ("rejected", None, None)
    assert undo(table, 1, seq) is None


def test_an_item_that_is_asked_again_counts_for_nothing_meanwhile(table: Table) -> None:
    with_answers(table)
    say(table, 1, ACCEPT)
    table.run(repair.reopen, [EndedItem(1, 1, None, None, 1)], None, table.now)
    assert counts(table) == ReviewCounts(earlier=1)
    assert undo(table, 1) is None  # what was said can still be taken back


def test_pages_are_in_the_order_of_the_pool_and_of_some_experiments(table: Table) -> None:
    with_answers(table)
    for item_id, change in ((3, ACCEPT), (1, REJECT), (2, ACCEPT)):
        say(table, item_id, change)
    assert page(table) == [(1, "rejected"), (2, "accepted"), (3, "accepted")]
    assert page(table, limit=2) == [(1, "rejected"), (2, "accepted")]
    assert page(table, after=2, limit=2) == [(3, "accepted")]
    assert page(table, after=3) == []
    assert page(table, ReviewFilter(Verdict.ACCEPTED)) == [(2, "accepted"), (3, "accepted")]
    assert reviews.review_page(table.transaction, [2], ALL, 0, 9) == []
    assert counts(table, 2) == ReviewCounts()
    (first, *_) = reviews.review_page(table.transaction, [1, 2], ALL, 0, 9)
    assert (first.experiment, first.step, first.custom_id, first.sample) == ("e", None, None, None)


def test_there_is_one_beside_each_or_none(table: Table) -> None:
    with_answers(table)
    for item_id in (1, 3):
        say(table, item_id, REJECT)
    say(table, 2, ACCEPT)
    rejected = ReviewFilter(Verdict.REJECTED, current=True)

    def beside(item_id: int, *, back: bool) -> int | None:
        return reviews.review_beside(table.transaction, 1, rejected, item_id, back=back)

    assert [beside(n, back=False) for n in range(4)] == [1, 3, 3, None]
    assert [beside(n, back=True) for n in range(1, 5)] == [None, 1, 1, 3]
    assert reviews.review_beside(table.transaction, 2, rejected, 0, back=False) is None
    assert reviews.review_beside(table.transaction, 2, rejected, 9, back=True) is None


def test_they_go_with_their_experiment(table: Table) -> None:
    with_answers(table)
    say(table, 1, ACCEPT)
    table.delete(1)
    assert table.query("select * from reviews") == []


PLANTED = {
    "of another item's result": "update reviews set result_seq = 2",
    "of a result that failed": "update reviews set item_id = 4, result_seq = 4",
    "of none": "update reviews set result_seq = 99",
}


@pytest.mark.parametrize("statement", PLANTED.values(), ids=PLANTED)
def test_one_of_no_result_of_its_item_is_found(table: Table, statement: str) -> None:
    with_answers(table)
    say(table, 1, ACCEPT)
    assert table.problems() == []
    table.query(statement)
    item_id: Any = table.one("select item_id from reviews")
    words = f"item {item_id} has a review of a result that was never its own"
    assert table.problems() == [words]
    table.query("delete from reviews")
