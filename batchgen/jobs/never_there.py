"""Conditions of steps that have held for no row, as what they look for was there in none."""

from collections.abc import Collection
from typing import Any

from msgspec import Struct

from batchgen.prompts.chain_names import item_names
from batchgen.prompts.chain_row import ChainRow
from batchgen.steps import value_of
from batchgen.store import Chain, Counts, FollowRow, ReadStore

_FEWEST_ROWS = 20  # of fewer nothing is said
_ROWS_READ = 200


class NeverThere(Struct, frozen=True):
    """The step, which is the experiment of that number, was passed over by all of its rows: `paths`
    of its condition were in none of the `rows` that were looked at."""

    experiment_id: int
    step: str
    when: str
    paths: tuple[str, ...]
    rows: int

    @property
    def words(self) -> str:
        return (
            f"step {self.step} has no row: its `when` ({self.when}) looks for "
            f"{', '.join(self.paths)}, which is null or missing in all {self.rows} rows that were "
            "looked at"
        )


async def never_there(store: ReadStore, experiment_ids: Collection[int]) -> list[NeverThere]:
    """Of the chains of these experiments. Only where a step was passed over by many rows, and was
    never asked, are some of these read."""
    found, counts = list[NeverThere](), await store.counts_by_experiment()
    firsts = dict.fromkeys(
        one.first_id or one.id
        for one in await store.experiments()
        if one.step is not None and one.id in experiment_ids
    )
    for first_id in firsts:
        chain = await store.chain_of(first_id)
        assert chain is not None
        for step in chain.steps:
            its = counts.get(step.experiment_id, Counts())
            if not its.total and its.passed_over >= _FEWEST_ROWS:
                found += await _of_step(store, chain, step.number)
    return found


async def _of_step(store: ReadStore, chain: Chain, number: int) -> list[NeverThere]:
    rule, when = chain.plan.steps[number], chain.plan.conditions(number).when
    if rule.when is None or when is None:
        return []
    page = list[FollowRow]()
    for step in reversed(chain.steps[:number]):  # the one before may have been passed over, too
        if page := await store.follow_page(step.experiment_id, 0, _ROWS_READ):
            break
    holds = [when.holds(_names(chain, row).get) for row in page]
    if len(page) < _FEWEST_ROWS or any(holds) or not when.absent:
        return []
    step_id = chain.steps[number].experiment_id
    return [NeverThere(step_id, rule.name, rule.when, when.absent, len(page))]


def _names(chain: Chain, row: FollowRow) -> dict[str, Any]:
    """What conditions after this row may name."""
    of_chain = ChainRow.of(
        chain, row.number, row.item_id, row.input_json, row.made_of.links, row.made_of.gathered
    )
    value = value_of(chain.plan, row.number, row.parsed_json, row.response)
    names = dict.fromkeys(chain.plan.names_before(len(chain.plan.steps)))
    own = {chain.plan.steps[row.number].name: value}
    return {**names, **item_names(of_chain.first, of_chain.first_id), **of_chain.values, **own}
