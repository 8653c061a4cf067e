"""Any order of things that workers and people do, and crashes between them, against a model.

The model knows for each item its state and which claim holds it. After each step the tables must
say the same and be free of contradictions; finished answers never change.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

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
from msgspec import Struct
from msgspec.structs import replace

from batchgen.items import (
    Attempt,
    Decision,
    Done,
    Fail,
    Item,
    KeepAnswer,
    Reason,
    Release,
    Retry,
)
from batchgen.store import Exchange, OtherRecipe
from tests.kits.table import (
    MAX_CRASHES,
    OTHER_RECIPE,
    RECIPE,
    Table,
    answered,
    broken,
    new_item,
)
from tests.store.conftest import NewTable

T = TypeVar("T")

WAITS_MS = (None, 1, 5_000, 120_000)


class Claim(Struct, frozen=True):
    """An item as a worker holds it."""

    worker_id: int
    item: Item
    second_call: bool = False


class Finish(Struct, frozen=True):
    """What comes of a claim: a decision, and whether a call was made."""

    attempt: Attempt | None
    decision: Decision


# Which one of some, whatever their number: a rule never has nothing to choose from.
WHICH = st.integers(0, 5)

FINISHES = st.one_of(
    st.just(Finish(answered(), Done())),
    st.just(Finish(answered(), Done('{"p": 1}'))),
    st.just(Finish(answered(), KeepAnswer())),
    st.just(Finish(answered(), KeepAnswer())),
    st.sampled_from([Reason.REFUSAL, Reason.REJECTED]).map(
        lambda reason: Finish(broken(reason), Fail(reason, "no"))
    ),
    st.just(Finish(None, Fail(Reason.REJECTED, "template"))),
    st.just(Finish(None, Release())),
    st.just(Finish(Attempt(finished_at=0), Release())),
    st.builds(
        lambda wait, charged: Finish(broken(), Retry(wait, charged=charged)),
        st.sampled_from(WAITS_MS),
        st.booleans(),
    ),
)


class Life(RuleBasedStateMachine):
    new_table: NewTable

    def __init__(self) -> None:
        super().__init__()
        self.open = ExitStack()
        self.table: Table = self.open.enter_context(self.new_table())
        self.states: dict[int, str] = {}
        self.held: dict[int, Claim] = {}  # by item, while it is running
        self.stale: list[Claim] = []
        self.alive: list[int] = []
        self.dead: list[int] = []
        self.ended: dict[int, Any] = {}  # what each done item was when it became so
        self.calls = 0
        self.unknown = 0

    def teardown(self) -> None:
        self.open.close()

    # Enqueueing

    @initialize(n=st.integers(2, 6))
    def first_pool(self, n: int) -> None:
        self.note_new(self.table.enqueue(*range(n)))

    @rule(
        contents=st.lists(st.integers(0, 9), min_size=1, max_size=6),
        experiment=st.sampled_from("ef"),
        priority=st.integers(-1, 1),
    )
    def enqueue(self, contents: list[int], experiment: str, priority: int) -> None:
        into = self.table.begin(experiment, RECIPE, OtherRecipe.ADD)
        rows = [new_item(each, into.experiment_id, into.variant) for each in contents]
        added = self.table.add(into, rows, priority)
        assert len(set(added.ids)) == len(contents)
        again = self.table.begin(experiment, RECIPE, OtherRecipe.ADD)
        assert self.table.add(again, rows, priority) == replace(added, new=0)
        self.note_new(added.ids)

    @rule(number=st.integers(0, 4))
    def enqueue_by_id(self, number: int) -> None:
        into = self.table.begin("e", RECIPE, OtherRecipe.ADD)
        row = new_item({"id": number}, into.experiment_id, custom_id=f"id {number}")
        self.note_new(self.table.add(into, [row]).ids)

    @precondition(lambda self: not self.held)
    @rule()
    def replace_the_recipe(self) -> None:
        self.table.begin("e", OTHER_RECIPE, OtherRecipe.REPLACE)
        for number, state in self.table.states().items():
            if self.states[number] != state:
                assert (self.states[number], state) == ("failed", "pending")
                self.states[number] = state

    def note_new(self, ids: list[int]) -> None:
        for number in ids:
            self.states.setdefault(number, "pending")

    # Workers

    def worker(self, which: int, *, busy: bool = False) -> int:
        """One of at most three; a new one when there are fewer. A busy one has claimed."""
        if which % 3 >= len(self.alive):
            self.alive.append(self.table.join())
        worker_id = chosen(self.alive, which % 3)
        if busy and not any(claim.worker_id == worker_id for claim in self.held.values()):
            self.note_claims(worker_id, self.table.exchange(worker_id, (), 2))
        return worker_id

    @rule(
        which=WHICH,
        want=st.integers(1, 4),
        experiments=st.sampled_from([None, (1,), (1, 2)]),
        rpm=st.sampled_from([None, None, 3]),
    )
    def claim(
        self,
        which: int,
        want: int,
        experiments: tuple[int, ...] | None,
        rpm: int | None,
    ) -> None:
        worker_id = self.worker(which)
        done = self.table.exchange(worker_id, (), want, experiments, rpm)
        self.note_claims(worker_id, done)
        if done.open is not None and experiments is None:
            assert done.open == sum(
                state in ("pending", "running") for state in self.states.values()
            )
        assert done.next_at is None or done.next_at > self.table.now

    def note_claims(self, worker_id: int, done: Exchange) -> None:
        assert done.expelled is False
        for item in done.items:
            assert self.states[item.id] == "pending"
            self.states[item.id] = "running"
            self.held[item.id] = Claim(worker_id, item)

    @precondition(lambda self: self.dead)
    @rule(which=WHICH, want=st.integers(0, 4))
    def claim_as_one_taken_for_dead(self, which: int, want: int) -> None:
        done = self.table.exchange(chosen(self.dead, which), (), want)
        assert (done.expelled, done.items) == (True, [])

    @rule(which=WHICH, finish=FINISHES)
    def finish(self, which: int, finish: Finish) -> None:
        worker_id = self.worker(which, busy=True)
        mine = [claim for claim in self.held.values() if claim.worker_id == worker_id]
        if not mine:
            return
        claim = chosen(mine, which)
        done = self.hand_in(claim, finish)
        assert done.lost == []
        number = claim.item.id
        match finish.decision:
            case KeepAnswer():
                (seq,) = done.attempt_seqs
                assert seq is not None
                item = replace(claim.item, answer_seq=seq, answer_text="an answer")
                self.held[number] = replace(claim, item=item, second_call=False)
                return
            case Done():
                self.states[number] = "done"
                self.ended[number] = self.ending(number)
            case Fail():
                self.states[number] = "failed"
            case _:
                self.states[number] = "pending"
        self.stale.append(self.held.pop(number))

    @precondition(lambda self: self.stale)
    @rule(which=WHICH, finish=FINISHES)
    def finish_what_is_no_longer_held(self, which: int, finish: Finish) -> None:
        claim = chosen(self.stale, which)
        known_after_all = self.table.one(
            "select count(*) from attempts"
            f" where item_id = {claim.item.id} and epoch = {claim.item.epoch}"
            " and outcome = 'unknown'"
        )
        calls = self.calls
        done = self.hand_in(claim, finish)
        assert len(done.lost) == 1
        known = min(known_after_all, self.calls - calls)
        self.calls -= known
        self.unknown -= known

    def hand_in(self, claim: Claim, finish: Finish) -> Exchange:
        attempts = [finish.attempt] if finish.attempt is not None else []
        if claim.item.answer_seq is not None and isinstance(finish.decision, Done):
            attempts = []  # parsed, not called again
        if attempts and claim.second_call:
            attempts.append(Attempt(finished_at=0))  # which was left
        self.calls += len(attempts)
        self.unknown += sum(attempt.outcome == "unknown" for attempt in attempts)
        return self.table.finish(claim.worker_id, claim.item, finish.decision, *attempts)

    @rule(which=WHICH)
    def begin_second_call(self, which: int) -> None:
        worker_id = self.worker(which, busy=True)
        mine = [
            claim
            for claim in self.held.values()
            if claim.worker_id == worker_id and claim.item.answer_seq is None
        ]
        if mine:
            claim = chosen(mine, which)
            number = claim.item.id
            assert self.table.begin_second_calls(claim.item) == {number}
            self.held[number] = replace(claim, second_call=True)

    @rule(which=WHICH)
    def leave(self, which: int) -> None:
        worker_id = self.worker(which, busy=True)
        claims = self.give_back(worker_id)
        assert self.table.leave(worker_id) == len(claims)  # what was sent was handed in before

    @rule(which=WHICH)
    def die_and_be_taken_over(self, which: int) -> None:
        """The worker does not know, and goes on when it wakes up."""
        worker_id = self.worker(which, busy=True)
        claims = self.give_back(worker_id)
        suspects = [claim for claim in claims if claim.item.answer_seq is not None] or claims
        crashes = {claim.item.id: self.table.work(claim.item.id)["crashes"] for claim in suspects}
        assert self.table.take_over(worker_id) == len(claims)
        sent = sum((claim.item.answer_seq is None) + claim.second_call for claim in claims)
        self.calls += sent
        self.unknown += sent
        parsing = {claim.item.id for claim in claims if claim.item.answer_seq is not None}
        for number, before in crashes.items():
            if number in (parsing or crashes) and before + 1 == MAX_CRASHES:
                self.states[number] = "failed"

    def give_back(self, worker_id: int) -> list[Claim]:
        self.alive.remove(worker_id)
        self.dead.append(worker_id)
        claims = [claim for claim in self.held.values() if claim.worker_id == worker_id]
        for claim in claims:
            self.states[claim.item.id] = "pending"
            self.stale.append(self.held.pop(claim.item.id))
        return claims

    # People and time

    @precondition(lambda self: "failed" in self.states.values())
    @rule(reason=st.sampled_from([None, "refusal", "crash"]))
    def reopen(self, reason: str | None) -> None:
        failed = self.table.query(
            "select w.item_id from work w join results r on r.seq = w.result_seq"
            " where w.state = 'failed' and experiment_id = 1 and ? in (reason, 'any')",
            reason or "any",
        )
        assert self.table.reopen_all(1, reason) == len(failed)
        for (number,) in failed:
            self.states[number] = "pending"

    @rule(ms=st.sampled_from([1, 5_000, 61_000]))
    def time_passes(self, ms: int) -> None:
        self.table.now += ms

    # What always holds

    @invariant()
    def the_tables_say_what_the_model_says(self) -> None:
        assert self.table.states() == self.states

    @invariant()
    def nothing_contradicts(self) -> None:
        assert self.table.problems() == []

    @invariant()
    def done_items_never_change(self) -> None:
        assert {number: self.ending(number) for number in self.ended} == self.ended

    @invariant()
    def every_call_is_kept_and_counted(self) -> None:
        made = (self.calls, self.unknown)
        for ask in (
            "select count(*), count(*) filter (where outcome = 'unknown') from attempts",
            "select coalesce(sum(calls), 0), coalesce(sum(unknown_calls), 0) from totals",
        ):
            assert self.table.query(ask) == [made]

    def ending(self, number: int) -> Any:
        return self.table.query(
            "select w.*, r.*, a.* from work w join results r on r.seq = w.result_seq"
            " join attempts a on a.seq = r.attempt_seq where w.item_id = ?",
            number,
        )


def chosen(some: Sequence[T], which: int) -> T:
    return some[which % len(some)]


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
            stateful_step_count=40,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
