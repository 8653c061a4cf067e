"""Stale rows are asked once more, of what there is now in the place of what they were made of."""

from typing import Any

from msgspec import Struct

from batchgen.jobs.lookup import chosen_experiments
from batchgen.store import Counts, Experiment, StaleRow, Store


class StaleResult(Struct, frozen=True):
    """By the names of steps: how many rows are `asked` once more. `restored` ones see what they saw
    before, and are as they were, without a call; `waiting` ones are not asked while what they are
    made of is not done, and `unmade` ones never, as the steps make no such rows any more.
    `cost_usd` is what as many calls of these steps cost before; 0: not known."""

    asked: dict[str, int]
    calls: int
    restored: int
    waiting: int
    unmade: int
    cost_usd: float
    dry_run: bool

    @property
    def rows(self) -> int:
        return sum(self.asked.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "retried": self.rows, "calls": self.calls, "steps": self.asked,
            "restored": self.restored, "waiting": self.waiting, "unmade": self.unmade,
            "cost_usd": self.cost_usd or None, "dry_run": self.dry_run,
        }  # fmt: skip


async def retry_stale(
    store: Store, experiment: str | None, step: str | None, *, dry_run: bool = False
) -> StaleResult:
    """Of an experiment, or of all, and of one step or all of theirs; `dry_run` only counts. Raises
    UsageError for an experiment or a step that is not there."""
    asked, calls, restored, waiting, unmade, cost_usd = dict[str, int](), 0, 0, 0, 0, 0.0
    counts = await store.counts_by_experiment()
    chosen = [one for one in await chosen_experiments(store, experiment, step) if one.step]
    for one in sorted(chosen, key=lambda one: one.number):
        n, back, waits, in_vain = await _of_step(store, one, dry_run=dry_run)
        restored, waiting, unmade = restored + back, waiting + waits, unmade + in_vain
        if n:
            asked[one.own_name] = n
            calls += 0 if one.runs_code else n
            cost_usd += n * counts.get(one.id, Counts()).cost_of_a_call
    return StaleResult(asked, calls, restored, waiting, unmade, cost_usd, dry_run)


async def _of_step(store: Store, step: Experiment, *, dry_run: bool) -> tuple[int, int, int, int]:
    """How many are asked, are as they were, wait, and are made no more."""
    asked = restored = waiting = unmade = after = 0
    while page := await store.chains.stale_page(step.id, after):
        after = page[-1].item_id
        waiting += sum(row.waits and not row.unmade for row in page)
        unmade += sum(row.unmade for row in page)
        if dry_run:
            asked += sum(_is_asked(row) for row in page)
            restored += sum(not row.waits and not row.asks for row in page)
        else:
            n, back = await store.chains.reopen_stale(page)
            asked, restored = asked + n, restored + back
    return asked, restored, waiting, unmade


def _is_asked(row: StaleRow) -> bool:
    return row.asks and not row.waits
