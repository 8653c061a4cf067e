"""Provider batches in words: how far one is, where a row is that one holds, and how far all of
them are."""

from batchgen.display.times import hours_text
from batchgen.display.visible import visible_line
from batchgen.jobs.batches import InBatch, Unfinished
from batchgen.store import BatchState, ProviderBatch

_LONGEST_REASON = 100


def state_text(batch: ProviderBatch, *, is_collecting: bool) -> str:
    """How far it is; of one that is closed, what closed it. `is_collecting`: a sender is at
    work."""
    status = visible_line(batch.status or "")
    match batch.state:
        case BatchState.CREATING if batch.absent:
            return "to be made: the provider does not have it"
        case BatchState.CREATING:
            return "not known yet whether the provider has it"
        case BatchState.OPEN:
            return status or "at the provider"
        case BatchState.ENDED:
            return f"{status}: {'being' if is_collecting else 'to be'} collected"
        case BatchState.CLOSED:
            why = visible_line(batch.error or "") or status
            if len(why) > _LONGEST_REASON:
                why = f"{why[: _LONGEST_REASON - 3]}..."
            return f"closed: {why}"


def unfinished_line(unfinished: Unfinished, at_ms: int) -> str:
    """batches: 2 at the provider, 4,120 of 12,318 answered, oldest 0:41"""
    words = {
        BatchState.OPEN: "at the provider",
        BatchState.ENDED: "to be collected",
        BatchState.CREATING: "of which it is not known yet whether the provider has them",
    }
    parts = [f"{n:,} {words[state]}" for state in words if (n := unfinished.states.get(state))]
    parts.append(f"{unfinished.answered:,} of {unfinished.requests:,} answered")
    if unfinished.failed:
        parts.append(f"{unfinished.failed:,} failed")
    return f"batches: {', '.join(parts)}, oldest {hours_text(at_ms - unfinished.since)}"


def held_text(held: InBatch) -> str:
    """Where a row is that a batch holds: in batch 12 (batch_6abc), 41 % answered, since 3:10"""
    batch = held.batch
    where = f"in batch {batch.number}"
    if batch.batch_id:
        where += f" ({visible_line(batch.batch_id)})"
    answered = f"{100 * batch.answered // batch.requests} % answered"
    if batch.batch_id is None:
        answered = state_text(batch, is_collecting=False)
    return f"{where}, {answered}, since {hours_text(held.at_ms - batch.sealed_at)}"
