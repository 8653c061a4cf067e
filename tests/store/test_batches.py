"""Provider batches in the tables: who holds what, what a crash leaves, and what is written once."""

import pytest
from msgspec.structs import replace

from batchgen.errors import UsageError
from batchgen.items import (
    Attempt,
    Decision,
    Done,
    Fail,
    Item,
    KeepAnswer,
    Outcome,
    ParseLater,
    Reason,
    Release,
    Retry,
    State,
)
from batchgen.store import (
    AskedServer,
    BatchState,
    Budget,
    Grant,
    Listing,
    ProviderBatch,
    Reserved,
    Spent,
    claim_of,
)
from batchgen.store.transactions import batches, budget, held_rows, known_batches, living, stretches
from tests.kits.sending import Sending, in_batch
from tests.kits.table import SERVER, Table, answered


@pytest.fixture
def sending(table: Table) -> Sending:
    return Sending(table)


def outcome(item: Item, decision: Decision, *attempts: Attempt) -> Outcome:
    return Outcome(item, attempts, decision)


# Sealing


def test_sealed_claims_are_those_of_the_batch_and_of_nobody_else(sending: Sending) -> None:
    table = sending.table
    table.enqueue("a", "b", "c")
    items = table.claim(sending.id, 3)
    batch = sending.seal(items[:2])
    assert (batch.state, batch.requests, batch.unsettled) == (BatchState.CREATING, 2, 2)
    assert (batch.number, batch.batch_id, batch.experiment) == (1, None, "e")
    holders = table.query("select item_id, worker_id, epoch from work order by item_id")
    assert holders == [(1, batch.worker_id, 1), (2, batch.worker_id, 1), (3, sending.id, 1)]
    assert [row.id for row in living.workers(table.transaction)] == [sending.id]
    assert known_batches.unclosed(table.transaction) == [batch]


def test_what_a_sender_does_not_hold_is_not_sealed_and_nothing_has_changed(
    sending: Sending,
) -> None:
    table = sending.table
    table.enqueue("a", "b")
    items = table.claim(sending.id, 2)
    assert sending.dies() == 2
    sending.id = sending.join()
    again = table.claim(sending.id, 1)
    assert sending.try_to_seal([again[0], items[1]]) is None
    assert known_batches.unclosed(table.transaction) == []
    assert table.one("select count(*) from workers") == 1
    assert [table.work(n)["worker_id"] for n in (1, 2)] == [sending.id, None]


def test_a_claim_of_an_earlier_epoch_is_not_sealed(sending: Sending) -> None:
    sending.table.enqueue("a")
    (item,) = sending.table.claim(sending.id, 1)
    assert sending.try_to_seal([replace(item, epoch=7)]) is None


def test_a_seal_that_is_done_again_changes_nothing(sending: Sending) -> None:
    sending.table.enqueue("a", "b")
    items = sending.table.claim(sending.id, 2)
    first = sending.seal(items)
    assert sending.seal(items) == first
    assert sending.table.one("select count(*) from provider_batches") == 1


def test_more_rows_than_one_statement_takes_are_sealed_together(sending: Sending) -> None:
    batch, items = sending.sealed(2500)
    assert sending.table.one(
        "select count(*) from work where worker_id = ?", batch.worker_id
    ) == len(items)


def test_a_sender_that_died_gives_its_rows_back_untouched_and_its_batches_stay(
    sending: Sending,
) -> None:
    table = sending.table
    table.enqueue("a", "b", "c")
    items = table.claim(sending.id, 3)
    batch = sending.seal(items[:1])
    assert sending.dies() == 2
    assert table.states() == {1: "running", 2: "pending", 3: "pending"}
    assert (table.attempts(2), table.work(2)["crashes"], table.work(2)["tries"]) == ([], 0, 0)
    assert [item.id for item in sending.held(batch, 1, 2, 3)] == [1]


def test_what_a_sender_that_died_was_parsing_has_seen_a_crash(sending: Sending) -> None:
    table = sending.table
    table.enqueue("a", "b")
    parsed, other = table.claim(sending.id, 2)
    table.finish(sending.id, parsed, KeepAnswer(), answered())
    sending.dies()
    assert [table.work(one.id)["crashes"] for one in (parsed, other)] == [1, 0]
    assert table.work(parsed.id)["answer_seq"] is not None
    assert [len(table.attempts(one.id)) for one in (parsed, other)] == [1, 0]


# What the provider says


def test_a_batch_is_created_once(sending: Sending) -> None:
    batch, _ = sending.sealed(1)
    assert (batch.state, batch.batch_id, batch.status) == (BatchState.OPEN, "batch_1", "validating")
    assert (batch.created_at, batch.expires_at) == (5, 9)
    sending.created(batch)
    with pytest.raises(UsageError, match=r"batch 1: is known as batch_1 already\."):
        sending.created(batch, "batch_2")
    assert sending.now(batch) == batch


