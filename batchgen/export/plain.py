"""All results as JSON lines: the usual export, and the fastest. No stored text is parsed."""

import asyncio
import hashlib
from collections.abc import Sequence
from typing import IO

from batchgen.export.lines import export_line
from batchgen.export.request import Progress, untold
from batchgen.items import State
from batchgen.shutdown import uninterrupted
from batchgen.store import Experiment, MadePage, ResultRow, Store

PAGE_ROWS = 500

_AT_A_TIME = 32  # lines: of a whole page's, the memory is got anew for each

_Rows = tuple[ResultRow, ...] | list[bytes]
"""Of a page, or their lines."""


async def write_plain(
    store: Store, experiment: Experiment, file: IO[bytes], state: State | None,
    progress: Progress = untold,
) -> tuple[int, str]:  # fmt: skip
    """Write the lines to an open file; returns their number and their SHA-256."""
    digest, rows = hashlib.sha256(), 0

    def write(page: _Rows) -> None:
        for lines in page if isinstance(page, list) else _lines(page):
            file.write(lines)
            digest.update(lines)

    async def read(after: int) -> MadePage[_Rows]:
        # While a server looks for the next rows, lines are made of these. But who reads a file has
        # a use for Python's lock at each row, and would wait for whoever makes lines meanwhile.
        make = tuple if store.is_served else _lines
        return await store.made_page(make, experiment.id, state, after, PAGE_ROWS)

    async def write_and_read_on(page: MadePage[_Rows]) -> MadePage[_Rows]:
        reading = asyncio.ensure_future(read(page.last))
        await asyncio.sleep(0)  # then it is asked for
        next_page, _ = await asyncio.gather(reading, asyncio.to_thread(write, page.made))
        return next_page

    page = await read(0)
    while page.rows:
        rows += page.rows
        progress(rows)
        page = await uninterrupted(write_and_read_on(page))
    return rows, digest.hexdigest()


def _lines(page: Sequence[ResultRow]) -> list[bytes]:
    return [
        "".join([export_line(row) for row in page[begin : begin + _AT_A_TIME]]).encode()
        for begin in range(0, len(page), _AT_A_TIME)
    ]
