"""A live file: JSON lines that follow what is done, in finishing order, each exactly once.

Lines are appended and made durable, and then the database records up to which result the file is
written and how long it is. So after a crash the file is cut to the recorded length and goes on.
The whole of it is proven then by a hash, and once more at the end of the run. When it cannot go on,
because it was changed or holds results that were replaced since (`retry --done`, `reparse`), it is
rewritten from the start, beside its place, and renamed; what was changed is kept beside it.

A lock on the file keeps other processes from writing it. A plain export to its place replaces it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from batchgen.errors import BatchgenError, Remedy, UsageError
from batchgen.export.files import is_special, whole_file
from batchgen.export.formats import format_of
from batchgen.export.lines import export_line
from batchgen.export.tail import Tail, begins_with
from batchgen.export.targets import (
    NO_OVERWRITING,
    Overwriting,
    checked_target,
    claim_target,
    keep_changed,
    keep_if_changed,
)
from batchgen.shutdown import uninterrupted
from batchgen.store import Experiment, LiveFileRecord, Store

P = ParamSpec("P")
T = TypeVar("T")

FOLLOW_EVERY_S = 0.5
_PAGE_RESULTS = 500
_CHANGED = "it was not as batchgen had left it"


class LiveLines(Struct, frozen=True):
    """The lines of what is done of the results up to `result_seq`, `rows` of them; `is_last`: there
    were no more at that moment. `superseded_results`: so many results that were done had been
    replaced by then."""

    text: bytes
    rows: int
    result_seq: int
    is_last: bool
    superseded_results: int


class _SupersededError(Exception):
    """Results in the file, or about to be written to it, were replaced."""


class LiveFile:
    """The live file of one experiment. `say` is called with a line when the file is rewritten.
    Raises UsageError for a path that cannot be a live file's."""

    def __init__(
        self,
        store: Store,
        experiment: Experiment,
        path: Path,
        say: Callable[[str], None],
        overwriting: Overwriting = NO_OVERWRITING,
    ) -> None:
        self._store, self._experiment = store, experiment
        self._say = say
        self._tail: Tail | None = None
        self._record: LiveFileRecord | None = None
        self._was_ours = False
        self._why_rewrite = ""
        self._target = _live_target(path, store)
        self._overwriting = replace(overwriting, say=say)
        self._may_write = False
        self.path = path
        self.is_complete = False

    @property
    def rows(self) -> int:
        return self._record.rows if self._record else 0

    async def acquire(self) -> bool:
        """Open and lock the file, to go on as recorded or to be rewritten. False: another process
        has it.

        Raises OSError when it cannot be written, BatchgenError when it became another's, UsageError
        when another file is there that batchgen must not write over.
        """
        if not self._may_write:
            await claim_target(self.path, self._store, self._overwriting)
        if self._tail is not None and await on_thread(self._tail.is_as_left):
            return True
        self.release()
        self._tail = await on_thread(Tail.open, self._target)
        if self._tail is None:
            return False
        found = await self._store.files.live_file(self._target)
        if found is not None and found.experiment_id == self._experiment.id:
            await self._go_on(found, self._tail)
        elif self._was_ours:
            raise await self._lost_error()
        elif not self._may_write:  # the first time
            await keep_if_changed(self._target, self._store, self._overwriting)
        self._may_write = True
        return True

    async def _go_on(self, found: LiveFileRecord, tail: Tail) -> None:
        """As recorded, if the file is as it was left, but for what a crash may have added."""
        self._record, self._was_ours = found, True
        added = await on_thread(tail.lines_after, found.size_bytes)
        is_ours = await self._comes_next(added, found)
        if not (is_ours and await on_thread(tail.resume, found.size_bytes, found.sha256)):
            await self._give_up_changed()

    async def _comes_next(self, lines: bytes, record: LiveFileRecord) -> bool:
        """Whether they are the next ones that would be written."""
        pages = self._pages(record.result_seq, record.superseded_results)
        try:
            while lines and (page := await anext(pages, None)):
                known = page.text[: len(lines)]
                if not lines.startswith(known):
                    return False
                lines = lines[len(known) :]
        except _SupersededError:
            return True  # then all is written anew in any case
        return not lines

    async def _give_up_changed(self) -> None:
        if self._why_rewrite != _CHANGED:  # else it was kept when that was found out
            await keep_changed(self._target, self._overwriting)
        self._require_rewrite(_CHANGED)

    async def catch_up(self, *, last: bool = False) -> bool:
        """Write what is done by now; it is durable on return. False: another process has the file.

        `last`: if results are being replaced at this moment, wait for that to end. Raises as
        `acquire`.
        """
        try:
            while await self.acquire():
                try:
                    await (self._append() if self._record else self._rewrite())
                except _SupersededError:
                    self._require_rewrite("results in it were replaced (asked or parsed again)")
                    if not last:
                        return True
                    await asyncio.sleep(FOLLOW_EVERY_S)
                else:
                    if last and not await self._is_whole():
                        await self._give_up_changed()
                        continue
                    self.is_complete = last
                    return True
        except BaseException:
            self.release()  # what it holds beyond the record is cut off when it is acquired again
            raise
        return False

    async def _is_whole(self) -> bool:
        assert self._tail is not None
        return await on_thread(self._tail.is_whole)

    def release(self) -> None:
        """Close and unlock the file."""
        if self._tail is not None:
            self._tail.close()
            self._tail = None

    def _require_rewrite(self, why: str) -> None:
        self._record, self._why_rewrite = None, why

    async def _append(self) -> None:
        record, tail = self._record, self._tail
        assert record is not None
        assert tail is not None
        was = record
        async for page in self._pages(was.result_seq, was.superseded_results):
            await on_thread(tail.append, page.text)
            record = replace(record, result_seq=page.result_seq, rows=record.rows + page.rows)
        if record.rows > was.rows:
            await on_thread(tail.sync)
            record = replace(record, size_bytes=tail.size_bytes, sha256=tail.sha256)
            if not await self._store.files.move_live_file(record):
                raise await self._lost_error()
        self._record = record

    async def _rewrite(self) -> None:
        new: Tail | None = None
        rows, result_seq, superseded = 0, 0, None
        try:
            async with _entered(whole_file(self._target)) as file:
                new = Tail.of(self._target, file)
                async for page in self._pages(0, None):
                    await on_thread(new.append, page.text)
                    rows += page.rows
                    result_seq, superseded = page.result_seq, page.superseded_results
        except BaseException:
            if new is not None:
                new.close()
            raise
        assert superseded is not None
        self.release()
        self._tail = new
        record = LiveFileRecord(
            str(self._target), self._experiment.id, result_seq, rows, new.size_bytes, new.sha256,
            superseded,
        )  # fmt: skip
        await self._store.files.start_live_file(record)
        self._record, self._was_ours = record, True
        if self._why_rewrite:
            self._say(f"{self.path}: written anew, as {self._why_rewrite}")
            self._why_rewrite = ""

    async def _pages(self, after: int, superseded: int | None) -> AsyncIterator[LiveLines]:
        """The results after result `after`, until there are no more. `superseded` is how many had
        been replaced when the file was written so far; raises _SupersededError when more were."""
        async for page in live_pages(self._store, self._experiment, after):
            if superseded not in (None, page.superseded_results):
                raise _SupersededError
            superseded = page.superseded_results
            yield page

    async def _lost_error(self) -> BatchgenError:
        """The error that says why another command owns the file now."""
        if await self._store.files.live_page(self._experiment.id, 0, 1) is None:
            return _deleted(self._experiment)
        return BatchgenError(
            f"{self.path}: another batchgen command wrote it meanwhile, so it is not kept up to "
            "date any more."
        )


