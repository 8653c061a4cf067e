"""A server at which batches are made, and what of a run all the parts need."""

import asyncio
import traceback
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from batchgen.config import BatchConfig
from batchgen.items import Item
from batchgen.llm.batches import BatchServer
from batchgen.llm.prices import Prices
from batchgen.worker.spec import ServerSpec, WorkSpec
from batchgen.worker.stats import Halt, RunContext


class Place(Struct, frozen=True):
    """One of the servers of a run: `prices` are those of calls in batches."""

    spec: ServerSpec
    server: BatchServer
    prices: Prices

    @property
    def key(self) -> str:
        return self.spec.key


class Ground(Struct, frozen=True):
    """What a run stands on. `directory` takes the files of requests while they are filled; `say`
    tells the user something that is no warning. Once it is stopped, what only waits is cancelled,
    and what is not to be left half done goes on until `no_patience` is set."""

    spec: WorkSpec
    config: BatchConfig
    context: RunContext
    places: tuple[Place, ...]
    directory: Path
    say: Callable[[str], None]
    no_patience: asyncio.Event

    def place(self, key: str) -> Place | None:
        """None: the config has no such server (any more)."""
        return next((one for one in self.places if one.key == key), None)

    def warn(self, message: str) -> None:
        warn = self.context.log.warn
        warn(message)

    def bug(self, item: Item, exc: Exception) -> None:
        """It has cost this row; to be called where it is handled."""
        self.context.log.bug(f"item {item.id}: {exc}", traceback.format_exc())

    def halt(self, halt: Halt) -> None:
        """Send nothing more; the first reason counts."""
        if self.context.stats.halted is None:
            self.context.stats.halted = halt

    @property
    def is_halted(self) -> bool:
        return self.context.stats.halted is not None

    @property
    def is_stopped(self) -> bool:
        return self.context.stop.drain.is_set()
