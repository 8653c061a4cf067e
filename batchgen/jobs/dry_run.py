"""What enqueueing a pool would come to: every item is checked, and nothing is written."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field
from msgspec.structs import replace

from batchgen.config import Config
from batchgen.errors import Remedy, UsageError
from batchgen.items import PoolItem
from batchgen.jobs.asked import Asked
from batchgen.jobs.configured_servers import estimate_note
from batchgen.jobs.enqueue import next_chunk, refuse_recipe
from batchgen.jobs.ids_changed import refuse_changed_ids
from batchgen.jobs.pool_reader import Enqueued, PoolReader, SkipInvalid
from batchgen.jobs.recipe_choice import times, tokens_of_an_answer
from batchgen.jobs.rehearsal import rehearsing
from batchgen.jobs.show import ShownPrompt
from batchgen.llm.prices import Estimate, Prices
from batchgen.pool import BadLine
from batchgen.store import Chain, Counts, Intake, NewRows, OtherRecipe, Store, open_store_if_there

if TYPE_CHECKING:  # what has no steps need not load them
    from batchgen.jobs.chain import ConfiguredChain
    from batchgen.jobs.step_estimate import StepCost, StepsEstimate


class DryRun(Struct, frozen=True):
    """`enqueued` counts what was read, and what would be new or asked anew: the `calls`, together
    with those of the rows that are `waiting` already.
    `first_prompt` is that of the first item, None in an empty pool. The tokens and the cost
    (None: not known) are of the calls, and `batch_cost_usd` is their cost in provider batches;
    `is_measured`: an answer is taken to be as long as the experiment's were so far, and else as
    long as it can be. `cost_note`: what is to be said of a cost at a price that is only that of the
    model's name. `steps`: what each of them would cost, if there are some; the others are sums
    then. `made` rows of steps follow what is done already, by the names of the steps. What was
    gathered before becomes stale, if that `outdates_gathered`. With `asks_fewer`, some of the rows
    that are asked anew may be none that the new rules make.
    """

    enqueued: Enqueued
    first_prompt: ShownPrompt | None
    prompt_tokens: int
    completion_tokens: float | None
    cost_usd: float | None
    is_measured: bool
    batch_cost_usd: float | None = None
    cost_note: str | None = None
    steps: "tuple[StepCost, ...]" = ()
    made: Mapping[str, int] = field(default_factory=dict)
    outdates_gathered: bool = False
    waiting: int = 0
    asks_fewer: bool = False

    @property
    def calls(self) -> int:
        if self.steps:
            return sum(step.calls for step in self.steps)
        return self.enqueued.new + self.enqueued.asked_anew + self.waiting

    @property
    def asks_all(self) -> bool:
        """Whether all that was read is new, and nothing else would be asked."""
        done = self.enqueued
        anew = done.asked_anew or self.made or self.waiting
        return not anew and done.new == done.read * done.samples

    def to_json(self) -> dict[str, Any]:
        samples = {"samples": self.enqueued.samples} if self.enqueued.samples > 1 else {}
        prompt = self.first_prompt
        return {
            "read": self.enqueued.read,
            **samples,
            "new": self.enqueued.new,
            "asked_anew": self.enqueued.asked_anew,
            "waiting": self.waiting,
            **(
                prompt.to_json("first_messages", "first_prompt")
                if prompt
                else {"first_messages": None}
            ),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cost_usd": self.cost_usd,
            "batch_cost_usd": self.batch_cost_usd,
            "is_measured": self.is_measured,
            **({"cost_note": self.cost_note} if self.cost_note else {}),
            **({"steps": [step.to_json() for step in self.steps]} if self.steps else {}),
            **({"made": dict(self.made)} if self.made else {}),
        }


async def dry_run(
    config: Config,
    asked: Asked,
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
    recipe, chain = asked.recipe, asked.chain
    progress = Enqueued() if progress is None else progress
    progress.samples = samples
    prices, new = Prices(config.model), NewRows(0, 0)
    reader = PoolReader(pool, recipe, skip_invalid, progress, config.directory, chain)
    name = config.output_data.experiment_name
    async with _known(config) as known:
        there = _There()
        if known is not None:
            there = await _compared(known, name, asked, other_recipe, samples)
            assert there.planned is not None
            refusing = known[0], there.planned, reader, recipe, name, prices
            await refuse_recipe(*refusing, chain=chain)
            progress.asked_anew = there.asked_anew
        measured = tokens_of_an_answer(there.counts[None]) if None in there.counts else None
        estimated = _Estimated(reader, Estimate(prices, measured, samples))
        if chain is not None:
            from batchgen.jobs.step_estimate import StepsEstimate

            estimated.steps = StepsEstimate(config, chain, there.steps, samples)
        rehearsed = recipe, samples, known, there.planned, estimated.refuse
        async with rehearsing(*rehearsed) as rehearsal:
            items = iter(estimated)
            rows, error = next_chunk(items, rehearsal.intake)
            if known is not None:
                await refuse_changed_ids(known[0], rehearsal.intake, rows, name)
            while rows:
                new += await rehearsal.check(rows)
                progress.new = new.rows
                if error is not None:
                    break
                rows, error = next_chunk(items, rehearsal.intake)
            if error is not None:
                raise error
    if chain is None or estimated.steps is None:
        return _result(progress, estimated, prices, config.model.model, there.waiting)
    found = _result_of_steps(progress, estimated, estimated.steps, new, there)
    note = estimate_note(config) if found.cost_usd else None
    outdates = there.outdates(chain, new, samples)
    return replace(
        found, cost_note=note, outdates_gathered=outdates, asks_fewer=there.asks_fewer
    )  # fmt: skip


class _There(Struct):
    """The experiment as it is there, and how the pool would go into it. `counts` are those of its
    steps, by their names, or its own; `anew` and `made` are by steps, too. From the step of number
    `unmade_from` on some of the rows may be stale, of those that are asked anew if it
    `asks_fewer`."""

    planned: Intake | None = None
    counts: "dict[str | None, Counts]" = field(default_factory=dict)
    asked_anew: int = 0
    anew: Mapping[str, int] = field(default_factory=dict)
    made: Mapping[str, int] = field(default_factory=dict)
    is_stale_after: str | None = None
    unmade_from: int | None = None
    asks_fewer: bool = False

    @property
    def waiting(self) -> int:
        """Rows that are to be asked as it is, and are not among those that are `asked_anew`."""
        return sum(self.waiting_by_step.values()) if self.steps else (
            max(0, self.counts.get(None, Counts()).open - self.asked_anew)
        )  # fmt: skip

    @property
    def waiting_by_step(self) -> dict[str, int]:
        """What is made of a step that is asked once more is not asked: it is stale then."""
        found = dict[str, int]()
        for step, counts in self.steps.items():
            found[step] = max(0, counts.open - self.anew.get(step, 0) + self.made.get(step, 0))
            if step == self.is_stale_after:
                break
        return found

    @property
    def steps(self) -> dict[str, Counts]:
        return {step: one for step, one in self.counts.items() if step is not None}

    def outdates(self, chain: "ConfiguredChain", new: NewRows, samples: int) -> bool:
        """Whether rows that have gathered something are stale then."""
        from batchgen.jobs.step_changes import outdates_gathered

        extends = new.rows > new.items * samples
        return outdates_gathered(chain.plan, self.steps, self.made, extends=extends)


async def _compared(
    known: tuple[Store, int], name: str, asked: Asked, other_recipe: OtherRecipe, samples: int
) -> _There:
    """The known experiment with what is asked. Raises UsageError when it has other steps."""
    store, chain = known[0], asked.chain
    counts = await _counts(*known)
    if chain is None:
        if None not in counts:
            raise UsageError(
                f"experiment {name!r} was enqueued with steps, and there are none now.",
                Remedy.NAME_EXPERIMENT,
            )
        planned = await _planned(*known, asked, other_recipe, samples, None)
        return _There(planned, counts, planned.asked_anew)
    from batchgen.jobs.step_changes import refuse_other_steps, way_of

    there = await refuse_other_steps(store, name, chain, other_recipe)
    planned = await _planned(*known, asked, other_recipe, samples, there)
    if there is None or planned.choice or planned.other_plan:
        return _There(planned, counts, planned.asked_anew)
    way = await way_of(store, there, chain, other_recipe)
    again = next(iter(way.asked), None) if other_recipe is OtherRecipe.AGAIN else None
    return _There(
        planned, counts, way.asked.total(), way.rows, way.made, again, way.unmade_from,
        way.may_be_stale(chain.plan),
    )  # fmt: skip


async def _counts(store: Store, experiment_id: int) -> dict[str | None, Counts]:
    """Of the steps that it has, by their names, or of itself."""
    counts = await store.counts_by_experiment()
    steps = [one for one in await store.experiments() if experiment_id in (one.id, one.first_id)]
    return {one.step: counts.get(one.id, Counts()) for one in steps}


async def _planned(
    store: Store, experiment_id: int, asked: Asked, other_recipe: OtherRecipe, samples: int,
    there: Chain | None,
) -> Intake:  # fmt: skip
    """How the pool would go into the experiment, with what dead workers left taken over."""
    planned = await store.planned_intake(experiment_id, asked.recipe, other_recipe, samples)
    if there is not None and asked.chain is not None:
        from batchgen.jobs.step_changes import with_other_steps, with_running_steps

        if other_recipe is OtherRecipe.STOP:
            planned = await with_other_steps(store, planned, there, asked.chain)
        else:
            planned = await with_running_steps(store, planned, there, asked.chain, other_recipe)
    if planned.running and not any(worker.alive for worker in await store.workers()):
        return replace(planned, running=planned.at_provider)
    return planned


def _result_of_steps(
    progress: Enqueued, estimated: "_Estimated", steps: "StepsEstimate", new: NewRows,
    there: _There,
) -> DryRun:  # fmt: skip
    """The sums of what is known of each."""
    costs = steps.costs(
        new, there.anew, there.made, there.waiting_by_step, unmade_from=there.unmade_from
    )
    return DryRun(
        progress,
        estimated.first_prompt,
        sum(one.prompt_tokens for one in costs),
        _sum(one.completion_tokens for one in costs),
        _sum(one.cost_usd for one in costs),
        all(one.is_measured or one.runs_code for one in costs),
        _sum(one.batch_cost_usd for one in costs),
        steps=costs,
        made=there.made,
        waiting=there.waiting,
    )


def _sum(values: Iterable[float | None]) -> float | None:
    """None: one of them is not known."""
    known = list(values)
    return None if None in known else sum(filter(None, known))


def _result(
    progress: Enqueued, estimated: "_Estimated", prices: Prices, model: str, waiting: int
) -> DryRun:
    """The estimate is of all that was read; the calls are like the average of these."""
    found, read = estimated.estimate, progress.read * progress.samples
    share = (progress.new + progress.asked_anew + waiting) / read if read else 0
    return DryRun(
        progress,
        estimated.first_prompt,
        round(found.prompt_tokens * share),
        times(share, found.completion_tokens),
        times(share, found.cost_usd),
        found.is_measured,
        times(share, found.batch_cost_usd),
        prices.estimate_note(model) if found.cost_usd else None,
        waiting=waiting,
    )


class _Estimated:
    """The items of a pool, while their requests are added to an estimate."""

    def __init__(self, reader: PoolReader, estimate: Estimate) -> None:
        self._reader = reader
        self.estimate = estimate
        self.first_prompt: ShownPrompt | None = None
        self.steps: StepsEstimate | None = None

    def __iter__(self) -> Iterator[PoolItem]:
        for item in self._reader:
            renderer = self._reader.renderer
            if self.steps is not None:
                self.steps.add(item.input)
            if not renderer.makes_requests:  # of a chain that begins with a function
                yield item
                continue
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
    async with open_store_if_there(config.database) as store:
        name = config.output_data.experiment_name
        found = [one.id for one in await store.experiments() if one.name == name] if store else []
        yield (store, found[0]) if store and found else None
