"""The class that users have."""

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from inspect import isawaitable
from pathlib import Path
from typing import Any, TypeVar, Unpack

from batchgen.api import operate
from batchgen.api.answers import Exported, Failures, Reparsed, Results, Retried, Status, Told
from batchgen.api.blocking import run_blocking
from batchgen.api.pools import DataPool, Pool, open_data_pool
from batchgen.api.request import (
    Extract,
    OnResult,
    RecipeWord,
    RunOptions,
    RunRequest,
    parser_of,
)
from batchgen.api.run import Job, OpenPool, Run, running
from batchgen.api.settings import Settings
from batchgen.api.step import objects_of, settings_of
from batchgen.api.streaming import Give, Stream, Work
from batchgen.api.words import ErrorsInPython, stop_next
from batchgen.config import Config, load
from batchgen.errors import UsageError
from batchgen.jobs.asked import Asked, asked_of
from batchgen.jobs.recipe import recipe_of
from batchgen.parsers import load_parser
from batchgen.shutdown import Stop
from batchgen.userfunctions import refuse_while_imported

T = TypeVar("T")


class Extractor(str):
    """A parser spec that can be called like the function that it names."""

    __slots__ = ()

    def __call__(self, response: str) -> Any:
        return load_parser(str(self)).parse(response, {}, None)


