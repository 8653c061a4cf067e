"""What is different between two answers, samples or values."""

import asyncio

from aiohttp import web

from batchgen.errors import UsageError
from batchgen.jobs.compare import Compared, Side, compared, side_of
from batchgen.jobs.item_page import ItemPage, item_page
from batchgen.parsers import shown_spec
from batchgen.store import ReadStore
from batchgen.web.language import Text
from batchgen.web.pages.item import name_shown, number_in
from batchgen.web.view import View


async def diff(view: View, request: web.Request) -> web.StreamResponse:
    """`?a=a12&b=a15`: two attempts; `r` is a result, `s` what a row has now."""
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
    found, problem = None, None
    if a and b:
        try:
            sides = await view.pages.read(lambda store: _sides(store, a, b))
            found = await asyncio.to_thread(compared, *sides)
        except UsageError as exc:
            problem = exc
    return view.frame.page(
        request, "diff.html", title=t("compare_item", name=name_shown(page.called)),
        experiment=page.own_name, section="items", status=404 if problem else 200,
        page=page, choices=[*answers, *others], a=a, b=b, found=found, problem=problem,
        names=_names(found, t) if found else (),
    )  # fmt: skip


async def _sides(store: ReadStore, a: str, b: str) -> tuple[Side, Side]:
    return await side_of(store, a), await side_of(store, b)


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


def _names(found: Compared, t: Text) -> tuple[str, str]:
    kinds = {"attempt": "the_attempt", "edit": "the_edit", "result": "the_result",
             "sample": "the_sample"}  # fmt: skip
    old, new = found.old, found.new
    return (
        t(kinds[old.kind], number=str(old.number)), t(kinds[new.kind], number=str(new.number)),
    )  # fmt: skip
