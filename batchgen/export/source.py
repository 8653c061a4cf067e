"""What an export is made of: rows in the order of the pool, page by page; here those of an
experiment without steps."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from batchgen.export.chosen_columns import ChosenColumns
from batchgen.export.files import Hashed
from batchgen.export.lines import matches
from batchgen.export.request import ExportRequest, Progress, untold
from batchgen.export.reviewed import Reviewed, with_reviews
from batchgen.export.writer import Content, Writer
from batchgen.store import Experiment, ResultRow, ReviewFilter, Store, Verdict

_PAGE_ROWS = 500
_PAGE_ROWS_WITH_BODIES = 50  # a body with logprobs is a hundred times its answer


class HasId(Protocol):
    """A row, which is known by the number of the item that its answer is from."""

    @property
    def id(self) -> int: ...


R = TypeVar("R", bound=HasId)


class Source(Protocol[R]):
    """The rows of an export, which can be read more than once."""

    @property
    def see(self) -> Callable[[Content, R], None] | None:
        """Is given each row before any is written, where the format must know of all."""

    async def content(self) -> Content: ...

    async def count(self) -> int | None:
        """How many rows there are, before any is chosen; None: only reading them tells."""

    def pages(self) -> AsyncIterator[list[R]]: ...

    def matches(self, row: R) -> bool:
        """Whether it is to be in the export."""

    async def read_details(self, page: Sequence[R], content: Content) -> None:
        """What else the format, or the summary, has to know of the rows."""

    def writer(self, file: Hashed, content: Content) -> Writer[R]: ...

    def counted(self, row: R) -> Iterable[ResultRow]:
        """The results in it that no row before it has had."""


class ResultRows(Source[ResultRow]):
    """Those of an experiment without steps."""

    def __init__(
        self, store: Store, experiment: Experiment, request: ExportRequest,
        progress: Progress = untold,
    ) -> None:  # fmt: skip
        self._store, self._experiment = store, experiment
        self._request, self._progress = request, progress

    @property
    def see(self) -> Callable[[Content, ResultRow], None] | None:
        return None if self._request.columns else self._request.format.see

    async def content(self) -> Content:
        has_samples = await self._store.has_samples(self._experiment.id)
        return content_of(self._request, has_samples=has_samples)

    async def count(self) -> int | None:
        return self._request.rows_of(await self._store.counts([self._experiment.id]))

    async def pages(self) -> AsyncIterator[list[ResultRow]]:
        request, rows = self._request, 0
        limit = _PAGE_ROWS_WITH_BODIES if request.needs_bodies else _PAGE_ROWS
        accepted = request.reviewed is Reviewed.ACCEPTED
        async for page in self._accepted_pages(limit) if accepted else self._all_pages(limit):
            rows += len(page)
            self._progress(rows)
            yield await with_reviews(self._store, page) if request.needs_reviews else page

    async def _all_pages(self, limit: int) -> AsyncIterator[list[ResultRow]]:
        after, experiment_id, state = 0, self._experiment.id, self._request.only_state
        while page := await self._store.result_page(experiment_id, state, after, limit):
            after = page[-1].id
            yield page

    async def _accepted_pages(self, limit: int) -> AsyncIterator[list[ResultRow]]:
        """By the reviews, which may be few of many rows."""
        after, accepted = 0, ReviewFilter(Verdict.ACCEPTED, current=True)
        while found := await self._store.reviews.page(
            [self._experiment.id], accepted, after, limit
        ):
            after, ids = found[-1].item_id, [one.item_id for one in found]
            while ids:
                page, ids = await self._store.results_in_order(ids)
                if page := [row for row in page if row.reason is None]:
                    yield page

    def matches(self, row: ResultRow) -> bool:
        return self._request.takes(row) and matches(row, self._request.where)

    async def read_details(self, page: Sequence[ResultRow], content: Content) -> None:
        await read_details(self._store, [row.id for row in page], self._request, content)

    def writer(self, file: Hashed, content: Content) -> Writer[ResultRow]:
        return self._request.format.writer(file, content)

    def counted(self, row: ResultRow) -> Iterable[ResultRow]:
        return (row,)


def content_of(request: ExportRequest, *, has_samples: bool) -> Content:
    return Content(
        request.extras, has_samples=has_samples, has_failed=request.has_failed,
        chosen=ChosenColumns(request.columns) if request.columns else None,
        is_guarded=request.is_guarded, has_edits=request.needs_reviews,
    )  # fmt: skip


async def read_details(
    store: Store, item_ids: Sequence[int], request: ExportRequest, content: Content
) -> None:
    content.details = await store.answer_details(item_ids, bodies=request.needs_bodies)
    recipe_ids = {details.recipe_id for details in content.details.values()}
    for recipe_id in recipe_ids - content.recipes.keys():
        content.recipes[recipe_id] = await store.recipe(recipe_id)
