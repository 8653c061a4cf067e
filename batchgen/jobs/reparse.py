"""Stored answers parsed once more, by another parser or a mended one, without any call.

Nothing is lost, wherever it stops and whatever the parser does: a page of answers is read, parsed,
and given its new results in one transaction, beside the old ones. Only items that are done or
failed are touched, and only when they still have the result that was read.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from batchgen.errors import BatchgenError, ParseError, Remedy, UsageError
from batchgen.items import Answer, Done, Fail, Reason, Usage
from batchgen.jobs.lookup import chosen_experiments, items_called
from batchgen.json_text import dump_json
from batchgen.llm.decide import fail_if_cut_off
from batchgen.parsers import Parser, ParserRunner, to_json
from batchgen.pool import read_item
from batchgen.store import EndedAnswer, Reparsed, Store

_AT_ONCE = 20  # async functions; threads are fewer
_MOST_STUCK = 100  # a parser that never ends keeps its thread
_MOST_DIFFERENCES = 5
_SHORT = 60


@dataclass(frozen=True, slots=True)
class Difference:
    """An item (`id` is the user's, or its number) whose result is another, both as short texts."""

    id: str | int
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class ReparseRequest:
    """Which answers: of an `experiment` (None: of all), those that failed to parse, and with
    `done_too` those of its done items; or, done or not, of the items with these `ids` or numbers,
    if any are given."""

    experiment: str | None = None
    done_too: bool = False
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReparseResult:
    """What came of the answers, each counted once. A `dry_run` has some of the differences.

    done                 had failed, and can be parsed now
    changed, unchanged   were done and still are
    failing              had failed and still do
    broken               were done and fail now
    skipped              something else became of the item meanwhile
    """

    done: int
    changed: int
    unchanged: int
    failing: int
    broken: int
    skipped: int
    differences: tuple[Difference, ...]
    dry_run: bool

    @property
    def answers(self) -> int:
        still = self.changed + self.unchanged + self.failing + self.skipped
        return self.done + self.broken + still

    @property
    def exit_code(self) -> int:
        return 3 if self.failing or self.broken else 0

    def to_json(self) -> dict[str, Any]:
        found = {"answers": self.answers, **asdict(self)}
        if not self.dry_run:
            del found["differences"]
        return found


async def reparse(
    store: Store,
    request: ReparseRequest,
    parser: Parser,
    timeout_s: float,
    *,
    dry_run: bool = False,
) -> ReparseResult:
    """Parse the chosen answers and write what is new, a page a transaction; `dry_run` writes
    nothing. The items' recipes name the parser from then on.

    Raises UsageError when an experiment or an item is not there, or has no answer, and when done
    items of several experiments would get one parser; BatchgenError when the parser hangs again and
    again. The pages before are written.
    """
    pages = answer_pages(store, request)
    return await reparse_pages(store, pages, parser, timeout_s, dry_run=dry_run)


async def reparse_pages(
    store: Store,
    pages: AsyncIterator[Sequence[EndedAnswer]],
    parser: Parser,
    timeout_s: float,
    *,
    dry_run: bool = False,
) -> ReparseResult:
    """The same with answers that have been read already."""
    runner, found = ParserRunner(), _Found()
    try:
        async for page in pages:
            parsed = await _parse_page(runner, parser, page, timeout_s)
            written = [
                Reparsed(was, None if _is_same(was, now) else now)
                for was, now in zip(page, parsed, strict=True)
            ]
            skipped = set() if dry_run else await store.write_reparsed(written, parser.spec)
            found.add(zip(page, parsed, strict=True), skipped)
            if runner.stuck >= _MOST_STUCK:
                raise BatchgenError(
                    f"parser {_short(parser.spec)!r} did not end for {runner.stuck} answers. What "
                    "was parsed so far is kept; mend the parser.",
                    Remedy.RUN_AGAIN,
                )
    finally:
        runner.close()
    return found.result(dry_run)


async def answer_pages(
    store: Store, request: ReparseRequest
) -> AsyncIterator[Sequence[EndedAnswer]]:
    """The chosen answers, a page at a time. Raises UsageError as `reparse`."""
    if request.ids:
        yield await _answers_by_id(store, request)
        return
    experiments = await chosen_experiments(store, request.experiment)
    if len(experiments) > 1 and request.done_too:
        names = ", ".join(one.name for one in experiments)
        raise UsageError(
            f"there are several experiments ({names}), and each may have a parser of its own.",
            Remedy.NAME_EXPERIMENT,
        )
    for experiment in experiments:
        after = 0
        while page := await store.answer_page(experiment.id, request.done_too, after):
            after = page[-1].item_id
            yield page


async def _answers_by_id(store: Store, request: ReparseRequest) -> list[EndedAnswer]:
    chosen: dict[int, EndedAnswer] = {}
    for given in request.ids:
        numbers = await items_called(store, given, request.experiment)
        found = [one for number in numbers if (one := await store.answer_of(number))]
        if not found:
            raise UsageError(
                f"item {given} is neither done nor failed at its parser, so there is no answer to "
                "parse again.",
                Remedy.SHOW_ITEM,
                item=given,
            )
        chosen |= {one.item_id: one for one in found}
    return list(chosen.values())


async def _parse_page(
    runner: ParserRunner, parser: Parser, page: Sequence[EndedAnswer], timeout_s: float
) -> list[Done | Fail]:
    found: dict[int, Done | Fail] = {}
    waiting = iter(page)

    async def parse_some() -> None:
        for answer in waiting:
            found[answer.item_id] = await _parse(runner, parser, answer, timeout_s)

    async with asyncio.TaskGroup() as group:
        for number in range(min(_AT_ONCE, len(page))):
            group.create_task(parse_some(), name=f"parse {number}")
    return [found[answer.item_id] for answer in page]


async def _parse(
    runner: ParserRunner, parser: Parser, answer: EndedAnswer, timeout_s: float
) -> Done | Fail:
    """As a worker does with the answer it has just got."""
    whole = Answer(answer.response, "", answer.finish_reason, None, Usage())
    if cut_off := fail_if_cut_off(whole, needs_whole=parser.needs_whole):
        return cut_off
    if parser.spec == "raw":
        return Done(None)
    item = read_item(json.loads(answer.input), f"item {answer.item_id}").given
    try:
        return Done(to_json(await runner.run(parser, answer.response, item, timeout_s)))
    except ParseError as exc:
        return Fail(Reason.PARSE, str(exc))


def _is_same(was: EndedAnswer, now: Done | Fail) -> bool:
    if isinstance(now, Fail):
        return (was.reason, was.error) == (now.reason, now.error)
    return was.reason is None and _parsed(was, was.parsed) == _parsed(was, now.parsed_json)


def _parsed(answer: EndedAnswer, parsed_json: str | None) -> str:
    return dump_json(answer.response) if parsed_json is None else parsed_json


class _Found:
    """What has come of the answers so far."""

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()
        self._differences: list[Difference] = []

    def add(self, page: Iterable[tuple[EndedAnswer, Done | Fail]], skipped: set[int]) -> None:
        for was, now in page:
            kind = "skipped" if was.item_id in skipped else _kind(was, now)
            self._kinds[kind] += 1
            is_other = kind in ("done", "changed", "broken")
            if is_other and len(self._differences) < _MOST_DIFFERENCES:
                self._differences.append(_difference(was, now))

    def result(self, dry_run: bool) -> ReparseResult:
        kinds = ("done", "changed", "unchanged", "failing", "broken", "skipped")
        return ReparseResult(
            **{kind: self._kinds[kind] for kind in kinds},
            differences=tuple(self._differences),
            dry_run=dry_run,
        )


def _kind(was: EndedAnswer, now: Done | Fail) -> str:
    if isinstance(now, Fail):
        return "failing" if was.reason else "broken"
    if was.reason:
        return "done"
    return "unchanged" if _is_same(was, now) else "changed"


def _difference(was: EndedAnswer, now: Done | Fail) -> Difference:
    before = f"{was.reason}: {was.error}" if was.reason else _parsed(was, was.parsed)
    after = f"{now.reason}: {now.error}" if isinstance(now, Fail) else now.parsed_json
    shown = _short(before), _short(_parsed(was, after))
    return Difference(was.custom_id or was.item_id, *shown)


def _short(text: str) -> str:
    line = " ".join(text[: 4 * _SHORT].split())
    return line if len(line) <= _SHORT else f"{line[: _SHORT - 3]}..."
