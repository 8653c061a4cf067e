"""Any order of things that workers and people do, and crashes between them, against a model.

The model knows for each item its state and which claim holds it. After each step the tables must
say the same and be free of contradictions; finished answers never change.
"""

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from batchgen.items import (
    Attempt,
    Decision,
    Done,
    Fail,
    Item,
    KeepAnswer,
    NewItem,
    Outcome,
    Reason,
    Release,
    Retry,
    StoredAnswer,
)
from batchgen.store.intake import OtherRecipe
from tests.store_kit import (
    MAX_CRASHES,
    OTHER_RECIPE,
    RECIPE,
    Table,
    answered,
    broken,
    new_item,
    open_table,
)

WAITS_MS = (None, 1, 5_000, 120_000)


@dataclass(frozen=True)
class Claim:
    """An item as a worker holds it."""

    worker_id: int
    item: Item


@dataclass(frozen=True)
class Finish:
    """What comes of a claim: a decision, and whether a call was made."""

    attempt: Attempt | None
    decision: Decision


FINISHES = st.one_of(
    st.just(Finish(answered(), Done())),
    st.just(Finish(answered(), Done('{"p": 1}'))),
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
    workers: Bundle[int] = Bundle("workers")
    claims: Bundle[Claim] = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.open = ExitStack()
        directory = self.open.enter_context(tempfile.TemporaryDirectory())
        self.table: Table = self.open.enter_context(open_table(Path(directory) / "batchgen.db"))
        self.states: dict[int, str] = {}
        self.holders: dict[int, tuple[int, int]] = {}  # item: (worker, epoch), while running
        self.alive: set[int] = set()
        self.ended: dict[int, Any] = {}  # what each done item was when it became so
        self.calls = 0
        self.unknown = 0

    def teardown(self) -> None:
        self.open.close()

    # Enqueueing

    @initialize(n=st.integers(1, 6))
    def first_pool(self, n: int) -> None:
        self.note_new(self.table.enqueue(*range(n)))

    @rule(
        contents=st.lists(st.integers(0, 9), min_size=1, max_size=6),
        experiment=st.sampled_from("ef"),
        priority=st.integers(-1, 1),
    )
    def enqueue(self, contents: list[int], experiment: str, priority: int) -> None:
        into = self.table.begin(experiment, RECIPE, OtherRecipe.ADD)
        rows = [new_item(each, into.experiment_id, into.recipe_id) for each in contents]
        added = self.table.add(into, rows, priority)
        assert len(set(added.ids)) == len(contents)
        again = self.table.begin(experiment, RECIPE, OtherRecipe.ADD)
        assert self.table.add(again, rows, priority) == replace(added, new=0)
        self.note_new(added.ids)

    @rule(number=st.integers(0, 4))
    def enqueue_by_id(self, number: int) -> None:
        into = self.table.begin("e", RECIPE, OtherRecipe.ADD)
        row: NewItem = new_item({"id": number}, into.experiment_id, custom_id=f"id {number}")
        self.note_new(self.table.add(into, [row]).ids)

    @rule()
    def replace_the_recipe(self) -> None:
        before = self.table.begin("e", OTHER_RECIPE, OtherRecipe.REPLACE)
        left = self.table.states()
        dropped = self.states.keys() - left.keys()
        assert len(dropped) == before.dropped
        assert {self.states.pop(number) for number in dropped} <= {"pending"}

    def note_new(self, ids: list[int]) -> None:
        for number in ids:
            self.states.setdefault(number, "pending")

    # Workers

    @rule(target=workers)
    def join(self) -> int:
        worker_id = self.table.join()
        self.alive.add(worker_id)
        return worker_id

    @rule(
        target=claims,
        worker_id=workers,
        want=st.integers(0, 4),
        experiments=st.sampled_from([None, (1,), (1, 2)]),
        requests_per_minute=st.sampled_from([None, None, 3]),
    )
    def claim(
        self,
        worker_id: int,
        want: int,
        experiments: tuple[int, ...] | None,
        requests_per_minute: int | None,
    ) -> Any:
        done = self.table.exchange(worker_id, (), want, experiments, requests_per_minute)
        assert done.expelled == (worker_id not in self.alive)
        assert not (done.items and done.expelled)
        for item in done.items:
            assert self.states[item.id] == "pending"
            self.states[item.id] = "running"
            self.holders[item.id] = worker_id, item.epoch
        if done.open is not None and experiments is None:
            assert done.open == sum(
                state in ("pending", "running") for state in self.states.values()
            )
        if done.next_at is not None and want:
            assert done.next_at > self.table.now
        return multiple(*(Claim(worker_id, item) for item in done.items))

    @rule(target=claims, claim=consumes(claims), finish=FINISHES)
    def finish(self, claim: Claim, finish: Finish) -> Any:
        return self.hand_in(claim, finish)

    @rule(claim=claims, finish=FINISHES)
    def finish_and_hand_in_once_more(self, claim: Claim, finish: Finish) -> None:
        self.hand_in(claim, finish)

    def hand_in(self, claim: Claim, finish: Finish) -> Any:
        """Counts when the claim still holds, whatever became of its worker's other claims."""
        item, attempt = claim.item, finish.attempt
        if item.answer is not None and isinstance(finish.decision, Done):
            attempt = None  # parsed, not called again
        outcome = Outcome(item, attempt, finish.decision)
        holds = self.holders.get(item.id) == (claim.worker_id, item.epoch)
        done = self.table.exchange(claim.worker_id, [outcome])
        assert done.lost == ([] if holds else [outcome])
        self.calls += attempt is not None
        self.unknown += attempt is not None and attempt.outcome == "unknown"
        if not holds:
            return multiple()
        if isinstance(finish.decision, KeepAnswer):
            seq = done.attempt_seqs[0]
            assert seq is not None
            return Claim(claim.worker_id, replace(item, answer=StoredAnswer(seq, "an answer")))
        del self.holders[item.id]
        match finish.decision:
            case Done():
                self.states[item.id] = "done"
                self.ended[item.id] = self.ending(item.id)
            case Fail():
                self.states[item.id] = "failed"
            case _:
                self.states[item.id] = "pending"
        return multiple()

    @rule(worker_id=consumes(workers))
    def leave(self, worker_id: int) -> None:
        held = self.held_by(worker_id)
        assert self.table.leave(worker_id) == len(held)
        self.give_back(worker_id, held)

    @rule(worker_id=workers)
    def die_and_be_taken_over(self, worker_id: int) -> None:
        """The worker does not know, and goes on when it wakes up."""
        held = self.held_by(worker_id)
        sent = [number for number in held if self.table.work(number)["answer_seq"] is None]
        last = [number for number in held if self.table.work(number)["crashes"] == MAX_CRASHES - 1]
        assert self.table.take_over(worker_id) == len(held)
        self.calls += len(sent)
        self.unknown += len(sent)
        self.give_back(worker_id, held)
        for number in last:
            self.states[number] = "failed"

    def held_by(self, worker_id: int) -> list[int]:
        return [number for number, (holder, _) in self.holders.items() if holder == worker_id]

    def give_back(self, worker_id: int, held: list[int]) -> None:
        self.alive.discard(worker_id)
        for number in held:
            del self.holders[number]
            self.states[number] = "pending"

    # People and time

    @rule(experiment_id=st.sampled_from([1, 2]), reason=st.sampled_from([None, "refusal", "crash"]))
    def reopen(self, experiment_id: int, reason: str | None) -> None:
        chosen = {
            number
            for number, in self.table.query(
                "select w.item_id from work w join results r on r.seq = w.result_seq"
                " where w.state = 'failed' and experiment_id = ? and ? in (reason, 'any')",
                experiment_id, reason or "any",
            )
        }  # fmt: skip
        assert self.table.reopen_all(experiment_id, reason) == len(chosen)
        for number in chosen:
            self.states[number] = "pending"

    @rule(ms=st.sampled_from([1, 1_000, 61_000]))
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
        kept = self.table.query("select count(*), sum(outcome = 'unknown') from attempts")
        counted = self.table.query("select sum(calls), sum(unknown_calls) from totals")
        assert [(n, unknown or 0) for n, unknown in kept] == [(self.calls, self.unknown)]
        assert [(n or 0, unknown or 0) for n, unknown in counted] == [(self.calls, self.unknown)]

    def ending(self, number: int) -> Any:
        return self.table.query(
            "select w.*, r.*, a.* from work w join results r on r.seq = w.result_seq"
            " join attempts a on a.seq = r.attempt_seq where w.item_id = ?", number,
        )  # fmt: skip


Life.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestLife = Life.TestCase
