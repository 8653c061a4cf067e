"""Rows that are done already are followed again, by rules that were not there when they were done:
a step that was added, or another `when`, `each` or `value`.

It goes page by page, and may stop anywhere: what is missing is made, what is there stays, and the
next time begins anew until the experiment is known to be followed. Nothing is asked here.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from batchgen.errors import ParseError
from batchgen.items import Fail, Reason
from batchgen.jobs.missing_lists import count_without_list, read_again_without_list
from batchgen.prompts.chain_row import ChainRow
from batchgen.store import Chain, Counts, EndedItem, FollowRow, Reparsed, Store

if TYPE_CHECKING:
    from batchgen.jobs.missing_lists import Readers
    from batchgen.steps import Followed, Plan

Progress = Callable[[int], None]


class FollowResult(Struct, frozen=True):
    """`rows` were done and have been followed, of which `added` ones were made, by the names of
    their steps. Where `each` found no list a row `failed`; of a function's it is run again. As many
    as were `read_again` had failed so before, and are done now, or run again. So many rows, by
    their experiments, are `unasked`: they waited, and are made no more."""

    rows: int
    added: dict[str, int] = field(default_factory=dict)
    failed: int = 0
    read_again: int = 0
    unasked: Mapping[int, int] = field(default_factory=dict)


class FollowCounts(Struct, frozen=True):
    """What other rules would come to: `new` rows, by the names of their steps, and `stale` ones,
    which these would not make any more, or of something else, the first of them of step number
    `stale_from`; what was made of them is stale, too. `failing` are done, but `each` finds no list
    for them; `without_list` have failed as it found none, and are read again."""

    new: Counter[str] = field(default_factory=Counter)
    stale: int = 0
    stale_from: int | None = None
    failing: int = 0
    without_list: int = 0


async def follow_done(
    store: Store, experiment_id: int, readers: "Readers", progress: Progress = lambda _: None,
    *, timeout_s: float = 30.0,
) -> FollowResult | None:  # fmt: skip
    """Where an experiment has rules that not all its done rows have been followed by. None: all
    have, or it has no steps. `progress` is told how many have been; by the `readers` answers are
    read again in which there was no list for a step."""
    chain = await store.chain_of(experiment_id)
    if chain is None or chain.is_followed:
        return None
    before = await store.counts_by_experiment()
    rows = failed = 0
    unasked = Counter[int]()
    async for page in _pages(store, chain):
        followed = []
        for row in page:
            try:
                followed.append((row, _followed(chain, row)))
            except ParseError as exc:
                failed += 1
                await _fail(store, row, str(exc))
        unasked += (await store.chains.write_followed(followed)).unasked
        rows += len(page)
        progress(rows)
    read_again = await read_again_without_list(store, chain, readers, timeout_s)
    await store.chains.end_following(chain.first_id, chain.plan_id)
    after = await store.counts_by_experiment()
    totals = {
        step.name: after[step.experiment_id].total
        - (before[step.experiment_id].total if step.experiment_id in before else 0)
        for step in chain.steps[1:]
        if step.experiment_id in after
    }
    added = {name: n for name, n in totals.items() if n > 0}
    return FollowResult(rows, added, failed, read_again, unasked)


async def count_other_followers(store: Store, there: Chain, plan: "Plan") -> FollowCounts:
    """What the rules of `plan` would come to, of rows that are done. Nothing is written."""
    new = await _gatherings(store, there, plan)
    stale, failing, steps = 0, 0, set[int]()
    other = replace(there, plan=plan)
    async for page in _pages(store, there):
        follows = [(row, _followed_or_none(other, row)) for row in page]
        followed = [(row, one) for row, one in follows if one is not None]
        failing += len(follows) - len(followed)
        standing = await store.chains.standing_children(followed)
        for row, one in follows:
            was, now = _children(_followed_or_none(there, row)), _children(one)
            new.update(
                plan.steps[number].name
                for number, element in now.keys() - was.keys()
                if (row.item_id, number, element) not in standing
            )
            others = [number for number, element in was
                      if now.get((number, element)) != was[number, element]]  # fmt: skip
            stale += len(others)
            steps.update(others)
    without_list = await count_without_list(store, there)
    return FollowCounts(new, stale, min(steps, default=None), failing, without_list)


async def _gatherings(store: Store, there: Chain, plan: "Plan") -> Counter[str]:
    """Rows of gathering steps that were added: one for each item, or row that has gathered, as far
    as these are done; some may wait for others that come after them."""
    found: Counter[str] = Counter()
    counts = await store.counts_by_experiment()
    ids = {step.number: step.experiment_id for step in there.steps}
    for number in range(len(there.steps), len(plan.steps)):
        if plan.steps[number].gather:
            before = max(0, plan.gathering_before(number))
            rows = found[plan.steps[before].name] if before not in ids else 0
            root = counts.get(ids.get(before, 0), Counts())
            if before == 0:
                rows = await _items_of(store, ids[0], root)
            found[plan.steps[number].name] = rows or root.finished
    return found


async def _items_of(store: Store, first_id: int, counts: Counts) -> int:
    """Of so many finished rows of the first step, which are samples of them."""
    items = after = 0
    while page := await store.sample_page(first_id, after):
        after = max(page.values())
        items += len({*page.values()})
    return round(counts.finished * items / counts.total) if counts.total else 0


def _followed_or_none(chain: Chain, row: FollowRow) -> "Followed | None":
    """None: there is no list for it."""
    try:
        return _followed(chain, row)
    except ParseError:
        return None


def _children(followed: "Followed | None") -> dict[tuple[int, int], tuple[bytes, str]]:
    """By step and element, what each would see of its parent."""
    if followed is None:
        return {}
    return {
        (child.number, child.element): (followed.passed_on, child.input_json)
        for child in followed.children
    }


async def _pages(store: Store, chain: Chain) -> AsyncIterator[Sequence[FollowRow]]:
    """The done rows of all steps, from the first one on."""
    for step in chain.steps:
        after = 0
        while page := await store.follow_page(step.experiment_id, after):
            after = page[-1].item_id
            yield page


def _followed(chain: Chain, row: FollowRow) -> "Followed":
    made_of = row.made_of
    of_chain = ChainRow.of(
        chain, row.number, row.item_id, row.input_json, made_of.links, made_of.gathered
    )
    return of_chain.followed(row.parsed_json, row.response)


async def _fail(store: Store, row: FollowRow, why: str) -> None:
    """As its worker would have done. Where there is no answer a worker does it, by running the
    function once more."""
    answer = await store.parsers.answer_of(row.item_id)
    if answer is None:
        await store.reopen([EndedItem(row.item_id, row.experiment_id, None, None)])
    elif answer.result_seq == row.result_seq:
        failed = Reparsed(answer, Fail(Reason.PARSE, why))
        await store.parsers.write([failed], answer.parser_id or 0)
