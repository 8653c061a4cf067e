"""Chains of steps: rows that are made of others, in the transaction that makes these done."""

import json
import sqlite3
import tracemalloc
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from batchgen.errors import UsageError
from batchgen.items import RAW, Attempt, Done, Fail, Item, Outcome, Reason, Suspect
from batchgen.steps import Child, Followed, Link, Plan, StepRule
from batchgen.store import (
    ChainIntake,
    ClaimRequest,
    Exchange,
    OtherRecipe,
    ServerWant,
    StaleRow,
    StepIntake,
    Trial,
)
from batchgen.store.transactions import admin, chain_rows, look, refollow, repair, selections
from batchgen.store.transactions.links import links_of
from batchgen.store.transactions.plans import chain_of
from tests.kits.table import (
    MAX_CRASHES,
    OTHER_RECIPE,
    RECIPE,
    Table,
    answered,
    broken,
    claims,
    new_database,
    new_item,
    open_table,
)


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
        chain = chain_of(self.table.transaction, self.first_id)
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
    """Later steps have another recipe than the first one."""
    recipes = (RECIPE, *[OTHER_RECIPE for _ in rules.steps[1:]])
    return ChainIntake(rules, tuple(StepIntake(recipe, RAW) for recipe in recipes))


CRITIQUE, REVISE = Child(1), Child(2)


@pytest.mark.parametrize(
    ("parsed_json", "response"),
    [(None, "an answer"), ('["an","wer \\n\\u0001"]', "an ans wer \n\x01!"), ('{"n": 1}', "{1}")],
)
def test_what_is_claimed_with_its_parent_is_made_of_what_is_read_later(
    table: Table, parsed_json: str | None, response: str
) -> None:
    line = Line(table, PARTS, "a")
    items = line.claim()
    children = [Child(1, number, f'{{"question": {number}}}') for number in range(2)]
    seen = 0
    while items:
        is_first = not items[0].links
        followed = line.followed("v", *(children if is_first else ()))
        done = Done(parsed_json, followed)
        outcomes = [Outcome(item, (answered(response),), done) for item in items]
        items = table.exchange(line.worker, outcomes, want=10).items
        read = links_of(table.transaction, [item.id for item in items])
        for item in items:
            assert plainly(item.links) == plainly(read[item.id].links)
            assert list(map(plainly, item.gathered)) == list(map(plainly, read[item.id].gathered))
        seen += len(items)
    assert seen == 3


def plainly(links: Sequence[Link]) -> list[Link]:
    """With their values as they are, whatever their JSON looks like."""
    return [
        replace(one, parsed_json=one.parsed_json and json.dumps(json.loads(one.parsed_json)))
        for one in links
    ]


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


