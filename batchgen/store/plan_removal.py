"""What becomes of the claims of who is gone: of a worker, or of a batch that is given up. Pure, as
`plan`."""

from collections.abc import Sequence

from batchgen.items import Attempt, Fail, Reason, Release, Retry
from batchgen.store.plan import NOTHING_RESERVED, ClaimRow, Known, Plan, Reserved
from batchgen.store.values import Spent


def most_rows_of_removal(
    claims: Sequence[ClaimRow], *, crashed: bool, sends: bool, max_crashes: int
) -> tuple[int, int]:
    """How many attempts and results `plan_removal` makes of these at most."""
    if not crashed:
        return 0, 0
    results = sum(claim.crashes + 1 >= max_crashes for claim in claims)
    return 0 if sends else sum(claim.calls for claim in claims), results


def plan_removal(
    claims: Sequence[ClaimRow],
    known: Known,
    worker_id: int,
    *,
    crashed: bool,
    sends: bool,
    max_crashes: int,
    now: int,
) -> Plan:
    """The claims of a worker go back to the others.

    After a crash each of its calls may have been sent, and answered: an attempt with unknown
    outcome is kept for each. Who leaves in order has handed in what was sent before. Answers that
    wait to be parsed stay with their items. An item that saw `max_crashes` workers die fails; but
    while a parser was at work, only the items it had are suspected of it. A row whose values have
    been replaced does not: it is stale, and nobody knows any more what it was made of. Of one that
    `sends` provider batches nothing was sent: what was is a batch's.
    """
    plan = Plan(known.last_attempt_seq, known.last_result_seq)
    in_flight = crashed and not sends
    parsing = any(claim.is_parsed for claim in claims)
    fail = Fail(Reason.CRASH, f"was in flight each of the {max_crashes} times its worker died")
    for claim in claims:
        reserved = known.reserved.get((claim.item_id, claim.epoch), NOTHING_RESERVED)
        for _ in range(claim.calls if in_flight else 0):
            plan.keep_attempt(worker_id, claim, Attempt(finished_at=now), reserved)
        suspect = crashed if claim.is_parsed else in_flight and not parsing
        if suspect and claim.crashes + 1 >= max_crashes and claim.outdated < 2:
            plan.end(claim, fail, None, now, outdated=claim.outdated)
        else:
            plan.take_back(claim, crashed=suspect)
    return plan


def plan_given_up(
    claims: Sequence[ClaimRow], known: Known, worker_id: int, server: str, most: Spent | None,
    now: int,
) -> Plan:  # fmt: skip
    """They go back to the others. `most` is what each may have used at this server: then an attempt
    of unknown outcome is kept for each, and a try is used up. None: nothing was sent. An answer
    that waits to be parsed stays with its row, of which the call is known."""
    plan = Plan(known.last_attempt_seq, known.last_result_seq)
    server_id = known.server_ids.get(server)
    for claim in claims:
        if most is None or claim.is_parsed:
            plan.end(claim, Release(), None, now, outdated=claim.outdated)
        else:
            unknown, reserved = Attempt(finished_at=now), Reserved(most, 0)
            seq = plan.keep_attempt(worker_id, claim, unknown, reserved, server_id)
            again = Retry(None, charged=True)
            plan.end(claim, again, seq, now, outdated=claim.outdated)
    return plan


def most_rows_given_up(claims: Sequence[ClaimRow], most: Spent | None) -> int:
    """How many attempts that keeps."""
    return 0 if most is None else sum(not claim.is_parsed for claim in claims)
