"""Exchange: what slots finished is written, and what they do next is claimed, at once."""

import pytest
from msgspec.structs import replace

from batchgen.items import (
    Attempt,
    Done,
    Fail,
    Item,
    KeepAnswer,
    Outcome,
    Reason,
    Release,
    Retry,
)
from tests.kits.table import (
    SERVER,
    START,
    Table,
    answered,
    broken,
    new_item,
)


@pytest.fixture
def worker(table: Table) -> int:
    return table.join()


def numbers(items: list[Item]) -> list[int]:
    return [item.id for item in items]


def claim_one_by_one(table: Table, worker: int) -> list[int]:
    order = []
    while items := table.claim(worker, 1):
        order += numbers(items)
    return order


# Claiming


def test_a_claimed_item_is_all_that_is_known_of_it(table: Table, worker: int) -> None:
    table.add(table.begin(), [new_item({"v": "ü"}, custom_id="x")])
    assert table.claim(worker, 1) == [
        Item(
            id=1, epoch=1, experiment_id=1, recipe_id=1, custom_id="x", input_json='{"v": "ü"}',
            tries=0, parse_failures=0, answer_seq=None, parser_id=1,
            server=SERVER,
        )
    ]  # fmt: skip
    assert table.work(1) == {
        "state": "running", "available_at": None, "epoch": 1, "worker_id": worker, "tries": 0,
        "second_call": 0,
        "crashes": 0, "parse_failures": 0, "answer_seq": None, "result_seq": None,
    }  # fmt: skip


def test_items_are_claimed_in_the_order_of_the_pool(table: Table, worker: int) -> None:
    table.enqueue("a", "b", "c")
    assert claim_one_by_one(table, worker) == [1, 2, 3]


def test_a_higher_priority_is_claimed_first(table: Table, worker: int) -> None:
    table.enqueue("a", "b")
    table.enqueue("urgent", priority=9)
    table.enqueue("later", priority=-1)
    assert claim_one_by_one(table, worker) == [3, 1, 2, 4]


def test_due_retries_come_before_fresh_items_longest_due_first(table: Table, worker: int) -> None:
    table.enqueue("a", "b", "c")
    table.enqueue("urgent", priority=9)
    for item in table.claim(worker, 4):
        if item.id in (1, 2):
            table.finish(worker, item, Retry(START + 3 - item.id, charged=True), broken())
        else:
            table.finish(worker, item, Release())
    table.now = START + 2
    assert claim_one_by_one(table, worker) == [2, 1, 4, 3]


def test_all_retries_that_are_due_are_claimed_at_once(table: Table, worker: int) -> None:
    table.enqueue("a", "b", "c")
    for item in table.claim(worker, 3):
        table.finish(worker, item, Retry(START + item.id, charged=True), broken())
    table.now = START + 2
    assert sorted(numbers(table.claim(worker, 3))) == [1, 2]


def test_experiments_are_served_oldest_first(table: Table, worker: int) -> None:
    table.enqueue("a", experiment="one")
    table.enqueue("b", "c", experiment="two")
    table.enqueue("d", experiment="one")
    assert claim_one_by_one(table, worker) == [1, 4, 2, 3]


def test_only_wanted_experiments_are_served(table: Table, worker: int) -> None:
    table.enqueue("a", experiment="one")
    table.enqueue("b", experiment="two")
    done = table.exchange(worker, want=5, experiments=(2,))
    assert (numbers(done.items), done.open) == ([2], 1)


@pytest.mark.parametrize(("want", "got"), [(0, 0), (1, 1), (3, 3), (4, 4), (9, 4)])
def test_never_more_than_wanted_is_claimed(table: Table, want: int, got: int) -> None:
    table.enqueue("a", "b", experiment="one")
    table.enqueue("c", "d", experiment="two")
    assert len(table.claim(table.join(), want)) == got


