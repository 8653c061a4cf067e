"""All results as JSON lines: the usual export, and the fastest. No stored text is parsed."""

import asyncio
import hashlib
from typing import IO

from batchgen.export.lines import export_line
from batchgen.export.request import Progress, untold
from batchgen.items import State
from batchgen.shutdown import uninterrupted
from batchgen.store import Experiment, ResultRow, Store

PAGE_ROWS = 500


async def write_plain(
    store: Store, experiment: Experiment, file: IO[bytes], state: State | None,
    progress: Progress = untold,
) -> tuple[int, str]:  # fmt: skip
    """Write the lines to an open file; returns their number and their SHA-256."""
    digest, rows = hashlib.sha256(), 0

    def write(lines: bytes) -> None:
        file.write(lines)
        digest.update(lines)

    async def write_and_read_on(page: list[ResultRow]) -> list[ResultRow]:
        reading = asyncio.ensure_future(
            store.result_page(experiment.id, state, page[-1].id, PAGE_ROWS)
        )
        if store.is_served:
            await asyncio.sleep(
                0
            )  # then it is asked for; else the two would wait for Python's lock
        lines = "".join(map(export_line, page)).encode()
        next_page, _ = await asyncio.gather(reading, asyncio.to_thread(write, lines))
        return next_page

    page = await store.result_page(experiment.id, state, 0, PAGE_ROWS)
    while page:
        rows += len(page)
        progress(rows)
        page = await uninterrupted(write_and_read_on(page))
    return rows, digest.hexdigest()
