"""What `retry` and `reparse` will write, decided before anything is written. Pure, as `plan`."""

from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from batchgen.items import Done, Fail, State
from batchgen.store.deltas import CounterDeltas
from batchgen.store.plan_rows import Row, result_row
from batchgen.store.values import EndedAnswer, EndedItem, Reparsed, RowGroup


class RepairPlan(Struct):
    """Rows to write, in the order of the lists, and what that changes in the counters. `items` are
    those that it is about; the others are skipped, as something else became of them meanwhile."""

    items: list[int] = field(default_factory=list)
    reopened: list[Row] = field(default_factory=list)
    results: list[Row] = field(default_factory=list)
    replaced: list[Row] = field(default_factory=list)  # results by which items ended
    confirmed: list[Row] = field(default_factory=list)  # results that another parser makes too
    deltas: CounterDeltas = field(default_factory=CounterDeltas)


def plan_reopened(items: Sequence[EndedItem], by_now: Mapping[int, EndedItem]) -> RepairPlan:
    """Items that ended back to pending, with all their tries. `by_now` is how they have ended by
    now: who ended for another reason is skipped, as another retry was faster."""
    plan, ended = RepairPlan(), dict(by_now)
    for item in items:
        now = ended.pop(item.item_id, None)
        if now is None or now.reason != item.reason:
            continue
        plan.items.append(item.item_id)
        plan.reopened.append({"item_id": item.item_id})
        _leave(plan.deltas, now.experiment_id, now.reason, now.parser_id)
        plan.deltas.move(item.experiment_id, State.PENDING, +1)
    return plan


def plan_reparsed(
    reparsed: Sequence[Reparsed], parser_id: int, result_seqs: Mapping[int, int], last_seq: int,
    now: int, made_of: Mapping[int, bytes | None] | None = None,
) -> RepairPlan:  # fmt: skip
    """Another result from the same answer, where the parser made one; the earlier ones stay.
    `result_seqs` are the results that the items have now, and `made_of` what rows of later steps
    were made of."""
    plan, seqs = RepairPlan(), dict(result_seqs)
    for one in reparsed:
        was = one.was
        if seqs.get(was.item_id) != was.result_seq:
            continue
        plan.items.append(was.item_id)
        if one.now is not None:
            last_seq += 1
            seqs[was.item_id] = last_seq
            hash_ = (made_of or {}).get(was.item_id)
            _replace_result(plan, was, one.now, last_seq, parser_id, now, hash_)
        else:
            plan.confirmed.append({"seq": was.result_seq, "parser_id": parser_id})
            plan.deltas.parse(was.experiment_id, was.parser_id, -1)
        plan.deltas.parse(was.experiment_id, parser_id, +1)
    return plan


def _replace_result(
    plan: RepairPlan, was: EndedAnswer, end: Done | Fail, seq: int, parser_id: int, now: int,
    made_of: bytes | None,
) -> None:  # fmt: skip
    result = result_row(
        seq, was.item_id, was.attempt_seq, end, now, parser_id=parser_id, reparsed=True,
        answer=was.response, made_of=made_of,
        followed=end.followed if isinstance(end, Done) else None,
    )  # fmt: skip
    plan.results.append(result)
    plan.replaced.append({
        "item_id": was.item_id, "state": result["state"], "result_seq": was.result_seq,
        "new_result_seq": seq,
    })  # fmt: skip
    _leave(plan.deltas, was.experiment_id, was.reason, was.parser_id)
    reason = "" if isinstance(end, Done) else end.reason
    plan.deltas.move(was.experiment_id, State.FAILED if reason else State.DONE, +1, reason)


def plan_asked(experiment_id: int, groups: Sequence[RowGroup]) -> CounterDeltas:
    """What changes when rows, whatever they are, go back to pending."""
    deltas = CounterDeltas()
    for group in groups:
        deltas.move_group(experiment_id, group, State.PENDING)
    return deltas


def _leave(
    deltas: CounterDeltas, experiment_id: int, reason: str | None, parser_id: int | None
) -> None:
    """An item is not what it was when it had ended for this reason (None: done)."""
    deltas.move(experiment_id, State.FAILED if reason else State.DONE, -1, reason or "")
    deltas.parse(experiment_id, parser_id, -1)
    if not reason:
        deltas.supersede(experiment_id)