def test_rows_of_several_steps_are_claimed_by_one_statement(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line(table, PLAIN, "a", "b", "c")
    drafts = line.claim(2)
    end, run = Done(followed=line.followed("v", CRITIQUE)), type(table.transaction).execute
    names = list[str]()

    def noted(db: Any, name: str, *parameters: Any) -> Any:
        names.append(name)
        return run(db, name, *parameters)

    monkeypatch.setattr(type(table.transaction), "execute", noted)
    outcomes = [Outcome(draft, (answered("an answer"),), end) for draft in drafts]
    claimed = table.exchange(line.worker, outcomes, want=3).items
    assert [len(item.links) for item in claimed] == [1, 1, 0]
    assert names.count("claim_items") == 1
    assert {state for *_, state in line.rows()} == {"done", "running"}


def test_a_step_with_each_has_a_row_for_each_element(table: Table) -> None:
    line = Line(table, PARTS, "a")
    (ask,) = line.claim()
    parts = [Child(1, n, f'{{"question": {n}}}') for n in range(3)]
    line.done(ask, "v", *parts)
    assert [item.input_json for item in line.claim()] == [part.input_json for part in parts]


def test_a_chain_ends_where_nothing_is_made(table: Table) -> None:
    line = Line(table, PLAIN, "a", "b")
    first, second = line.claim()
    line.done(first, "v", over=1)
    line.done(second, "v", Child(2), over=1)
    (revise,) = line.claim()
    line.done(revise)
    counters = table.query("select * from step_counters order by 1")
    assert counters == [(1, 1, 0), (2, 0, 2), (3, 1, 0)]
    assert table.exchange(line.worker, want=1).open == 0


def test_the_last_that_ends_of_a_gathering_makes_its_row(table: Table) -> None:
    line = Line(table, BEST, "a", samples=3)
    drafts = line.claim()
    for draft in drafts:
        line.done(draft, f"v{draft.id}", Child(1))
    scores = line.claim()
    line.done(scores[2], "s2")
    line.hand_in(scores[0], Fail(Reason.PARSE, "no"))
    assert ("pick", 1, 0, "pending") not in line.rows()
    line.done(scores[1], "s1")
    assert line.rows()[-1] == ("pick", 1, 0, "pending")
    (pick,) = line.claim()
    assert [[link.item_id for link in chain] for chain in pick.gathered] == [[2, 5], [3, 6]]
    assert [link.item_id for link in pick.links] == [1]
    line.done(pick, "p", Child(3))
    (polish,) = line.claim()
    assert [link.item_id for link in polish.links] == [1, 7]
    assert [chain[-1].item_id for chain in polish.links[1].gathered] == [5, 6]


def test_a_gathering_of_nothing_fails_without_a_call_until_there_is_something(
    table: Table,
) -> None:
    line = Line(table, BEST, "a", samples=2)
    for draft in line.claim():
        line.hand_in(draft, Fail(Reason.REFUSAL, "no"))
    assert line.rows()[-1] == ("pick", 1, 0, "failed")
    assert table.one("select error from results order by seq desc limit 1") == (
        "none of its 2 rows is done"
    )
    assert table.reopen_all(3) == 0  # there is nothing that it could be asked
    assert table.reopen_all(1) == 2
    assert line.rows()[-1] == ("pick", 1, 0, "stale")
    for draft in line.claim():
        line.done(draft, "v", Child(1))
    for score in line.claim():
        line.done(score, "s")
    assert [item.gathered != () for item in line.claim()] == [True]


def test_parts_are_gathered_in_the_order_of_their_list(table: Table) -> None:
    line = Line(table, PARTS, "a")
    line.done(line.claim()[0], "v", *(Child(1, n, f'{{"question": {n}}}') for n in range(3)))
    for answer in reversed(line.claim()):
        line.done(answer, "s")
    (summary,) = line.claim()
    assert [chain[-1].input_json for chain in summary.gathered] == [
        '{"question": 0}', '{"question": 1}', '{"question": 2}'
    ]  # fmt: skip


@pytest.mark.slow
def test_a_long_list_is_read_once_for_all_that_was_made_of_it(table: Table) -> None:
    line, n = Line(table, PARTS, "a"), 200
    (asked,) = line.claim()
    children = line.followed("v", *(Child(1, k) for k in range(n)))
    line.hand_in(asked, Done(f'"{"x" * 100_000}"', followed=children))
    tracemalloc.start()
    answers = line.claim(n)
    for answer in answers:
        line.done(answer, "s")
    (summary,) = line.claim()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(answers), len(summary.gathered)) == (n, n)
    assert most < 5_000_000  # it was n times as long


def test_who_was_taken_for_dead_makes_nothing(table: Table) -> None:
    line = Line(table, PLAIN, "a")
    (late,) = line.claim()
    other = table.join()
    table.take_over(line.worker)
    (again,) = table.claim(other, 1)
    assert line.done(late, "v", CRITIQUE).lost
    assert line.rows() == [("draft", None, 0, "running")]
    line.worker = other
    line.done(again, "v", CRITIQUE)
    assert line.rows() == [("draft", None, 0, "done"), ("critique", 1, 0, "pending")]


def test_of_a_commit_that_is_refused_there_is_neither_parent_nor_child(tmp_path: Path) -> None:
    with open_table(tmp_path / "batchgen.db") as table:
        line = Line(table, PLAIN, "a")
        (draft,) = line.claim()
        table.db.execute(
            "create temp trigger full before insert on main.work"
            " begin select raise(abort, 'disk full'); end"
        )
        with pytest.raises(sqlite3.IntegrityError, match="disk full"):
            line.done(draft, "v", CRITIQUE)
        table.db.execute("drop trigger full")
        assert line.rows() == [("draft", None, 0, "running")]
        assert table.query("select * from results") == []
        line.done(draft, "v", CRITIQUE)


