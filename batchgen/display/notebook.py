"""How a run goes, in a notebook: the live display as HTML, drawn anew in the cell's output.

It needs no widgets, so it is there in Jupyter, VS Code and Colab, and stays in the saved notebook.
"""

import asyncio
import importlib
import io
import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console

from batchgen.display.commands import Commands
from batchgen.display.history import History, Look
from batchgen.display.live import LiveDisplay
from batchgen.display.run import LIVE_EVERY_S, RunDisplay

_WIDTH = 88
_HTML = '<pre style="line-height: 1.3; margin: 0">{code}</pre>'


def in_notebook() -> bool:
    """Whether the output of this process goes to a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


class NotebookDisplay(RunDisplay):
    """The display of a run in the output of a cell."""

    def __init__(self, commands: Commands) -> None:
        super().__init__(commands, Console(file=sys.stderr, force_jupyter=False, width=_WIDTH))
        self._output: CellOutput | None = None

    async def _show(self, look: Look) -> None:
        history = History()
        status = await history.observe(look)
        output = self._output = self._output or CellOutput(_display_of_ipython())
        try:
            while True:
                output.draw(LiveDisplay(status, history, self._commands))
                await asyncio.sleep(LIVE_EVERY_S)
                status = await history.observe(look)
        finally:
            status = await history.observe(look)
            output.draw(LiveDisplay(status, history, self._commands, is_last=True))


def _display_of_ipython() -> Callable[..., Any]:
    display: Callable[..., Any] = importlib.import_module("IPython.display").display
    return display


class CellOutput:
    """A place in the output of the cell. `display` is IPython's."""

    def __init__(self, display: Callable[..., Any]) -> None:
        self._display = display
        self._handle: Any = None

    def draw(self, drawing: LiveDisplay) -> None:
        console = Console(
            file=io.StringIO(), record=True, width=_WIDTH, force_jupyter=False,
            color_system="truecolor", force_terminal=True,
        )  # fmt: skip
        console.print(drawing)
        bundle = {
            "text/html": console.export_html(code_format=_HTML, inline_styles=True, clear=False),
            "text/plain": console.export_text(),
        }
        if self._handle is None:
            self._handle = self._display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)
