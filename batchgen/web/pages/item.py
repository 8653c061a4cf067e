"""One row with all that was sent and came back."""

import json
import re
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from msgspec import Struct

from batchgen.display.items import prompt_parts
from batchgen.jobs.item_page import AttemptPage, ChainPart, ItemPage, item_page
from batchgen.jobs.row_names import RowName
from batchgen.parsers import shown_spec
from batchgen.store import FormerResult
from batchgen.web.guard import SANDBOX
from batchgen.web.language import Text as Words
from batchgen.web.pages.batches import where_text
from batchgen.web.pages.items import said_of
from batchgen.web.pages.recipes import masked
from batchgen.web.shown import ends, path
from batchgen.web.view import View

MOST_CHARS, _MOST_OF_OTHERS = 64 << 10, 4000
_MOST_DIGITS = 18
_LATER_MS = 1000
_DATA = re.compile(r"(data:[\w./+-]{1,80};base64,)([A-Za-z0-9+/=]{200,})")
_KEPT = ("step", "state", "reason", "where", "q", "order")


class Text(Struct, frozen=True):
    """A text as far as it is shown; so many more bytes there are at `rest`, a file."""

    text: str
    more: int = 0
    rest: str | None = None


class Part(Struct, frozen=True):
    """A part of the prompt, or of what came beside an answer, by its role or its name."""

    title: str
    text: Text


class OtherRow(Struct, frozen=True):
    """Another row of a chain, and what its step is called by; None while there is nothing."""

    part: ChainPart
    value: Text | None


class Call(Struct, frozen=True):
    """An attempt as it is shown, the `number`th."""

    number: int
    page: AttemptPage
    answer: Text | None
    body: Text | None
    beside: tuple[Part, ...]
    url: str
    since: str | None  # the answer before it, to compare with


async def item(view: View, request: web.Request) -> web.StreamResponse:
    number, t = number_in(request, "id"), view.frame.text(request)
    found = await view.pages.read(lambda store: item_page(store, number))
    reviews = await view.pages.read(lambda store: store.reviews.of_items([number]))
    calls = _calls(found, t)
    place = _place(found, request.query)
    return view.frame.page(
        request, "item.html", title=t("item_n", name=name_shown(found.called)),
        experiment=place.experiment, section="items",
        command=("show", found.name), page=found, item=found.item, place=place,
        review=reviews.get(number),
        where=None if found.in_batch is None else where_text(t, found.in_batch),
        given=[cut(pretty(one), path("items", id_, "raw", "input")) for id_, one in found.inputs],
        prompt=[Part(name, cut(pretty_value(one))) for name, one in prompt_parts(found.prompt)],
        settings={name: pretty_value(one) for name, one in masked(found.settings).items()},
        value=_value(found), calls=calls,
        newest=next((one for one in reversed(calls) if one.answer), None),
        parser=found.item.parser and shown_spec(found.item.parser),
        function=found.function and shown_spec(found.function),
        former=[(one, one.parser and shown_spec(one.parser), _compared(found, one))
                for one in found.former],
        chain=[(one, said_of(one.row)) for one in found.chain],
        ended=_ended(found), opened=request.query.get("attempt", ""),
        samples=[(one, _url(one.id, request.query, here=one.id == number))
                 for one in found.samples],
    )  # fmt: skip


async def raw(view: View, request: web.Request) -> web.StreamResponse:
    """All that came back from a call: its answer, or its body (`?of=body`)."""
    number, seq = number_in(request, "id"), number_in(request, "seq")
    found = await view.pages.read(lambda store: store.pages.attempt(seq))
    if found is None or found.item_id != number:
        raise web.HTTPNotFound
    text = found.body if request.query.get("of") == "body" else found.response
    if text is None:
        raise web.HTTPNotFound
    return _file(text, f"item-{number}-attempt-{seq}.txt")


async def part(view: View, request: web.Request) -> web.StreamResponse:
    """The whole input of a row, or its value."""
    number, name = number_in(request, "id"), request.match_info["part"]
    found = await view.pages.read(lambda store: store.item(number))
    text = None if found is None else found.input if name == "input" else found.parsed
    if text is None:
        raise web.HTTPNotFound
    return _file(text, f"item-{number}-{name}.json")


def name_shown(name: RowName, most: int = 60) -> str:
    """On one line; of a long id both its ends."""
    return str(name._replace(id=ends(name.id, most)))


def others_of(page: ItemPage, most: int = _MOST_OF_OTHERS) -> list[OtherRow]:
    """The other rows of the chains that it is in, in their order."""
    return [
        OtherRow(one, None if one.value is None else cut(pretty(one.value), most=most))
        for one in page.chain
        if one.row.id != page.item.id
    ]


