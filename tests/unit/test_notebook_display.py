"""The live display in a notebook: one output that is drawn anew."""

from typing import Any

from batchgen.api.words import COMMANDS
from batchgen.display.history import Interval
from batchgen.display.live import LiveDisplay
from batchgen.display.notebook import CellOutput, in_notebook
from tests.kits.looks import counts, going, status

HISTORY = going(Interval(10.0, 50, 50, 0, 1000, 0.0), elapsed_s=10)


class Cell:
    """What IPython's `display` is given, and its handle."""

    def __init__(self) -> None:
        self.drawn: list[dict[str, str]] = []

    def display(self, bundle: dict[str, str], **options: Any) -> "Cell":
        assert options == {"raw": True, "display_id": True}
        self.drawn.append(bundle)
        return self

    def update(self, bundle: dict[str, str], **options: Any) -> None:
        assert options == {"raw": True}
        self.drawn.append(bundle)


def test_it_is_html_and_text_in_one_output() -> None:
    cell = Cell()
    output = CellOutput(cell.display)
    for done in (10, 20):
        look = status(counts(done=done, pending=30 - done))
        output.draw(LiveDisplay(look, HISTORY, COMMANDS))
    first, second = cell.drawn
    assert "done 10" in first["text/plain"].replace("  ", " ")
    assert second["text/html"].startswith("<pre")
    assert "20" in second["text/html"]


def test_the_tests_run_in_no_notebook() -> None:
    assert not in_notebook()
