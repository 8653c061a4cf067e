"""How a run's progress is shown: in place on a terminal and in a notebook, as lines elsewhere."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from batchgen.api.words import COMMANDS
from batchgen.display.history import Look
from batchgen.display.live import RunDisplay
from batchgen.display.notebook import NotebookDisplay, in_notebook


class Progress:
    """The display of one run. With `quiet` it shows no progress, and still says what must be."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._display = NotebookDisplay(COMMANDS) if in_notebook() else RunDisplay(COMMANDS)

    def say(self, message: str) -> None:
        self._display.say(f"batchgen: {message}")

    def warn(self, message: str) -> None:
        self.say(f"warning: {message}")

    @asynccontextmanager
    async def showing(self, look: Look) -> AsyncIterator[None]:
        if self._quiet:
            yield
            return
        async with self._display.showing(look):
            yield
