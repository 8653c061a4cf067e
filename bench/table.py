"""What an item costs the store as the table grows, and how soon batchgen is there."""

import asyncio
import json
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from batchgen.clock import now_ms
from batchgen.items import Attempt, Done, Item, Outcome, Usage
from batchgen.store import ClaimRequest, ServerWant, key_of_content, open_store
from batchgen.store.minutes import bucket_of
from batchgen.text.json_text import content_of, dump_json
from bench.job import item_text
from bench.measure import (
    Figure,
    Options,
    Spent,
    Table,
    interleaved,
    keep_raw,
    median,
    spend,
)
from bench.project import Project, Server, done, make_project, serving
from bench.start import first_call

NAME = "table"
BATCH = 100
GOAL_RATIO, GOAL_STATUS_S, GOAL_FIRST_CALL_S = 1.2, 0.050, 1.0
WARM_UP, EXCHANGES = 6, 20
ANSWER = "<draft>" + item_text(0) + item_text(1) + "</draft>"
REST = json.dumps({
    "id": "chatcmpl-0123456789abcdef", "object": "chat.completion", "created": 1764000000,
    "model": "simulated", "choices": [{"index": 0, "finish_reason": "stop", "logprobs": None,
    "message": {"role": "assistant", "content": None, "refusal": None}}],
    "usage": {"prompt_tokens": 130, "completion_tokens": 250, "total_tokens": 380},
})  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """Of claiming and finishing one item, in milliseconds."""

    wall_ms: float
    cpu_ms: float


def run(options: Options) -> Table:
    sizes = [10_000, 100_000]
    sizes += [] if options.quick else [1_000_000]
    sizes += [10_000_000] if options.large else []
    rounds = 3 if options.quick else 8
    with serving() as server:
        _prove_the_filling(options.work_dir / "proof", server)
        projects = [_filled(options.work_dir / f"rows-{n}", server, n) for n in sizes]
        want = ClaimRequest((ServerWant("", BATCH),))
        exchanges = [exchanging(project, want, _outcomes) for project in projects]
        costs = interleaved(rounds, *exchanges)
        statuses = interleaved(rounds, _bare_python, *(_status(p) for p in projects))
        first_calls_s = interleaved(rounds, *(_first_call(p, server) for p in projects))
    keep_raw(options, {"sizes": sizes, "wall_ms": [[c.wall_ms for c in found] for found in costs],
                       "cpu_ms": [[c.cpu_ms for c in found] for found in costs],
                       "status_s": [[s.wall_s for s in found] for found in statuses[1:]],
                       "first_call_s": first_calls_s})  # fmt: skip
    status_s = [median(s.wall_s for s in found) for found in statuses[1:]]
    return Table(
        title=f"Table: half of the rows done, half pending; {rounds} rounds by turns",
        columns=("rows", "claim + finish, ms per item", "CPU ms per item", "against the smallest",
                 "CPU against the smallest", "batchgen status, ms", "its CPU ms",
                 "work to first call, ms"),
        rows=tuple(
            (f"{size:,}", f"{median(c.wall_ms for c in found):.4f}",
             f"{median(c.cpu_ms for c in found):.4f}",
             f"{_ratio(found, costs[0]):.2f}", f"{_cpu_ratio(found, costs[0]):.2f}",
             f"{1000 * median(s.wall_s for s in status):.0f}",
             f"{1000 * median(s.cpu_s for s in status):.0f}", f"{1000 * median(first):.0f}")
            for size, found, status, first in zip(
                sizes, costs, statuses[1:], first_calls_s, strict=True)
        ),
        figures=(
            *_ratio_figures(sizes, costs),
            *(_limit(f"batchgen status at {n:,} rows", s, GOAL_STATUS_S)
              for n, s in zip(sizes[1:], status_s[1:], strict=True)),
            *(_limit(f"start of work to first call at {n:,} rows", median(s), GOAL_FIRST_CALL_S)
              for n, s in zip(sizes[1:], first_calls_s[1:], strict=True)),
        ),
        notes=(
            f"Claim + finish: `Worker.exchange` of {BATCH} outcomes that claims {BATCH} items, "
            f"{EXCHANGES} in a row after {WARM_UP} to warm up, fsync and checkpoints included.",
            "The tables are filled by SQL, with the rows that `batchgen enqueue` and `work` make: "
            "at 2,000 rows this is proven by comparing them and by `batchgen verify`.",
            f"`batchgen status` is the whole command; `python -c pass` takes "
            f"{1000 * median(s.wall_s for s in statuses[0]):.0f} ms here.",
        ),
    )  # fmt: skip


