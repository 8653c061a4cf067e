"""Answers one after another, to accept, reject or edit: what `review` does, a row at a time."""

import json
from collections.abc import Callable, Coroutine, Mapping
from random import randrange
from typing import Any, TypeVar

from aiohttp import web
from msgspec import UNSET, Struct, UnsetType

from batchgen.display.items import prompt_parts
from batchgen.errors import UsageError
from batchgen.jobs.experiments import Standing, standing_of
from batchgen.jobs.item_page import ItemPage, item_page
from batchgen.jobs.review import STATES, edit_json
from batchgen.jobs.review_queue import (
    MOST_ROWS,
    Found,
    PlaceIn,
    Queue,
    Sample,
    Target,
    after,
    counts_of,
    first_of,
    place_in,
    sample_of,
    target_of,
)
from batchgen.jobs.row_names import RowName, row_names
from batchgen.store import ReadStore, Review, ReviewChange, ReviewCounts, Verdict
from batchgen.text.json_text import dump_json
from batchgen.web.forms import form_of
from batchgen.web.pages.item import name_shown, others_of, pretty, pretty_value
from batchgen.web.shown import path
from batchgen.web.view import View

T = TypeVar("T")
_ROWS, _SEEDS, _MOST_DIGITS = 100, 1000, 18
_MOST_CHARS = 64 << 10
_MOST_NOTE = 10_000
_UNTOUCHED: str | UnsetType | None = UNSET


class _Look(Struct, frozen=True):
    """What a page of the queue has: the `row` that is looked at (None: there is none any more, or
    it is to be looked for from `found.place` on), and what was said of it and of the `last` one. At
    the end of the queue also the `counts` of all reviews."""

    counts: ReviewCounts | None
    sample: Sample | None
    place: PlaceIn | None
    found: Found
    row: ItemPage | None = None
    review: Review | None = None
    last: Review | None = None
    last_name: RowName | None = None


class _Typed(Struct, frozen=True):
    """What stands in the fields of a form, where it was refused, and why."""

    note: str
    edited: str
    problem: str


async def review(view: View, request: web.Request) -> web.StreamResponse:
    """The beginning, where no queue is named; else a row of it, which its address names. So going
    back leads to the row that was there, and a reload shows it again."""
    queue = _queue(request)
    if queue is None:
        return await _beginning(view, request)
    if "item" in request.query:
        return await _shown(view, request, queue, Found(_number(request.query["item"])))
    queue, found = await _found(view, request, queue)
    if found.item is None:
        return await _shown(view, request, queue, found)
    raise web.HTTPFound(_url(queue, item=found.item, last=request.query.get("last")))


async def _found(view: View, request: web.Request, queue: Queue) -> tuple[Queue, Found]:
    """The first row, or the one beside that which the address names; and the queue as it is found
    again."""
    back = "before" in request.query
    place = request.query.get("before" if back else "after")

    async def read(store: ReadStore) -> tuple[Queue, Found]:
        if place is None:
            return await first_of(store, queue)
        return queue, await after(store, queue, place, back=back)

    return await _read(view, queue, read)


async def say(view: View, request: web.Request) -> web.StreamResponse:
    """Note what is said of a row, and lead to the next one; where nothing is decided, or the last
    verdict is taken back, to this one."""
    store, form, queue = view.writing(), await form_of(request), _queue(request)
    if queue is None:
        raise UsageError("no queue is named.")
    item, seq = _number(form.get("item", "")), _number(form.get("result", ""))
    said = form.get("say", "")
    if said == "undo":
        await store.reviews.undo(item, seq)
        return _to(_url(queue, item=item))
    try:
        change = await _change(view, item, said, form)
        await store.reviews.put(item, seq, change)
    except UsageError as exc:
        typed = _Typed(form.get("note", ""), form.get("edited", ""), str(exc))
        return await _shown(view, request, queue, Found(item), typed)
    if isinstance(change.verdict, UnsetType):
        return _to(_url(queue, item=item))
    found = await _read(view, queue, lambda store: after(store, queue, str(item)))
    place = {"after": found.place or item} if found.item is None else {"item": found.item}
    return _to(_url(queue, **place, last=item))


