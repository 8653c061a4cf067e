"""What the values look like, field by field: of rows that are drawn at random."""

from aiohttp import web
from msgspec import Struct

from batchgen.errors import UsageError
from batchgen.jobs.browse import BUDGET_S
from batchgen.jobs.experiments import standing_of
from batchgen.jobs.profile import FEW, MOST_ROWS, TYPES, FieldProfile, Sampled, Spread, sampled
from batchgen.web.shown import number, path
from batchgen.web.view import View

_SEED, _MOST_SEED = 1, 10**9


class Value(Struct, frozen=True):
    """One of the most frequent values, with the rows that have it."""

    shown: str
    n: int
    url: str | None


class Field(Struct, frozen=True):
    """A field; `absent` rows do not have it, or null, and are at `absent_url`."""

    of: FieldProfile
    name: str
    there: int
    absent: int
    absent_url: str
    values: tuple[Value, ...]
    ranges: tuple[tuple[str, str], ...]


async def fields(view: View, request: web.Request) -> web.StreamResponse:
    """`?n=` rows, drawn by `?seed=`, of a `?step=`."""
    name, query = request.match_info["name"], request.query
    rows = _number("n", query.get("n"), MOST_ROWS, 1, MOST_ROWS)
    seed = _number("seed", query.get("seed"), _SEED, 0, _MOST_SEED)
    step = query.get("step") or None
    found = await view.scans.read(
        lambda store: sampled(store, name, step, rows, seed, BUDGET_S)
    )  # fmt: skip
    standing = None if found.profile.rows else await view.pages.read(
        lambda store: standing_of(store, found.experiment)
    )  # fmt: skip
    kept = {"n": query.get("n"), "step": step}
    return view.frame.page(
        request, "fields.html", title=name, experiment=name, section="fields", found=found,
        profile=found.profile, rows=rows, most_rows=MOST_ROWS, most_seed=_MOST_SEED,
        few=FEW, step=step, standing=standing,
        fields=[_field(found, one) for one in found.profile.fields],
        types={name: view.frame.text(request)(f"type_{name}") for name in TYPES},
        another=path("e", name, "fields", **kept, seed=(seed + 1) % _MOST_SEED),
        steps=[
            (one, path("e", found.experiment, "fields", step=one, n=query.get("n"),
                       seed=query.get("seed")))
            for one in found.steps
        ],
    )  # fmt: skip


def _field(found: Sampled, one: FieldProfile) -> Field:
    def rows(where: str) -> str:
        return path(
            "e", found.experiment, "items", step=found.step, state="done", where=where
        )  # fmt: skip

    measured = (("numbers", one.numbers), ("lengths", one.lengths), ("elements", one.elements))
    return Field(
        one, one.path.removeprefix("parsed").removeprefix(".") or "parsed",
        found.profile.rows - one.missing, one.missing + one.nulls, rows(f"{one.path} == null"),
        tuple(
            Value(value.shown, value.n, None if value.where is None else rows(value.where))
            for value in one.top
        ),
        tuple((f"field_{name}", _range(spread)) for name, spread in measured if spread),
    )  # fmt: skip


def _range(spread: Spread) -> str:
    return " · ".join(map(_figure, (spread.least, spread.median, spread.most)))


def _figure(value: float) -> str:
    """12, 0.25, 1.5e+20."""
    if abs(value) >= 1e15:
        return f"{value:.4g}"
    return number(int(value)) if value.is_integer() else f"{value:,.4g}"


def _number(name: str, text: str | None, usual: int, least: int, most: int) -> int:
    """Raises UsageError for what is none, or none that there can be."""
    if not (text or "").strip():
        return usual
    digits = (text or "").strip()
    value = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 20 else -1
    if not least <= value <= most:
        raise UsageError(f"{name}: {digits!r:.40} is not a whole number from {least} to {most:,}.")
    return value
