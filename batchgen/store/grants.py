"""Which calls a budget lets a worker send: decided before anything is written. Pure, as `plan`."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from batchgen.store.plan import Claim, claim_of
from batchgen.store.values import Budget, Grant, Reservation, Spent


def plan_grants(
    wanted: Sequence[Reservation],
    budget: Budget,
    spent: Spent,
    reserved: Spent,
    held: AbstractSet[Claim],
    overuse: Mapping[int, float],
) -> tuple[list[Grant], list[tuple[Reservation, Spent]]]:
    """What may be sent, an answer each, and the reservations that this makes, with what is held
    back for each: several times as much, in an experiment whose calls have used so much more."""
    grants: list[Grant] = []
    made = []
    booked = spent + reserved
    for one in wanted:
        most = one.most(overuse.get(one.item.experiment_id, 1.0))
        if budget.is_exceeded_by(spent + most):
            grants.append(Grant.NEVER)
        elif budget.is_exceeded_by(booked + most) or claim_of(one.item) not in held:
            grants.append(Grant.WAIT)
        else:
            booked += most
            made.append((one, most))
            grants.append(Grant.YES)
    return grants, made
