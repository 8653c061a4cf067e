"""How long the pages of `batchgen view` take, however many rows there are."""

import http.client
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

from bench.measure import Figure, Options, Table, interleaved, keep_raw, median
from bench.project import Project, make_project, serving
from bench.table import close_well, connect, fill, finish

NAME = "view"
GOAL_S = 0.050
SEARCH_S = 0.250  # so long a search may take, and says then how far it looked
ROUNDS, WARM_UP = 20, 3
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
    rounds = 3 if options.quick else ROUNDS
    found = {size: _measured(options.work_dir / f"rows-{size}", size, rounds) for size in sizes}
    keep_raw(options, {"sizes": sizes, "pages": [page for page, _, _ in PAGES],
                       "s": [found[size] for size in sizes]})  # fmt: skip
    medians = {size: [median(one) for one in found[size]] for size in sizes}
    largest = sizes[-1]
    return Table(
        title=f"View: server time of its pages; half of the rows ended, one of {EVERY:,} failed",
        columns=("page", *(f"{size:,} rows, ms" for size in sizes)),
        rows=tuple(
            (page, *(f"{1000 * medians[size][n]:.1f}" for size in sizes))
            for n, (page, _, _) in enumerate(PAGES)
        ),
        figures=tuple(
            Figure(f"{page} at {largest:,} rows", 1000 * took_s, "ms", f"<= {1000 * goal_s:g}",
                   took_s <= goal_s)
            for (page, _, goal_s), took_s in zip(PAGES, medians[largest], strict=True)
        ),
        notes=(
            f"The median of {rounds} requests over loopback, by turns, from the request to the "
            "last byte of the page, while nobody works.",
            "A search looks for a quarter of a second, and says how far it came.",
        ),
    )  # fmt: skip


def _measured(path: Path, rows: int, rounds: int) -> list[list[float]]:
    """For each page what its requests took, in seconds."""
    with serving() as server:
        project = make_project(path, server.base_url, items=1, parser="raw")
    fill(project.database, rows)
    finish(project.database, rows // 2)
    failed = _let_fail(project.database, rows // 2)
    places = {"middle": rows // 4, "failed": failed}
    with _viewed(project) as get:
        asking = [_timed(get, page.format(**places)) for _, page, _ in PAGES]
        interleaved(WARM_UP, *asking)
        return interleaved(rounds, *asking)


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


@contextmanager
def _viewed(project: Project) -> Iterator[Callable[[str], bytes]]:
    """A function that gets a page of a `batchgen view` that runs meanwhile."""
    command = [*project.command, "view", "--read-only"]
    with subprocess.Popen(command, cwd=project.path, stdout=subprocess.PIPE) as running:
        try:
            assert running.stdout is not None
            link = urlsplit(running.stdout.readline().decode().strip())
            with closing(http.client.HTTPConnection(link.netloc)) as client:
                yield _getting(client, link.query)
        finally:
            running.send_signal(signal.SIGINT)


def _getting(client: http.client.HTTPConnection, token: str) -> Callable[[str], bytes]:
    def get(page: str, **headers: str) -> http.client.HTTPResponse:
        client.request("GET", page, headers=headers)
        return client.getresponse()

    entered = get(f"/?{token}")
    entered.read()
    cookie = entered.headers["Set-Cookie"].partition(";")[0]

    def read(page: str) -> bytes:
        answer = get(page, Cookie=cookie)
        text = answer.read()
        assert answer.status in (200, 302), f"{page}: {answer.status}"
        return text

    return read


def _timed(get: Callable[[str], bytes], page: str) -> Callable[[], float]:
    def timed() -> float:
        begun_s = time.perf_counter()
        get(page)
        return time.perf_counter() - begun_s

    return timed
