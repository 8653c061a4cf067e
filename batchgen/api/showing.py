"""How a run's progress is shown: in place on a terminal and in a notebook, as lines elsewhere."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from batchgen.api.words import COMMANDS
from batchgen.display.history import Look
from batchgen.display.notebook import NotebookDisplay, in_notebook
from batchgen.display.run import PLAIN_EVERY_S, RunDisplay

_said: set[str] = set()


class Progress:
    """The display of one run. With `quiet` it shows no progress, and still says what must be."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._parsed_at = time.monotonic()
        self._display = NotebookDisplay(COMMANDS) if in_notebook() else RunDisplay(COMMANDS)

    def say(self, message: str) -> None:
        self._display.say(f"batchgen: {message}")

    def warn(self, message: str) -> None:
        self.say(f"warning: {message}")

    def warn_once(self, message: str) -> None:
        """Once in this process: it would be the same at each run."""
        if message not in _said:
            _said.add(message)
            self.warn(message)

    def parsed(self, answers: int, total: int) -> None:
        """So many stored answers are parsed again; said now and then."""
        if not self._quiet and time.monotonic() >= self._parsed_at + PLAIN_EVERY_S:
            self._parsed_at = time.monotonic()
            self.say(f"{answers} of {total} stored answers are parsed again")

    @asynccontextmanager
    async def telling(self, so_far: Callable[[], str]) -> AsyncIterator[None]:
        """Inside, it is said now and then how far something is."""

        async def tell() -> None:
            while not self._quiet:
                await asyncio.sleep(PLAIN_EVERY_S)
                self.say(so_far())

        telling = asyncio.create_task(tell(), name="tell")
        try:
            yield
        finally:
            telling.cancel()

    @asynccontextmanager
    async def showing(self, look: Look) -> AsyncIterator[None]:
        if self._quiet:
            yield
            return
        async with self._display.showing(look):
            yield