# Done again


def finished(table: Table, *values: str) -> Line:
    """A chain of three, done."""
    line = Line(table, PLAIN, "a")
    (draft,) = line.claim()
    line.done(draft, "v", CRITIQUE)
    (critique,) = line.claim()
    line.done(critique, "w", REVISE)
    (revise,) = line.claim()
    line.done(revise)
    return line


def reopen(table: Table, item_id: int) -> None:
    row = repair.ended_item(table.transaction, item_id)
    assert row is not None
    assert table.run(repair.reopen, [row], None, table.now) == 1


def states(line: Line) -> list[str]:
    return [state for *_, state in line.rows()]


def test_all_below_a_row_that_is_asked_again_is_stale(table: Table) -> None:
    line = finished(table)
    reopen(table, 1)
    assert states(line) == ["pending", "stale", "stale"]
    assert table.query("select * from step_counters where ended > 0") == []


def test_the_same_value_once_more_restores_what_was_made_of_it(table: Table) -> None:
    line = finished(table)
    reopen(table, 1)
    line.done(line.claim()[0], "v", CRITIQUE)
    assert states(line) == ["done", "done", "done"]
    assert line.claim() == []


def test_another_value_leaves_stale_what_was_made_of_the_first(table: Table) -> None:
    line = finished(table)
    reopen(table, 1)
    line.done(line.claim()[0], "other", CRITIQUE)
    assert states(line) == ["done", "stale", "stale"]
    assert line.claim() == []
    critiques = table.run(refollow.stale_page, 2, 0, 10)
    assert critiques == [StaleRow(2, waits=False, asks=True)]
    assert table.run(refollow.stale_page, 3, 0, 10) == [StaleRow(3, waits=True, asks=False)]
    assert table.run(refollow.reopen_stale, critiques, table.now) == (1, 0)
    (critique,) = line.claim()
    line.done(critique, "w", REVISE)  # says what it said, but of another draft
    assert states(line) == ["done", "done", "done"]


def test_the_first_value_again_restores_also_after_another(table: Table) -> None:
    line = finished(table)
    for value in ("other", "v"):
        reopen(table, 1)
        line.done(line.claim()[0], value, CRITIQUE)
    assert states(line) == ["done", "done", "done"]


def test_what_is_not_wanted_any_more_is_stale_and_is_not_asked(table: Table) -> None:
    line = finished(table)
    reopen(table, 1)
    line.done(line.claim()[0], "other", over=1)
    assert states(line) == ["done", "stale", "stale"]
    for step in (2, 3):
        page = table.run(refollow.stale_page, step, 0, 10)
        assert page == [StaleRow(step, waits=True, asks=False, unmade=True)]


def test_a_row_that_nobody_has_asked_is_made_of_the_new_value(table: Table) -> None:
    line = Line(table, PLAIN, "a")
    line.done(line.claim()[0], "v", CRITIQUE)
    reopen(table, 1)
    assert states(line) == ["pending", "stale"]
    line.done(line.claim()[0], "other", CRITIQUE)
    assert states(line) == ["done", "pending"]
    (critique,) = line.claim()
    assert critique.links[-1].passed_on == b"other..."


@pytest.mark.parametrize(("value", "state"), [("v", "pending"), ("other", "stale")])
def test_a_row_that_runs_while_its_parent_is_asked_again(
    table: Table, value: str, state: str
) -> None:
    line = Line(table, PLAIN, "a")
    line.done(line.claim()[0], "v", CRITIQUE)
    (critique,) = line.claim()
    reopen(table, 1)
    line.done(critique, "w", REVISE)
    assert states(line) == ["pending", "stale"]
    line.done(line.claim()[0], value, CRITIQUE)
    assert states(line) == ["done", state]  # its answer is stored, and parsed again
    assert [item.answer_text for item in line.claim()] == ["an answer"] * (state == "pending")


