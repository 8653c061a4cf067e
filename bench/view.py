"""How long the pages of `batchgen view` take, however many rows there are."""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from bench.measure import Figure, Options, Table, interleaved, keep_raw, median, status_mb
from bench.project import make_project, serving
from bench.table import close_well, connect, fill, finish
from bench.viewer import Viewed, viewed

NAME = "view"
GOAL_S = 0.050
SEARCH_S = 0.250  # so long a search may take, and says then how far it looked
ROUNDS, WARM_UP = 20, 3
REQUESTS, GOAL_GROWTH = 2000, 1.05
EVERY = 1000  # so many done rows to one that failed
WHERE = quote("parsed == 'never'")

# What it is, its address, and how long it may take. A middle row and place are filled in.
PAGES: tuple[tuple[str, str, float], ...] = (
    ("all experiments", "/", GOAL_S),
    ("one experiment", "/e/default", GOAL_S),
    ("workers", "/workers", GOAL_S),
    ("recipes", "/recipes", GOAL_S),
    ("newest rows", "/e/default/items", GOAL_S),
    ("newest rows, from the middle", "/e/default/items?after={middle}", GOAL_S),
    ("newest rows, backwards", "/e/default/items?before={middle}", GOAL_S),
    ("all rows in the order of the pool", "/e/default/items?order=pool&after={middle}", GOAL_S),
    ("done rows in the order of the pool",
     "/e/default/items?state=done&order=pool&after={middle}", GOAL_S),
    ("failed rows", "/e/default/items?state=failed", GOAL_S),
    ("failed rows from the middle", "/e/default/items?state=failed&after={middle}", GOAL_S),
    ("pending rows", "/e/default/items?state=pending", GOAL_S),
    ("running rows", "/e/default/items?state=running", GOAL_S),
    ("one row", "/items/{middle}", GOAL_S),
    ("one failed row", "/items/{failed}", GOAL_S),
    ("the row after it", "/e/default/next?order=newest&at={middle}", GOAL_S),
    ("what failed", "/e/default/failures", SEARCH_S + GOAL_S),
    ("asking again", "/e/default/retry?reason=parse", GOAL_S),
    ("asking again, by a message", "/e/default/retry?message=nowhere", SEARCH_S + GOAL_S),
    ("the fields of 1,000 random rows", "/e/default/fields", SEARCH_S + GOAL_S),
    ("two answers compared", "/items/{middle}/diff?a=a{middle}&b=a{failed}", GOAL_S),
    ("a text that is nowhere", "/e/default/items?q=nowhere-at-all", SEARCH_S + GOAL_S),
    ("a condition that never holds", f"/e/default/items?where={WHERE}", SEARCH_S + GOAL_S),
)  # fmt: skip


def run(options: Options) -> Table:
    sizes = [10_000] if options.quick else [10_000, 1_000_000]
    sizes += [10_000_000] if options.large else []
    rounds, requests = (3, 100) if options.quick else (ROUNDS, REQUESTS)
    found = {
        size: _measured(options.work_dir / f"rows-{size}", size, rounds, requests) for size in sizes
    }
    keep_raw(options, {"sizes": sizes, "pages": [page for page, _, _ in PAGES],
                       "s": [found[size][0] for size in sizes],
                       "memory_mb": [found[size][1] for size in sizes]})  # fmt: skip
    medians = {size: [median(one) for one in found[size][0]] for size in sizes}
    largest = sizes[-1]
    half_mb, all_mb = found[largest][1]
    return Table(
        title=f"View: server time of its pages; half of the rows ended, one of {EVERY:,} failed",
        columns=("page", *(f"{size:,} rows, ms" for size in sizes)),
        rows=tuple(
            (page, *(f"{1000 * medians[size][n]:.1f}" for size in sizes))
            for n, (page, _, _) in enumerate(PAGES)
        ),
        figures=(
            *(Figure(f"{page} at {largest:,} rows", 1000 * took_s, "ms", f"<= {1000 * goal_s:g}",
                     took_s <= goal_s)
              for (page, _, goal_s), took_s in zip(PAGES, medians[largest], strict=True)),
            Figure(f"memory after {requests:,} requests to half of them, at {largest:,} rows",
                   all_mb / half_mb, "x", f"<= {GOAL_GROWTH:g}", all_mb <= GOAL_GROWTH * half_mb),
        ),
        notes=(
            f"The median of {rounds} requests over loopback, by turns, from the request to the "
            "last byte of the page, while nobody works.",
            f"After them {requests:,} requests of the pages that are no search; the memory "
            f"is {all_mb:.0f} MB then.",
            "A search looks for a quarter of a second, and says how far it came.",
        ),
    )  # fmt: skip


def _measured(
    path: Path, rows: int, rounds: int, requests: int
) -> tuple[list[list[float]], tuple[float, float]]:
    """For each page what its requests took, in seconds; and the memory, as `_memory` has it."""
    with serving() as server:
        project = make_project(path, server.base_url, items=1, parser="raw")
    fill(project.database, rows)
    finish(project.database, rows // 2)
    failed = _let_fail(project.database, rows // 2)
    places = {"middle": rows // 4, "failed": failed}
    pages = [page.format(**places) for _, page, _ in PAGES]
    quick = [page for page, (_, _, goal_s) in zip(pages, PAGES, strict=True) if goal_s == GOAL_S]
    with viewed(project) as viewer:
        asking = [_timed(viewer, page) for page in pages]
        interleaved(WARM_UP, *asking)
        took_s = interleaved(rounds, *asking)
        return took_s, _memory(viewer, quick, requests)


def _let_fail(database: Path, done: int) -> int:
    """Some of the rows that are done; the number of one of them."""
    with closing(connect(database)) as db:
        found = "select item_id from work where state = 'done' and item_id % ?1 = 0"
        db.execute(
            "update results set state = 'failed', reason = 'parse', error = 'no JSON in the answer'"
            f" where item_id in ({found})",
            (EVERY,),
        )
        n = db.execute(
            "update work set state = 'failed' where state = 'done' and item_id % ?1 = 0", (EVERY,)
        ).rowcount
        db.execute("update counters set n = n - ? where state = 'done'", (n,))
        db.execute("insert into counters values (1, 'failed', 'parse', ?)", (n,))
        close_well(db)
    return done // 2 // EVERY * EVERY


def _timed(viewer: Viewed, page: str) -> Callable[[], float]:
    def timed() -> float:
        begun_s = time.perf_counter()
        viewer.ask(page)
        return time.perf_counter() - begun_s

    return timed


def _memory(viewer: Viewed, pages: list[str], requests: int) -> tuple[float, float]:
    """Of the viewer in MB, after half of so many requests and after all: each page has its turn."""
    found = []
    for n in range(1, requests + 1):
        viewer.ask(pages[n % len(pages)])
        if n in (requests // 2, requests):
            found.append(status_mb(viewer.pid, "VmRSS"))
    return found[0], found[1]
