"""The end of claims: what the plan says becomes rows, a statement for each kind of them."""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from batchgen.items import Done, Item, Outcome
from batchgen.store.chain import Steps, made_of_item, made_of_parent
from batchgen.store.plan import (
    Claim,
    ClaimRow,
    Known,
    Plan,
    Reserved,
    claim_of,
    most_rows,
    plan_finish,
)
from batchgen.store.plan_removal import most_rows_of_removal, plan_removal
from batchgen.store.transaction import Transaction
from batchgen.store.transactions.budget import look_for_reserved, take_reserved
from batchgen.store.transactions.deltas import write_deltas
from batchgen.store.transactions.fencing import held_of, look_at_claims, unknown_calls_of
from batchgen.store.transactions.results import append_results
from batchgen.store.transactions.rows import rows_of

_NONE: Mapping[Claim, Reserved] = {}


def finish(
    db: Transaction, worker_id: int, outcomes: Sequence[Outcome], now: int,
    reserved: Mapping[Claim, Reserved] = _NONE,
) -> Plan:  # fmt: skip
    """Write what the slots finished. `reserved`: for calls for which the database has nothing."""
    if not outcomes:
        return Plan(0, 0)
    known = _known(db, outcomes, reserved)
    plan = plan_finish(outcomes, known, worker_id, now)
    write_plan(db, plan, known.steps, now)
    if plan.parents:
        from batchgen.store.plan_links import made_now  # here: few have steps

        plan.made = made_now(plan.parents, known.steps)
    return plan


def give_back(
    db: Transaction, worker_id: int, *, crashed: bool, sends: bool, max_crashes: int, now: int
) -> int:
    """The claims of a worker that is gone, or goes, to the others; how many these were. `sends`: it
    puts what it claims into provider batches."""
    claims = list(rows_of(db, "claims_of_worker", ClaimRow, {"worker_id": worker_id}))
    if crashed:
        claims = _with_made_of(db, claims, max_crashes)
    taken = [(claim.item_id, claim.epoch) for claim in claims]
    reserved = take_reserved(db, taken, look_for_reserved(db))
    attempts, results = most_rows_of_removal(
        claims, crashed=crashed, sends=sends, max_crashes=max_crashes
    )
    known = Known(
        reserved=reserved if crashed else {},
        last_attempt_seq=db.first_new("attempts", attempts) - 1,
        last_result_seq=db.first_new("results", results) - 1,
    )
    plan = plan_removal(
        claims, known, worker_id,
        crashed=crashed, sends=sends, max_crashes=max_crashes, now=now,
    )  # fmt: skip
    write_plan(db, plan, Steps(), now)
    return len(claims)


def _with_made_of(db: Transaction, claims: Sequence[ClaimRow], max_crashes: int) -> list[ClaimRow]:
    """The same; those that may have seen their last worker die know what they were made of."""
    made = made_of_now(db, [one.item_id for one in claims if one.crashes + 1 >= max_crashes])
    return [replace(one, made_of=made.get(one.item_id, NOTHING).hash) for one in claims]


def _known(
    db: Transaction, outcomes: Sequence[Outcome], reserved: Mapping[Claim, Reserved]
) -> Known:
    claims = {claim_of(outcome.item) for outcome in outcomes}
    attempts, results = most_rows(outcomes)
    # All that can be begun before anything is known of it.
    not_as_usual, any_reserved = look_at_claims(db, claims), look_for_reserved(db)
    server_ids = db.execute("server_ids")
    first_attempt = db.begin_new("attempts", attempts)
    first_result = db.begin_new("results", results)
    held = held_of(claims, not_as_usual)
    late = claims - held.keys()
    return Known(
        held=held.keys(),
        late=unknown_calls_of(db, late),
        reserved={**reserved, **take_reserved(db, claims, any_reserved)},
        last_attempt_seq=first_attempt() - 1,
        last_result_seq=first_result() - 1,
        outdated=_outdated(db, [outcome.item for outcome in outcomes], held),
        server_ids=dict(server_ids.fetchall()),
        steps=_steps_of(db, outcomes),
    )


def _steps_of(db: Transaction, outcomes: Sequence[Outcome]) -> Steps:
    """Of the chains that go on with these; nothing is read where there are none."""
    followed = [
        outcome.item.experiment_id
        for outcome in outcomes
        if isinstance(outcome.decision, Done) and outcome.decision.followed is not None
    ]
    if not followed:
        return Steps()
    from batchgen.store.transactions.follow import steps_of  # here: few have steps

    return steps_of(db, followed)


def _outdated(
    db: Transaction, items: Sequence[Item], held: Mapping[Claim, int]
) -> dict[Claim, int]:
    """Claims of rows that were made of what is no more. What was replaced may be the same again."""
    outdated = {claim: degree for claim, degree in held.items() if degree}
    if not outdated:
        return outdated
    replaced = {claim_of(i): i for i in items if held.get(claim_of(i)) == 2}
    made = made_of_now(db, [item_id for item_id, _ in replaced])
    for claim, item in replaced.items():
        now = made.get(item.id, NOTHING)
        if now.is_there and now.hash == made_of_item(item):
            del outdated[claim]
    return outdated


class MadeOfNow(NamedTuple):
    """The hash of what a row of a later step would be made of by now, and whether all of that
    `is_there`: while it is being replaced, it is not."""

    hash: bytes | None
    is_there: bool


NOTHING = MadeOfNow(None, is_there=False)


def made_of_now(db: Transaction, item_ids: Sequence[int]) -> dict[int, MadeOfNow]:
    """By row, of those that are made of others."""
    if not item_ids:
        return {}
    found = db.execute("present_of", {"ids": json.dumps(list(item_ids))}).fetchall()
    return {
        item_id: MadeOfNow(_hash_of(db, *made), bool(is_there))
        for item_id, is_there, *made in found
    }


def _hash_of(
    db: Transaction, input_json: str, gathered: str | None, passed_on: bytes | None
) -> bytes:
    if gathered is None:
        return made_of_parent(passed_on, input_json)
    from batchgen.store.plan_follow import made_of_seqs
    from batchgen.store.transactions.gatherings import passed_on_by

    return made_of_seqs(gathered, passed_on_by(db, gathered))


def write_plan(db: Transaction, plan: Plan, steps: Steps, now: int) -> None:
    append_results(db, plan.results)
    statements = (
        ("remove_unknown_attempt", plan.replaced),
        ("append_attempt", plan.attempts),
        ("note_parse_error", plan.parse_errors),
        ("keep_answer", plan.kept_answers),
        ("take_back", plan.taken_back),
    )
    for name, rows in statements:
        db.execute_many(name, rows)
    settled = db.execute_many("settle", plan.settled)
    assert settled in (len(plan.settled), -1), "a claim that holds was not there to be settled"
    if plan.parents or plan.gatherings:
        _follow(db, plan, steps, now)
    write_deltas(db, plan.deltas)


def _follow(db: Transaction, plan: Plan, steps: Steps, now: int) -> None:
    """What was made done has its children, and what they were the last of is gathered."""
    from batchgen.store.transactions.follow import Followers  # here, too
    from batchgen.store.transactions.gatherings import gather

    followers = Followers(db, steps, plan.deltas)
    followers.follow(plan.parents)
    gather(db, followers, plan.gatherings, now)
