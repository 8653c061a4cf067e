"""The Python API: a list of items in, a list of results out.

It runs the same jobs as the command line on the same kind of database, so a script that crashed
goes on where it stopped, and `batchgen status` shows its progress.
"""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from batchgen.config import Config, load
from batchgen.errors import BatchgenError, ConfigError, Remedy, UsageError
from batchgen.export import Overwriting, result_object
from batchgen.items import Recipe
from batchgen.jobs.enqueue import Enqueued, enqueue, recipe_of
from batchgen.jobs.export import check_output, export
from batchgen.jobs.work import WorkResult, spec_of, work_with_log
from batchgen.parsers import Parser, load_parser, parser_from_callable
from batchgen.pool import read_objects
from batchgen.shutdown import Stop, stop_on_signal
from batchgen.store import Experiment, OtherRecipe, Store, open_store

# What the user can do about an error, in Python's words.
_REMEDIES = {
    Remedy.CHOOSE_RECIPE: 'Pass recipe="add" (mix both) or recipe="replace" (drop the old one\'s '
    "unfinished items), or choose another experiment_name.",
    Remedy.NAME_DATABASE: "Name another file with database=...",
    Remedy.MOVE_DATABASE: "Put it on a local disk with database=...; prompts and output may stay "
    "where they are.",
    Remedy.STOP_WORKERS: "Stop the worker first.",
    Remedy.REPLACE_FILE: "Remove it, or choose another experiment_name or output_dir.",
    Remedy.RUN_AGAIN: "Then run the same script again.",
}

_PAGE_ITEMS = 500

# The store takes one pool at a time and refuses a second one; the pipelines of a process, in
# whatever thread, wait for their turn instead.
_ENQUEUEING = threading.Lock()
_TURN_S = 0.05


class Extractor(str):
    """A parser spec that can be called like the function that it names."""

    __slots__ = ()

    def __call__(self, response: str) -> Any:
        return load_parser(str(self)).parse(response, {}, None)


