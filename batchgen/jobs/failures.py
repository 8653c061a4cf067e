"""What failed, grouped by reason and message, and what can be done about each group."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from batchgen.endpoints import LIMITS
from batchgen.errors import Remedy
from batchgen.items import Reason
from batchgen.jobs.lookup import name_of_item
from batchgen.store import (
    Counts,
    Experiment,
    FailedCalls,
    FailureGroup,
    ReadStore,
    literal_parts,
)

_LONGEST_PART = 60
_SHORTEST_PART = 6
_FIRST_MAX_TOKENS = 4096  # where the recipe sets no limit, and the server's own was too low


class FailedLike(Struct, frozen=True):
    """A group of failed items, and the remedy that fits; asking the same again is none where it
    would fail again. `message` is a part of its message by which `retry` tells it from the
    experiment's other groups of that reason; None: there are none. `setting` is what is to be
    asked with instead, if that is known. `example` is what one of them can be called by."""

    group: FailureGroup
    remedy: Remedy
    example: str
    message: str | None = None
    setting: str | None = None


class Failures(Struct, frozen=True):
    """Those of one experiment, the most frequent first; `left_out` items are in no group here.
    `calls` are those that failed, of the reasons for which some were asked again. Of so many
    `failed` items `looked_at` were grouped."""

    experiment: str
    groups: tuple[FailedLike, ...]
    left_out: int = 0
    calls: tuple[FailedCalls, ...] = ()
    failed: int = 0
    looked_at: int = 0

    @property
    def is_clean(self) -> bool:
        return not self.groups and not self.left_out and not self.calls

    def to_json(self) -> list[dict[str, Any]]:
        """What `failures --json` has of this experiment."""
        return [
            {
                "experiment": self.experiment, "reason": one.group.reason,
                "error": one.group.error, "count": one.group.n, "example": one.group.example,
            }
            for one in self.groups
        ]  # fmt: skip


async def failures_of(
    store: ReadStore, experiments: Iterable[Experiment], reason: str | None = None,
) -> list[Failures]:  # fmt: skip
    """Of each experiment; of one `reason` only, or all."""
    counts = await store.counts_by_experiment()
    found = []
    for one in experiments:
        reasons = counts.get(one.id, Counts()).reasons
        failed = reasons.total() if reason is None else reasons[reason]
        groups = await store.failures(one.id, reason) if failed else []
        found.append(await _failures_of(store, one, reasons, reason, groups, failed, failed))
    return found


async def last_failures_of(
    store: ReadStore, experiments: Sequence[Experiment], budget_s: float, most: int | None = None
) -> list[Failures]:
    """Of all reasons, as far as they can be looked at in about `budget_s`: of each experiment the
    items at the end of the pool, `most` at most."""
    counts = await store.counts_by_experiment()
    found = []
    for one in experiments:
        reasons = counts.get(one.id, Counts()).reasons
        groups, looked_at = list[FailureGroup](), 0
        if failed := reasons.total():
            share_s = budget_s / len(experiments)
            groups, looked_at = await store.last_failures(one.id, share_s, most)
        failed = max(failed, looked_at)  # more may have failed meanwhile
        found.append(await _failures_of(store, one, reasons, None, groups, failed, looked_at))
    return found


async def _failures_of(
    store: ReadStore, experiment: Experiment, reasons: Counter[str], reason: str | None,
    groups: Sequence[FailureGroup], failed: int, looked_at: int,
) -> Failures:  # fmt: skip
    by_reason = Counter(group.reason for group in groups)
    found = []
    for group in groups:
        others = [one for one in groups if one.reason == group.reason and one is not group]
        message = _part_of_its_own(group, others) if by_reason[group.reason] > 1 else None
        found.append(await _failed_like(store, experiment, group, message))
    left_out = max(0, looked_at - sum(group.n for group in groups))
    calls = await _failed_calls(store, experiment, reasons, reason)
    return Failures(experiment.own_name, tuple(found), left_out, calls, failed, looked_at)


async def _failed_calls(
    store: ReadStore, experiment: Experiment, reasons: Counter[str], reason: str | None
) -> tuple[FailedCalls, ...]:
    """Those that failed, of the reasons for which there are more than failed items."""
    found = await store.failed_calls(experiment.id)
    by_reason: Counter[str] = Counter()
    for one in found:
        by_reason[one.reason] += one.n
    asked_again = {name for name, n in by_reason.items() if n > reasons[name]}
    return tuple(o for o in found if o.reason in asked_again and reason in (None, o.reason))


async def _failed_like(
    store: ReadStore, experiment: Experiment, group: FailureGroup, message: str | None
) -> FailedLike:
    remedy, setting = _REMEDIES[Reason(group.reason)], None
    if group.reason == Reason.REJECTED and experiment.number:
        gathers = await _gathers(store, experiment)
        remedy = Remedy.MEND_GATHERED if gathers else Remedy.CHANGE_STEP
    elif experiment.step is not None and _lacks_a_list(group):
        remedy = Remedy.MEND_LIST
    elif experiment.runs_code:
        remedy = Remedy.MEND_FUNCTION
    elif remedy is Remedy.RAISE_MAX_TOKENS:
        setting = await _larger_max_tokens(store, group.example)
    elif group.reason == Reason.CRASH and await store.parsers.answer_of(group.example) is None:
        remedy = Remedy.ASK_AGAIN  # its worker died before there was an answer
    example = await name_of_item(store, group.example)
    return FailedLike(group, remedy, example, message, setting)


def _lacks_a_list(group: FailureGroup) -> bool:
    from batchgen.steps import NO_LIST  # here: few have steps

    return group.reason == Reason.PARSE and NO_LIST in group.error


async def _gathers(store: ReadStore, experiment: Experiment) -> bool:
    chain = await store.chain_of(experiment.id)
    return chain is not None and chain.plan.steps[experiment.number].gather is not None


# What the same request would fail at again is not asked again as it is. A 429 costs an item no try,
# so one that failed of them was refused for itself: it is too large.
_REMEDIES = {
    Reason.SERVER: Remedy.ASK_AGAIN,
    Reason.CONNECTION: Remedy.ASK_AGAIN,
    Reason.TIMEOUT: Remedy.ASK_AGAIN,
    Reason.BAD_RESPONSE: Remedy.LOOK_AND_ASK_AGAIN,
    Reason.TRUNCATED: Remedy.RAISE_MAX_TOKENS,
    Reason.PARSE: Remedy.MEND_PARSER,
    Reason.CRASH: Remedy.MEND_PARSER,
    Reason.REFUSAL: Remedy.ASK_ANOTHER_MODEL,
    Reason.REJECTED: Remedy.CHANGE_REQUEST,
    Reason.RATE_LIMIT: Remedy.CHANGE_REQUEST,
}


def remedies() -> set[Remedy]:
    """All that a group can have."""
    of_steps = {Remedy.MEND_GATHERED, Remedy.CHANGE_STEP, Remedy.MEND_LIST, Remedy.MEND_FUNCTION}
    return {*_REMEDIES.values(), *of_steps}


def fails_again(reason: Reason) -> bool:
    """Whether the same request mostly fails for it again."""
    return _REMEDIES[reason] in _WITH_A_CHANGE


_WITH_A_CHANGE = (Remedy.RAISE_MAX_TOKENS, Remedy.ASK_ANOTHER_MODEL, Remedy.CHANGE_REQUEST)


async def _larger_max_tokens(store: ReadStore, item_id: int) -> str:
    """Twice what the item's recipe allows, under the name that it has there."""
    item = await store.item(item_id)
    params = (await store.recipe(item.recipe_id)).params if item else {}
    name = next((one for one in reversed(LIMITS) if params.get(one)), "max_tokens")
    now = params.get(name)
    larger = 2 * now if isinstance(now, int) and now > 0 else _FIRST_MAX_TOKENS
    return f"{name}={larger}"


def _part_of_its_own(group: FailureGroup, others: Sequence[FailureGroup]) -> str | None:
    """The longest run of words without a digit that all of the group have, and no other group; it
    can be typed."""
    literal = [one for part in literal_parts(group.error) for one in _printable_parts(part)]
    parts = sorted(literal, key=len, reverse=True)
    for part in (part[:_LONGEST_PART].strip() for part in parts):
        if len(part) >= _SHORTEST_PART and not any(
            part.casefold() in other.error.casefold() for other in others
        ):
            return part
    return None


def _printable_parts(text: str) -> list[str]:
    return "".join(char if char.isprintable() else "\n" for char in text).split("\n")
