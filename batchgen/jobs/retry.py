"""Items that ended go back to pending, to be asked again. They get all their tries back, and what
came of the old ones is kept."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from batchgen.endpoints import ENDPOINTS, LIMITS
from batchgen.errors import Remedy, UsageError
from batchgen.items import Reason, Recipe
from batchgen.jobs.lookup import chosen_experiments, rows_called
from batchgen.store import Counts, EndedItem, Experiment, ReadStore, Store

_LOOKED_AT_ONCE = 1000


class RetryRequest(Struct, frozen=True):
    """Which items: failed ones of an `experiment` (None: of all) with one of the `reasons` (none:
    with any) and with `message` in their message, in whatever case; of the items with these `ids`
    or numbers, if any are given. `done_too`: also those of them that are done. Of experiments with
    steps all of these, or one `step`.

    `settings` (parameters, and `model`) are what these items are asked with from now on; None as a
    value leaves a parameter out. Raises UsageError for done items that are not given by their ids.
    """

    experiment: str | None = None
    reasons: tuple[Reason, ...] = ()
    message: str | None = None
    ids: tuple[str, ...] = ()
    done_too: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    step: str | None = None

    def __post_init__(self) -> None:
        if self.done_too and (not self.ids or self.reasons or self.message is not None):
            raise UsageError(
                "a done item is asked again only by its id: it has no reason and no message.",
                Remedy.GIVE_DONE_BY_ID,
            )

    @property
    def is_at_parser(self) -> bool:
        """Whether some of them may have failed at their parser, so that one which has changed since
        may read what they were answered."""
        return not self.reasons or not _AT_THE_PARSER.isdisjoint(self.reasons)


_AT_THE_PARSER = frozenset({Reason.PARSE, Reason.CRASH, Reason.TRUNCATED})


class RetryResult(Struct, frozen=True):
    """`retried` items went back to pending, or would have if it was a `dry_run`. `overridden` ones
    were skipped, as params of their own win over the settings, and `unmade` ones, as what they are
    made of is not there: a step's that gathers rows of which none is done. `cost` is told by a
    `dry_run`. `of_steps`: some of them are rows of steps, of which an item has several."""

    retried: int
    overridden: int
    dry_run: bool
    unmade: int = 0
    cost: "RetryCost | None" = None
    of_steps: bool = False

    def to_json(self) -> dict[str, Any]:
        said = {"retried": self.retried, "dry_run": self.dry_run}
        return said if self.cost is None else {**said, **self.cost.to_json()}


class RetryCost(Struct, frozen=True):
    """So many calls, and what as many cost before; None: not known, as with other settings. With
    `goes_on` there are steps after these, which may make calls too."""

    calls: int
    cost_usd: float | None
    goes_on: bool

    def to_json(self) -> dict[str, Any]:
        return {"calls": self.calls, "cost_usd": self.cost_usd}


async def retry(store: Store, request: RetryRequest, *, dry_run: bool = False) -> RetryResult:
    """Put the chosen items back to pending, a page a transaction; `dry_run` only counts them.

    Raises UsageError when an experiment or an item is not there, has not ended, or is done and
    `done_too` does not say so; then nothing has changed.
    """
    retried = overridden = unmade = 0
    rows = Counter[int]()
    change = _recipe_change(request.settings)
    async for page in _pages(store, request):
        skipped = await _with_own_params(store, page, request.settings)
        items = [item for item in page if item.item_id not in skipped]
        overridden += len(skipped)
        rows.update(item.experiment_id for item in items)
        reopened = len(items) if dry_run else await store.reopen(items, change)
        retried, unmade = retried + reopened, unmade + len(items) - reopened
    known = await store.experiments()
    cost = await _cost_of(store, known, rows, request.settings) if dry_run else None
    of_steps = any(one.step is not None for one in known if one.id in rows)
    return RetryResult(
        retried, overridden, dry_run, unmade, cost, of_steps or request.step is not None
    )


class Outlook(Struct, frozen=True):
    """What a retry would do: `rows` would go back to pending, and `cost` is that of a `dry_run`.
    With `is_cut` there was no time to look at more than `looked_at` of the `failed` ones."""

    rows: int
    overridden: int
    looked_at: int
    failed: int
    cost: RetryCost
    is_cut: bool = False


async def outlook(store: ReadStore, request: RetryRequest, budget_s: float) -> Outlook:
    """Of failed items that are not chosen by their ids. Where nothing but their reasons chooses
    them, that is known at once; else they are looked at one by one, as long as there is time.
    Raises UsageError when an experiment is not there."""
    known, counts = await store.experiments(), await store.counts_by_experiment()
    chosen = [
        one
        for one in await chosen_experiments(store, request.experiment, request.step)
        if not (request.settings and one.runs_code)  # a function has no parameters
    ]
    reasons = {one.id: counts.get(one.id, Counts()).reasons for one in chosen}
    failed = sum(of.total() for of in reasons.values())
    rows, overridden, looked_at, is_cut = Counter[int](), 0, failed, False
    if request.message is None and not request.settings:
        rows.update({id_: _number_of(of, request.reasons) for id_, of in reasons.items()})
    else:
        looked_at, until_s = 0, time.monotonic() + budget_s
        async for page in _failed_pages(store, reasons):
            looked_at += len(page)
            hits = [item for item in page if _is_chosen(item, request)]
            skipped = await _with_own_params(store, hits, request.settings)
            overridden += len(skipped)
            rows.update(item.experiment_id for item in hits if item.item_id not in skipped)
            if time.monotonic() > until_s:
                is_cut = looked_at < failed
                break
    rows = +rows
    cost = await _cost_of(store, known, rows, request.settings)
    return Outlook(rows.total(), overridden, looked_at, failed, cost, is_cut)


async def _failed_pages(
    store: ReadStore, experiment_ids: Iterable[int]
) -> AsyncIterator[Sequence[EndedItem]]:
    for id_ in experiment_ids:
        after = 0
        while page := await store.pages.failed(id_, after, _LOOKED_AT_ONCE):
            after = page[-1].item_id
            yield page


def _number_of(counted: Counter[str], reasons: Sequence[Reason]) -> int:
    return sum(counted[one] for one in set(reasons)) if reasons else counted.total()


def _is_chosen(item: EndedItem, request: RetryRequest) -> bool:
    return item.reason in (request.reasons or (item.reason,)) and item.has_message(request.message)


async def _cost_of(
    store: ReadStore,
    known: Sequence[Experiment],
    rows: Mapping[int, int],
    settings: Mapping[str, Any],
) -> RetryCost:
    """Of so many rows of experiments, or of steps, by their ids."""
    counts = await store.counts_by_experiment()
    asked = [one for one in known if one.id in rows and not one.runs_code]
    cost_usd = sum(rows[one.id] * counts.get(one.id, Counts()).cost_of_a_call for one in asked)
    goes_on = any(
        one.number > row.number and one.first_id == (row.first_id or row.id)
        for row in known if row.id in rows for one in known
    )  # fmt: skip
    calls = sum(rows[one.id] for one in asked)
    return RetryCost(calls, None if settings else cost_usd or None, goes_on)


async def _pages(store: Store, request: RetryRequest) -> AsyncIterator[Sequence[EndedItem]]:
    if request.ids:
        yield await _items_by_id(store, request)
        return
    chosen = await chosen_experiments(store, request.experiment, request.step)
    for experiment in chosen:
        if request.settings and experiment.runs_code:
            continue  # a function has no parameters
        for reason in dict.fromkeys(request.reasons) or (None,):
            after = 0
            while page := await store.failed_page(experiment.id, reason, request.message, after):
                after = page[-1].item_id
                yield page


async def _items_by_id(store: Store, request: RetryRequest) -> list[EndedItem]:
    chosen: dict[int, EndedItem] = {}
    for given in request.ids:
        numbers = await rows_called(store, given, request.experiment, request.step)
        ended = [one for number in numbers if (one := await store.ended_item(number))]
        if not ended:
            raise UsageError(f"item {given} has not ended yet, so there is nothing to retry.")
        if request.done_too:
            await _refuse_several(store, given, ended)
        failed = [one for one in ended if one.reason or request.done_too]
        if not failed:
            raise UsageError(f"item {given} is done.", Remedy.ASK_DONE_AGAIN)
        chosen |= {one.item_id: one for one in failed}
    return [one for one in chosen.values() if _is_chosen(one, request)]


async def _refuse_several(store: Store, given: str, ended: Sequence[EndedItem]) -> None:
    """A done row is asked again only where it is clear which one is meant."""
    ids = {one.experiment_id for one in ended}
    chosen = [one for one in await store.experiments() if one.id in ids]
    names = {
        one.first_id or one.id: one.name.removesuffix(f"/{one.step}") if one.number else one.name
        for one in chosen
    }
    if len(names) > 1:
        raise UsageError(
            f"several experiments have an item {given} ({', '.join(names.values())}), and each of "
            "its answers would be asked for again.",
            Remedy.NAME_EXPERIMENT,
        )
    if len(chosen) > 1:
        raise UsageError(f"item {given} has several steps; say which is to be asked again.")


async def _with_own_params(
    store: ReadStore, items: Sequence[EndedItem], settings: Mapping[str, Any]
) -> set[int]:
    if not settings:
        return set()
    names = {*settings, *(LIMITS if not settings.keys().isdisjoint(LIMITS) else ())}
    return await store.items_with_own([item.item_id for item in items], sorted(names))


def _recipe_change(settings: Mapping[str, Any]) -> Callable[[Recipe], Recipe] | None:
    if not settings:
        return None

    def change(recipe: Recipe) -> Recipe:
        ENDPOINTS[recipe.endpoint].check_taken(settings)
        values = {"model": recipe.model, **recipe.params, **settings}
        model = values.pop("model")
        params = {name: value for name, value in values.items() if value is not None}
        return replace(recipe, model=model, params=params)

    return change
