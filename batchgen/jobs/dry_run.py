"""What enqueueing a pool would come to: every item is checked, and nothing is written."""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from batchgen.config import Config
from batchgen.errors import Remedy
from batchgen.items import PoolItem, Recipe
from batchgen.jobs.enqueue import next_chunk, recipe_of, refuse_other_recipe
from batchgen.jobs.pool_reader import Enqueued, PoolReader, SkipInvalid
from batchgen.jobs.recipe_choice import tokens_of_an_answer
from batchgen.jobs.rehearsal import rehearsing
from batchgen.llm.prices import Estimate, Prices
from batchgen.parsers import load_parser
from batchgen.pool import BadLine
from batchgen.store import OtherRecipe, Store, open_store


@dataclass(frozen=True, slots=True)
class DryRun:
    """`enqueued` counts what was read; nothing is new in it. `first_messages` are those of the
    first item, None in an empty pool. The tokens and the cost (None: not known) are of all calls;
    `is_measured`: an answer is taken to be as long as the experiment's were so far, and else as
    long as it can be. `has_database`: some items may be known already. `cost_note`: what is to be
    said of a cost at a price that is only that of the model's name."""

    enqueued: Enqueued
    first_messages: list[dict[str, Any]] | None
    prompt_tokens: int
    completion_tokens: float | None
    cost_usd: float | None
    is_measured: bool
    has_database: bool
    cost_note: str | None = None

    def to_json(self) -> dict[str, Any]:
        samples = {"samples": self.enqueued.samples} if self.enqueued.samples > 1 else {}
        return {
            "read": self.enqueued.read,
            **samples,
            "first_messages": self.first_messages,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cost_usd": self.cost_usd,
            "is_measured": self.is_measured,
            **({"cost_note": self.cost_note} if self.cost_note else {}),
        }


async def dry_run(
    config: Config,
    pool: Iterable[PoolItem | BadLine],
    *,
    other_recipe: OtherRecipe = OtherRecipe.STOP,
    samples: int = 1,
    skip_invalid: SkipInvalid | None = None,
    progress: Enqueued | None = None,
) -> DryRun:
    """Check the pool against the config's templates and parser, and against what is enqueued
    already; and estimate what `samples` answers for each item would use.

    Raises what `enqueue` would: InputError or TemplateError at the first item that cannot be one,
    unless `skip_invalid` takes it; UsageError when the experiment has another recipe and
    `other_recipe` does not say what to do; ConfigError or TemplateError for what the config names.
    `progress` is kept up to date.
    """
    parser = load_parser(config.parser)
    recipe = recipe_of(config, parser)
    progress = Enqueued() if progress is None else progress
    progress.samples = samples
    prices = Prices(config.model)
    reader = PoolReader(pool, recipe, skip_invalid, progress, config.directory)
    async with _known(config) as known:
        measured = None if known is None else await _tokens_of_an_answer(*known)
        if known and await _is_new_recipe(*known, recipe):
            if other_recipe is OtherRecipe.STOP:
                await refuse_other_recipe(
                    known[0], reader, recipe, config.output_data.experiment_name,
                    parser=parser.version, samples=samples, prices=prices,
                )  # fmt: skip
            known = None if other_recipe is OtherRecipe.ADD else known
        estimated = _Estimated(reader, Estimate(prices, measured, samples))
        async with rehearsing(recipe, known, estimated.refuse) as rehearsal:
            items, error = iter(estimated), None
            while error is None:
                rows, error = next_chunk(items, rehearsal.intake)
                if not rows:
                    break
                await rehearsal.check(rows)
            if error is not None:
                raise error
    estimate = estimated.estimate
    return DryRun(
        progress,
        estimated.first_messages,
        estimate.prompt_tokens,
        estimate.completion_tokens,
        estimate.cost_usd,
        estimate.is_measured,
        config.database.is_file(),
        prices.estimate_note(config.model.model) if estimate.cost_usd else None,
    )


class _Estimated:
    """The items of a pool, while their requests are added to an estimate."""

    def __init__(self, reader: PoolReader, estimate: Estimate) -> None:
        self._reader = reader
        self.estimate = estimate
        self.first_messages: list[dict[str, Any]] | None = None

    def __iter__(self) -> Iterator[PoolItem]:
        for item in self._reader:
            body = self._reader.renderer.request_body(item.input)
            if self.first_messages is None:
                self.first_messages = body["messages"]
            self.estimate.add(body)
            yield item

    def refuse(self, bad: BadLine, remedy: Remedy | None, item: int | None) -> None:
        """One that was read turns out to be no item of its own."""
        self._reader.refuse_after_all(bad, remedy, item=item)


@asynccontextmanager
async def _known(config: Config) -> AsyncIterator[tuple[Store, int] | None]:
    """The config's store, and the number of its experiment; None if it is not there yet."""
    if not config.database.is_file():
        yield None
        return
    async with open_store(config.database) as store:
        name = config.output_data.experiment_name
        found = [one.id for one in await store.experiments() if one.name == name]
        yield (store, found[0]) if found else None


async def _is_new_recipe(store: Store, experiment_id: int, recipe: Recipe) -> bool:
    present = [await store.recipe(one) for one in await store.present_recipes(experiment_id)]
    return bool(present) and recipe not in present


async def _tokens_of_an_answer(store: Store, experiment_id: int) -> float | None:
    """By the answers that the experiment has had, if any."""
    return tokens_of_an_answer(await store.counts([experiment_id]))