def test_one_that_was_closed_is_not_created_any_more(sending: Sending) -> None:
    sending.table.enqueue("a")
    batch = sending.seal(sending.table.claim(sending.id, 1))
    sending.give_up(batch)
    with pytest.raises(UsageError, match=r"the provider has it, as batch_1\. Nobody collects"):
        sending.created(batch)
    assert (sending.now(batch).state, sending.now(batch).batch_id) == (BatchState.CLOSED, None)


def test_two_batches_are_not_the_same_one_at_the_provider(sending: Sending) -> None:
    sending.table.enqueue("a", "b")
    first, second = sending.table.claim(sending.id, 2)
    sending.created(sending.seal([first]))
    other = sending.seal([second], token="f" * 32)
    with pytest.raises(UsageError, match=r"batch 2: batch_1 is batch 1 already\."):
        sending.created(other)
    assert sending.now(other).state is BatchState.CREATING


def test_another_server_may_give_the_same_id(sending: Sending) -> None:
    sending.table.enqueue("a", "b")
    first, second = sending.table.claim(sending.id, 2)
    sending.created(sending.seal([first]))
    other = sending.seal([second], token="f" * 32, server=AskedServer("other"))
    sending.created(other)
    assert sending.now(other).batch_id == "batch_1"


def test_one_that_the_provider_does_not_have_is_marked_until_it_is_made(sending: Sending) -> None:
    sending.table.enqueue("a", "b")
    one, other = sending.table.claim(sending.id, 2)
    first, second = sending.seal([one]), sending.seal([other], token="f" * 32)
    mark = batches.mark_absent
    for batch in (first, second):
        assert sending.table.run(mark, batch.number, absent=True)
        assert sending.now(batch).absent
    assert sending.table.run(mark, first.number, absent=False)
    assert not sending.now(first).absent
    assert sending.table.run(mark, first.number, absent=True)
    sending.created(first)
    assert not sending.now(first).absent
    assert not sending.table.run(mark, first.number, absent=True)
    sending.give_up(second)
    assert (sending.now(second).state, sending.now(second).absent) == (BatchState.CLOSED, False)
    assert not sending.table.run(mark, second.number, absent=True)
    assert not sending.table.run(mark, 99, absent=True)


def test_what_the_provider_says_is_noted_and_ends(sending: Sending) -> None:
    batch, _ = sending.sealed(2)
    run, number = sending.table.run, batch.number
    run(batches.note, number, "in_progress", 1, 0, None)
    noted = sending.now(batch)
    assert (noted.status, noted.answered, noted.expires_at) == ("in_progress", 1, 9)
    said: dict[str, object] = {
        "status": "expired", "output_file": None, "error_file": "file-e", "answered": 1,
        "failed": 1, "error": None,
    }  # fmt: skip
    run(batches.end, number, said, 50)
    run(batches.end, number, {**said, "output_file": "file-o"}, 60)
    run(batches.note, number, "in_progress", 0, 0, None)  # of a look that was slow
    ended = sending.now(batch)
    assert (ended.state, ended.status, ended.ended_at) == (BatchState.ENDED, "expired", 50)
    assert (ended.output_file, ended.error_file) == ("file-o", "file-e")


def test_whether_a_recipe_was_ever_sent_is_known(sending: Sending) -> None:
    sending.table.enqueue("a")
    look = known_batches.was_sent_before
    batch = sending.seal(sending.table.claim(sending.id, 1))
    assert not look(sending.table.transaction, 1, 1)
    sending.created(batch)
    assert look(sending.table.transaction, 1, 1)
    assert not look(sending.table.transaction, 1, 2)
    sending.give_up(batch)
    assert look(sending.table.transaction, 1, 1)


def test_the_newest_come_first_by_pages(sending: Sending) -> None:
    sending.table.enqueue("a", "b", "c")
    for n, item in enumerate(sending.table.claim(sending.id, 3)):
        sending.seal([item], token=f"{n:032}")
    look, db = known_batches.newest_batches, sending.table.transaction
    assert [one.number for one in look(db, 2, None)] == [3, 2]
    assert [one.number for one in look(db, 2, 2)] == [1]


# Collecting


