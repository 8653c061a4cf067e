"""Stored answers parsed once more, by another parser or a mended one, without any call.

Nothing is lost, wherever it stops and whatever the parser does: a page of answers is read, parsed,
and given its new results in one transaction, beside the old ones. Only items that are done or
failed are touched, and only when they still have the result that was read.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field

from batchgen.errors import BatchgenError, ParseError
from batchgen.items import Answer, Done, Fail, Reason, Usage
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


@dataclass(slots=True)
class ReparseResult:
    """What came of the answers, each counted once, and some of the differences.

    done                 had failed, and can be parsed now
    changed, unchanged   were done and still are
    failing              had failed and still do
    broken               were done and fail now
    left                 something else became of the item meanwhile
    """

    done: int = 0
    changed: int = 0
    unchanged: int = 0
    failing: int = 0
    broken: int = 0
    left: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def answers(self) -> int:
        still = self.changed + self.unchanged + self.failing + self.left
        return self.done + self.broken + still

    @property
    def exit_code(self) -> int:
        return 3 if self.failing or self.broken else 0


async def reparse(
    store: Store,
    pages: AsyncIterator[Sequence[EndedAnswer]],
    parser: Parser,
    timeout_s: float,
    *,
    dry_run: bool = False,
) -> ReparseResult:
    """Parse the answers and write what is new, a page at a time; `dry_run` writes nothing.

    Raises BatchgenError when the parser hangs again and again; the pages before are written.
    """
    runner, result = ParserRunner(), ReparseResult()
    try:
        async for page in pages:
            found = await _parse_page(runner, parser, page, timeout_s)
            written = [
                Reparsed(was, None if _is_same(was, now) else now)
                for was, now in zip(page, found, strict=True)
            ]
            left = set() if dry_run else await store.write_reparsed(written, parser.spec)
            _count(result, zip(page, found, strict=True), left)
            if runner.stuck >= _MOST_STUCK:
                raise BatchgenError(
                    f"parser {_short(parser.spec)!r} did not end for {runner.stuck} answers. What "
                    "was parsed so far is kept; mend the parser and run the same command."
                )
    finally:
        runner.close()
    return result


async def answer_pages(
    store: Store, experiment_ids: Iterable[int], *, done_too: bool
) -> AsyncIterator[Sequence[EndedAnswer]]:
    """The answers of the items that failed to parse, and of those done when `done_too`."""
    for experiment_id in experiment_ids:
        after = 0
        while page := await store.answer_page(experiment_id, done_too, after):
            after = page[-1].item_id
            yield page


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


def _count(
    result: ReparseResult, found: Iterable[tuple[EndedAnswer, Done | Fail]], left: set[int]
) -> None:
    for was, now in found:
        kind = "left" if was.item_id in left else _kind(was, now)
        setattr(result, kind, getattr(result, kind) + 1)
        tells = kind in ("done", "changed", "broken")
        if tells and len(result.differences) < _MOST_DIFFERENCES:
            result.differences.append(_difference(was, now))


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
