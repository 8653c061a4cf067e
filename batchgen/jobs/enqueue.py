"""Makes rows of the items of a data pool: they are read, checked against the templates, and added
unless the experiment has them already.

The pool is streamed: only a chunk is in memory, whatever its size. A chunk is one transaction; what
was enqueued before a bad line stays, and the corrected pool adds only what is new.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from batchgen.errors import (
    BatchgenError,
    Remedy,
    UsageError,
)
from batchgen.items import RAW, NewItem, ParserVersion, PoolItem, Recipe
from batchgen.jobs.ids_changed import refuse_changed_ids
from batchgen.jobs.lookup import is_results, name_of_item
from batchgen.jobs.pool_reader import Enqueued, PoolReader, SkipInvalid
from batchgen.jobs.recipe_choice import (
    Costs,
    estimate_of,
    other_recipe_error,
    still_running_error,
)
from batchgen.llm.prices import Estimate, Prices
from batchgen.pool import BadLine, read_item
from batchgen.prompts import Renderer
from batchgen.shutdown import uninterrupted
from batchgen.store import (
    Intake,
    OtherRecipe,
    PackedItems,
    Store,
    key_of_id,
    keys_of_contents,
)
from batchgen.text.json_text import content_of, dump_json, is_stored_as_given

if TYPE_CHECKING:  # what has no steps need not load them
    from batchgen.jobs.chain import ConfiguredChain

CHUNK_ITEMS = 5_000  # as many as make a commit cheap; two chunks of texts are in memory at once
_CHUNK_S = 3.0  # a slow source is added as it comes, and can be stopped
_TURN_S = 0.0003
_CHUNK_BYTES = 16 << 20  # fewer big items go into a chunk, so that memory stays bounded
_BYTES_A_WIDE_CHAR = 5  # 2 in a Python text, and 3 in the UTF-8 that SQLite makes of it

_ESTIMATED_ITEMS = 1000  # what the others cost is told from these


async def enqueue(
    store: Store,
    pool: Iterable[PoolItem | BadLine],
    recipe: Recipe,
    experiment: str,
    *,
    parser: ParserVersion = RAW,
    chain: "ConfiguredChain | None" = None,
    other_recipe: OtherRecipe = OtherRecipe.STOP,
    prices: Prices | None = None,
    samples: int = 1,
    priority: int = 0,
    skip_invalid: SkipInvalid | None = None,
    keep_ids: bool = False,
    pool_alone: bool = False,
    progress: Enqueued | None = None,
    directory: Path = Path(),
    parse_timeout_s: float = 30.0,
    say: Callable[[str], None] = lambda _: None,
) -> Enqueued:
    """Add the items of the pool that the experiment does not have; `samples` answers are wanted of
    each.

    Raises InputError or TemplateError at the first bad item, unless `skip_invalid` takes it, and
    UsageError when the experiment has another recipe and `other_recipe` does not say what to do;
    its message has what each way costs, in money too where the `prices` tell. `progress` is what is
    returned, and kept up to date also when it raises. With `pool_alone`, which needs `keep_ids`,
    `other_recipe` asks nothing again that is done and is not in the pool. Local images are looked
    for in `directory`. The `parser` becomes the experiment's. With a `chain` the experiment has its
    steps, and recipe and parser are those of the first one; what is done already and was made by
    other rules is followed by these, and a parser may take `parse_timeout_s` over what it reads
    again for that. `say` is told that another process is waited for.
    """
    progress = Enqueued() if progress is None else progress
    progress.samples, progress.ids = samples, [] if keep_ids else None
    reader = PoolReader(pool, recipe, skip_invalid, progress, directory, chain)
    reader.read_ahead()
    pool_again = pool_alone and other_recipe is OtherRecipe.AGAIN and chain is None
    mode = OtherRecipe.REPLACE if pool_again else other_recipe
    steps, asked = None if chain is None else chain.intake, Counter[int]()
    if chain is not None:
        from batchgen.jobs.step_changes import (  # here: few have steps
            ask_in_other_conversation,
            refuse_other_steps,
        )

        there = await refuse_other_steps(store, experiment, chain, mode)
        if there is not None and mode is OtherRecipe.AGAIN:
            asked.update(await ask_in_other_conversation(store, there, chain))
    async with store.enqueueing(
        experiment, recipe, mode, samples, parser, chain=steps, say=say
    ) as intake:
        await refuse_recipe(store, intake, reader, recipe, experiment, prices, pool_alone, chain)
        asked.update(intake.asked)
        progress.asked_anew = asked.total()
        with _short_turns():
            await _add_chunks(store, intake, reader, priority, progress, experiment)
        if pool_again:
            await _ask_pool_again(store, intake, progress)
    if chain is not None:
        from batchgen.jobs.follow import follow_done

        progress.followed = await follow_done(
            store, intake.experiment_id, {one.name: one.reader for one in chain.steps},
            progress.put_following, timeout_s=parse_timeout_s,
        )  # fmt: skip
        if progress.followed is not None:
            progress.asked_anew -= (asked & Counter(progress.followed.unasked)).total()
    return progress


@contextmanager
def _short_turns() -> Iterator[None]:
    """While inside, a thread that waits for Python's lock gets it soon. The thread that writes lets
    go of it for each statement; by Python's own 5 ms, it would get it back a few times in a chunk,
    and most of the writing would wait for the reading to be over."""
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(_TURN_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before_s)


async def _ask_pool_again(store: Store, intake: Intake, progress: Enqueued) -> None:
    """What of the pool is done with another recipe, too."""
    rows = progress.ids or []
    if intake.samples > 1:
        rows = await store.rows_of_items(rows, intake.samples)
    again = await store.ask_again(intake, rows)
    progress.asked_anew += again.asked
    progress.kept = again.kept


async def _add_chunks(
    store: Store, intake: Intake, reader: PoolReader, priority: int, progress: Enqueued,
    experiment: str,
) -> None:  # fmt: skip
    """Read the next chunk while SQLite writes the last one. An error is raised only after the good
    items before it have been added, and so is a cancellation: `progress` counts all that was
    written."""
    items = iter(reader)
    writing: asyncio.Task[None] | None = None
    error: BatchgenError | None = None
    new_before = 0
    try:
        while error is None:
            rows, error = next_chunk(items, intake)
            if progress.new > new_before and len(rows) == CHUNK_ITEMS:
                rows = PackedItems(rows)  # may be all new, too; of a few big ones it is no gain
            new_before = progress.new
            if writing is not None:
                await asyncio.shield(writing)
            else:
                await refuse_changed_ids(store, intake, rows, experiment)
            if not rows:
                break
            begun = asyncio.Event()
            writing = asyncio.create_task(
                _add_rows(store, intake, rows, reader, priority, progress, begun),
                name="enqueue chunk",
            )
            await begun.wait()  # then it is written, however long the next chunk is in coming
    finally:
        if writing is not None:
            await uninterrupted(asyncio.wait([writing]))
    if writing is not None:
        await writing
    if error is not None:
        raise error


def next_chunk(
    items: Iterator[PoolItem], intake: Intake
) -> tuple[list[NewItem], BatchgenError | None]:
    """The next items as rows, and what is wrong with the one after them."""
    rows: list[NewItem] = []
    key_of_content = keys_of_contents(intake.experiment_id, intake.variant)
    bytes_left, until_s = _CHUNK_BYTES // intake.samples, time.monotonic() + _CHUNK_S
    try:
        for item in islice(items, max(1, CHUNK_ITEMS // intake.samples)):
            custom_id, text = item.input.id, _stored(item)
            if custom_id is None:
                key = key_of_content(content_of(item.input.given))
            else:
                key = key_of_id(intake.experiment_id, intake.variant, custom_id)
            rows.append(NewItem(key, text, custom_id, item.where))
            bytes_left -= len(text) if text.isascii() else len(text) * _BYTES_A_WIDE_CHAR
            if bytes_left < 0 or time.monotonic() > until_s:
                break
    except UsageError as exc:
        return rows, exc
    return rows, None


async def _add_rows(
    store: Store, intake: Intake, rows: list[NewItem], reader: PoolReader, priority: int,
    progress: Enqueued, begun: asyncio.Event,
) -> None:  # fmt: skip
    """`begun` is set when the thread that writes has the rows, and in any case in the end."""
    say_begun = partial(asyncio.get_running_loop().call_soon_threadsafe, begun.set)
    try:
        while rows:
            added = await store.add_items(intake, rows, priority, say_begun)
            progress.new += added.new
            if progress.ids is not None:
                progress.ids += added.ids
            if added.conflict is None:
                return
            bad, rows = rows[len(added.ids)], rows[len(added.ids) + 1 :]
            conflict = id_conflict(bad, f"item {added.conflict}")
            owner = await name_of_item(store, added.conflict)
            reader.refuse_after_all(conflict, Remedy.SHOW_ITEM, item=owner)
    finally:
        begun.set()


def id_conflict(row: NewItem, owner: str) -> BadLine:
    """What is wrong with an item whose id is that of another one."""
    if is_results(row.where):
        what = "was made of an earlier result; enqueue the present ones into another experiment."
    else:
        what = "has other content; give this one another id."
    problem = f"id {row.custom_id!r} belongs to {owner} already, which {what}"
    return BadLine(row.where, problem, row.input_json)


def _stored(item: PoolItem) -> str:
    """An item just as it came, where it came as JSON. Of a name that it has twice the last one
    counts; but SQL, which reads the metadata for exports, takes the first."""
    text, given = item.text.strip(), item.input.given
    is_plain = "metadata" not in given or text.count('"metadata"') == 1
    return text if text and is_plain and is_stored_as_given(text) else dump_json(given)


async def refuse_recipe(
    store: Store, intake: Intake, reader: PoolReader, recipe: Recipe, experiment: str,
    prices: Prices | None, pool_alone: bool = False, chain: "ConfiguredChain | None" = None,
) -> None:  # fmt: skip
    """Raises UsageError when nothing was begun, or would be, as the recipe is another one, or that
    of a step of the `chain`, or its rules."""
    if intake.running:
        name = f"{experiment}/{intake.step}" if intake.step else experiment
        raise still_running_error(name, intake.running, intake.at_provider)
    if intake.choice is None and intake.other_plan is None:
        return
    estimate = None if chain else await estimate_of(store, intake.experiment_id, prices)
    read, new = await _count(store, intake, reader, estimate)
    if chain is not None:
        from batchgen.jobs.step_changes import other_steps_error  # here, too

        raise await other_steps_error(store, experiment, intake.experiment_id, chain, new)
    assert intake.choice is not None
    costs = Costs(estimate, min(read, _ESTIMATED_ITEMS))
    added = read * intake.samples
    raise other_recipe_error(experiment, recipe, intake.choice, costs, new, added, pool_alone)


async def _count(
    store: Store, intake: Intake, reader: PoolReader, estimate: Estimate | None
) -> tuple[int, int]:
    """How many items the pool has, and how many rows are new. It is read to its end for that: what
    is new in it is asked in any case. The first items go into the estimate."""
    read = new = 0
    items = iter(reader)
    async with store.counting(intake) as count_new:
        rows, error = next_chunk(items, intake)
        while rows and error is None:
            if estimate is not None:
                _add_to(estimate, rows[: max(0, _ESTIMATED_ITEMS - read)], reader.renderer)
            read += len(rows)
            new += (await count_new(rows)).rows
            rows, error = next_chunk(items, intake)
    if error is not None:
        raise error
    return read, new


def _add_to(estimate: Estimate, rows: list[NewItem], renderer: Renderer) -> None:
    for row in rows:
        item = read_item(json.loads(row.input_json), row.where)
        estimate.add(renderer.request_body(item), renderer.endpoint_of(item))
