"""Results with all samples of an item in one line, in the order of the pool.

A line is written while its samples are read, so memory does not grow with their number.
"""

import asyncio
from collections.abc import Mapping, Sequence

from batchgen.export.files import Hashed
from batchgen.export.lines import group_head, matches, sample_object
from batchgen.export.request import ExportRequest, Progress, untold
from batchgen.export.reviewed import EDITED, is_edited, with_reviews
from batchgen.shutdown import uninterrupted
from batchgen.store import Experiment, ResultRow, Store

PAGE_ROWS = 500
_GROUP_END = "]}\n"


async def write_groups(
    store: Store, experiment: Experiment, file: Hashed, request: ExportRequest,
    progress: Progress = untold,
) -> int:  # fmt: skip
    """Write the lines, with the samples that are chosen; returns the number of lines."""
    groups = _Groups(file, request)
    after = read = 0
    while firsts := await store.sample_page(experiment.id, after):
        numbers = list(firsts)
        after = firsts[numbers[-1]]
        while numbers:
            rows, numbers[:PAGE_ROWS] = await store.results_in_order(numbers[:PAGE_ROWS])
            read += len(rows)
            if request.needs_reviews:
                rows = await with_reviews(store, rows)
            await uninterrupted(asyncio.to_thread(groups.write, rows, firsts))
            progress(read)
    groups.close()
    return groups.lines


class _Groups:
    def __init__(self, file: Hashed, request: ExportRequest) -> None:
        self._file, self._request = file, request
        self._first = 0  # the first sample of the line that is being written
        self.lines = 0

    def write(self, rows: Sequence[ResultRow], firsts: Mapping[int, int]) -> None:
        """`firsts`: the number of each item's first sample."""
        self._file.write("".join([self._part(row, firsts[row.id]) for row in rows]).encode())

    def close(self) -> None:
        self._file.write(_GROUP_END.encode() if self.lines else b"")

    def _part(self, row: ResultRow, first: int) -> str:
        if not self._is_chosen(row):
            return ""
        sample = sample_object(row, f', "{EDITED}": true' if is_edited(row) else "")
        if first == self._first:
            return f", {sample}"
        self._first = first
        self.lines += 1
        end = _GROUP_END if self.lines > 1 else ""
        return f"{end}{group_head(row, first)}{sample}"

    def _is_chosen(self, row: ResultRow) -> bool:
        request = self._request
        return row.reason is None and request.takes(row) and matches(row, request.where)
