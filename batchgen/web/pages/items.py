"""Rows of an experiment: a table of them, by what the URL asks for, and the ways from one to the
next."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web
from msgspec import Struct
from msgspec.structs import replace

from batchgen.errors import UsageError
from batchgen.items import Reason, State
from batchgen.jobs.batches import numbers_of
from batchgen.jobs.browse import BUDGET_S, Shown, Wanted, browse, neighbour
from batchgen.jobs.item_page import NO_INPUT
from batchgen.jobs.row_names import RowName, row_name
from batchgen.store import Order, PageRow
from batchgen.web.reader import Reader
from batchgen.web.shown import path
from batchgen.web.view import View

QUICK_S = 0.04  # for what an index finds
_MOST_COLUMNS, _MOST_LONG, _ALWAYS_SHOWN = 6, 3, 2
_LONG = 14  # characters
# A member of an object, with its value if that is no list and no object.
_MEMBER = re.compile(
    r'\s*"((?:[^"\\]|\\.)*)"\s*:\s*("(?:[^"\\]|\\.)*(?:"|\\?$)|[^\s",{}\[\]]+)\s*,?\s*'
)


class Line(Struct, frozen=True):
    """A row of the table, with what was `given`. `values` are those of the columns, where it has
    any; else there is what was `said`, or the number of the provider `batch` that holds it."""

    row: PageRow
    url: str
    name: RowName
    step: str | None
    given: str
    said: str
    values: tuple[str, ...] | None
    batch: int | None = None


class Column(Struct, frozen=True):
    """A field of the values. Of those that are `long` on this page there is the beginning, and
    where there is little room there are none that are `spare`."""

    name: str
    is_long: bool
    is_spare: bool


class Rows(Struct, frozen=True):
    """A table of rows. `texts` columns share the room that others leave."""

    lines: tuple[Line, ...]
    columns: tuple[Column, ...]
    has_steps: bool
    has_states: bool
    has_input: bool
    texts: int

    @property
    def spare(self) -> int:
        return sum(one.is_spare for one in self.columns)


class Tab(Struct, frozen=True):
    """A link to rows of a state (its key); `n` of them."""

    key: str
    n: int
    url: str
    is_here: bool


async def items(view: View, request: web.Request) -> web.StreamResponse:
    name, query = request.match_info["name"], request.query
    t = view.frame.text(request)
    problem, found, wanted = None, None, Wanted(name)
    try:
        wanted = wanted_of(name, query)
        reader, budget_s = _reader(view, wanted)
        found = await reader.read(
            lambda store: browse(
                store, wanted, after=query.get("after"), before=query.get("before"),
                budget_s=budget_s,
            )
        )  # fmt: skip
    except UsageError as exc:
        problem = exc
        counted = await view.pages.read(
            lambda store: browse(store, Wanted(name), limit=1, budget_s=0)
        )
    else:
        counted = found
    # Rows of other experiments may stand in between.
    looked_at = min(_number(query.get("looked")) + found.looked_at, found.of) if found else 0
    return view.frame.page(
        request, "items.html", title=name, experiment=name, section="items",
        status=400 if problem else 200, command=_export(wanted, found) if found else None,
        wanted=wanted, given=_given(query), problem=problem, found=found,
        shown=found and rows_of(found, wanted, await _held(view, found)),
        tabs=_tabs(name, wanted, query, counted, has_batches=await _has_batches(view)),
        steps=list(dict.fromkeys(counted.steps.values())),
        reasons=[(one.value, counted.counts.reasons[one.value]) for one in Reason
                 if counted.counts.reasons[one.value]],
        previous=_page(name, query, before=found.previous) if found and found.previous else None,
        next=_next(name, query, found, looked_at if wanted.is_searched else 0) if found else None,
        first=_page(name, query) if query.get("after") or query.get("before") else None,
        review=_review(wanted, found) if found and found.rows else None,
        looked_at=looked_at, is_searched=wanted.is_searched,
        none_ended=path("e", name, "items", **{**_given(query), "order": "pool"})
        if wanted.state is None and wanted.order is Order.NEWEST and counted.counts.open
        and not wanted.is_searched and not query.get("after") else None,
        is_live=not wanted.is_searched and not query.get("after") and not query.get("before"),
        # Lines of chains have one order.
        orders=[] if counted.steps and wanted.where else
        [(one.value, t(f"order_{one.value}")) for one in Order],
    )  # fmt: skip


async def _has_batches(view: View) -> bool:
    """Whether some are not closed."""
    return bool(await view.pages.read(lambda store: store.batches.unfinished()))


async def _held(view: View, found: Shown) -> Mapping[int, int]:
    running = [row.id for row in found.rows if row.state == State.RUNNING]
    if not running:
        return {}
    return await view.pages.read(lambda store: numbers_of(store, running))


async def step_to(view: View, request: web.Request) -> web.StreamResponse:
    """From the row at a place (`at`) to the next one that is wanted, or to the one before; where
    there is none, back to the `row` that somebody came from."""
    name, query = request.match_info["name"], request.query
    wanted, back = wanted_of(name, query), request.match_info["way"] == "previous"
    reader, budget_s = _reader(view, wanted)
    at = query.get("at", "")
    found = await reader.read(
        lambda store: neighbour(store, wanted, at, back=back, budget_s=budget_s)
    )
    if found.row is not None:
        kept = {**_given(query), "e": name, "at": found.place}
        raise web.HTTPFound(path("items", found.row, **kept))
    t = view.frame.text(request)
    if found.place is not None:
        side = {"before": found.place} if back else {"after": found.place}
        return view.frame.lead(_page(name, query, **side), t("none_near"))
    own, told = _number(query.get("row")), t("none_before" if back else "none_after")
    if not own:
        return view.frame.lead(_page(name, query), told)
    return view.frame.lead(path("items", own, **_given(query), e=name, at=at), told)


def wanted_of(name: str, query: Mapping[str, str]) -> Wanted:
    """Raises UsageError for what cannot be."""
    given = _given(query)
    state = _one_of("state", State, given.get("state"))
    usual = Order.POOL if state is State.FAILED else Order.NEWEST
    reason = _one_of("reason", Reason, given.get("reason"))
    return Wanted(
        name, given.get("step"), state, reason and reason.value, given.get("where"),
        given.get("q"), _one_of("order", Order, given.get("order")) or usual,
    )  # fmt: skip


def _one_of(name: str, kinds: Any, given: str | None) -> Any:
    if given is None:
        return None
    try:
        return kinds(given)
    except ValueError:
        known = ", ".join(kinds)
        raise UsageError(f"{name}: there is no {given[:60]!r}; there is: {known}.") from None


def _given(query: Mapping[str, str]) -> dict[str, str]:
    """What is wanted, as the URL has it, without what is empty in a form."""
    names = ("step", "state", "reason", "where", "q", "order")
    return {name: one for name in names if (one := query.get(name, "").strip())}


def _reader(view: View, wanted: Wanted) -> tuple[Reader, float]:
    return (view.scans, BUDGET_S) if wanted.is_searched else (view.pages, QUICK_S)


def _page(name: str, query: Mapping[str, str], **place: object) -> str:
    return path("e", name, "items", **_given(query), **place)


def _next(name: str, query: Mapping[str, str], found: Shown, looked_at: int) -> str | None:
    if found.next is None:
        return None
    return _page(name, query, after=found.next, looked=looked_at or None)


def _number(text: str | None) -> int:
    is_one = text is not None and text.isascii() and text.isdecimal() and len(text) < 16
    return int(text) if text and is_one else 0


def _tabs(
    name: str, wanted: Wanted, query: Mapping[str, str], found: Shown, *, has_batches: bool
) -> list[Tab]:
    counts, kept = found.counts, {"step": wanted.step, "order": query.get("order") or None}
    there: list[tuple[str, str | None, int]] = [("all_rows", None, counts.total)]
    keys = {State.RUNNING: "running_or_in_batches"} if has_batches else {}
    there += [(keys.get(one, one.value), one.value, getattr(counts, one.value)) for one in State]
    order = kept["order"] or ("pool" if wanted.order is Order.POOL and not wanted.state else None)
    return [
        Tab(key, n, path("e", name, "items", step=wanted.step, state=state,
                         order=order if state in (None, "done") else None),
            wanted.state == state)
        for key, state, n in there
        if n or state in (None, "done", wanted.state)
    ]  # fmt: skip


def _export(wanted: Wanted, found: Shown) -> list[str] | None:
    """The command that has these rows, in the order of the pool. None: there is none, as an export
    has what has ended, of steps chains, and chooses by no text and no reason."""
    is_one_kind = not found.steps or found.step is not None or wanted.where is not None
    all_have_ended = found.counts.finished == found.counts.total
    is_ended = wanted.state in (State.DONE, State.FAILED) or (
        wanted.state is None
        and (wanted.order is Order.NEWEST or wanted.where is not None or all_have_ended)
    )
    if wanted.text or wanted.reason or not is_one_kind or not is_ended:
        return None
    words = ["export", "--experiment", wanted.experiment]
    words += ["--step", wanted.step] if wanted.step else []
    words += {State.FAILED: ["--failed"], None: ["--all"]}.get(wanted.state, [])
    return [*words, "--where", wanted.where] if wanted.where else words


def _review(wanted: Wanted, found: Shown) -> str | None:
    """Where such rows are reviewed, if a condition chooses them: of steps those of one."""
    is_of_chains = bool(found.steps) and found.step is None
    if is_of_chains or wanted.where is None or wanted.text or wanted.state is State.FAILED:
        return None
    name = f"{wanted.experiment}/{wanted.step}" if wanted.step else wanted.experiment
    return path("e", name, "review", where=wanted.where)


# The table


def rows_of(found: Shown, wanted: Wanted, held: Mapping[int, int] = {}) -> Rows:
    """As a table; each leads to its page, and from there to its neighbours here. Rows of several
    steps have values of several kinds, and so no columns for these. `held` are those in provider
    batches, with the numbers of these."""
    has_steps = found.step is None and len({row.experiment_id for row in found.rows}) > 1
    columns = () if has_steps else _columns(found.rows)
    kept = {
        "e": wanted.experiment, "step": wanted.step, "state": wanted.state, "reason": wanted.reason,
        "where": wanted.where, "q": wanted.text, "order": wanted.order.value,
    }  # fmt: skip
    lines = tuple(
        replace(
            line_of(row, found, path("items", row.id, **kept, at=place), columns),
            batch=held.get(row.id),
        )
        for row, place in zip(found.rows, found.places, strict=True)
    )
    has_input = any(line.given for line in lines)
    texts = has_input + (sum(one.is_long for one in columns) if columns else 1)
    return Rows(lines, columns, has_steps, wanted.state is None, has_input, texts)


def line_of(row: PageRow, found: Shown, url: str, columns: Sequence[Column] = ()) -> Line:
    """A row as a table of such rows has it."""
    given = row.origin.input if row.origin and row.input == NO_INPUT else row.input
    return Line(
        row, url, row_name(row, found.lists), found.steps.get(row.experiment_id),
        _given_text(given), said_of(row), _values(row, columns),
    )  # fmt: skip


def _given_text(given: str) -> str:
    """An input, of which only the beginning may be there: its values, if it is a flat object."""
    values, place = list[str](), 1
    while given[:1] == "{" and (found := _MEMBER.match(given, place)):
        place = found.end()
        if found[1] != "id":  # it stands beside it
            values.append(_unquoted(found[2]))
    is_flat = given[place:].strip() in ("", "}")
    return " · ".join(values) if values and is_flat else given


def _unquoted(value: str) -> str:
    """A text whose end may be missing; another value as it is."""
    if value[:1] != '"':
        return value
    text = _json(value)
    if text is None:  # cut off, perhaps in the middle of an escape
        text = _json(re.sub(r"\\(u[0-9a-fA-F]{0,3})?$", "", value) + '"')
    return text if isinstance(text, str) else value


def _columns(rows: Sequence[PageRow]) -> tuple[Column, ...]:
    """The fields of the values that are objects, as far as there is room."""
    seen, longest = Counter[str](), Counter[str]()
    for row in rows:
        for name, value in (_object(row) or {}).items():
            seen[name] += 1
            longest[name] = max(longest[name], len(_text(value)))
    order, chosen, n_long = list(seen), list[str](), 0
    for name, _ in seen.most_common():
        is_long = longest[name] > _LONG
        if len(chosen) < _MOST_COLUMNS and (not is_long or n_long < _MOST_LONG):
            chosen.append(name)
            n_long += is_long
    chosen.sort(key=order.index)
    return tuple(
        Column(name, longest[name] > _LONG, place >= _ALWAYS_SHOWN)
        for place, name in enumerate(chosen)
    )


def _values(row: PageRow, columns: Sequence[Column]) -> tuple[str, ...] | None:
    value = _object(row)
    if value is None or not columns:
        return None
    return tuple(_text(value[one.name]) if one.name in value else "" for one in columns)


def said_of(row: PageRow) -> str:
    """The value or, where it is that, the answer; of an object each field by its name."""
    value = _object(row)
    if value:
        return " · ".join(f"{name}: {_text(one)}" for name, one in value.items())
    return row.answer or "" if row.parsed is None else _unquoted(row.parsed)


def _object(row: PageRow) -> dict[str, Any] | None:
    value = _json(row.parsed) if row.is_parsed_whole and row.parsed else None
    return value if isinstance(value, dict) else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