@pytest.mark.parametrize(("value", "state"), [("v", "done"), ("other", "stale")])
def test_a_row_that_runs_until_its_parent_has_its_value_again(
    table: Table, value: str, state: str
) -> None:
    line = Line(table, PLAIN, "a")
    line.done(line.claim()[0], "v", CRITIQUE)
    (critique,) = line.claim()
    reopen(table, 1)
    line.done(line.claim()[0], value, CRITIQUE)
    line.done(critique, "w", REVISE)
    assert states(line)[:2] == ["done", state]


def test_a_row_that_its_workers_died_of_is_restored_by_the_same_value(table: Table) -> None:
    line = Line(table, PLAIN, "a")
    line.done(line.claim()[0], "v", CRITIQUE)
    for _ in range(MAX_CRASHES):
        assert [item.id for item in line.claim()] == [2]
        table.take_over(line.worker)
        line.worker = table.join()
    assert states(line) == ["done", "failed"]
    reopen(table, 1)
    assert states(line) == ["pending", "stale"]
    line.done(line.claim()[0], "v", CRITIQUE)
    assert states(line) == ["done", "failed"]
    assert line.claim() == []


def test_a_row_of_a_replaced_value_does_not_fail_by_the_last_of_its_workers(table: Table) -> None:
    """It would say nothing of the new one."""
    line = Line(table, PLAIN, "a")
    line.done(line.claim()[0], "v", CRITIQUE)
    for _ in range(MAX_CRASHES - 1):
        line.claim()
        table.take_over(line.worker)
        line.worker = table.join()
    line.claim()
    dies, line.worker = line.worker, table.join()
    reopen(table, 1)
    line.done(line.claim()[0], "other", CRITIQUE)
    table.take_over(dies)
    assert states(line) == ["done", "stale"]
    assert table.query("select reason from results where item_id = 2") == []
    page = table.run(refollow.stale_page, 2, 0, 10)
    assert page == [StaleRow(2, waits=False, asks=True)]


def test_a_row_that_was_acquitted_is_restored_by_the_same_value(table: Table) -> None:
    line = Line(table, PLAIN, "a", "b")
    for draft in line.claim():
        line.done(draft, "v", CRITIQUE)

    def exchange(slots: int, *outcomes: Outcome) -> list[Item]:
        want = claims(slots, (2,), trial=Trial(calls=16))
        return table.exchange_want(line.worker, want, outcomes).items

    first, second = exchange(2)
    accused = Suspect("404 place", "404", Fail(Reason.REJECTED, "its own"))
    exchange(0, Outcome(first, (broken(Reason.REJECTED),), accused))
    assert states(line) == ["done", "done", "pending", "running"]
    exchange(0, Outcome(second, (answered(),), Done(followed=line.followed("w"))))
    assert states(line) == ["done", "done", "failed", "done"]
    assert table.one("select made_of is not null from results where reason = 'rejected'")
    reopen(table, 1)
    line.done(line.claim()[0], "v", CRITIQUE)
    assert states(line) == ["done", "done", "failed", "done"]


def test_a_sample_asked_again_makes_its_gathering_stale(table: Table) -> None:
    line = Line(table, BEST, "a", samples=2)
    for draft in line.claim():
        line.done(draft, f"v{draft.id}", Child(1))
    for score in line.claim():
        line.done(score, f"s{score.id}")
    line.done(line.claim()[0], "p", Child(3))
    line.done(line.claim()[0], "q")
    assert states(line) == ["done"] * 6
    reopen(table, 2)
    assert states(line) == ["done", "pending", "done", "stale", "stale", "stale"]
    line.done(line.claim()[0], "v2", Child(1))
    assert states(line) == ["done"] * 6
    reopen(table, 4)
    line.done(line.claim()[0], "other")
    assert states(line) == ["done"] * 4 + ["stale"] * 2
    picks = table.run(refollow.stale_page, 3, 0, 10)
    assert table.run(refollow.reopen_stale, picks, table.now) == (1, 0)
    (pick,) = line.claim()
    assert [chain[-1].passed_on for chain in pick.gathered] == [b"s3......", b"other..."]
    line.done(pick, "p", Child(3))