def number_in(request: web.Request, name: str) -> int:
    """A number of the path. Raises HTTPNotFound for one that none can have."""
    digits = request.match_info[name]
    if len(digits) > _MOST_DIGITS:
        raise web.HTTPNotFound
    return int(digits)


def _file(text: str, name: str) -> web.Response:
    """As a file and as text, whatever it looks like."""
    return web.Response(
        body=text.encode(errors="replace"), content_type="text/plain", charset="utf-8",
        headers={
            "Content-Disposition": f'attachment; filename="{name}"',
            "Content-Security-Policy": SANDBOX,
        },
    )  # fmt: skip


class _Place(Struct, frozen=True):
    """Where the row stands among those that are wanted."""

    experiment: str
    list: str
    previous: str
    next: str


def _place(found: ItemPage, query: Mapping[str, str]) -> _Place:
    """Without a place in the URL, in the order of the pool."""
    number = found.item.id
    if "at" in query and "e" in query:
        name, at = query["e"], query["at"]
        kept = {key: query[key] for key in _KEPT if query.get(key)}
    else:
        name, at = found.own_name, str(number)
        kept = {
            "order": "pool",
            **({"step": found.experiment.step} if found.experiment.step else {}),
        }
    return _Place(
        name, path("e", name, "items", **kept),
        path("e", name, "previous", **kept, at=at, row=number),
        path("e", name, "next", **kept, at=at, row=number),
    )  # fmt: skip


def _url(number: int, query: Mapping[str, str], *, here: bool) -> str | None:
    return None if here else path("items", number, **{key: query[key] for key in (*_KEPT, "e")
                                                       if query.get(key)})  # fmt: skip


def _ended(found: ItemPage) -> list[tuple[str, int]]:
    """When it did: its answer may have been parsed later than it came."""
    at_ms = found.item.finished_at
    if at_ms is None:
        return []
    came = [one.attempt.finished_at for one in found.attempts if one.attempt.response is not None]
    if came and at_ms - came[-1] >= _LATER_MS:
        return [("answered_at", came[-1]), ("parsed_at", at_ms)]
    return [("finished", at_ms)]


def _value(found: ItemPage) -> Text | None:
    """What the parser has made of the answer; None where it is the answer."""
    if found.item.state != "done" or found.item.parsed is None:
        return None
    return cut(pretty(found.item.parsed), path("items", found.item.id, "raw", "value"))


def _compared(found: ItemPage, former: FormerResult) -> str | None:
    """A result that it has no more, with the one that it has; None where one of them is none."""
    number = found.item.id
    if found.item.state != "done" or former.state != "done":
        return None
    return path("items", number, "diff", a=f"r{former.seq}", b=f"s{number}")


def _calls(found: ItemPage, t: Words) -> list[Call]:
    calls = list[Call]()
    before: str | None = None
    for number, page in enumerate(found.attempts, 1):
        one, url = page.attempt, path("items", found.item.id, "attempts", page.attempt.seq, "raw")
        since: str | None = None
        if one.response is not None:
            since, before = before, f"a{one.seq}"
        calls.append(Call(
            number, page, _begun(one.response, one.response_bytes, url),
            _begun(one.body, one.body_bytes, f"{url}?of=body"),
            tuple(Part(t(f"beside_{name}"), cut(pretty(beside)))
                  for name, beside in page.beside.items()), url,
            since and path("items", found.item.id, "diff", a=since, b=f"a{one.seq}"),
        ))  # fmt: skip
    return calls


def _begun(text: str | None, whole_bytes: int | None, url: str) -> Text | None:
    if text is None:
        return None
    more = (whole_bytes or 0) - len(text.encode(errors="replace"))
    return Text(text, max(0, more), url if more > 0 else None)


def cut(text: str, rest: str | None = None, most: int = MOST_CHARS) -> Text:
    """Its first characters; images and the like are no text."""
    text = _DATA.sub(lambda one: f"{one[1]}… ({len(one[2]):,})", text)
    more = len(text[most:].encode(errors="replace"))
    return Text(text[:most], more, rest if more else None)


def pretty(text: str) -> str:
    """A text of JSON for people: a string as it is, the rest on several lines."""
    try:
        return pretty_value(json.loads(text))
    except (ValueError, RecursionError):
        return text


def pretty_value(value: Any) -> str:
    if isinstance(value, str):
        return value
    is_vector = isinstance(value, list) and bool(value) and {*map(type, value)} <= {int, float}
    return json.dumps(value, ensure_ascii=False, indent=None if is_vector else 2)