def test_no_item_is_claimed_by_two_workers(table: Table, worker: int) -> None:
    table.enqueue("a", "b", "c")
    other = table.join()
    assert numbers(table.claim(worker, 2)) == [1, 2]
    assert numbers(table.claim(other, 2)) == [3]


def test_a_full_exchange_does_not_count_what_is_open(table: Table, worker: int) -> None:
    table.enqueue("a", "b")
    done = table.exchange(worker, want=2)
    assert (len(done.items), done.open, done.next_at) == (2, None, None)


def test_open_counts_pending_and_running_of_everybody(table: Table, worker: int) -> None:
    table.enqueue("a", "b", "c")
    (item,) = table.claim(table.join(), 1)
    table.finish(worker, item, Retry(START + 5000, charged=True), broken())
    table.claim(table.join(), 1)
    done = table.exchange(worker, want=9)
    assert (numbers(done.items), done.open, done.next_at) == ([3], 3, START + 5000)


def test_when_all_is_done_nothing_is_open(table: Table, worker: int) -> None:
    table.enqueue("a")
    outcomes = [Outcome(item, (answered(),), Done()) for item in table.claim(worker, 1)]
    done = table.exchange(worker, outcomes, want=1)
    assert (done.items, done.open, done.next_at, done.lost) == ([], 0, None, [])


def test_an_item_given_back_can_be_claimed_in_the_same_exchange(table: Table, worker: int) -> None:
    table.enqueue("a")
    (item,) = table.claim(worker, 1)
    done = table.exchange(worker, [Outcome(item, (), Release())], want=1)
    assert done.items == [replace(item, epoch=2)]


# Finishing


def test_finish_and_claim_are_one_exchange(table: Table, worker: int) -> None:
    table.enqueue("a", "b", "c")
    first, second = table.claim(worker, 2)
    done = table.exchange(
        worker,
        [
            Outcome(first, (answered("one"),), Done('{"p": 1}')),
            Outcome(second, (broken(),), Retry(None, charged=True)),
        ],
        want=2,
    )
    assert (sorted(numbers(done.items)), done.attempt_seqs) == ([2, 3], [1, 2])
    assert table.states() == {1: "done", 2: "running", 3: "running"}


def test_an_answer_is_kept_with_all_that_came_with_it(table: Table, worker: int) -> None:
    table.enqueue("a")
    (item,) = table.claim(worker, 1)
    attempt = replace(answered("text"), request_id="r-1", body='{"id": 1}')
    table.finish(worker, item, Done('{"p": 1}'), attempt)
    assert table.query("select * from attempts") == [
        (1, 1, 1, worker, 1, START, 700, "answered", None, None, 200, "r-1", "m-1", "stop",
         10, 20, 3, 4, None, "text", None, '{"id": 1}')
    ]  # fmt: skip
    assert table.query("select * from results") == [
        (1, 1, 1, "done", None, None, '{"p": 1}', None, 1, 0, START, None, None, None, None)
    ]
    assert table.work(1) == {
        "state": "done", "available_at": None, "epoch": 1, "worker_id": None, "tries": 1,
        "second_call": 0, "crashes": 0, "parse_failures": 0, "answer_seq": None, "result_seq": 1,
    }  # fmt: skip


def test_each_answer_has_its_own_texts(table: Table, worker: int) -> None:
    table.enqueue("a", "b", "c", "d")
    items = table.claim(worker, 4)
    attempts = (
        replace(answered('ä\\u0000\n"x" 😀'), body='{"ü": "\\u0000"}'),
        answered(""),
        broken(),
        replace(answered("last"), body=None),
    )
    outcomes = [
        Outcome(item, (one,), Retry(None, charged=True))
        for item, one in zip(items, attempts, strict=True)
    ]
    table.exchange(worker, outcomes, want=0)
    assert table.query("select response, body from attempts order by seq") == [
        (one.response, one.body) for one in attempts
    ]