def test_what_another_plan_would_follow_is_parsed_again(table: Table) -> None:
    line = Line(table, PLAIN, "a")
    (draft,) = line.claim()
    followed = Followed(9, (CRITIQUE,), 0, bytes(8))
    line.hand_in(draft, Done(followed=followed))
    assert states(line) == ["pending"]
    (again,) = line.claim()
    assert (again.answer_text, again.plan_id) == ("an answer", line.plan_id)


def test_all_of_a_step_asked_again_leaves_the_steps_after_it_stale(table: Table) -> None:
    line = finished(table)
    table.begin(recipe=OTHER_RECIPE, mode=OtherRecipe.AGAIN, chain=chain_intake(PLAIN))
    assert states(line) == ["pending", "stale", "stale"]


def test_a_step_at_the_end_is_made_of_all_that_is_done(table: Table) -> None:
    line = finished(table)
    longer = plan(*PLAIN.steps, StepRule(name="polish"))
    table.begin(chain=chain_intake(longer))
    chain = chain_of(table.transaction, 1)
    assert chain is not None
    assert not chain.is_followed
    pages = [
        refollow.follow_page(table.transaction, step.experiment_id, 0, 9) for step in chain.steps
    ]
    wanted = [("v", CRITIQUE), ("w", REVISE), ("same", Child(3))]
    for page, (value, child) in zip(pages, wanted, strict=False):
        followed = line.followed(value, child)
        for _ in range(2):
            assert (
                table.run(refollow.write_followed, [(page[0], followed)], table.now).skipped
                == set()
            )
    table.run(refollow.end_following, 1, chain.plan_id)
    assert states(line)[-1] == "pending"


def test_other_rules_are_told_before_anything_is_begun(table: Table) -> None:
    finished(table)
    other = plan(PLAIN.steps[0], StepRule(name="critique", value="parsed.x"), PLAIN.steps[2])
    assert table.begin(chain=chain_intake(other)).other_plan == PLAIN


def test_an_experiment_is_renamed_and_deleted_with_its_steps(table: Table) -> None:
    line = Line(table, BEST, "a", samples=2)
    for draft in line.claim():
        line.done(draft, "v", Child(1))
    for score in line.claim():
        line.done(score)
    with pytest.raises(UsageError, match="it is a step of e; name that one"):
        table.delete(2)
    table.run(admin.rename_experiment, 1, "new")
    assert table.query("select name from experiments order by id") == [
        ("new",), ("new/score",), ("new/pick",), ("new/polish",)
    ]  # fmt: skip
    table.delete(1)
    assert table.query("select 1 from experiments, items, work") == []


def test_chains_are_read_whole_in_the_order_of_the_pool(table: Table) -> None:
    line = Line(table, PARTS, "a", "b")
    asks = line.claim()
    parts = [Child(1, n, f'{{"question": {n}}}') for n in range(2)]
    for ask in reversed(asks):
        line.done(ask, "v", *parts)
    for answer in line.claim():
        line.done(answer, "s")
    (_, last) = line.claim()  # the chain of b was the first to get there
    line.done(last)
    page = chain_rows.chain_page(table.transaction, 1, 0, 1)
    assert [(row.item_id, row.id, row.number, row.element) for row in page] == [
        (1, 1, 0, 0), (1, 5, 1, 0), (1, 6, 1, 1), (1, last.id, 2, 0)
    ]  # fmt: skip
    assert page[-1].gathered == tuple(row.result_seq for row in page[1:3])
    assert [row.result is not None for row in page] == [True] * 4
    rest = chain_rows.chain_page(table.transaction, 1, page[-1].item_id, 9)
    assert [(row.item_id, row.state) for row in rest] == [(2, "done")] * 3 + [(2, "running")]
    assert chain_rows.chain_page(table.transaction, 1, 2, 9) == []
    live = chain_rows.live_chain_page(table.transaction, 1, 0, 100)
    assert live is not None
    assert (live.rows, live.is_last) == ([last.id], True)
    assert sorted(live.above) == [1, 5, 6, last.id]