def test_answers_end_their_rows_and_are_counted(sending: Sending) -> None:
    table = sending.table
    batch, (one, two, three) = sending.sealed(3)
    failed = Attempt(finished_at=table.now, reason=Reason.REJECTED, error="no", http_status=400)
    done = sending.collect(
        batch,
        outcome(one, Done(), in_batch()),
        outcome(two, Fail(Reason.REJECTED, "no"), failed),
    )
    assert done == 2
    assert table.states() == {1: "done", 2: "failed", 3: "running"}
    assert sending.now(batch).settled == 2
    assert table.attempts(1) == [(batch.worker_id, 1, "answered", "an answer")]
    assert table.one("select server_id from attempts where item_id = 1") is not None
    assert not sending.close(batch)
    assert sending.collect(batch, outcome(three, Release())) == 1
    assert sending.close(batch)
    closed = sending.now(batch)
    assert (closed.state, closed.settled, closed.closed_at) == (BatchState.CLOSED, 3, table.now)
    assert table.one("select count(*) from workers where kind = 'batch'") == 0
    assert known_batches.unclosed(table.transaction) == []


def test_a_line_that_is_read_again_is_booked_once(sending: Sending) -> None:
    """After a crash in the download, and where a file has a line twice."""
    table = sending.table
    batch, (one, two) = sending.sealed(2)
    first = outcome(one, Done(), in_batch("first"))
    assert sending.collect(batch, first, outcome(one, Done(), in_batch("second"))) == 1
    assert sending.collect(batch, first) == 0
    kept = outcome(two, KeepAnswer(), in_batch())
    assert sending.collect(batch, kept, kept) == 1
    assert sending.collect(batch, kept) == 0
    assert [len(table.attempts(n)) for n in (1, 2)] == [1, 1]
    assert sending.now(batch).settled == 1


def test_an_answer_that_is_kept_is_parsed_afterwards(sending: Sending) -> None:
    batch, (item,) = sending.sealed(1)
    sending.collect(batch, outcome(item, KeepAnswer(), in_batch("yes")))
    (kept,) = sending.held(batch, item.id)
    assert (kept.answer_text, kept.epoch, kept.server) == ("yes", item.epoch, SERVER)
    assert sending.collect(batch, outcome(kept, Done("[1]"))) == 1
    assert sending.table.states() == {1: "done"}
    assert sending.close(batch)


def test_an_answer_to_be_parsed_later_goes_to_who_claims_it(sending: Sending) -> None:
    batch, (item,) = sending.sealed(1)
    assert sending.collect(batch, outcome(item, ParseLater(), in_batch("yes"))) == 1
    assert sending.close(batch)
    worker = sending.table.join()
    (claimed,) = sending.table.claim(worker, 1)
    assert (claimed.answer_text, claimed.tries) == ("yes", 0)


def test_what_is_not_the_batchs_own_is_dropped(sending: Sending) -> None:
    table = sending.table
    batch, (item,) = sending.sealed(1)
    table.enqueue("other")
    (other,) = table.claim(table.join(), 1)
    assert sending.collect(batch, outcome(other, Done(), in_batch())) == 0
    assert sending.collect(batch, outcome(replace(item, epoch=9), Done(), in_batch())) == 0
    assert (table.attempts(other.id), table.attempts(item.id)) == ([], [])
    unknown = replace(batch, number=99)
    assert sending.collect(unknown, outcome(item, Done(), in_batch())) == 0


def test_a_call_whose_end_nobody_knows_is_booked_with_its_most(sending: Sending) -> None:
    batch, (item,) = sending.sealed(1)
    again = outcome(item, Retry(None, charged=True), Attempt(finished_at=sending.table.now))
    most = {claim_of(item): Reserved(Spent(700, 0.5), 0)}
    assert sending.collect(batch, again, reserved=most) == 1
    found = sending.table.query("select unknown_calls, unknown_tokens, cost_usd from totals")
    assert found == [(1, 700, 0.5)]
    assert sending.table.work(item.id)["tries"] == 1


def test_rows_that_it_holds_are_read_by_pages(sending: Sending) -> None:
    batch, items = sending.sealed(5)
    sending.collect(batch, outcome(items[1], Done(), in_batch()))
    look = held_rows.next_items_held
    pages, after = [], 0
    while page := look(sending.table.transaction, batch.number, after, 2):
        pages.append([item.id for item in page])
        after = page[-1].id
    assert pages == [[1, 3], [4, 5]]
    assert look(sending.table.transaction, 99, 0, 2) == []


def test_rows_at_a_provider_are_listed_with_those_that_run(sending: Sending) -> None:
    table = sending.table
    sending.sealed(5)
    table.enqueue(*range(3))
    table.claim(table.join(), 2)
    listing = Listing((1,), state=State.RUNNING)
    for back in (False, True):
        found, place = list[int](), None
        while True:
            page = stretches.stretch(table.transaction, listing, place, back=back, limit=3)
            found += [id_ for _, id_ in page.rows]
            if (place := page.end) is None:
                break
        assert found == sorted(range(1, 8), reverse=back)


