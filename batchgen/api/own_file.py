"""The file of an experiment, as runs write it: kept up to date with what is done while they work,
and in the order of the pool in the end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from batchgen.api.showing import Progress
from batchgen.config import Config
from batchgen.export import Overwriting, keep_live_file, output_path
from batchgen.jobs.export import export, live_file_of
from batchgen.store import Experiment, Store

# Of several runs of this process on one experiment the first one keeps the file up to date.
_kept: set[Path] = set()


class OwnFile:
    def __init__(
        self, store: Store, config: Config, experiment: Experiment, progress: Progress
    ) -> None:
        self._store, self._experiment, self._progress = store, experiment, progress
        self._output = config.output_data
        self._overwriting = Overwriting(config.own_files, say=progress.say)
        self.path = output_path(config.output_data, experiment)

    @asynccontextmanager
    async def kept(self, give_up: asyncio.Event) -> AsyncIterator[None]:
        """Inside, the file follows what is done. Raises UsageError before that for a file that must
        not be written over, BatchgenError for one that cannot be written."""
        if self.path in _kept:
            yield
            return
        _kept.add(self.path)
        try:
            live = await live_file_of(
                self._store, (self._experiment.id,), self.path, self._overwriting,
                say=self._progress.say,
            )  # fmt: skip
            async with keep_live_file(live, give_up, self._progress.warn):
                yield
        finally:
            _kept.discard(self.path)

    async def write(self) -> None:
        """All done rows, in the order of the pool, unless another run goes on with the file."""
        if self.path not in _kept:
            await export(
                self._store, self._output, self._experiment, self.path,
                overwriting=self._overwriting,
            )  # fmt: skip