def test_a_text_with_u0000_is_kept_as_well_as_the_engine_can(table: Table, worker: int) -> None:
    table.enqueue("a")
    (item,) = table.claim(worker, 1)
    attempt = replace(answered("a\0ü\0"), body="\0{}")
    table.finish(worker, item, Retry(None, charged=True), attempt)
    nul = "\ufffd" if table.transaction.is_far else "\0"
    assert table.query("select response, body from attempts") == [(f"a{nul}ü{nul}", f"{nul}{{}}")]


def test_a_failed_item_keeps_why(table: Table, worker: int) -> None:
    table.enqueue("a")
    (item,) = table.claim(worker, 1)
    table.finish(worker, item, Fail(Reason.REJECTED, "too long"), broken(Reason.REJECTED))
    assert table.query("select * from results") == [
        (
            1,
            1,
            1,
            "failed",
            "rejected",
            "too long",
            None,
            None,
            None,
            0,
            START,
            None,
            None,
            None,
            None,
        )
    ]
    assert table.counters() == {(1, "failed", "rejected"): 1}
    assert table.work(1)["tries"] == 1


def test_an_item_can_fail_without_a_call(table: Table, worker: int) -> None:
    table.enqueue("a")
    (item,) = table.claim(worker, 1)
    done = table.finish(worker, item, Fail(Reason.REJECTED, "template"))
    assert (done.attempt_seqs, table.attempts(1)) == ([None], [])
    assert table.states() == {1: "failed"}


def test_a_kept_answer_is_durable_while_its_item_runs(table: Table, worker: int) -> None:
    table.enqueue("a")
    (item,) = table.claim(worker, 1)
    assert table.finish(worker, item, KeepAnswer(), answered("text")).attempt_seqs == [1]
    assert table.attempts(1) == [(worker, 1, "answered", "text")]
    assert (table.work(1)["state"], table.work(1)["answer_seq"]) == ("running", 1)
    assert table.counters() == {(1, "running", ""): 1}


def test_a_kept_answer_becomes_the_result_without_another_call(table: Table, worker: int) -> None:
    table.enqueue("a")
    (item,) = table.claim(worker, 1)
    table.finish(worker, item, KeepAnswer(), answered("text"))
    parsed = replace(item, answer_seq=1, answer_text="text")
    assert table.finish(worker, parsed, Done("[1]")).attempt_seqs == [None]
    assert table.query("select item_id, attempt_seq, state, parsed from results") == [
        (1, 1, "done", "[1]")
    ]
    assert (table.work(1)["answer_seq"], table.work(1)["tries"]) == (None, 1)
    assert len(table.attempts(1)) == 1


def test_a_kept_answer_that_will_not_parse_stays_with_the_failure(
    table: Table, worker: int
) -> None:
    table.enqueue("a")
    (item,) = table.claim(worker, 1)
    table.finish(worker, item, KeepAnswer(), answered("text"))
    parsed = replace(item, answer_seq=1, answer_text="text")
    table.finish(worker, parsed, Fail(Reason.PARSE, "no tag"))
    assert table.query("select attempt_seq, state, reason from results") == [(1, "failed", "parse")]


def test_asking_again_after_a_parse_failure_forgets_the_answer_but_keeps_its_attempt(
    table: Table, worker: int
) -> None:
    table.enqueue("a")
    (item,) = table.claim(worker, 1)
    table.finish(worker, item, KeepAnswer(), answered("text"))
    parsed = replace(item, answer_seq=1, answer_text="text")
    table.finish(worker, parsed, Retry(None, charged=True, parse_failed=True))
    (again,) = table.claim(worker, 1)
    assert again == replace(item, epoch=2, tries=1, parse_failures=1)
    assert table.attempts(1) == [(worker, 1, "answered", "text")]


def test_a_released_item_is_as_if_never_claimed(table: Table, worker: int) -> None:
    table.enqueue("a")
    (item,) = table.claim(worker, 1)
    table.finish(worker, item, Release())
    assert table.claim(worker, 1) == [replace(item, epoch=2)]
    assert table.attempts(1) == []


