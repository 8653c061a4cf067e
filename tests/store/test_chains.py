"""Chains of steps: rows that are made of others, in the transaction that makes these done."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from batchgen.items import RAW, Attempt, Done, Fail, Item, Outcome
from batchgen.steps import Child, Followed, Plan, StepRule
from batchgen.store import Exchange
from batchgen.store.sqlite.plans import chain_of
from batchgen.store.values import ChainIntake, StepIntake
from tests.kits.table import RECIPE, Table, answered, new_item, open_table


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    with open_table(tmp_path / "batchgen.db") as opened:
        yield opened


def plan(*steps: StepRule) -> Plan:
    return Plan(steps, (steps[-1].name,))


PLAIN = plan(StepRule(name="draft"), StepRule(name="critique"), StepRule(name="revise"))
PARTS = plan(
    StepRule(name="ask"), StepRule(name="answer", each=("question", "ask")),
    StepRule(name="sum", gather="answers"),
)  # fmt: skip
BEST = plan(
    StepRule(name="draft"), StepRule(name="score"), StepRule(name="pick", gather="scores"),
    StepRule(name="polish"),
)  # fmt: skip


class Line:
    """An experiment with steps, and one worker at it."""

    def __init__(self, table: Table, rules: Plan, *contents: str, samples: int = 1) -> None:
        self.table = table
        self.rules = rules
        into = self.enqueue(*contents, samples=samples)
        self.first_id = into
        self.worker = table.join()

    def enqueue(self, *contents: str, samples: int = 1) -> int:
        chain = chain_intake(self.rules)
        into = self.table.begin(samples=samples, chain=chain)
        self.table.add(into, [new_item(content) for content in contents])
        return into.experiment_id

    @property
    def plan_id(self) -> int:
        chain = chain_of(self.table.db, self.first_id)
        assert chain is not None
        return chain.plan_id

    def claim(self, want: int = 100) -> list[Item]:
        return self.table.claim(self.worker, want)

    def done(self, item: Item, value: str = "same", *children: Child, over: int = 0) -> Exchange:
        """The row is done; what it passes on is the value."""
        return self.hand_in(item, Done(followed=self.followed(value, *children, over=over)))

    def followed(self, value: str, *children: Child, over: int = 0) -> Followed:
        return Followed(self.plan_id, children, over, value.encode().ljust(8, b"."))

    def hand_in(self, item: Item, decision: Done | Fail) -> Exchange:
        attempt: tuple[Attempt, ...] = (answered("an answer"),)
        return self.table.exchange(self.worker, [Outcome(item, attempt, decision)])

    def rows(self) -> list[tuple[str, int | None, int, str]]:
        """Of every row its step, its parent, its element and its state."""
        return self.table.query(
            "select e.step, i.parent_id, i.element, w.state from items i"
            " join work w on w.item_id = i.id join experiments e on e.id = i.experiment_id"
            " order by i.id"
        )


def chain_intake(rules: Plan) -> ChainIntake:
    return ChainIntake(rules, tuple(StepIntake(RECIPE, RAW) for _ in rules.steps))


CRITIQUE, REVISE = Child(1), Child(2)


def test_a_row_that_is_done_has_its_child_at_once(table: Table) -> None:
    line = Line(table, PLAIN, "a")
    (draft,) = line.claim()
    line.done(draft, "v", CRITIQUE)
    assert line.rows() == [("draft", None, 0, "done"), ("critique", 1, 0, "pending")]
    (critique,) = line.claim()
    assert (critique.id, critique.parent_id, critique.input_json) == (2, 1, "{}")
    assert [(link.item_id, link.number, link.response) for link in critique.links] == [
        (1, 0, "an answer")
    ]
    line.done(critique, "w", REVISE)
    (revise,) = line.claim()
    assert [link.item_id for link in revise.links] == [1, 2]
    line.done(revise)
    assert table.query("select * from step_counters") == [(3, 1, 0)]