class DataGenerationPipeline:
    """Run a pool of prompts through the model.

        pipeline = DataGenerationPipeline(user_prompt="Translate into French: {text}")
        results = pipeline.run_sync([{"text": "Good morning"}, {"text": "Good night"}])

    Settings come from `config_path` (default: config.yaml in the current directory, if it is
    there), and from keywords: whole sections (`output_data={...}`) or any setting by its name
    (`temperature=0.9`); a setting by name wins over its section. Raises ConfigError.

    Several calls for each item are `steps`, each of which sees the values of those before it:

        pipeline = DataGenerationPipeline(steps=[
            Step("draft", user="Write about {topic}."),
            Step("critique", user="Score this from 1 to 10: {draft}", parser=score),
        ], result=["draft"])

    All that is answered is kept in the database at once: run the same script again after a crash
    or a stop, and it goes on where it was. What was answered is not asked again.
    """

    def __init__(self, config_path: str | Path | None = None, **settings: Unpack[Settings]) -> None:
        steps = settings.get("steps") or ()
        with ErrorsInPython():
            self.config: Config = load(
                None if config_path is None else Path(config_path),
                env=os.environ,
                overrides={**settings, "steps": settings_of(steps)} if steps else settings,
                cwd=Path.cwd(),
            )
        self._objects = objects_of(steps)
        self.experiment_path: Path | None = None
        """Where the last run wrote its JSONL."""
        self._runs: list[tuple[Stop, asyncio.AbstractEventLoop]] = []

    @staticmethod
    def make_default_extractor(pattern_name: str) -> Extractor:
        """The parser `tag:pattern_name`: every <pattern_name>...</pattern_name>, as a list."""
        return Extractor(f"tag:{pattern_name}")

    async def run(
        self,
        data_pool: Pool,
        concurrency_limit: int | None = None,
        extract_function: Extract | None = None,
        *,
        samples: int = 1,
        until: int | None = None,
        max_cost: float | None = None,
        max_failures: int | str | None = None,
        recipe: RecipeWord = "stop",
        processes: int = 1,
        on_result: OnResult | None = None,
        progress: bool = True,
    ) -> Results:
        """Answer the items of `data_pool`, and no others; one result per item, in its order.

        A result has the keys of the export; one that failed has `parsed: None` and `error`. The
        JSONL is written as results come, for all done items of the experiment, and in the end is in
        the order of the pool.

        data_pool          a list, an iterator, an async iterator, a DataFrame, a Dataset, or the
                           name of a file or function; of a pool in memory with a bad item nothing
                           is enqueued
        concurrency_limit  calls in flight at once
        extract_function   takes the text and, if it has a second parameter, the item; or a parser
                           spec. When it has changed, stored answers are parsed again, without calls
        samples            answers per item; then there is a result for each
        until              stop when so many items of the pool are done; the results are those that
                           have ended
        max_cost           US dollars that the experiment's calls, those of earlier runs included,
                           may cost
        max_failures       stop when so many items have failed: a number, or a share such as "5%"
        recipe             when prompts, model or parameters have changed: "stop" (say what each way
                           costs, and ask nothing), "replace" (rows not done are asked with the new
                           ones), "again" (all that are passed) or "add" (once more, beside the old)
        processes          worker processes, for more than one core can send
        on_result          called with each result as it comes, once it is stored
        progress           show how it goes, on a terminal and in a notebook

        Raises InputError or TemplateError for an item that cannot be one, and StoppedError when the
        run halts (wrong key, no quota) or is stopped; all answers are kept, and the next run goes
        on from there. Cancelling it abandons the calls in flight.
        """
        with ErrorsInPython():
            request = RunRequest(
                concurrency_limit=concurrency_limit, extract_function=extract_function,
                samples=samples, until=until, max_cost=max_cost, max_failures=max_failures,
                recipe=recipe, processes=processes, progress=progress,
            )  # fmt: skip
            return await self._run(data_pool, request, Stop(), on_result)

    def run_sync(
        self,
        data_pool: Pool,
        concurrency_limit: int | None = None,
        extract_function: Extract | None = None,
        *,
        on_result: OnResult | None = None,
        **options: Unpack[RunOptions],
    ) -> Results:
        """`run`, with the same arguments, for code that is not async; also in a cell of a notebook.

        The first Ctrl-C (in a notebook: interrupt) lets the calls in flight finish and raises
        StoppedError, the second abandons them.
        """
        stop = Stop()
        with ErrorsInPython():
            request = RunRequest(
                concurrency_limit=concurrency_limit, extract_function=extract_function, **options
            )
            work = self._run(data_pool, request, stop, on_result)
            return run_blocking(work, interrupt=lambda: stop_next(stop))

    def stream(
        self,
        data_pool: Pool,
        concurrency_limit: int | None = None,
        extract_function: Extract | None = None,
        **options: Unpack[RunOptions],
    ) -> Stream:
        """`run`, with each result as it comes: `async for result in pipeline.stream(data_pool)`.

        First come those that are there already. Leaving the loop early lets the calls in flight
        finish, and asks for no more.
        """
        with ErrorsInPython():
            request = RunRequest(
                concurrency_limit=concurrency_limit, extract_function=extract_function, **options
            )

        async def begin(stop: Stop) -> Work:
            pool = await open_data_pool(data_pool)  # an async one belongs to this loop

            async def opened() -> DataPool:
                return pool

            return lambda give: self._stream(opened, request, stop, give)

        return Stream(begin)

    def status(self, *, step: str | None = None) -> Status:
        """How the experiment, or one `step` of it, stands: rows by state, calls, cost. Print it, or
        take its fields."""
        return self._do(operate.status(self.config, step))

    def failures(self, reason: str | None = None, *, step: str | None = None) -> Failures:
        """What failed, grouped by reason and message, of all steps or of one."""
        return self._do(operate.failures(self.config, reason, step))

    def retry(
        self,
        reason: str | Iterable[str] | None = None,
        *,
        ids: Iterable[str | int] = (),
        message: str | None = None,
        done: bool = False,
        params: Mapping[str, Any] = {},
        step: str | None = None,
        stale: bool = False,
        dry_run: bool = False,
    ) -> Retried:
        """Put failed rows back to pending: all, or those with this `reason`, with `message` in
        their error, or of these `ids`. The next `run` asks them again; old attempts are kept.

        `params` are what they are asked with from now on: {"max_tokens": 8192}. `done`: rows that
        are done too, which have to be given by `ids`. Raises UsageError for what is not there.

        Where items have steps: of one `step` alone. What was made of a row that is asked again is
        stale, and `stale=True`, instead of failed rows, asks that again, when what it is made of is
        done. `dry_run` says how many, and what it costs.
        """
        if stale:
            chosen = reason is not None or message is not None or ids or done or params
            return self._do(operate.retry_stale(self.config, step, dry_run, chosen=bool(chosen)))
        asked = operate.retry(self.config, reason, ids, message, done, params, step, dry_run)
        return self._do(asked)

    def reparse(
        self,
        extract_function: Extract | None = None,
        *,
        failed_only: bool = False,
        ids: Iterable[str | int] = (),
        step: str | None = None,
        dry_run: bool = False,
    ) -> Reparsed:
        """Parse the stored answers again, without any call: all, those that failed to parse, or
        those of the items with these `ids`. Without `extract_function`, by the parser that they
        have, if that has a name. `dry_run` shows what would change.

        Where items have steps: all of them, each by the parser that this pipeline gives it, or one
        `step` alone. Rows that follow are made of what can be parsed now, and what was made of
        another value is stale."""
        with ErrorsInPython():
            parser = None if extract_function is None else parser_of(extract_function, self.config)
        request = operate.ReparseWords(failed_only, tuple(map(str, ids)), step, dry_run)
        return self._do(operate.reparse(self.config, parser, self._objects, request))

    def export(
        self,
        path: str | Path | None = None,
        *,
        format: str | None = None,  # noqa: A002  as the command's option
        where: str | None = None,
        failed: bool = False,
        columns: str | Sequence[str] = (),
        guard: bool = True,
        failed_too: bool = False,
        extras: Sequence[str] = (),
        group: bool = False,
        shards: int = 1,
        summary: str | Path | None = None,
        force: bool = False,
        step: str | None = None,
        reviewed: str | None = None,
    ) -> Exported:
        """Write the done rows (or the `failed` ones; `failed_too`: both) to a file, in the order of
        the pool. `format`: default as the suffix of `path` says. `where`: only rows for which it
        holds, such as 'parsed.score >= 4'. `columns`, of a CSV: only these, in this order, such as
        ["id", "parsed.label"]. `guard=False`, of a CSV: leave a text that begins like a formula as
        it is. `extras`: put these of each answer into its row too, such as ["reasoning"]. `group`:
        a line for each item, with its samples or its chains in a list. `shards`: split into so many
        files. `summary`: a file for counts, tokens, cost and hashes of the export, as JSON.
        `force`: write over a file that batchgen did not write. `reviewed`: "accepted", only the
        rows that people accepted, or "not-rejected", all but those that they rejected; their edits
        stand in place of the parsed values.

        Where items have steps there is a row a chain, and `where` may name steps, as in
        'judge.score >= 4'; with `step` a row for each done row of that step."""
        words = operate.ExportWords(
            format, where, failed, failed_too,
            columns if isinstance(columns, str) else tuple(columns), guard, tuple(extras),
            group, shards, Path(summary) if summary else None, force, step, reviewed,
        )  # fmt: skip
        return self._do(operate.export(self.config, Path(path) if path else None, words))

    def stop(self, *, now: bool = False) -> Told:
        """Stop the runs of this pipeline, from another thread or task: they finish the calls in
        flight (`now`: abandon them), and raise StoppedError. If there are none, the workers that
        run on the database in other processes are told to."""
        for stop, loop in (runs := list(self._runs)):
            loop.call_soon_threadsafe(stop.drain.set)
            if now:
                loop.call_soon_threadsafe(stop.now.set)
        return Told(len(runs)) if runs else self._do(operate.stop(self.config, now))

    async def _run(
        self, data_pool: Any, request: RunRequest, stop: Stop, on_result: OnResult | None
    ) -> Results:
        async with self._running(lambda: open_data_pool(data_pool), request, stop) as run:
            if on_result is not None:
                async for result in run.answers():
                    if isawaitable(called := on_result(result)):
                        await called
            return await run.results()

    async def _stream(
        self, open_pool: OpenPool, request: RunRequest, stop: Stop, give: Give
    ) -> None:
        async with self._running(open_pool, request, stop) as run:
            async for result in run.answers():
                if not await give(result):
                    run.drain()
                    return

    @asynccontextmanager
    async def _running(
        self, open_pool: OpenPool, request: RunRequest, stop: Stop
    ) -> AsyncIterator[Run]:
        refuse_while_imported("pipeline.run")
        job = Job(self.config, request, self._asked(request))
        self._runs.append(this := (stop, asyncio.get_running_loop()))
        try:
            async with running(job, open_pool, stop) as run:
                self.experiment_path = run.path
                yield run
        finally:
            self._runs.remove(this)

    def _asked(self, request: RunRequest) -> Asked:
        if not self.config.steps:
            parser = parser_of(request.extract_function, self.config)
            return Asked(recipe_of(self.config, parser), parser)
        if request.extract_function is not None:
            raise UsageError(
                "extract_function: there are steps, each of which has a parser of its own: "
                "Step(..., parser=...)"
            )
        for name in self._objects.names[:1]:
            request.check_processes(f"what step {name} runs")
        return asked_of(self.config, self._objects.parsers, self._objects.functions)

    @staticmethod
    def _do(work: Coroutine[Any, Any, T]) -> T:
        with ErrorsInPython():
            return run_blocking(work)
