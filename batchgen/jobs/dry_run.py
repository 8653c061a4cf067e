"""What enqueueing a pool would come to: every item is checked, and nothing is written."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from batchgen.config import Config
from batchgen.items import PoolItem
from batchgen.jobs.enqueue import Enqueued, PoolReader, SkipInvalid, recipe_of
from batchgen.llm.prices import Estimate, Prices
from batchgen.pool import BadLine
from batchgen.store import open_store


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
    samples: int = 1,
    skip_invalid: SkipInvalid | None = None,
) -> DryRun:
    """Check the pool against the config's templates and parser, and estimate what `samples` answers
    for each item would use.

    Raises InputError or TemplateError at the first item that cannot be one, unless `skip_invalid`
    takes it; ConfigError or TemplateError for what the config names.
    """
    recipe = recipe_of(config)
    progress = Enqueued(samples)
    measured = await _tokens_of_an_answer(config)
    prices = Prices(config.model)
    estimate = Estimate(prices, measured, samples)
    reader = PoolReader(pool, recipe, skip_invalid, progress, config.directory)
    first = None
    for item in reader:
        body = reader.renderer.request_body(item.input)
        first = body["messages"] if first is None else first
        estimate.add(body)
    return DryRun(
        progress,
        first,
        estimate.prompt_tokens,
        estimate.completion_tokens,
        estimate.cost_usd,
        estimate.is_measured,
        config.database.is_file(),
        prices.estimate_note(config.model.model) if estimate.cost_usd else None,
    )


async def _tokens_of_an_answer(config: Config) -> float | None:
    """By the answers that the config's experiment has had, if any."""
    if not config.database.is_file():
        return None
    async with open_store(config.database) as store:
        name = config.output_data.experiment_name
        chosen = [one.id for one in await store.experiments() if one.name == name]
        counts = await store.counts(chosen)
    tokens = counts.completion_tokens
    return tokens / counts.done if counts.done and tokens else None