async def _beginning(view: View, request: web.Request) -> web.StreamResponse:
    name = request.match_info["name"]

    async def read(store: ReadStore) -> tuple[Target, ReviewCounts, Standing]:
        target = await target_of(store, name)
        standing = await standing_of(store, target.experiment)
        return target, await counts_of(store, target), standing

    target, counts, standing = await view.pages.read(read)
    return view.frame.page(
        request, "review_start.html", title=view.frame.text(request)("review_of", name=name),
        experiment=name, section="review", command=("review", "--experiment", name), name=name,
        word=_words(view, request),
        target=target, counts=counts, standing=standing,
        rows=_ROWS, most_rows=MOST_ROWS, seed=randrange(_SEEDS),
        states=[
            (state, getattr(counts, state), path("e", name, "review", state=state))
            for state in STATES
        ],
    )  # fmt: skip


async def _shown(
    view: View, request: web.Request, queue: Queue, found: Found, typed: _Typed | None = None
) -> web.StreamResponse:
    last = request.query.get("last")

    async def read(store: ReadStore) -> _Look:
        return await _look(store, queue, found, None if last is None else _number(last))

    look = await _read(view, queue, read)
    t = view.frame.text(request)
    row, name = look.row, queue.experiment
    command: tuple[object, ...] = ("review", "--experiment", name)
    if row is not None and view.store is None:
        command = ("show", row.name)
    elif row is not None:
        command = ("review", row.name, "--experiment", row.item.experiment, "--accept")
    shown = None if row is None else _text_of(row, look.review)
    return view.frame.page(
        request, "review.html", title=t("review_of", name=name), experiment=name,
        section="review", command=command, status=400 if typed else 200, look=look, row=row,
        end=_end(request.query), queue=queue, typed=typed, sample=look.sample, place=look.place,
        share=_share(look.sample),
        own_url=_url(queue, item=found.item, last=last) if found.item is not None else "",
        next_url=_url(queue, after=found.item, last=last),
        previous_url=_url(queue, before=found.item) if found.item is not None else "",
        on_url=_url(queue, after=found.place) if found.place else None,
        start_url=path("e", name, "review"),
        prompt=[] if row is None else [
            (title, _cut(pretty_value(value))) for title, value in prompt_parts(row.prompt)
        ],
        name=row and name_shown(row.called),
        last_name="" if look.last_name is None else name_shown(look.last_name),
        given=[] if row is None else [
            field for _, one in row.inputs for field in _fields(one)
        ],
        others=[] if row is None else others_of(row),
        answer=None if row is None else _cut(row.item.response or ""),
        value=None if row is None or row.item.parsed is None else _cut(pretty(row.value or "null")),
        edit=None if look.review is None or look.review.edited is None or not
        look.review.is_current else _cut(pretty(look.review.edited)),
        field=typed.edited if typed else shown,
        note=typed.note if typed else (look.review.note if look.review and
                                       look.review.is_current else "") or "",
        most_note=_MOST_NOTE, word=_words(view, request),
    )  # fmt: skip


def _end(query: Mapping[str, str]) -> str:
    """The words for where no row is any more."""
    if "before" in query:
        return "review_first"
    return "review_end" if "after" in query else "review_none"


async def _look(store: ReadStore, queue: Queue, found: Found, last: int | None) -> _Look:
    counts, sample = None, await sample_of(store, queue, found.item)
    if found.item is None:
        counts = await counts_of(store, await target_of(store, queue.experiment))
    ids = [one for one in (found.item, last) if one is not None]
    said = await store.reviews.of_items(ids)
    row = None if found.item is None else await item_page(store, found.item)
    names = {} if last is None else await row_names(store, [last])
    return _Look(
        counts, sample, await place_in(store, queue, found.item), found, row,
        None if found.item is None else said.get(found.item),
        None if last is None else said.get(last), None if last is None else names.get(last),
    )  # fmt: skip


