"""How values look on a page: numbers, costs, times, and texts from outside."""

from datetime import UTC, datetime
from urllib.parse import quote

from markupsafe import Markup, escape

from batchgen.clock import timestamp
from batchgen.display.times import duration
from batchgen.display.visible import pieces, visible, visible_line

__all__ = [
    "cost", "duration", "ends", "finalize", "in_bytes", "line", "marked", "moment", "number",
    "path", "percent", "seconds", "size", "utc", "with_code",
]  # fmt: skip


def finalize(value: object) -> object:
    """What becomes of all that a template shows: a text is made visible, so that none can turn the
    direction of what stands beside it. `exact` is for the value of a form's field."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value)
    return "" if value is None else value


def number(n: float) -> str:
    """12,345; of a part 0.52, 3.1, 120."""
    if isinstance(n, int) or n >= 100:
        return f"{n:,.0f}"
    return f"{n:.1f}" if n >= 1 else f"{n:.2f}"


def cost(usd: float) -> str:
    if 0 < usd < 0.0001:
        return "< $0.0001"
    return f"${usd:,.2f}" if usd >= 100 else f"${usd:,.4f}"


def seconds(s: float) -> str:
    """Of a call: 0.52 s, 12.5 s, 3 min 20 s."""
    if s >= 100:
        return duration(s)
    return f"{s:.1f} s" if s >= 10 else f"{s:.2f} s"


def percent(part: float, whole: float) -> str:
    """All and nothing only where it is so."""
    if not part:
        return "0 %"
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "< 0.1 %"
    return f"{min(share, 99.9):.1f} %" if part < whole else "100 %"


def size(characters: int) -> str:
    """Of a text: 120, 12.3 k, 1.2 M characters."""
    if characters < 10_000:
        return f"{characters:,}"
    return f"{characters / 1e3:,.1f} k" if characters < 1e6 else f"{characters / 1e6:,.1f} M"


def in_bytes(n: int) -> str:
    """120 bytes, 12.3 kB, 1.2 MB."""
    if n < 1000:
        return f"{n:,} bytes"
    return f"{n / 1e3:,.1f} kB" if n < 1e6 else f"{n / 1e6:,.1f} MB"


def moment(at_ms: int) -> Markup:
    """When it was, by the clock of the wall beside this machine."""
    local = datetime.fromtimestamp(at_ms / 1000, UTC).astimezone()
    return Markup('<time datetime="{}">{}</time>').format(
        timestamp(at_ms), f"{local:%Y-%m-%d %H:%M:%S}"
    )


def utc(at_ms: int) -> Markup:
    """The same for somebody elsewhere, to the minute."""
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        timestamp(at_ms), f"{at:%Y-%m-%d %H:%M} UTC"
    )


def line(text: str, most: int = 240) -> str:
    """The beginning, on one line."""
    shown = visible_line(text[: most + 1])
    return f"{shown[:most]}…" if len(shown) > most else shown


def ends(text: str, most: int = 22) -> str:
    """Of an id, on one line: where it is long both its ends, as ids differ at these."""
    if len(text) <= most:
        return visible_line(text)
    return f"{visible_line(text[: most // 2 - 1])}…{visible_line(text[-(most // 2) :])}"


def marked(text: str) -> Markup:
    """A text from outside, as text: what cannot be seen and does something is marked by its code
    point. Lines stay lines."""
    return Markup().join(
        Markup('<span class="mark">{}</span>').format(piece) if is_mark else escape(piece)
        for piece, is_mark in pieces(text)
    )


def with_code(text: str) -> Markup:
    """A sentence with commands, each in backticks; a command breaks between its words only."""
    return Markup().join(
        Markup("<code>{}</code>").format(_words(piece)) if at % 2 else visible(piece)
        for at, piece in enumerate(text.split("`"))
    )


def _words(command: str) -> Markup:
    return Markup(" ").join(
        Markup("<span>{}</span>").format(visible(w)) for w in command.split(" ")
    )


def path(*parts: object, **query: object) -> str:
    """The URL of a page: `path("e", "my/name", "items", state="failed")`. None is left out."""
    place = "/" + "/".join(quote(str(part), safe="") for part in parts)
    given = [
        f"{name}={quote(str(value), safe='')}" for name, value in query.items() if value is not None
    ]
    return f"{place}?{'&'.join(given)}" if given else place


def exact(text: str) -> Markup:
    """As it is, for the value of a form's field: nothing is made visible in it."""
    return escape(text)
