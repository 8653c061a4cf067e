"""Parses stored answers by the page, and writes what comes of them.

Nothing is lost, wherever it stops and whatever the parser does: a page of answers is parsed and
given its new results in one transaction, beside the old ones. Only items that are done or failed
are touched, and only when they still have the result that was read.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from msgspec import Struct, to_builtins

from batchgen.errors import BatchgenError, ParseError, Remedy
from batchgen.items import Answer, Done, Fail, Reason, Usage
from batchgen.llm.decide import fail_if_cut_off
from batchgen.parsers import Parser, ParserRunner, shown_spec, to_json
from batchgen.pool import read_item
from batchgen.store import Chain, EndedAnswer, ParseWatch, Reparsed, Store
from batchgen.text.json_text import dump_json
from batchgen.worker.requests import PresentParser

if TYPE_CHECKING:
    from batchgen.jobs.reparsed_chains import ReparsedChains

_AT_ONCE = 20  # async functions; threads are fewer
_MOST_STUCK = 20  # a parser that never ends keeps its thread, and the CPU if it loops
_MOST_DIFFERENCES = 5
_SHORT = 60

_KILLED_TWICE = Fail(Reason.CRASH, "its process died twice while the parser read this answer")
KINDS = ("done", "changed", "unchanged", "failing", "broken", "skipped")
Progress = Callable[[int, int], None]
Given = Callable[[EndedAnswer], Mapping[str, Any]]


class Difference(Struct, frozen=True):
    """An item (`id` is the user's, or its number) whose result is another, both as short texts."""

    id: str | int
    before: str
    after: str


class ReparseResult(Struct, frozen=True):
    """What came of the answers, each counted once. A `dry_run` has some of the differences.

    done                 had failed, and can be parsed now
    changed, unchanged   were done and still are
    failing              had failed and still do
    broken               were done and fail now
    skipped              something else became of the item meanwhile

    Of steps, `made` are the rows that are made of them now, and `stale` those that were made of
    other values.
    """

    done: int
    changed: int
    unchanged: int
    failing: int
    broken: int
    skipped: int
    differences: tuple[Difference, ...]
    dry_run: bool
    made: int = 0
    stale: int = 0

    @property
    def answers(self) -> int:
        still = self.changed + self.unchanged + self.failing + self.skipped
        return self.done + self.broken + still

    @property
    def exit_code(self) -> int:
        return 3 if self.failing or self.broken else 0

    @classmethod
    def sum_of(cls, results: Sequence["ReparseResult"], *, dry_run: bool) -> "ReparseResult":
        """Of several experiments together."""
        return cls(
            **{
                kind: sum(getattr(one, kind) for one in results)
                for kind in (*KINDS, "made", "stale")
            },
            differences=tuple(one for each in results for one in each.differences),
            dry_run=dry_run,
        )

    def to_json(self) -> dict[str, Any]:
        found = {"answers": self.answers, **to_builtins(self)}
        if not self.dry_run:
            del found["differences"]
        if not self.made and not self.stale:  # nor are there, without steps
            del found["made"], found["stale"]
        return found


class Reparsing:
    """Parses pages of answers by one parser, and writes what came of them. `progress` is told how
    many are parsed, and of how many (0: nobody has counted); `say`, that an earlier process died at
    some. They are of one experiment; if that is a step, its `chain` says what follows them."""

    def __init__(
        self,
        store: Store,
        present: PresentParser,
        timeout_s: float,
        progress: Progress | None = None,
        total: int = 0,
        say: Callable[[str], None] = lambda _: None,
        chain: Chain | None = None,
    ) -> None:
        self._store = store
        self._chains = None if chain is None else _chains(store, chain)
        self._parser_id, self._parser = present
        self._timeout_s = timeout_s
        self._progress = progress or _no_progress
        self._total = total
        self._say = say

    async def run(
        self, pages: AsyncIterator[Sequence[EndedAnswer]], *, dry_run: bool = False
    ) -> ReparseResult:
        runner, found, parsed = ParserRunner(), _Found(self._chains), 0
        self._progress(0, self._total)
        try:
            async with self._watching(dry_run=dry_run) as watch:
                if watch is not None and watch.suspects:
                    self._tell_of_suspects(len(watch.suspects))
                async for page in _suspects_last(pages, watch):
                    await self._page(runner, page, found, watch, dry_run=dry_run)
                    parsed += len(page)
                    self._progress(parsed, self._total)
        finally:
            runner.close()
        return found.result(dry_run)

    def _watching(self, *, dry_run: bool) -> AbstractAsyncContextManager[ParseWatch | None]:
        if dry_run or self._parser.kind != "function":
            return nullcontext()
        return self._store.parsers.watched(self._parser_id)

    def _tell_of_suspects(self, n: int) -> None:
        self._say(
            f"an earlier process died as it parsed {n} of the answers with "
            f"{shown_spec(self._parser.spec)}; these come last, one at a time"
        )

    async def _page(
        self, runner: ParserRunner, page: Sequence[EndedAnswer], found: "_Found",
        watch: ParseWatch | None, *, dry_run: bool,
    ) -> None:  # fmt: skip
        ended = await self._ended(runner, page, watch)
        written = [Reparsed(was, None if _is_same(was, now) else now) for was, now in ended]
        skipped = set() if dry_run else await self._store.parsers.write(written, self._parser_id)
        found.add(ended, skipped)
        if runner.stuck >= _MOST_STUCK:
            raise BatchgenError(
                f"parser {shown_spec(self._parser.spec)!r} did not end for {runner.stuck} answers. "
                "What was parsed so far is kept; mend the parser.",
                Remedy.RUN_AGAIN,
            )

    async def _ended(
        self, runner: ParserRunner, page: Sequence[EndedAnswer], watch: ParseWatch | None
    ) -> list[tuple[EndedAnswer, Done | Fail]]:
        """What came of a page; of an answer that has killed two processes, without a third."""
        if watch is not None:
            if page[0].item_id in watch.guilty:
                return [(page[0], _KILLED_TWICE)]
            await watch.begin([one.item_id for one in page], alone=_is_suspect(page[0], watch))
        if self._chains is None:
            return await _parse_page(runner, self._parser, page, self._timeout_s, _given)
        await self._chains.read(page)
        given = self._chains.given
        ended = await _parse_page(runner, self._parser, page, self._timeout_s, given)
        return [
            (was, now if _is_same(was, now) else await self._chains.followed(was, now))
            for was, now in ended
        ]


def _chains(store: Store, chain: Chain) -> "ReparsedChains":
    from batchgen.jobs.reparsed_chains import ReparsedChains  # here: few have steps

    return ReparsedChains(store, chain)


def _no_progress(parsed: int, total: int) -> None:
    """Nobody wants to know."""


def _is_suspect(answer: EndedAnswer, watch: ParseWatch | None) -> bool:
    """Whether a process died when it was parsed, then or now."""
    known = watch.suspects if watch is not None else ()
    return answer.reason == Reason.CRASH or answer.item_id in known


async def _suspects_last(
    pages: AsyncIterator[Sequence[EndedAnswer]], watch: ParseWatch | None
) -> AsyncIterator[Sequence[EndedAnswer]]:
    """Answers at which processes died come in the end, each alone: if one does it again, all others
    have been written."""
    suspects: list[EndedAnswer] = []
    async for page in pages:
        suspects += (one for one in page if _is_suspect(one, watch))
        if others := [one for one in page if not _is_suspect(one, watch)]:
            yield others
    for one in suspects:
        yield [one]


async def _parse_page(
    runner: ParserRunner, parser: Parser, page: Sequence[EndedAnswer], timeout_s: float,
    given: Given,
) -> list[tuple[EndedAnswer, Done | Fail]]:  # fmt: skip
    """What came of them; of some only, when the parser did not end for too many."""
    found: dict[int, Done | Fail] = {}
    waiting = iter(page)

    async def parse_some() -> None:
        for answer in waiting:
            if runner.stuck >= _MOST_STUCK:
                return
            found[answer.item_id] = await _parse(runner, parser, answer, timeout_s, given)

    async with asyncio.TaskGroup() as group:
        for number in range(min(_AT_ONCE, len(page))):
            group.create_task(parse_some(), name=f"parse {number}")
    return [(answer, found[answer.item_id]) for answer in page if answer.item_id in found]


def _given(answer: EndedAnswer) -> Mapping[str, Any]:
    """The item, for a parser that takes it."""
    return read_item(json.loads(answer.input), f"item {answer.item_id}").given


async def _parse(
    runner: ParserRunner, parser: Parser, answer: EndedAnswer, timeout_s: float, given: Given
) -> Done | Fail:
    """As a worker does with the answer it has just got."""
    whole = Answer(answer.response, "", answer.finish_reason, None, Usage())
    if cut_off := fail_if_cut_off(whole, needs_whole=parser.needs_whole):
        return cut_off
    if parser.spec == "raw" or answer.is_vector:
        return Done(None)
    try:
        return Done(to_json(await runner.run(parser, answer.response, given(answer), timeout_s)))
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

    def __init__(self, chains: "ReparsedChains | None") -> None:
        self._chains = chains
        self._kinds: Counter[str] = Counter()
        self._differences: list[Difference] = []

    def add(self, page: Iterable[tuple[EndedAnswer, Done | Fail]], skipped: set[int]) -> None:
        for was, now in page:
            is_skipped = was.item_id in skipped
            kind = "skipped" if is_skipped else _kind(was, now)
            if self._chains is not None and not is_skipped:
                self._chains.count(was, now, is_same=_is_same(was, now))
            self._kinds[kind] += 1
            is_other = kind in ("done", "changed", "broken")
            if is_other and len(self._differences) < _MOST_DIFFERENCES:
                self._differences.append(_difference(was, now))

    def result(self, dry_run: bool) -> ReparseResult:
        return ReparseResult(
            **{kind: self._kinds[kind] for kind in KINDS},
            differences=tuple(self._differences),
            dry_run=dry_run,
            made=self._chains.made if self._chains else 0,
            stale=self._chains.stale if self._chains else 0,
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
