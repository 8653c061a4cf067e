"""Working on the pending items in provider batches: at which servers of the config, and what is
asked online before."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from msgspec.structs import replace

from batchgen.batches import BatchRun, Ground, Place, run_batches
from batchgen.config import Config
from batchgen.database_address import DatabaseAddress
from batchgen.jobs.configured_servers import ConfiguredServer, configured_servers, server_specs
from batchgen.jobs.work import WorkResult, result_of, work_at
from batchgen.llm.batches import open_batch_server
from batchgen.shutdown import once_stopped_now, patience
from batchgen.store import Store
from batchgen.worker.requests import Present
from batchgen.worker.spec import WorkSpec
from batchgen.worker.stats import RunContext, Stats

_OF_CALLS = ("rpm", "tpm", "adaptive", "hedge")


async def work_in_batches(
    store: Store, config: Config, spec: WorkSpec, context: RunContext, *,
    present: Mapping[int, Present], waits: bool, say: Callable[[str], None],
) -> WorkResult:  # fmt: skip
    """Send, wait and collect until nothing is left, it halts, or it is stopped; without `waits`,
    one round of it. `say` tells how the batches go.

    Raises as `work`; also UsageError where another process does this.
    """
    _say_what_does_not_apply(spec, say)
    servers = _one_of_each(configured_servers(config))
    online = server_specs(servers)
    whole = tuple(replace(one, stream=False) for one in online)
    in_batches = replace(spec, servers=whole, rpm=None, tpm=None, adaptive=False, hedge=False)

    async def probe(experiment_id: int) -> None:
        stats = Stats()
        one = replace(
            spec, servers=online, experiments=(experiment_id,), concurrency=1, max_items=1,
            budget_experiments=spec.budget_experiments or spec.experiments, wait_for_more=False,
        )  # fmt: skip
        of_probe = RunContext(context.stop, context.log, stats)
        await work_at(store, servers, one, of_probe, present)
        context.stats.calls += stats.calls
        if stats.halted is not None and context.stats.halted is None:
            context.stats.halted = stats.halted

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(once_stopped_now(context.stop, store.hurry))
        places = []
        for server, one in zip(servers, whole, strict=True):
            opening = open_batch_server(server.model, timeout_s=spec.timeout_s)
            at_provider = await stack.enter_async_context(opening)
            places.append(Place(one, at_provider, server.prices.in_batches))
        ground = Ground(
            in_batches, config.batch, context, tuple(places),
            _directory_beside(config.database, config.directory), say,
            await stack.enter_async_context(patience(context.stop, spec.grace_s)),
        )  # fmt: skip
        run = BatchRun(present, probe if config.batch.probe else None, waits)
        await run_batches(store, ground, run)
    return await result_of(store, spec, context.stop, context.stats)


def _one_of_each(servers: Sequence[ConfiguredServer]) -> tuple[ConfiguredServer, ...]:
    """Of several servers or keys for the same rows the first: a batch is at one of them."""
    chosen: dict[tuple[tuple[str, ...], bool], ConfiguredServer] = {}
    for one in servers:
        chosen.setdefault((one.steps, one.answers_rest), one)
    return tuple(chosen.values())


def _say_what_does_not_apply(spec: WorkSpec, say: Callable[[str], None]) -> None:
    if given := [name for name in _OF_CALLS if getattr(spec, name)]:
        say(
            f"{', '.join(given)}: of calls, and not of provider batches, which have limits of "
            "their own (batch.max_open, batch.max_enqueued_tokens)."
        )


def _directory_beside(database: DatabaseAddress, directory: Path) -> Path:
    """For the files of requests, while they are filled: beside a database that is a file."""
    return database.absolute().parent if isinstance(database, Path) else directory
