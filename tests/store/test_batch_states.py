"""Any order of what senders, batches and workers do with the same rows, and crashes between that,
against a model: which rows a batch holds, and how many calls were booked."""

from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

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
from batchgen.store import BatchState, ProviderBatch
from batchgen.store.transactions import held_rows, known_batches
from tests.kits.sending import Sending, in_batch
from tests.kits.table import Table
from tests.store.conftest import NewTable

WHICH = st.integers(0, 7)
UNKNOWN = Attempt(finished_at=0)
LINES: list[tuple[Decision, tuple[Attempt, ...]]] = [
    (Done(), (in_batch(),)),
    (KeepAnswer(), (in_batch(),)),
    (ParseLater(), (in_batch(),)),
    (Fail(Reason.REJECTED, "no"), (Attempt(finished_at=0, reason=Reason.REJECTED, error="no"),)),
    (Retry(None, charged=True), (UNKNOWN,)),
    (Release(), ()),
]


class Life(RuleBasedStateMachine):
    new_table: NewTable

    def __init__(self) -> None:
        super().__init__()
        self.open = ExitStack()
        self.table: Table = self.open.enter_context(self.new_table())
        self.sending = Sending(self.table)
        self.claimed: list[Item] = []  # by the sender
        self.held: dict[int, dict[int, Item]] = {}  # by batch and row, as they were claimed
        self.answered: set[tuple[int, int]] = set()  # rows whose answer waits, by batch
        self.lines: list[tuple[int, Item]] = []  # all that were ever asked for
        self.calls = 0

    def teardown(self) -> None:
        self.open.close()

    @initialize(n=st.integers(3, 8))
    def enqueue(self, n: int) -> None:
        self.table.enqueue(*range(n))
        self.claim(3)
        self.seal(2)

    @rule(want=st.integers(1, 3))
    def claim(self, want: int) -> None:
        self.claimed += self.table.claim(self.sending.id, want)

    @rule(n=st.integers(1, 3))
    def seal(self, n: int) -> None:
        self.claim(n)
        items = [one for one in self.claimed if one.answer_seq is None][:n]
        if not items:
            return
        batch = self.sending.seal(items, token=f"{len(self.held):032}", reserved_tokens=100)
        assert batch.unsettled == len(items)
        self.held[batch.number] = {item.id: item for item in items}
        self.lines += [(batch.number, item) for item in items]
        self.claimed = [one for one in self.claimed if one not in items]

    @precondition(lambda self: self.held)
    @rule(which=WHICH)
    def created(self, which: int) -> None:
        batch = self.batch(which)
        if batch.state is not BatchState.CLOSED:
            self.sending.created(batch, f"batch_{batch.number}")

    @precondition(lambda self: self.lines)
    @rule(which=WHICH, line=st.sampled_from(LINES), times=st.integers(1, 2))
    def collect(self, which: int, line: tuple[Decision, tuple[Attempt, ...]], times: int) -> None:
        """A line, perhaps once more in the same file, or of a file that was read before."""
        number, item = self.lines[-1 - which % len(self.lines)]
        decision, attempts = line
        is_held = self.held[number].get(item.id) is item
        counts = is_held and not (attempts and (number, item.id) in self.answered)
        written = self.sending.collect(
            self.batch_of(number), *[Outcome(item, attempts, decision)] * times
        )
        again = counts and isinstance(decision, KeepAnswer) and not attempts
        assert written == int(counts) + int(again)
        if counts:
            self.calls += len(attempts)
            self.settle(number, item, decision)

    def settle(self, number: int, item: Item, decision: Decision) -> None:
        if isinstance(decision, KeepAnswer):
            self.answered.add((number, item.id))
        else:
            del self.held[number][item.id]

    @precondition(lambda self: self.answered)
    @rule(which=WHICH)
    def parse(self, which: int) -> None:
        number, row = sorted(self.answered)[which % len(self.answered)]
        for item in self.sending.held(self.batch_of(number), row):
            if item.epoch == self.held[number][row].epoch:
                assert item.answer_text == "an answer"
                assert self.sending.collect(self.batch_of(number), Outcome(item, (), Done())) == 1
                del self.held[number][row]

    @precondition(lambda self: self.held)
    @rule(which=WHICH, most=st.integers(1, 3), was_sent=st.booleans())
    def give_up(self, which: int, most: int, was_sent: bool) -> None:
        batch = self.batch(which)
        before = self.holds(batch.number)
        n, is_closed = self.sending.give_up(batch, most, was_sent=was_sent)
        gone = before - self.holds(batch.number)
        assert (n, is_closed) == (len(gone), len(gone) == len(before))
        for row in gone:
            self.calls += was_sent and (batch.number, row) not in self.answered
            del self.held[batch.number][row]

    @precondition(lambda self: self.held)
    @rule(which=WHICH)
    def close(self, which: int) -> None:
        batch = self.batch(which)
        assert self.sending.close(batch) == (not self.held[batch.number])

    @rule()
    def the_sender_dies(self) -> None:
        assert self.sending.dies() == len(self.claimed)
        self.claimed = []
        self.sending.id = self.sending.join()

    @rule(crashes=st.booleans())
    def a_worker_comes_and_goes(self, crashes: bool) -> None:
        worker = self.table.join()
        items = self.table.claim(worker, 2)
        for item in items[:1]:
            attempts = () if item.answer_seq is not None else (in_batch(),)
            self.calls += len(attempts)
            self.table.finish(worker, item, Done(), *attempts)
        if crashes:
            self.calls += sum(item.answer_seq is None for item in items[1:])
            self.table.take_over(worker)
        else:
            self.table.leave(worker)

    @precondition(lambda self: "failed" in self.table.states().values())
    @rule()
    def retry(self) -> None:
        self.table.reopen_all()

    def batch(self, which: int) -> ProviderBatch:
        return self.batch_of(sorted(self.held)[which % len(self.held)])

    def batch_of(self, number: int) -> ProviderBatch:
        found = known_batches.batch_of(self.table.transaction, number)
        assert found is not None
        return found

    def holds(self, number: int) -> set[int]:
        items = held_rows.next_items_held(self.table.transaction, number, 0, 99)
        return {item.id for item in items}

    @invariant()
    def the_tables_say_what_the_model_does(self) -> None:
        assert self.table.problems() == []
        for number, held in self.held.items():
            assert self.holds(number) == held.keys()
            assert self.batch_of(number).unsettled == len(held)
        assert self.table.one("select count(*) from attempts") == self.calls


@pytest.mark.quick("sqlite")
def test_whatever_happens_in_whatever_order_comes_to_what_the_model_says(
    engine: str, new_table: NewTable
) -> None:
    class LifeOfTable(Life):
        pass

    LifeOfTable.new_table = staticmethod(new_table)
    examples = settings.default.max_examples if settings.default and engine == "sqlite" else 8
    run_state_machine_as_test(
        LifeOfTable,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
