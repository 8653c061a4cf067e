"""What an export of chains is made of: a line a chain, or a line for each row of a step."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby, islice

from batchgen.export.chains.content import ChainContent
from batchgen.export.chains.formats import CHAIN_FORMATS, GROUPED
from batchgen.export.chains.line import ChainLine
from batchgen.export.chains.lines import lines_of, value_by_name
from batchgen.export.chains.walk import How
from batchgen.export.files import Hashed
from batchgen.export.request import ExportRequest, LeftOut, Progress, untold
from batchgen.export.reviewed import chains_with_reviews
from batchgen.export.source import Source, read_details
from batchgen.export.writer import Content, Writer
from batchgen.items import State
from batchgen.store import Chain, ChainRow, ResultRow, Store

_PAGE_ROWS = 2000  # of chains, about, as it is read by items
_MOST_ITEMS, _FIRST_ITEMS = 250, 16
_PAGE_LINES = 100  # each has its whole chain in it, and so what many have in common many times


class ChainLines(Source[ChainLine]):
    """Those of an experiment with steps. What is `left_out` is complete when all pages were read,
    and `items` are those that were written."""

    def __init__(
        self, store: Store, chain: Chain, request: ExportRequest, progress: Progress = untold
    ) -> None:
        self._store, self._chain, self._plan = store, chain, chain.plan
        self._request, self._progress = request, progress
        self._step = None if request.step is None else chain.plan.number_of(request.step)
        self._format = GROUPED if request.group else CHAIN_FORMATS[request.format.name]
        self._wanted = {How.FAILED if request.state is State.FAILED else How.ENDED}
        self._wanted |= {How.FAILED} if request.failed_too else set()
        self._counting = (0, set[int]())
        self._left_out = Counter[str]()
        self.items = 0

    @property
    def left_out(self) -> LeftOut:
        """Of an export of failed ones nothing is."""
        if self._request.state is State.FAILED:
            return LeftOut()
        names = LeftOut.__struct_fields__
        return LeftOut(**{name: self._left_out[name] for name in names})

    @property
    def see(self) -> Callable[[Content, ChainLine], None] | None:
        see = self._format.see
        if see is None or self._request.columns:
            return None
        return lambda content, line: see(_of_chains(content), line)

    async def content(self) -> Content:
        has_samples = await self._store.has_samples(self._chain.first_id)
        return ChainContent(self._chain, self._request, has_samples=has_samples)

    async def count(self) -> int | None:
        return None

    async def pages(self) -> AsyncIterator[list[ChainLine]]:
        after, limit, lines = 0, _FIRST_ITEMS, 0
        self._left_out.clear()
        while rows := await self._store.chains.chain_page(self._chain.first_id, after, limit):
            after = rows[-1].item_id
            if self._request.needs_reviews:
                rows = await chains_with_reviews(self._store, rows)
            items = [list(one) for _, one in groupby(rows, key=lambda row: row.item_id)]
            found = (line for item in items for line in self._lines(item))
            while page := list(islice(found, _PAGE_LINES)):
                lines += len(page)
                self._progress(lines)
                yield page
            limit = max(1, min(_MOST_ITEMS, _PAGE_ROWS * len(items) // len(rows)))

    def matches(self, row: ChainLine) -> bool:
        request = self._request
        is_chosen = request.reviewed is None or request.reviewed.takes(row.verdict(self._step))
        if is_chosen and request.where is not None:
            is_chosen = request.where.holds(partial(value_by_name, row, self._step))
        self._left_out["not_chosen"] += not is_chosen
        return is_chosen

    async def read_details(self, page: Sequence[ChainLine], content: Content) -> None:
        ids = {line.id for line in page}
        if self._format.needs_parents or self._request.summary:
            ids |= {one.id for line in page for one in line.results()}
        await read_details(self._store, sorted(ids), self._request, content)
        _of_chains(content).begin_page(page)

    def writer(self, file: Hashed, content: Content) -> Writer[ChainLine]:
        return self._format.writer(file, _of_chains(content))

    def counted(self, row: ChainLine) -> Iterable[ResultRow]:
        item_id, seen = self._counting
        if row.item_id != item_id:  # other chains of the same item have the same rows
            seen = set()
            self.items += 1
            self._counting = row.item_id, seen
        new = [one for one in row.results() if one.id not in seen]
        seen.update(one.id for one in new)
        return new

    def _lines(self, rows: Sequence[ChainRow]) -> Iterator[ChainLine]:
        for how, line in lines_of(self._plan, rows, self._step, self._wanted):
            if line is None:
                self._left_out[how.value] += 1
            elif self._format.needs_answer and self._has_no_answer(line):
                self._left_out["without_answer"] += 1
            else:
                yield line

    def _has_no_answer(self, line: ChainLine) -> bool:
        """Of a model."""
        if line.own is None:
            return line.failed is None
        return self._plan.steps[line.own.number].runs_code


def _of_chains(content: Content) -> ChainContent:
    assert isinstance(content, ChainContent)
    return content