# --- filling


def _filled(path: Path, server: Server, rows: int) -> Project:
    """A project with so many rows, the first half of them done."""
    project = make_project(path, server.base_url, items=1, parser="raw")
    fill(project.database, rows)
    finish(project.database, rows // 2)
    shutil.copyfile(project.database, path / "pristine") if rows <= 10_000 else None
    return project


def fill(database: Path, rows: int) -> None:
    """Add what enqueueing items 1 to `rows` (counted from 0) would, to a database that has item
    0."""
    with closing(connect(database)) as db:
        db.execute("create temp table keys (key blob, item_id integer)")
        for first in range(1, rows, 100_000):
            numbers = range(first, min(rows, first + 100_000))
            inputs = [(n + 1, dump_json({"text": item_text(n)})) for n in numbers]
            db.executemany(
                "insert into items (id, experiment_id, recipe_id, input) values (?, 1, 1, ?)",
                inputs,
            )
            keys = [(key_of_content(1, 1, content_of({"text": item_text(n)})), n + 1)
                    for n in numbers]  # fmt: skip
            db.executemany("insert into keys values (?, ?)", keys)
        db.execute("insert into item_keys select key, item_id from keys order by key")
        db.execute("insert into work (item_id, experiment_id) select id, 1 from items where id > 1")
        db.execute("update counters set n = ? where state = 'pending'", (rows,))
        close_well(db)


def finish(database: Path, rows: int) -> None:
    """Make items 1 to `rows` done, as a worker that answered them all."""
    now = now_ms()
    with closing(connect(database)) as db:
        db.execute(
            "insert into attempts (seq, item_id, epoch, worker_id, finished_at, latency_ms,"
            " outcome, http_status, request_id, model, finish_reason, prompt_tokens,"
            " completion_tokens, response, body)"
            " select id, id, 1, 1, ?1, 50, 'answered', 200, 'req-0123456789', 'simulated', 'stop',"
            " 130, 250, ?2, ?3 from items where id <= ?4",
            (now, ANSWER, REST, rows),
        )
        db.execute(
            "insert into results (seq, item_id, attempt_seq, state, parser_id, finished_at)"
            " select id, id, id, 'done', 1, ?1 from items where id <= ?2",
            (now, rows),
        )
        db.execute(
            "update work set state = 'done', epoch = 1, tries = 1, result_seq = item_id"
            " where item_id <= ?",
            (rows,),
        )
        db.execute("update counters set n = n - ? where state = 'pending'", (rows,))
        db.execute("insert into counters values (1, 'done', '', ?)", (rows,))
        db.execute("insert into parser_counters values (1, 1, ?)", (rows,))
        db.execute(
            "insert into totals (experiment_id, calls, latency_ms, prompt_tokens,"
            " completion_tokens) values (1, ?1, ?1 * 50, ?1 * 130, ?1 * 250)",
            (rows,),
        )
        db.execute(
            "insert into minutes (experiment_id, minute, done, calls, latency_ms, prompt_tokens,"
            " completion_tokens, latencies, lengths, slowest, slowest_ms)"
            " values (1, ?1 / 60000, ?2, ?2, ?2 * 50, ?2 * 130, ?2 * 250, ?3, ?4, 1, 50)",
            (now, rows, *buckets_of(rows)),
        )
        close_well(db)  # fmt: skip


def buckets_of(rows: int) -> tuple[str, str]:
    """Where latencies and lengths of so many such answers are counted."""
    return f'{{"{bucket_of(50)}":{rows}}}', f'{{"{bucket_of(len(ANSWER))}":{rows}}}'


def connect(database: Path) -> sqlite3.Connection:
    """For filling: nothing needs to survive a crash."""
    db = sqlite3.connect(database, isolation_level=None)
    db.execute("pragma journal_mode = delete")
    db.execute("pragma synchronous = off")
    db.execute("pragma cache_size = -1000000")
    db.execute("begin")
    return db


def close_well(db: sqlite3.Connection) -> None:
    db.execute("commit")
    db.execute("pragma synchronous = full")
    db.execute("pragma journal_mode = wal")


def _prove_the_filling(path: Path, server: Server) -> None:
    """Raises AssertionError unless filling makes the rows that enqueueing makes, and what is done
    afterwards is sound."""
    rows = 2_000
    filled = make_project(path / "filled", server.base_url, items=1, parser="raw")
    fill(filled.database, rows)
    enqueued = make_project(path / "enqueued", server.base_url, items=rows, parser="raw")
    for table in ("items", "item_keys", "work", "counters", "sqlite_sequence"):
        sql = f"select * from {table} order by 1"
        assert filled.query(sql) == enqueued.query(sql), f"{table} differs"
    finish(filled.database, rows // 2)
    filled.spend("verify")


# --- measuring


def exchanging(
    project: Project, want: ClaimRequest, outcomes_of: Callable[[Sequence[Item]], list[Outcome]]
) -> Callable[[], Cost]:  # fmt: skip
    """Claims what is wanted, `BATCH` items each time, and finishes it with these outcomes."""
    pristine = project.path / "pristine"

    def exchange_many() -> Cost:
        if pristine.exists():  # too few rows for all the rounds
            project.reuse(pristine)
            with project.database.open("rb+") as file:
                os.fsync(file.fileno())
        return asyncio.run(_exchange_many(project.database, want, outcomes_of))

    return exchange_many


async def _exchange_many(
    database: Path, want: ClaimRequest, outcomes_of: Callable[[Sequence[Item]], list[Outcome]]
) -> Cost:  # fmt: skip
    async with (
        open_store(database) as store,
        store.seat(slots=BATCH, lease_s=60, max_crashes=5) as worker,
    ):
        items = (await worker.exchange([], want)).items
        for _ in range(WARM_UP):
            items = (await worker.exchange(outcomes_of(items), want)).items
        wall_s = cpu_s = 0.0
        for _ in range(EXCHANGES):
            outcomes = outcomes_of(items)
            wall_from_s, cpu_from_s = time.perf_counter(), time.process_time()
            items = (await worker.exchange(outcomes, want)).items
            wall_s += time.perf_counter() - wall_from_s
            cpu_s += time.process_time() - cpu_from_s
            assert len(items) == BATCH
    n = EXCHANGES * BATCH
    return Cost(1000 * wall_s / n, 1000 * cpu_s / n)


def answered() -> Attempt:
    """A call as most are."""
    return Attempt(
        finished_at=now_ms(), latency_ms=50, http_status=200, request_id="req-0123456789",
        model="simulated", finish_reason="stop", usage=Usage(130, 250), response=ANSWER,
        body=REST,
    )  # fmt: skip


def _outcomes(items: Sequence[Item]) -> list[Outcome]:
    attempt = answered()
    return [Outcome(item, (attempt,), Done(None)) for item in items]


def _bare_python() -> Spent:
    return done(spend([sys.executable, "-c", "pass"], urgent=True))


def _status(project: Project) -> Callable[[], Spent]:
    return lambda: project.spend("status", urgent=True)


def _first_call(project: Project, server: Server) -> Callable[[], float]:
    return lambda: first_call(project, server)


def _ratio(found: list[Cost], smallest: list[Cost]) -> float:
    return median(c.wall_ms for c in found) / median(c.wall_ms for c in smallest)


def _cpu_ratio(found: list[Cost], smallest: list[Cost]) -> float:
    return median(c.cpu_ms for c in found) / median(c.cpu_ms for c in smallest)


def _ratio_figures(sizes: list[int], costs: list[list[Cost]]) -> list[Figure]:
    """The goal is about the time; the CPU is told too, as a busy disk doesn't change it."""
    figures = []
    for size, found in zip(sizes[1:], costs[1:], strict=True):
        ratio, cpu_ratio = _ratio(found, costs[0]), _cpu_ratio(found, costs[0])
        goal, what = f"<= {GOAL_RATIO:g}", f"claim + finish at {size:,} rows against {sizes[0]:,}"
        figures += [
            Figure(what, ratio, "x", goal, ratio <= GOAL_RATIO),
            Figure(f"CPU of {what}", cpu_ratio, "x", goal, cpu_ratio <= GOAL_RATIO),
        ]
    return figures


def _limit(what: str, seconds: float, goal_s: float) -> Figure:
    return Figure(what, 1000 * seconds, "ms", f"<= {1000 * goal_s:g}", seconds <= goal_s)