# Proof


BROKEN = [
    ("delete from work where item_id = 3; delete from items where id = 3",
     "row 2 is done, and 1 rows of later steps are to be made of it, but there are 0"),
    ("update results set children = null, passed_over = null, passed_on = null where seq = 3",
     "row 3 is done, but what follows it was never made"),
    ("update items set parent_result = 7 where id = 3",
     "row 3 was made of a result that is its parent's no more, but is not marked as stale"),
    ("update results set made_of = null where seq = 2",
     "row 2 was made of other values than its parent has, but is not marked as stale"),
    ("update results set passed_on = zeroblob(8) where seq = 1",
     "row 2 was made of other values than its parent has, but is not marked as stale"),
    ("update items set experiment_id = 1 where id = 3",
     "row 3 was made of one that is of no earlier step of its chain"),
    ("update step_counters set ended = 5",
     "experiment 3: 5 chains counted as ended and 0 rows as passed over, but there are 1 and 0"),
]  # fmt: skip


@pytest.mark.parametrize(("script", "problem"), BROKEN)
def test_a_broken_chain_is_found(tmp_path: Path, script: str, problem: str) -> None:
    with closing(new_database(tmp_path / "broken.db")) as db:
        table = Table(db)
        finished(table)
        assert table.problems() == []
        db.executescript(script)
        assert problem in table.problems()


BROKEN_GATHERINGS = [
    ("update items set gathered = '[3]' where gathered is not null",
     "row 5 does not gather all that is done"),
    ("update items set gathered = '[3, 9]' where gathered is not null",
     "row 5 gathers a result that is no more, but is not marked as stale"),
    ("delete from work where item_id = 5; delete from items where id = 5",
     "row 1: all that is gathered with it has ended, but nothing gathers it"),
]  # fmt: skip


@pytest.mark.parametrize(("script", "problem"), BROKEN_GATHERINGS)
def test_a_broken_gathering_is_found(tmp_path: Path, script: str, problem: str) -> None:
    with closing(new_database(tmp_path / "broken.db")) as db:
        table = Table(db)
        line = Line(table, BEST, "a", samples=2)
        for draft in line.claim():
            line.done(draft, f"v{draft.id}", Child(1))
        for score in line.claim():
            line.done(score, f"s{score.id}")
        assert table.problems() == []
        db.executescript(script)
        assert problem in table.problems()


# Claims


CODE = plan(StepRule(name="draft"), StepRule(name="score", runs_code=True), StepRule(name="end"))


def test_rows_of_functions_are_for_who_runs_code(table: Table) -> None:
    line = Line(table, CODE, "a", "b")
    drafts = line.claim()
    for draft in drafts:
        line.done(draft, "v", Child(1))
    assert line.claim() == []
    want = ClaimRequest((
        ServerWant("s", 5), ServerWant("", 1, experiments=(2,), runs_code=True),
    ), (3, 2, 1))  # fmt: skip
    (score,) = table.exchange_want(line.worker, want).items
    assert (score.id, score.runs_code, score.server) == (3, True, "")
    followed = line.followed("s", Child(2))
    done = Outcome(score, (), Done("0.5", followed))
    items = table.exchange_want(line.worker, want, [done]).items
    assert [(item.id, item.server) for item in items] == [(5, "s"), (4, "")]
    line.enqueue("c")
    line.done(line.claim()[0], "v", Child(1))
    none = ServerWant("", 0, experiments=(2,), runs_code=True)
    busy = ClaimRequest((ServerWant("s", 5), none), (3, 2, 1))
    assert table.exchange_want(line.worker, busy).items == []
    assert items[0].links[-1].parsed_json == "0.5"


def test_of_a_dead_worker_functions_are_suspects_and_no_calls(table: Table) -> None:
    line = Line(table, CODE, "a", "b")
    for draft in line.claim():
        line.done(draft, "v", Child(1))
    want = ClaimRequest((ServerWant("", 5, experiments=(2,), runs_code=True),), (2,))
    assert len(table.exchange_want(line.worker, want).items) == 2
    table.take_over(line.worker)
    assert table.query("select crashes from work where runs_code = 1") == [(1,), (1,)]
    assert table.one("select count(*) from attempts where outcome = 'unknown'") == 0
    other = table.join()
    assert len(table.exchange_want(other, want).items) == 1  # alone


