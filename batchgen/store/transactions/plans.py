"""The transactions on chains as a whole: their steps and plans."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from batchgen.errors import Remedy, UsageError
from batchgen.items import State
from batchgen.store.chain import Steps
from batchgen.store.chain_records import Chain, ChainStep
from batchgen.store.deltas import CounterDeltas
from batchgen.store.transaction import Transaction
from batchgen.store.transactions.deltas import write_deltas
from batchgen.store.transactions.rows import rows_of
from batchgen.store.values import ChainIntake, RowGroup

if TYPE_CHECKING:  # what has no steps need not load them
    from batchgen.steps import Plan, StepRule


def chain_of(db: Transaction, experiment_id: int) -> Chain | None:
    row = db.execute("chain", {"experiment_id": experiment_id}).fetchone()
    if row is None:
        return None
    from batchgen.steps import Plan

    first_id, plan_id, body, is_followed = row
    steps = tuple(
        replace(step, runs_code=bool(step.runs_code))
        for step in rows_of(db, "chain_steps", ChainStep, {"first_id": first_id})
    )
    return Chain(first_id, plan_id, Plan.from_json(body), steps, bool(is_followed))


def checked_chain(
    db: Transaction, experiment_id: int, chain: ChainIntake | None, experiment: str
) -> Chain | None:
    """The chain that the experiment has. Raises UsageError, with its name, where it can have no
    such steps."""
    there = chain_of(db, experiment_id)
    if chain is None:
        if there is not None:
            raise UsageError(
                f"experiment {experiment!r} was enqueued with steps, and there are none now.",
                Remedy.NAME_EXPERIMENT,
            )
        return None
    (rows,) = db.execute("count_rows", {"experiment_id": experiment_id}).fetchone()
    if there is None and rows:
        raise UsageError(f"experiment {experiment!r} has no steps.", Remedy.NAME_EXPERIMENT)
    names = [rule.name for rule in chain.plan.steps]
    if there is not None and names[: len(there.steps)] != [step.name for step in there.steps]:
        raise UsageError(f"experiment {experiment!r} has other steps.", Remedy.NAME_EXPERIMENT)
    return there


def has_other_rules(there: Chain | None, plan: "Plan") -> bool:
    """Whether rows that are done may have other children by this plan; steps added at its end are
    no other rules."""
    return there is not None and plan.steps[: len(there.steps)] != there.plan.steps


def set_plan(db: Transaction, first_id: int, there: Chain | None, plan: "Plan", now: int) -> None:
    """The experiment has this plan, and its steps are there."""
    plan_id = _plan_number(db, plan, now)
    (rows,) = db.execute("count_rows", {"experiment_id": first_id}).fetchone()
    same = there is not None and there.is_followed and there.plan.steps == plan.steps
    first = plan.steps[0]
    db.execute("set_plan", {
        "first_id": first_id, "step": first.name, "runs_code": first.runs_code,
        "plan_id": plan_id, "is_followed": not rows or same,
    })  # fmt: skip


def add_step(
    db: Transaction, first_id: int, name: str, rule: "StepRule", number: int,
    *, parser_id: int, recipe_id: int, now: int,
) -> None:  # fmt: skip
    """`name` is that of the experiment that it is."""
    if db.execute("find_experiment", {"name": name}).fetchone():
        raise UsageError(f"there is an experiment {name} that is no step of this one.")
    new = {
        "name": name, "now": now, "parser_id": parser_id, "first_id": first_id, "step": rule.name,
        "number": number, "runs_code": rule.runs_code,
    }  # fmt: skip
    (experiment_id,) = db.execute("add_step", new).fetchone()
    db.execute("add_variant", {
        "experiment_id": experiment_id, "number": 1, "recipe_id": recipe_id, "now": now,
    })  # fmt: skip


def set_gatherings(db: Transaction, first_id: int) -> None:
    """Each step is gathered by the next one after it that gathers."""
    chain = chain_of(db, first_id)
    assert chain is not None
    for step in chain.steps:
        rules = enumerate(chain.plan.steps)
        after = next((n for n, rule in rules if n > step.number and rule.gather), None)
        gathered_by = None if after is None else chain.steps[after].experiment_id
        if gathered_by != step.gathered_by:
            which = {"experiment_id": step.experiment_id}
            db.execute("gather_by", which | {"gathered_by": gathered_by})
            db.execute("set_gathering", which)
            db.execute("forget_ended", which)


def stale_steps_after(db: Transaction, experiment_id: int, asked: Sequence[RowGroup]) -> None:
    """Rows of a step are asked anew, which stood like this: all that was made of them is stale, by
    whatever way, step by step."""
    from batchgen.store.transactions.follow import steps_of  # here: few have steps

    chain = chain_of(db, experiment_id)
    if chain is None:
        return
    (number,) = (s.number for s in chain.steps if s.experiment_id == experiment_id)
    steps, deltas = steps_of(db, [experiment_id]), CounterDeltas()
    for group in asked:
        _leave_chains(deltas, steps, experiment_id, group)
    for step in chain.steps[number + 1 :]:
        which = {"experiment_id": step.experiment_id}
        groups = rows_of(db, "rows_to_stale", RowGroup, which)
        for group in groups:
            _count_stale(deltas, steps, step.experiment_id, group)
        db.execute("stale_rows", which)
    write_deltas(db, deltas)


def _count_stale(deltas: CounterDeltas, steps: Steps, experiment_id: int, group: RowGroup) -> None:
    if group.state == State.RUNNING:
        return
    deltas.move_group(experiment_id, group, State.STALE)
    _leave_chains(deltas, steps, experiment_id, group)


def _leave_chains(deltas: CounterDeltas, steps: Steps, experiment_id: int, group: RowGroup) -> None:
    if group.state == State.DONE and group.children is not None:
        passed_over = group.passed_over or 0
        steps.count(deltas, experiment_id, group.children, passed_over, -group.n)


def _plan_number(db: Transaction, plan: "Plan", now: int) -> int:
    digest = {"digest": plan.digest()}
    found = db.execute("find_plan", digest).fetchone()
    if found:
        return int(found[0])
    new = {**digest, "body": plan.to_json(), "now": now}
    (added,) = db.execute("add_plan", new).fetchone()
    return int(added)