def test_a_released_item_keeps_the_call_that_was_made(table: Table, worker: int) -> None:
    table.enqueue("a")
    (item,) = table.claim(worker, 1)
    table.finish(worker, item, Release(), Attempt(finished_at=START))
    assert table.attempts(1) == [(worker, 1, "unknown", None)]
    assert table.query("select calls, unknown_calls from totals") == [(1, 1)]
    assert table.work(1)["tries"] == 0


def test_a_released_item_keeps_its_answer(table: Table, worker: int) -> None:
    table.enqueue("a")
    (item,) = table.claim(worker, 1)
    table.finish(worker, item, KeepAnswer(), answered("text"))
    kept = replace(item, answer_seq=1, answer_text="text")
    table.finish(worker, kept, Release())
    assert table.claim(worker, 1) == [replace(kept, epoch=2)]


@pytest.mark.parametrize(("charged", "tries"), [(True, 1), (False, 0)])
def test_a_retry_uses_up_an_attempt_only_when_charged(
    table: Table, worker: int, charged: bool, tries: int
) -> None:
    table.enqueue("a")
    (item,) = table.claim(worker, 1)
    table.finish(worker, item, Retry(None, charged=charged), broken(Reason.RATE_LIMIT))
    assert table.claim(worker, 1) == [replace(item, epoch=2, tries=tries)]


def test_a_retry_is_not_claimed_before_its_time(table: Table, worker: int) -> None:
    table.enqueue("a")
    (item,) = table.claim(worker, 1)
    table.finish(worker, item, Retry(START + 500, charged=True), broken())
    table.now = START + 499
    early = table.exchange(worker, want=1)
    assert (early.items, early.open, early.next_at) == ([], 1, START + 500)
    table.now = START + 500
    assert numbers(table.claim(worker, 1)) == [1]
    assert table.work(1)["available_at"] is None


def test_totals_add_up_over_all_calls(table: Table, worker: int) -> None:
    table.enqueue("a", "b")
    first, second = table.claim(worker, 2)
    outcomes = [
        Outcome(first, (broken(),), Retry(None, charged=True)),
        Outcome(second, (answered(),), Done()),
    ]
    table.exchange(worker, outcomes)
    (again,) = table.claim(worker, 1)
    table.finish(worker, again, Done(), answered())
    assert table.query("select * from totals") == [(1, 3, 0, 1405, 20, 40, 6, 8, 0, 0.0, 1)]


def test_sequence_numbers_are_the_finishing_order(table: Table, worker: int) -> None:
    table.enqueue("a", "b", "c")
    first, second, third = table.claim(worker, 3)
    table.exchange(worker, [Outcome(each, (answered(),), Done()) for each in (third, first)])
    table.finish(worker, second, Done(), answered())
    assert table.query("select seq, item_id from results order by seq") == [(1, 3), (2, 1), (3, 2)]
    assert table.query("select seq, item_id from attempts order by seq") == [(1, 3), (2, 1), (3, 2)]


def test_the_same_outcome_twice_counts_once(table: Table, worker: int) -> None:
    table.enqueue("a")
    (item,) = table.claim(worker, 1)
    outcome = Outcome(item, (answered(),), Done())
    done = table.exchange(worker, [outcome, outcome])
    assert (done.lost, done.attempt_seqs) == ([outcome], [1, 2])
    assert table.query("select seq from results") == [(1,)]


def test_an_outcome_of_a_deleted_experiment_is_dropped(table: Table, worker: int) -> None:
    table.enqueue("a", experiment="gone")
    (item,) = table.claim(worker, 1)
    table.take_over(worker)
    table.delete(1)
    outcome = Outcome(item, (answered(),), Done())
    done = table.exchange(worker, [outcome])
    assert (done.lost, done.attempt_seqs) == ([outcome], [None])
    assert table.query("select * from attempts") == []
    assert table.query("select * from totals") == []
