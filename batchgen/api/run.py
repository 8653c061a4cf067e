"""One run of a pool: it is enqueued, what is out of date is parsed again, the items are answered by
workers, and the file is written, as results come and in the end in the order of the pool."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from typing import Any, TypeVar

from msgspec import Struct

from batchgen.api.answers import Results
from batchgen.api.outcome import ChainOutcome, Outcome, RowOutcome
from batchgen.api.own_file import OwnFile
from batchgen.api.pools import DataPool
from batchgen.api.request import Result, RunRequest
from batchgen.api.showing import Progress
from batchgen.api.words import COMMANDS, StoppedError, stopping, unfinished
from batchgen.config import Config
from batchgen.display.parsed import kinds_text
from batchgen.jobs.asked import Asked
from batchgen.jobs.enqueue import enqueue
from batchgen.jobs.log import LogFile
from batchgen.jobs.lookup import named
from batchgen.jobs.pool_reader import Enqueued, checked_at_start
from batchgen.jobs.present_parser import unseen_changes
from batchgen.jobs.processes import work_in_processes
from batchgen.jobs.reparse import bring_up_to_date, still_up_to_date
from batchgen.jobs.sources import note_own_files, only_offers
from batchgen.jobs.status import watch_run
from batchgen.jobs.whole_pool import check_items, refuse_known_ids
from batchgen.jobs.work import WorkResult, check_options, spec_of, work
from batchgen.llm.prices import Prices
from batchgen.parsers import StepFunction
from batchgen.pool import Entries, Entry
from batchgen.shutdown import Stop, stop_on_signal, uninterrupted, unless
from batchgen.store import (
    Experiment,
    OtherRecipe,
    Selection,
    Store,
    open_store,
)
from batchgen.worker.requests import Present
from batchgen.worker.spec import WorkSpec
from batchgen.worker.stats import RunContext, Stats

T = TypeVar("T")
OpenPool = Callable[[], Coroutine[Any, Any, DataPool]]

_LOOK_EVERY_S = 0.2

# As cli/worker_process.py, which is a program of its own: it is started, not imported.
_WORKER_PROCESS = (sys.executable, "-P", "-m", "batchgen.cli.worker_process")

# The store takes one pool at a time and refuses a second one; the pipelines of a process, in
# whatever thread, wait for their turn instead.
_ENQUEUEING = threading.Lock()
_TURN_S = 0.05


class Job(Struct, frozen=True):
    """What a run is to do."""

    config: Config
    request: RunRequest
    asked: Asked

    @property
    def experiment(self) -> str:
        return self.config.output_data.experiment_name


@asynccontextmanager
async def running(job: Job, open_pool: OpenPool, stop: Stop) -> AsyncIterator["Run"]:
    """Inside, the items of the pool are being answered. Leaving it waits for the end, and writes
    the file; leaving it by an exception lets the calls in flight finish first, and by a
    cancellation abandons them.

    Raises InputError or TemplateError for an item that cannot be one, ConfigError for a budget that
    cannot be kept, StoppedError when the run halts or is stopped.
    """
    check_options(job.config, job.request.work_options)
    progress = Progress(quiet=not job.request.progress)
    with stop_on_signal(stop, lambda: progress.say(stopping(stop))):
        pool = await _unless_stopped(stop, open_pool())
        ids = {}
        if pool.in_memory:
            checking = check_items(
                pool.entries(job.config), job.asked.recipe, job.config.directory, job.asked.chain
            )
            ids = await _unless_stopped(stop, checking)
        entries = pool.entries(job.config)
        checked = _checked_at_start(job, entries)  # one that is wrong makes no database
        async with open_store(job.config.database, create=True) as store:
            if job.request.other_recipe is not OtherRecipe.ADD:  # then ids may come again
                await refuse_known_ids(store, job.experiment, ids)
            for reader in job.asked.readers:
                if said := unseen_changes(reader):
                    progress.warn_once(f"{said}: {COMMANDS.reparse}")
            await _bring_up_to_date(job, store, stop, progress)
            with closing(entries):
                enqueued = await _unless_stopped(stop, _enqueue(job, store, checked, progress))
            source = pool.source if isinstance(pool.source, str) else None
            if enqueued.unused and not (source and only_offers(source)):
                progress.warn(enqueued.unused_words)
            if enqueued.kept:
                progress.say(
                    f"rows of {job.experiment} that keep answers to an earlier recipe, as their "
                    f"items were not passed: {enqueued.kept}"
                )
            _say_followed(progress, enqueued)
            mine = await _rows_of(job, store, enqueued.ids or [])
            await note_own_files(store, job.config, source)
            present = await _bring_up_to_date(job, store, stop, progress)
            async with _ended_well(Run(job, store, mine, present, stop, progress)) as run:
                yield run


@asynccontextmanager
async def _ended_well(run: "Run") -> AsyncIterator["Run"]:
    try:
        try:
            yield run
        except asyncio.CancelledError:
            raise
        except BaseException:
            run.drain()
            await run.finish()
            raise
        await run.finish_or_raise()
    except asyncio.CancelledError:
        await run.abandon()
        raise


async def _bring_up_to_date(
    job: Job, store: Store, stop: Stop, progress: Progress
) -> dict[int, Present]:
    """What another parser has read is parsed again, without a call: before anything is asked, as
    what can be read now is not asked again. Of each step, as far as it is there."""
    found, timeout_s = {}, job.config.work.parse_timeout_s
    for one in named(await store.experiments(), job.experiment):
        reader = job.asked.reader_of(one.step)
        if reader is None or isinstance(reader, StepFunction) != bool(one.runs_code):
            continue  # other steps, which enqueueing refuses
        parsing = bring_up_to_date(
            store, one, reader, progress.parsed, timeout_s=timeout_s, say=progress.warn
        )
        done = await _unless_stopped(stop, parsing)
        of_step = "" if one.step is None else f"{one.own_name}: "
        if done.reparsed is not None:
            progress.say(
                f"{of_step}the parser is another one now; stored answers were parsed again, "
                f"without a call: {kinds_text(done.reparsed)}"
            )
        if done.run_again:
            progress.say(
                f"{of_step}the function is another one now; rows that are run again, without a "
                f"call: {done.run_again:,}"
            )
        found[one.id] = done.present
    return found


def _say_followed(progress: Progress, enqueued: Enqueued) -> None:
    """What other rules of the steps have made of rows that were done."""
    followed = enqueued.followed
    if followed is None or not (followed.rows or followed.read_again):
        return
    made = ", ".join(f"{n:,} of {step}" for step, n in followed.added.items()) or "none"
    line = f"rows that the new steps make of what is done: {made}"
    if followed.read_again:
        line += (
            ". Rows that had failed for want of a list, and were read again without a call: "
            f"{followed.read_again:,}"
        )
    progress.say(line)


async def _enqueue(
    job: Job, store: Store, entries: Iterator[Entry], progress: Progress
) -> Enqueued:
    request, so_far = job.request, Enqueued()
    async with (
        _turn_to_enqueue(),
        progress.telling(lambda: so_far.so_far),
    ):
        return await enqueue(
            store, entries, job.asked.recipe, job.experiment, progress=so_far,
            parser=job.asked.version, chain=job.asked.chain, other_recipe=request.other_recipe,
            prices=Prices(job.config.model), samples=request.samples,
            keep_ids=True, pool_alone=True,
            directory=job.config.directory, parse_timeout_s=job.config.work.parse_timeout_s,
            say=progress.say,
        )  # fmt: skip


async def _rows_of(job: Job, store: Store, items: list[int]) -> "_Mine":
    samples, wanted = job.request.samples, items
    if samples > 1:
        wanted = await store.rows_of_items(items, samples)
    experiments = named(await store.experiments(), job.experiment)
    return _Mine(experiments, items, wanted)


class _Mine(Struct, frozen=True):
    """What a run is about: `items` in the order of the pool, and `rows`, which are those of the
    first step where there are some, with the samples of each item. `experiments` are the steps."""

    experiments: Sequence[Experiment]
    items: Sequence[int]
    rows: Sequence[int]

    @property
    def first(self) -> Experiment:
        return self.experiments[0]

    @property
    def ids(self) -> tuple[int, ...]:
        """Later steps come first, so that chains end before others begin."""
        return tuple(one.id for one in reversed(self.experiments))

    def outcome(self, store: Store, samples: int) -> Outcome:
        if self.first.step is None:
            return RowOutcome(store, self.first, self.rows, samples=samples)
        return ChainOutcome(store, self.first, self.items, self.rows, samples=samples)


def _checked_at_start(job: Job, entries: Entries) -> Iterator[Entry]:
    try:
        return checked_at_start(
            entries, job.asked.recipe, job.config.directory, chain=job.asked.chain
        )
    except BaseException:
        entries.close()
        raise


async def _unless_stopped(stop: Stop, coro: Coroutine[Any, Any, T]) -> T:
    """What comes before anything is asked."""
    if (done := await unless(stop.drain, coro)) is None:
        raise StoppedError("the run was stopped before it asked for anything.")
    return done


class Run:
    """A run that works on its rows, which are enqueued."""

    def __init__(
        self, job: Job, store: Store, mine: _Mine, present: Mapping[int, Present], stop: Stop,
        progress: Progress,
    ) -> None:  # fmt: skip
        self._job, self._store, self._mine = job, store, mine
        self._rows = list(dict.fromkeys(mine.rows))
        self._outcome = mine.outcome(store, job.request.samples)
        self._present = present
        self._stop, self._progress = stop, progress
        self._file = OwnFile(store, job.config, mine.first, progress)
        self.path = self._file.path
        self._working = asyncio.create_task(self._work(), name="work")

    def drain(self) -> None:
        self._stop.drain.set()

    async def finish(self) -> WorkResult:
        """How it ended, when nothing is left to be done and the file is in the pool's order."""
        await asyncio.wait([self._working])
        result = self._working.result()
        await self._file.write()
        return result

    async def finish_or_raise(self) -> None:
        """Raises StoppedError when it ended before all was answered."""
        result = await self.finish()
        was_stopped = self._stop.drain.is_set() and not result.is_complete
        if result.exit_code not in (0, 3) or was_stopped:
            raise unfinished(result)
        if result.until is None:
            await self._tell_of_others()

    async def _tell_of_others(self) -> None:
        """Rows that nobody passed are not answered: not in silence. While others are at work, they
        may be theirs."""
        if any(worker.alive for worker in await self._store.workers()):
            return
        # Read after the workers: what is left then is no row of one that ended meanwhile.
        if left := (await self._store.counts(self._mine.ids)).open:
            self._progress.say(
                f"rows of {self._job.experiment} that wait, as their items were not passed, and "
                f"so are not in its file: {left}"
            )

    async def abandon(self) -> None:
        """Stop at once: the calls in flight are kept as calls with unknown outcome."""
        self._working.cancel()
        await uninterrupted(asyncio.wait([self._working]))

    async def results(self) -> Results:
        """Of what has ended, in the order of the pool; only when all is over."""
        await asyncio.wait([self._working])
        found, earlier = await self._outcome.in_order(), self._outcome.earlier
        if earlier and self._job.request.other_recipe is not OtherRecipe.REPLACE:
            of = f" of {len(found):,}" if self._mine.first.step is None else ""
            self._progress.say(
                f"results that answer an earlier recipe: {earlier:,}{of}. To ask "
                'them with the present one: recipe="again"'
            )
        if self._outcome.stale:
            how = (
                f"To ask again what follows it: {COMMANDS.retry_stale}, and run it again"
                if await self._store.stale_to_ask(self._mine.ids)
                else "The steps make what is stale no more"
            )
            self._progress.say(
                "chains that are stale, as something in them has been replaced, and so are no "
                f"results: {self._outcome.stale:,}. {how}"
            )
        return Results(found)

    async def answers(self) -> AsyncIterator[Result]:
        """Each result, once, as it comes; first those that are there already."""
        seen, after = set[int](), await self._store.newest_result()
        async for one in self._outcome.so_far():
            seen.add(one.key)
            yield one.result
        is_over = False
        while not is_over and not self._outcome.is_whole(seen):
            await asyncio.wait([self._working], timeout=_LOOK_EVERY_S)
            is_over = self._working.done()
            async for page in self._outcome.since(after):
                after = page.upto
                for one in page.ended:
                    if one.key not in seen:
                        seen.add(one.key)
                        yield one.result

    async def _work(self) -> WorkResult:
        result = await self._until_answered()
        timeout_s = self._job.config.work.parse_timeout_s
        for one in self._mine.experiments:
            present = self._present[one.id]
            if (await self._store.parsers.present(one.id)).id != present.id:
                self._progress.warn(
                    f"another run has given {one.own_name} another parser meanwhile, and has "
                    "read answers of this one by it. Run it again to have yours"
                )
            await still_up_to_date(self._store, one, present, timeout_s=timeout_s)
        return result

    async def _until_answered(self) -> WorkResult:
        """Until all rows have ended, whoever answers them, or as many are done as are wanted."""
        until, result = self._job.request.until, None
        while True:
            async with self._store.selecting(self._mine.first.id, self._rows) as selection:
                counts = await self._store.counts(self._mine.ids, selection)
                if not counts.open or counts.is_enough(until):
                    return result or WorkResult.nothing_to_do(counts)
                result = await self._answer(selection)
            if self._stop.drain.is_set() or result.stats.halted:
                return result

    async def _answer(self, selection: Selection) -> WorkResult:
        job, store, progress = self._job, self._store, self._progress
        spec = spec_of(
            job.config, experiments=self._mine.ids, selection=selection, **job.request.work_options
        )
        look = await watch_run(store, self._mine.ids, spec.until, selection)
        async with self._file.kept(self._stop.now), progress.showing(look):
            return await self._in_workers(spec)

    async def _in_workers(self, spec: WorkSpec) -> WorkResult:
        job, store, stop, progress = self._job, self._store, self._stop, self._progress
        if (processes := job.request.processes) > 1:
            specs = spec.split(min(processes, spec.concurrency))
            return await work_in_processes(
                store, job.config, specs, _WORKER_PROCESS,
                stop=stop, stats=Stats(), say=progress.say,
            )  # fmt: skip
        with closing(LogFile(job.config.log_dir, progress.warn)) as log:
            return await work(store, job.config, spec, RunContext(stop, log), self._present)


@asynccontextmanager
async def _turn_to_enqueue() -> AsyncIterator[None]:
    while not _ENQUEUEING.acquire(blocking=False):  # noqa: ASYNC110  no asyncio lock spans threads
        await asyncio.sleep(_TURN_S)
    try:
        yield
    finally:
        _ENQUEUEING.release()