class DataGenerationPipeline:
    """Run a pool of prompts through the model.

    Settings come from `config_path` (default: config.yaml in the current directory, if it is
    there), and from keywords: whole sections (`output_data={...}`) or any leaf by its name
    (`temperature=0.9`); a leaf wins over its section. Raises ConfigError.
    """

    def __init__(self, config_path: str | Path | None = None, **settings: Any) -> None:
        self.config: Config = load(
            None if config_path is None else Path(config_path),
            env=os.environ,
            overrides=settings,
            cwd=Path.cwd(),
        )
        self.experiment_path: Path | None = None
        """Where the last run wrote its JSONL."""

    @staticmethod
    def make_default_extractor(pattern_name: str) -> Extractor:
        """The parser `tag:pattern_name`: every <pattern_name>...</pattern_name>, as a list."""
        return Extractor(f"tag:{pattern_name}")

    async def run(
        self,
        data_pool: Iterable[Any],
        concurrency_limit: int | None = None,
        extract_function: Callable[..., Any] | str | None = None,
        *,
        recipe: str = "stop",
    ) -> list[dict[str, Any]]:
        """Answer every item of `data_pool`; one result per item, in its order.

        A result has the keys of the export; one that failed has `parsed: None` and `error`. The
        JSONL is written too, for all done items of the experiment. `extract_function` takes the
        text and, if it has a second parameter, the item; it may be async. It may also be a parser
        spec. `recipe` ("add" or "replace") says what to do when the experiment has another recipe.

        Raises InputError or TemplateError for an item that cannot be one, and BatchgenError when
        the run halts (wrong key, no quota) or is stopped; all answers are kept, and the next run
        goes on from there. Cancelling it abandons the calls in flight.
        """
        other_recipe = _other_recipe(recipe)
        if concurrency_limit is not None and concurrency_limit < 1:
            raise ConfigError(
                f"concurrency_limit: must be an integer >= 1, not {concurrency_limit}"
            )
        parser = self._parser(extract_function)
        chosen = recipe_of(self.config, parser)
        with _remedies_in_python():
            return await self._run(data_pool, chosen, other_recipe, concurrency_limit, parser)

    async def _run(
        self,
        data_pool: Iterable[Any],
        recipe: Recipe,
        other_recipe: OtherRecipe,
        concurrency: int | None,
        parser: Parser,
    ) -> list[dict[str, Any]]:
        async with open_store(self.config.database, create=True) as store:
            enqueued = await self._enqueue(store, data_pool, recipe, other_recipe)
            experiment = await self._experiment(store)
            output, own = self.config.output_data, Overwriting(self.config.own_files)
            await check_output(store, output, experiment, overwriting=own)
            result = await self._work(store, experiment, concurrency, parser)
            exported = await export(store, output, experiment, overwriting=own)
            self.experiment_path = exported.path
            if result.exit_code not in (0, 3):
                raise BatchgenError(_unfinished(result))
            return await _results(store, enqueued.ids or [])

    def run_sync(self, data_pool: Iterable[Any], **options: Any) -> list[dict[str, Any]]:
        """`run`, for code that is not async."""
        if _in_async_code():
            raise UsageError("run_sync: this code is async already; write await pipeline.run(...)")
        return asyncio.run(self.run(data_pool, **options))

    def _parser(self, extract_function: Any) -> Parser:
        if extract_function is None:
            return load_parser(self.config.parser)
        if isinstance(extract_function, str):
            return load_parser(str(extract_function))
        if not callable(extract_function):
            kind = type(extract_function).__name__
            raise ConfigError(f"extract_function: must be a function or a parser spec, not {kind}")
        return parser_from_callable(extract_function)

    async def _enqueue(
        self, store: Store, data_pool: Iterable[Any], recipe: Recipe, other_recipe: OtherRecipe
    ) -> Enqueued:
        name = self.config.output_data.experiment_name
        async with _turn_to_enqueue():
            enqueued = await enqueue(
                store, read_objects(data_pool), recipe, name,
                other_recipe=other_recipe, keep_ids=True, directory=self.config.directory,
            )  # fmt: skip
        if enqueued.unused:
            _tell(f"no template uses these variables: {', '.join(sorted(enqueued.unused))}")
        return enqueued

    async def _experiment(self, store: Store) -> Experiment:
        name = self.config.output_data.experiment_name
        return next(e for e in await store.experiments() if e.name == name)

    async def _work(
        self, store: Store, experiment: Experiment, concurrency: int | None, parser: Parser
    ) -> WorkResult:
        counts = await store.counts([experiment.id])
        if not counts.open:
            return WorkResult.nothing_to_do(counts)
        spec = spec_of(self.config, experiments=(experiment.id,), concurrency=concurrency)
        stop = Stop()
        with stop_on_signal(stop, lambda: _tell(_stopping(stop))):
            return await work_with_log(
                store, self.config, spec,
                stop=stop, show=_tell, parsers={parser.spec: parser},
            )  # fmt: skip


@contextmanager
def _remedies_in_python() -> Iterator[None]:
    """An error's message says what to do, too."""
    try:
        yield
    except BatchgenError as exc:
        if exc.remedy in _REMEDIES:
            exc.args = (f"{exc} {_REMEDIES[exc.remedy]}",)
        raise


@asynccontextmanager
async def _turn_to_enqueue() -> AsyncIterator[None]:
    while not _ENQUEUEING.acquire(blocking=False):  # noqa: ASYNC110  no asyncio lock spans threads
        await asyncio.sleep(_TURN_S)
    try:
        yield
    finally:
        _ENQUEUEING.release()


async def _results(store: Store, ids: Sequence[int]) -> list[dict[str, Any]]:
    results: dict[int, dict[str, Any]] = {}
    for start in range(0, len(ids), _PAGE_ITEMS):
        page = ids[start : start + _PAGE_ITEMS]
        results |= {row.id: result_object(row) for row in await store.results_of(page)}
    return [results[item_id] for item_id in ids]


def _unfinished(result: WorkResult) -> str:
    counts = result.counts
    halted = result.stats.halted
    why = halted.why if halted else "the run was stopped by a signal."
    return (
        f"{why} {counts.done} of {counts.total} items are done and kept; "
        "run the same script again to go on."
    )


def _stopping(stop: Stop) -> str:
    if stop.now.is_set():
        return "stopping now; the calls in flight are abandoned"
    return "stopping: waiting for the calls in flight; a second signal stops at once"


def _other_recipe(word: str) -> OtherRecipe:
    try:
        return OtherRecipe(word)
    except ValueError:
        raise UsageError(f"recipe: {word!r} is not one of {', '.join(OtherRecipe)}") from None


def _in_async_code() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _tell(message: str) -> None:
    sys.stderr.write(f"batchgen: {message}\n")