def test_a_function_that_its_workers_died_of_is_run_again_when_it_is_another_one(
    table: Table,
) -> None:
    line = Line(table, CODE, "a")
    line.done(line.claim()[0], "v", Child(1))
    want = ClaimRequest((ServerWant("", 5, experiments=(2,), runs_code=True),), (2,))
    for _ in range(MAX_CRASHES):
        assert len(table.exchange_want(line.worker, want).items) == 1
        table.take_over(line.worker)
        line.worker = table.join()
    assert states(line) == ["done", "failed"]
    present = table.one("select parser_id from experiments where id = 2")
    assert table.run(repair.run_by_others, 2, present, 0, 10) == []
    (row,) = table.run(repair.run_by_others, 2, present + 1, 0, 10)
    assert (row.item_id, row.reason) == (2, "crash")


def test_only_so_many_chains_are_begun_as_are_wanted(table: Table) -> None:
    line = Line(table, PLAIN, *"abcd")

    def claim() -> Exchange:
        want = ClaimRequest((ServerWant("s", 9),), (3, 2, 1), until=2)
        return table.exchange_want(line.worker, want)

    drafts = claim().items
    assert len(drafts) == 2
    line.done(drafts[0], "v", over=1)
    line.done(drafts[1], "v", CRITIQUE)
    (critique,) = claim().items
    assert not claim().enough
    line.done(critique, "w")
    assert claim().enough


def test_a_selection_has_what_was_made_of_its_items(table: Table) -> None:
    line = Line(table, PLAIN, "a", "b", "c")
    first, *_ = line.claim(2)
    line.done(first, "v", CRITIQUE)
    selection = table.run(selections.begin_selection, 1, [1], table.now)
    want = ClaimRequest((ServerWant("s", 9),), (3, 2, 1), selection=selection)
    done = table.exchange_want(line.worker, want)
    assert [item.id for item in done.items] == [4]
    assert done.open == 1
    line.done(done.items[0], "w", REVISE)
    (revise,) = table.exchange_want(line.worker, want).items
    line.done(revise)
    assert table.exchange_want(line.worker, want).open == 0


@pytest.mark.parametrize("others", [(), ("e", "f")], ids=["all_that_is_open", "others_are_open"])
def test_until_counts_the_chosen_chains(table: Table, others: tuple[str, ...]) -> None:
    """Two that had ended are not chosen, and one is."""
    line = Line(table, PLAIN, "x", "y", "a")
    for draft in line.claim():
        line.done(draft, "v", over=1)
    line.enqueue("b", "c", "d", *others)
    selection = table.run(selections.begin_selection, 1, [3, 4, 5, 6], table.now)
    assert (selection.number is not None) == bool(others)

    def claim() -> Exchange:
        want = ClaimRequest((ServerWant("s", 9),), (3, 2, 1), until=3, selection=selection)
        return table.exchange_want(line.worker, want)

    first, second = claim().items
    line.done(first, "v", CRITIQUE)
    line.done(second, "v", over=1)
    (critique,) = claim().items
    none = claim()
    assert (none.items, none.enough) == ([], False)
    line.done(critique, "w", over=1)
    counts = table.run(look.counts, [1, 2, 3], selection)
    assert (claim().enough, counts.ended, counts.done) == (True, 3, 4)


def test_of_all_experiments_the_deepest_steps_come_first_whatever_server_answers_them(
    table: Table,
) -> None:
    line = Line(table, PLAIN, "a", "b", "c")
    for draft in line.claim(2):
        line.done(draft, "v", CRITIQUE)
    of_first = ServerWant("s", 9, experiments=(1,))
    of_later = ServerWant("t", 9, experiments=(3, 2))
    want = ClaimRequest((of_first, of_later), None, most=2)
    items = table.exchange_want(line.worker, want).items
    assert [item.server for item in items] == ["t", "t"]
