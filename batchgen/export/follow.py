"""Follows the work: keeps a live file up to date while workers work, or until nothing is left."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any

from batchgen.errors import BatchgenError, StoreError, UsageError
from batchgen.export.live_file import FOLLOW_EVERY_S, LiveFile, live_pages, on_thread
from batchgen.export.tail import lock_holder
from batchgen.shutdown import uninterrupted
from batchgen.store import Experiment, Store


@asynccontextmanager
async def keep_live_file(
    live: LiveFile, give_up: asyncio.Event, warn: Callable[[str], None]
) -> AsyncIterator[None]:
    """Inside the block, the file follows what is done. When the block ends it is completed, unless
    an error ended the block or `give_up` is set meanwhile; then it is unlocked, also when all of
    this is cancelled. A problem with the file is a warning."""
    work_over = asyncio.Event()
    following = asyncio.create_task(_append_until(work_over, live, warn), name="live file")
    giving_up = asyncio.create_task(give_up.wait(), name="give up the live file")
    try:
        yield
        work_over.set()
        await asyncio.wait([following, giving_up], return_when=asyncio.FIRST_COMPLETED)
    finally:
        await uninterrupted(_end_following([following, giving_up], live))
    if not following.cancelled():
        following.result()


async def _end_following(tasks: Sequence[asyncio.Task[Any]], live: LiveFile) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    live.release()


async def _append_until(
    work_over: asyncio.Event, live: LiveFile, warn: Callable[[str], None]
) -> None:
    warned = set()
    while True:
        last, problem = work_over.is_set(), None
        try:
            if not await live.catch_up(last=last):
                problem = f"{_locked_by_another(live.path)}; this one leaves it alone"
        except (OSError, StoreError) as exc:
            problem = (
                f"{_cannot_write(live.path, exc)} The work goes on; the next run completes it."
            )
        except BatchgenError as exc:
            warn(str(exc))
            return
        if problem and problem not in warned:
            warned.add(problem)
            warn(problem)
        if last:
            return
        try:
            async with asyncio.timeout(FOLLOW_EVERY_S):
                await work_over.wait()
        except TimeoutError:
            pass


async def follow_to_file(live: LiveFile, store: Store, experiment: Experiment) -> None:
    """Keep the file up to date until the experiment has nothing pending or running.

    Raises UsageError when another process does so already, and BatchgenError when the file cannot
    be written.
    """
    try:
        async for is_last in _polls(store, experiment):
            if not await live.catch_up(last=is_last):
                raise UsageError(f"{_locked_by_another(live.path)}; name another file.")
    except OSError as exc:
        raise BatchgenError(_cannot_write(live.path, exc)) from exc
    finally:
        live.release()


async def follow_to_stream(
    store: Store, experiment: Experiment, file: IO[bytes], warn: Callable[[str], None]
) -> None:
    """Write what is done to an open file, from the start, until the experiment has nothing pending
    or running. Lines of results that are replaced later stay."""
    after, superseded = 0, None

    def write(lines: bytes) -> None:
        file.write(lines)
        file.flush()

    async for _ in _polls(store, experiment):
        async for page in live_pages(store, experiment, after):
            if superseded not in (None, page.superseded_results):
                warn(
                    "results were replaced (asked or parsed again): their lines stay, "
                    "and the new ones follow"
                )
            after, superseded = page.result_seq, page.superseded_results
            await on_thread(write, page.text)


async def _polls(store: Store, experiment: Experiment) -> AsyncIterator[bool]:
    """Yields whenever it is time to look for new results: False, and once True in the end, when
    nothing was left to be done."""
    ids = await ids_of_steps(store, experiment)
    while (await store.counts(ids)).open:
        yield False
        await asyncio.sleep(FOLLOW_EVERY_S)
    yield True


async def ids_of_steps(store: Store, experiment: Experiment) -> list[int]:
    """Of the experiments that are its steps; its own, where it has none."""
    chain = await store.chain_if_step(experiment)
    return [step.experiment_id for step in chain.steps] if chain else [experiment.id]


def _locked_by_another(path: Path) -> str:
    return f"{path}: {lock_holder(path)} keeps it up to date"


def _cannot_write(path: Path, exc: OSError | StoreError) -> str:
    why = exc.strerror or exc if isinstance(exc, OSError) else exc
    return f"{path}: cannot be kept up to date ({why})."
