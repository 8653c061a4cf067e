"""What is different between two answers, samples or values."""

import asyncio
from collections.abc import Mapping

from aiohttp import web
from msgspec import Struct

from batchgen.errors import UsageError
from batchgen.jobs.compare import Side, compared, side_of
from batchgen.jobs.item_page import ItemPage, item_page
from batchgen.jobs.row_names import RowName, row_names
from batchgen.parsers import shown_spec
from batchgen.store import ReadStore
from batchgen.web.language import Text
from batchgen.web.pages.item import name_shown, number_in
from batchgen.web.view import View


class _Sides(Struct, frozen=True):
    """What is compared, and what the rows are called that these are of."""

    old: Side
    new: Side
    rows: Mapping[int, RowName]

    def are_of(self, page: ItemPage) -> bool:
        """Whether both are of this item."""
        own = {page.item.id, *(one.id for one in page.samples)}
        return {self.old.item_id, self.new.item_id} <= own

    def title(self, page: ItemPage, t: Text) -> str:
        if self.are_of(page):
            return t("compare_item", name=name_shown(page.called._replace(sample=None)))
        old, new = (self._name(side) for side in (self.old, self.new))
        key = "compare_item" if old == new else "compare_items"
        return t(key, name=old, other=new)

    def words(self, side: Side, page: ItemPage, choices: Mapping[str, str], t: Text) -> str:
        """What a side is, as one chooses it, and whose it is where there are others."""
        own = choices.get(side.name) or _words(side, t)
        return own if self.are_of(page) else f"{self._name(side)}: {own}"

    def _name(self, side: Side) -> str:
        name = self.rows.get(side.item_id)
        return str(side.item_id) if name is None else name_shown(name)


async def diff(view: View, request: web.Request) -> web.StreamResponse:
    """`?a=a12&b=a15`: two attempts; `r` is a result, `s` what a row has now, `e` its edit. They may
    be of other rows, which are named then."""
    number, t = number_in(request, "id"), view.frame.text(request)
    page = await view.pages.read(lambda store: item_page(store, number))
    answers, others = [*_answers(page, t), *_values(page, t)], _others(page, t)
    reviews = await view.pages.read(lambda store: store.reviews.of_items([number]))
    review = reviews.get(number)
    if review is not None and review.edited is not None:
        answers += [(f"r{review.result_seq}", t("as_parsed")), (f"e{number}", t("as_edited"))]
    a, b = request.query.get("a", ""), request.query.get("b", "")
    if not (a and b) and len(answers) > 1:
        (a, _), (b, _) = answers[-2:]
    choices = dict([*answers, *others])
    title, names = t("compare_item", name=name_shown(page.called)), ("", "")
    found, problem = None, None
    if a and b:
        try:
            sides = await view.pages.read(lambda store: _sides(store, a, b))
            found = await asyncio.to_thread(compared, sides.old, sides.new)
        except UsageError as exc:
            problem = exc
        else:
            title = sides.title(page, t)
            old, new = (sides.words(one, page, choices, t) for one in (sides.old, sides.new))
            names = (old, new)
            choices |= {a: names[0], b: names[1]}
    return view.frame.page(
        request, "diff.html", title=title,
        experiment=page.own_name, section="items", status=404 if problem else 200,
        page=page, choices=choices.items(), a=a, b=b, found=found, problem=problem, names=names,
    )  # fmt: skip


async def _sides(store: ReadStore, a: str, b: str) -> _Sides:
    old, new = await side_of(store, a), await side_of(store, b)
    return _Sides(old, new, await row_names(store, [old.item_id, new.item_id]))


def _answers(page: ItemPage, t: Text) -> list[tuple[str, str]]:
    """What there is to compare, by its name in the URL."""
    answered = [
        (f"a{one.attempt.seq}", t("attempt_n", n=place))
        for place, one in enumerate(page.attempts, 1)
        if one.attempt.response is not None
    ]
    return answered + [
        (f"s{one.id}", t("sample_n", n=one.sample)) for one in page.samples if one.state == "done"
    ]


def _values(page: ItemPage, t: Text) -> list[tuple[str, str]]:
    """What it had, and what it has, where it was parsed or asked again."""
    before = [
        (f"r{one.seq}", t("read_as", parser=shown_spec(one.parser)))
        for one in reversed(page.former)
        if one.state == "done" and one.parser is not None
    ]
    if not before or page.item.state != "done" or page.samples:
        return before
    return [*before, (f"s{page.item.id}", t("read_as_now"))]


def _others(page: ItemPage, t: Text) -> list[tuple[str, str]]:
    """What came back from calls that failed."""
    return [
        (f"a{one.attempt.seq}", t("attempt_n", n=place))
        for place, one in enumerate(page.attempts, 1)
        if one.attempt.response is None and one.attempt.body
    ]


def _words(side: Side, t: Text) -> str:
    """Of one that is no choice."""
    match side.kind:
        case "attempt":
            return t("attempt_numbered", number=str(side.number))
        case "result" if side.parser:
            return t("value_by", parser=shown_spec(side.parser))
        case "edit":
            return t("as_edited")
        case "sample":
            return t("read_as_now")
    return t("as_parsed")