async def live_pages(store: Store, experiment: Experiment, after: int) -> AsyncIterator[LiveLines]:
    """The results after result `after`, until there are no more; at least one page. Raises
    BatchgenError when the experiment was deleted."""
    read = _lines_of_results if experiment.step is None else _lines_of_chains
    while True:
        page = await read(store, experiment.id, after)
        if page is None:
            raise _deleted(experiment)
        yield page
        if page.is_last:
            return
        after = page.result_seq


async def _lines_of_results(store: Store, experiment_id: int, after: int) -> LiveLines | None:
    page = await store.files.live_page(experiment_id, after, _PAGE_RESULTS)
    if page is None:
        return None
    text = "".join(map(export_line, page.rows)).encode()
    return LiveLines(
        text, len(page.rows), page.result_seq, page.is_last, page.superseded_results
    )  # fmt: skip


async def _lines_of_chains(store: Store, first_id: int, after: int) -> LiveLines | None:
    from batchgen.export.chains import newly_ended  # here: few experiments have steps

    page = await store.chains.live_chain_page(first_id, after, _PAGE_RESULTS)
    if page is None:
        return None
    texts = [one.text for one in newly_ended(page)]
    text = "".join(texts).encode()
    return LiveLines(text, len(texts), page.result_seq, page.is_last, page.superseded_results)


async def check_live_file(store: Store, record: LiveFileRecord) -> str | None:
    """What is wrong with a live file, or None. That it is gone, or is being written at this moment,
    is not wrong."""
    path = Path(record.path)
    if await asyncio.to_thread(_is_sound, path, record):
        return None
    now = await store.files.live_file(path)
    if now != record:  # it was written meanwhile
        return await check_live_file(store, now) if now else None
    return f"{path}: is not as batchgen left it (changed since?); the next run rewrites it"


def _is_sound(path: Path, record: LiveFileRecord) -> bool:
    try:
        if begins_with(path, record.size_bytes, record.sha256):
            return True
        tail = Tail.open(path)
    except OSError:
        return not path.exists()
    if tail is not None:
        tail.close()
    return tail is None


def _live_target(path: Path, store: Store) -> Path:
    """`path` with its links followed. Raises UsageError for what cannot be a live file."""
    if not format_of(path).is_export_line:
        raise UsageError(
            f"{path}: a file that is kept up to date has JSON lines; give it another suffix, or "
            "export it as a table when the work is done."
        )
    if str(path) == "-" or (is_special(path) and not path.is_dir()):
        raise UsageError(
            f"{path}: is not a regular file, so it cannot be kept up to date.",
            Remedy.FOLLOW_TO_STDOUT,
        )
    return checked_target(path, store)


def _deleted(experiment: Experiment) -> BatchgenError:
    return BatchgenError(
        f"experiment {experiment.name!r} was deleted, so there is nothing to follow."
    )


async def on_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking call on a thread, to its end also when cancelled."""
    return await uninterrupted(asyncio.to_thread(call, *args, **kwargs))


@asynccontextmanager
async def _entered(manager: AbstractContextManager[T]) -> AsyncIterator[T]:
    """Enter and leave a blocking context manager on a thread."""
    value = await on_thread(manager.__enter__)
    try:
        yield value
    except BaseException as exc:
        if not await on_thread(manager.__exit__, type(exc), exc, exc.__traceback__):
            raise
    else:
        await on_thread(manager.__exit__, None, None, None)