# Giving up


def test_one_that_is_abandoned_gives_its_rows_back_as_if_each_was_sent(sending: Sending) -> None:
    table = sending.table
    batch, items = sending.sealed(4, reserved_tokens=4000, reserved_cost_usd=2.0)
    sending.collect(batch, outcome(items[0], Done(), in_batch()))
    sending.collect(batch, outcome(items[1], KeepAnswer(), in_batch()))
    assert sending.give_up(batch, most=1) == (1, False)
    assert sending.give_up(batch, most=2) == (2, True)
    assert sending.give_up(batch) == (0, True)
    assert table.states() == {1: "done", 2: "pending", 3: "pending", 4: "pending"}
    assert [table.work(n)["tries"] for n in (2, 3, 4)] == [0, 1, 1]
    assert table.work(2)["answer_seq"] is not None
    assert table.attempts(3) == [(batch.worker_id, 1, "unknown", None)]
    assert len(table.attempts(2)) == 1
    unknown = table.query("select unknown_calls, unknown_tokens, cost_usd from totals")
    assert unknown == [(2, 2000, 1.0)]
    closed = sending.now(batch)
    assert (closed.state, closed.error) == (BatchState.CLOSED, "given up")


def test_one_that_is_released_was_never_asked(sending: Sending) -> None:
    table = sending.table
    batch, _ = sending.sealed(3)
    assert sending.give_up(batch, most=2, was_sent=False) == (2, False)
    assert sending.give_up(batch, most=2, was_sent=False) == (1, True)
    assert set(table.states().values()) == {"pending"}
    assert [(table.work(n)["tries"], table.attempts(n)) for n in (1, 2, 3)] == [(0, [])] * 3
    again = table.claim(table.join(), 3)
    assert [item.epoch for item in again] == [2, 2, 2]


def test_its_files_are_gone_once_it_is_closed(sending: Sending) -> None:
    batch, _ = sending.sealed(1)
    sending.table.run(batches.files_gone, batch.number)
    assert not sending.now(batch).files_gone
    sending.give_up(batch)
    sending.table.run(batches.files_gone, batch.number)
    assert sending.now(batch).files_gone


# The budget


def reserved_of(table: Table) -> Spent:
    return budget.look_at_budget(table.transaction, Budget())[1]


def test_what_is_reserved_for_a_batch_is_held_back_until_its_rows_are_settled(
    sending: Sending,
) -> None:
    batch, items = sending.sealed(4, reserved_tokens=400, reserved_cost_usd=2.0)
    assert reserved_of(sending.table) == Spent(400, 2.0)
    sending.collect(batch, outcome(items[0], Done(), in_batch()))
    assert reserved_of(sending.table) == Spent(300, 1.5)
    sending.give_up(batch, was_sent=False)
    assert reserved_of(sending.table) == Spent()


def test_a_batch_that_the_budget_does_not_reach_is_not_sealed(sending: Sending) -> None:
    table = sending.table
    table.enqueue("a", "b")
    first, second = table.claim(sending.id, 2)
    within = Budget(max_tokens=1000)
    seal = sending.try_to_seal
    assert seal([first], within=within, reserved_tokens=1001) is Grant.NEVER
    assert table.one("select count(*) from workers") == 1
    batch = sending.seal([first], within=within, reserved_tokens=600)
    assert seal([second], "f" * 32, within, reserved_tokens=401) is Grant.WAIT
    assert seal([second], "f" * 32, Budget((7,), max_tokens=401), reserved_tokens=401)
    sending.collect(batch, outcome(first, Done(), in_batch()))  # for 30 tokens
    table.enqueue("c")
    claimed = table.claim(sending.id, 1)
    assert seal(claimed, "e" * 32, within, reserved_tokens=570) is Grant.WAIT
    assert isinstance(seal(claimed, "e" * 32, within, reserved_tokens=569), ProviderBatch)


def test_what_calls_have_used_beyond_what_was_asked_is_reserved_for_a_batch(
    sending: Sending,
) -> None:
    batch, (item,) = sending.sealed(1, reserved_tokens=20, reserved_cost_usd=1.0)
    most = {claim_of(item): Reserved(Spent(20, 1.0), 20)}
    sending.collect(batch, outcome(item, Done(), in_batch()), reserved=most)  # 30 tokens
    sending.table.enqueue("b")
    again = sending.seal(
        sending.table.claim(sending.id, 1), "f" * 32, reserved_tokens=21, reserved_cost_usd=1.0
    )
    assert (again.reserved_tokens, again.reserved_cost_usd) == (32, 1.5)
