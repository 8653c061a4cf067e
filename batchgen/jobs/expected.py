"""How many rows of chains are still to be answered: those that wait, and those that will be made of
them, as far as one can tell by those that were made so far. Pure."""

from collections.abc import Sequence

from batchgen.jobs.experiments import StepSummary


def expected_pending(steps: Sequence[StepSummary], until: int | None = None) -> int:
    """Of these steps of some chains; with `until`, no more items are begun than may still be wanted
    so that so many chains end."""
    firsts = [one for one in steps if one.experiment.number == 0]
    found = sum(one.counts.pending for one in steps if one.experiment.number)
    for first in firsts:
        later = [one for one in steps if one.experiment.first_id == first.experiment.id]
        found += _of_chain(first, later, until)
    return found


def _of_chain(first: StepSummary, later: Sequence[StepSummary], until: int | None) -> int:
    """The rows of the first step, and what comes after them."""
    pending, running = first.counts.pending, first.counts.running
    if until is not None:
        ended = first.counts.ended + sum(one.counts.ended for one in later)
        begun = running + sum(one.counts.open for one in later)
        pending = max(0, min(pending, until - ended - begun))
    made, done = sum(one.counts.total for one in later), first.counts.finished
    rows_each = made / done if done else len(later)
    return pending + round((pending + running) * rows_each)
