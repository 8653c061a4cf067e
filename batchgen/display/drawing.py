"""What the live display and the dashboard are drawn of: bars, rows, sentences, sparklines."""

import textwrap
from collections.abc import Iterator, Sequence

from rich.text import Text

from batchgen.display.visible import visible_line
from batchgen.store import Counts

Cell = tuple[str, str]  # text and style

STYLES = {"done": "green", "failed": "red", "running": "yellow", "pending": "dim"}
SHORTEST_BAR = 8
_STROKES = {"done": "━", "failed": "━", "running": "╍", "pending": "─"}
_SPARKS = "▁▂▃▄▅▆▇█"


def bar(counts: Counts, width: int) -> Text:
    """Rounded down, as the percentage: it is full only when nothing is left."""
    drawing, so_far, drawn = Text(), 0, 0
    for state, style in STYLES.items():
        so_far += getattr(counts, state)
        until = width * so_far // counts.total if counts.total else width
        drawing.append(_STROKES[state] * (until - drawn), style)
        drawn = until
    return drawing


def share(counts: Counts) -> str:
    return f"{number(counts.finished, counts)}/{counts.total:,} {counts.percent:>3}%"


def number(n: int, counts: Counts) -> str:
    """`n`, as wide as the largest that it can become, so that what follows keeps its place."""
    return f"{n:>{len(f'{counts.total:,}')},}"


def sparkline(values: Sequence[float | None], width: int) -> str:
    """The newest values, a cell each, from nothing to the highest of them; blank where None."""
    shown = values[-width:] if width > 0 else ()
    most = max((value for value in shown if value), default=0.0)
    scale = (len(_SPARKS) - 1) / most if most else 0.0
    return "".join(" " if value is None else _SPARKS[round(value * scale)] for value in shown)


def wrapped(cells: Sequence[Cell], width: int) -> Iterator[Text]:
    """The cells, three blanks apart, on as many lines as it takes, none for none: a cell is never
    torn."""
    row = line()
    for text, style in cells:
        gap = "   " if row else ""
        if row and len(row) + len(gap) + len(text) > width:
            yield row
            row, gap = line(), ""
        row.append(gap).append(text, style)
    if cells:
        yield row


def sentence(text: str, width: int, style: str = "") -> list[Text]:
    """Wrapped between words; what is below the first line is indented."""
    lines = textwrap.wrap(visible_line(text), max(10, width), subsequent_indent="  ")
    return [line(Text(part, style)) for part in lines]


def lines(text: str, width: int, n: int, style: str = "") -> Iterator[Text]:
    """Wrapped between words on `n` lines, and cut off there. With less to say they are there all
    the same, as a display that grows and shrinks would jump."""
    parts = textwrap.wrap(visible_line(text), max(1, width), max_lines=n, placeholder="…")
    for part in [*parts, *[" "] * (n - len(parts))]:
        yield line(Text(part, style))


def line(*parts: Text) -> Text:
    """One line, cut off where the terminal ends."""
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")