async def _change(
    view: View, item: int, said: str, form: Mapping[str, str]
) -> ReviewChange:  # fmt: skip
    """Raises UsageError for an edit that is no value."""
    verdict = Verdict(said) if said in tuple(Verdict) else UNSET
    note, edited = _typed(form.get("note", "")), _UNTOUCHED
    if len(note) > _MOST_NOTE:
        raise UsageError(f"note: longer than {_MOST_NOTE:,} characters.")
    if "edited" in form:

        async def read(store: ReadStore) -> tuple[ItemPage, Review | None]:
            return await item_page(store, item), (await store.reviews.of_items([item])).get(item)

        row, review = await view.pages.read(read)
        edited = _edit(row, review, _typed(form["edited"]))
    return ReviewChange(verdict, note, edited)


def _edit(row: ItemPage, review: Review | None, typed: str) -> str | UnsetType | None:
    """_UNTOUCHED: what stands there was left as it is; None: it is again what the model said."""
    if typed == _typed(_text_of(row, review) or ""):
        return _UNTOUCHED
    new = dump_json(typed) if row.item.parsed is None else edit_json(typed)
    return None if _is_same(new, row.value or "null") else new


def _is_same(new: str, old: str) -> bool:
    try:
        return bool(json.loads(new) == json.loads(old))
    except RecursionError:
        return new == old


def _text_of(row: ItemPage, review: Review | None) -> str | None:
    """The value as it is edited: a text itself or, where the parser made more, JSON. None: it is
    too long for that, or there is none."""
    if row.value is None:
        return None
    is_edited = review is not None and review.edited is not None and review.is_current
    stored = review.edited if is_edited and review and review.edited else row.value
    is_text = row.item.parsed is not None and stored.startswith('"')
    text = stored if is_text else pretty(stored)
    return text if len(text) <= _MOST_CHARS else None


def _typed(text: str) -> str:
    """As a browser sends what stands in a field."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd").rstrip("\n")


def _queue(request: web.Request) -> Queue | None:
    """That of the address; None: it names none. Raises UsageError for one that cannot be."""
    query, name = request.query, request.match_info["name"]
    if where := query.get("where"):
        return Queue(name, where=where)
    if state := query.get("state"):
        if state not in STATES:
            raise UsageError(f"state: {state!r:.40} is not one of {', '.join(STATES)}.")
        return Queue(name, state=state)
    if "n" not in query:
        return None
    rows = _number(query["n"])
    if not 1 <= rows <= MOST_ROWS:
        raise UsageError(f"n: not from 1 to {MOST_ROWS:,}.")
    upto = query.get("upto")
    return Queue(
        name, rows, _number(query.get("seed", "0")), None if upto is None else _number(upto)
    )


def _url(queue: Queue, **place: object) -> str:
    """With what there is of the queue and of the place in it."""
    drawn = queue.rows is not None
    return path(
        "e", queue.experiment, "review", n=queue.rows, seed=queue.seed if drawn else None,
        upto=queue.upto, where=queue.where, state=queue.state, **place,
    )  # fmt: skip


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS):
        raise UsageError(f"{text[:40]!r} is no number that there is.")
    return int(text)


def _to(place: str) -> web.Response:
    return web.Response(status=303, headers={"Location": place})


async def _read(
    view: View, queue: Queue, job: Callable[[ReadStore], Coroutine[Any, Any, T]]
) -> T:  # fmt: skip
    """A search may take a while, and holds up no other page."""
    reader = view.pages if queue.where is None else view.scans
    return await reader.read(job)


def _words(view: View, request: web.Request) -> Callable[[str], str]:
    """How a verdict and such are called in the reader's language."""
    t = view.frame.text(request)
    return lambda name: t(f"review_{name}")


def _share(sample: Sample | None) -> tuple[str, str] | None:
    """Between which shares the true one lies; None: nothing can be said."""
    if sample is None or not sample.decided:
        return None
    low, high = sample.share_rejected.bounds
    return f"{100 * low:.1f}", f"{100 * high:.1f}"


def _fields(given: str) -> list[tuple[str, str]]:
    """The input by its fields, as text; one that is no plain object as a whole. A row of a later
    step has none of its own."""
    try:
        value = json.loads(given)
        fields = value.items() if isinstance(value, dict) else [("", value)]
        return [(name, _cut(pretty_value(one))) for name, one in fields]
    except RecursionError:
        return [("", _cut(given))]


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARS else f"{text[:_MOST_CHARS]}…"
