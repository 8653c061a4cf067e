"""Provider batches in the tables: who holds what, what a crash leaves, and what is written once."""

from collections.abc import Sequence
from typing import Any

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
)
from batchgen.store import (
    AskedServer,
    BatchState,
    Budget,
    Grant,
    NewBatch,
    ProviderBatch,
    Reserved,
    Spent,
    WorkerKind,
    claim_of,
)
from batchgen.store.transactions import batches, known_batches, living, queue
from tests.kits.table import LEASE_MS, MACHINE, MAX_CRASHES, SERVER, Table, answered

TOKEN = "0123456789abcdef" * 2


def new_batch(token: str = TOKEN, **others: Any) -> NewBatch:
    given: dict[str, Any] = {
        "experiment_id": 1, "recipe_id": 1, "server": AskedServer(SERVER, "api.example"),
        "base_url": "https://api.example/v1", "endpoint": "chat", "model": "m", "token": token,
        "input_file": f"file-{token}", "bytes": 900, "tokens": 30,
    }  # fmt: skip
    return NewBatch(**{**given, **others})


class Sending:
    """A sender of a table, and its batches."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.id = self.join()

    def join(self) -> int:
        kind = WorkerKind.SENDER
        return self.table.run(
            queue.join, MACHINE, 4242, 10, self.table.now, LEASE_MS, (), kind
        )  # fmt: skip

    def dies(self) -> int:
        return self.table.run(
            queue.remove_worker,
            self.id,
            crashed=True,
            max_crashes=MAX_CRASHES,
            now=self.table.now,
            kind=WorkerKind.SENDER,
        )

    def seal(self, items: Sequence[Item], token: str = TOKEN, **others: Any) -> ProviderBatch:
        found = self.try_to_seal(items, token, **others)
        assert isinstance(found, ProviderBatch)
        return found

    def try_to_seal(
        self, items: Sequence[Item], token: str = TOKEN, within: Budget | None = None, **others: Any
    ) -> ProviderBatch | Grant | None:
        claims = [claim_of(item) for item in items]
        batch = new_batch(token, **others)
        try:
            return self.table.run(batches.seal, self.id, batch, claims, within, self.table.now)
        except batches.NotHeldError:
            return None

    def sealed(self, n: int, **others: Any) -> tuple[ProviderBatch, list[Item]]:
        """So many fresh rows, at the provider as `batch_1`."""
        self.table.enqueue(*[f"row {one}" for one in range(n)])
        items = self.table.claim(self.id, n)
        batch = self.seal(items, **others)
        self.created(batch)
        return self.now(batch), items

    def created(self, batch: ProviderBatch, batch_id: str = "batch_1") -> None:
        self.table.run(batches.created, batch.number, batch_id, "validating", 5, 9)

    def now(self, batch: ProviderBatch) -> ProviderBatch:
        found = known_batches.batch_of(self.table.transaction, batch.number)
        assert found is not None
        return found

    def collect(
        self, batch: ProviderBatch, *outcomes: Outcome, reserved: dict[Any, Reserved] | None = None
    ) -> int:
        return self.table.run(
            batches.collect, batch.number, outcomes, reserved or {}, self.table.now
        )

    def close(self, batch: ProviderBatch, error: str | None = None) -> bool:
        return self.table.run(batches.close, batch.number, error, self.table.now)

    def give_up(
        self, batch: ProviderBatch, most: int = 100, *, was_sent: bool = True
    ) -> tuple[int, bool]:
        return self.table.run(
            batches.give_up,
            batch.number,
            "given up",
            was_sent=was_sent,
            most=most,
            now=self.table.now,
        )

    def held(self, batch: ProviderBatch, *item_ids: int) -> list[Item]:
        return known_batches.items_held(self.table.transaction, batch.number, item_ids)


@pytest.fixture
def sending(table: Table) -> Sending:
    return Sending(table)


def outcome(item: Item, decision: Decision, *attempts: Attempt) -> Outcome:
    return Outcome(item, attempts, decision)


def in_batch(text: str = "an answer") -> Attempt:
    """How long a line took, nobody says."""
    return replace(answered(text), latency_ms=None)


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
    look = known_batches.next_items_held
    pages, after = [], 0
    while page := look(sending.table.transaction, batch.number, after, 2):
        pages.append([item.id for item in page])
        after = page[-1].id
    assert pages == [[1, 3], [4, 5]]
    assert look(sending.table.transaction, 99, 0, 2) == []


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
