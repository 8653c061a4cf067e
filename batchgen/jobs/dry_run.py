"""What enqueueing a pool would come to: every item is checked, and nothing is written."""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from batchgen.config import Config
from batchgen.errors import Remedy
from batchgen.items import PoolItem, Recipe
from batchgen.jobs.enqueue import next_chunk, refuse_recipe
from batchgen.jobs.ids_changed import refuse_changed_ids
from batchgen.jobs.pool_reader import Enqueued, PoolReader, SkipInvalid
from batchgen.jobs.recipe import recipe_of
from batchgen.jobs.recipe_choice import tokens_of_an_answer
from batchgen.jobs.rehearsal import rehearsing
from batchgen.jobs.show import ShownPrompt
from batchgen.llm.prices import Estimate, Prices
from batchgen.parsers import load_parser
from batchgen.pool import BadLine
from batchgen.store import Intake, OtherRecipe, Store, open_store


class DryRun(Struct, frozen=True):
    """`enqueued` counts what was read, and what would be new or asked anew: the `calls`.
    `first_prompt` is that of the first item, None in an empty pool. The tokens and the cost
    (None: not known) are of the calls; `is_measured`: an answer is taken to be as long as the
    experiment's were so far, and else as long as it can be. `cost_note`: what is to be said of a
    cost at a price that is only that of the model's name."""

    enqueued: Enqueued
    first_prompt: ShownPrompt | None
    prompt_tokens: int
    completion_tokens: float | None
    cost_usd: float | None
    is_measured: bool
    cost_note: str | None = None

    @property
    def calls(self) -> int:
        return self.enqueued.new + self.enqueued.asked_anew

    @property
    def asks_all(self) -> bool:
        """Whether all that was read is new, and nothing else would be asked."""
        return self.calls == self.enqueued.new == self.enqueued.read * self.enqueued.samples

    def to_json(self) -> dict[str, Any]:
        samples = {"samples": self.enqueued.samples} if self.enqueued.samples > 1 else {}
        prompt = self.first_prompt
        return {
            "read": self.enqueued.read,
            **samples,
            "new": self.enqueued.new,
            "asked_anew": self.enqueued.asked_anew,
            **(
                prompt.to_json("first_messages", "first_prompt")
                if prompt
                else {"first_messages": None}
            ),
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
    recipe = recipe_of(config, load_parser(config.parser, config.directory))
    progress = Enqueued() if progress is None else progress
    progress.samples = samples
    prices = Prices(config.model)
    reader = PoolReader(pool, recipe, skip_invalid, progress, config.directory)
    name = config.output_data.experiment_name
    async with _known(config) as known:
        planned = measured = None
        if known is not None:
            measured = tokens_of_an_answer(await known[0].counts([known[1]]))
            planned = await _planned(*known, recipe, other_recipe, samples)
            await refuse_recipe(known[0], planned, reader, recipe, name, prices)
            progress.asked_anew = planned.asked_anew
        estimated = _Estimated(reader, Estimate(prices, measured, samples))
        async with rehearsing(recipe, samples, known, planned, estimated.refuse) as rehearsal:
            items = iter(estimated)
            rows, error = next_chunk(items, rehearsal.intake)
            if known is not None:
                await refuse_changed_ids(known[0], rehearsal.intake, rows, name)
            while rows:
                progress.new += await rehearsal.check(rows)
                if error is not None:
                    break
                rows, error = next_chunk(items, rehearsal.intake)
            if error is not None:
                raise error
    return _result(progress, estimated, prices, config.model.model)


async def _planned(
    store: Store, experiment_id: int, recipe: Recipe, other_recipe: OtherRecipe, samples: int
) -> Intake:
    """How the pool would go into the experiment, with what dead workers left taken over."""
    planned = await store.planned_intake(experiment_id, recipe, other_recipe, samples)
    if planned.running and not any(worker.alive for worker in await store.workers()):
        return replace(planned, running=0)
    return planned


def _result(progress: Enqueued, estimated: "_Estimated", prices: Prices, model: str) -> DryRun:
    """The estimate is of all that was read; the calls are like the average of these."""
    found, read = estimated.estimate, progress.read * progress.samples
    share = (progress.new + progress.asked_anew) / read if read else 0
    out, cost_usd = found.completion_tokens, found.cost_usd
    return DryRun(
        progress,
        estimated.first_prompt,
        round(found.prompt_tokens * share),
        None if out is None else out * share,
        None if cost_usd is None else cost_usd * share,
        found.is_measured,
        prices.estimate_note(model) if cost_usd else None,
    )


class _Estimated:
    """The items of a pool, while their requests are added to an estimate."""

    def __init__(self, reader: PoolReader, estimate: Estimate) -> None:
        self._reader = reader
        self.estimate = estimate
        self.first_prompt: ShownPrompt | None = None

    def __iter__(self) -> Iterator[PoolItem]:
        for item in self._reader:
            renderer = self._reader.renderer
            endpoint, body = renderer.endpoint_of(item.input), renderer.request_body(item.input)
            if self.first_prompt is None:
                self.first_prompt = ShownPrompt.of(endpoint, body)
            self.estimate.add(body, endpoint)
            yield item

    def refuse(self, bad: BadLine, remedy: Remedy | None, item: str | None) -> None:
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
