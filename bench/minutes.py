"""What it costs to count by the minute, and how soon a plot of many minutes is there."""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from msgspec.structs import replace

from batchgen.clock import now_ms
from batchgen.database_address import DatabaseAddress, from_text
from batchgen.items import Attempt, Done, Item, Outcome
from batchgen.store import (
    ClaimRequest,
    ReadStore,
    Series,
    ServerWant,
    open_store,
    read_now,
    read_store,
)
from batchgen.store.deltas import CounterDeltas
from batchgen.store.minutes import MinuteDelta, bucket_of
from bench import server_database
from bench.measure import Figure, Options, Table, keep_raw, median
from bench.project import make_project, serving
from bench.server_database import create, serving_postgres
from bench.table import ANSWER, answered, close_well, connect, fill

NAME = "minutes"
BATCHES = (1, 10, 100)
DAYS = 30
GOAL_RATIO, GOAL_ONE_RATIO, GOAL_SERIES_MS = 1.03, 1.05, 50
GOAL_FIRST_MS, BUDGET_S = 300, 0.15  # as the page has it
_WARM_UP = 20
_KINDS = 1000  # of answers


@dataclass(frozen=True)
class Turn:
    """Of some exchanges: per item, in microseconds."""

    worker_us: float
    server_us: float
    wall_us: float


def run(options: Options) -> Table:
    turns = 60 if options.quick else 500
    rows, figures, raw = [], [], {}
    with serving() as model, serving_postgres() as server:
        project = make_project(
            options.work_dir / "exchanges", model.base_url, items=1, parser="raw"
        )
        fill(project.database, _rows_for(turns))
        url = create(server, "work")
        project.spend("--db", url, "enqueue", "pool.jsonl")
        server_database.fill(url, _rows_for(turns))
        for engine, address in (("SQLite", str(project.database)), ("PostgreSQL", url)):
            for batch in BATCHES:
                without, kept = asyncio.run(_by_turns(from_text(address), batch, turns))
                raw[f"{engine} {batch}"] = [[vars(t) for t in one] for one in (without, kept)]
                rows.append(_row(engine, batch, without, kept))
                ratio = _ratio(without, kept)
                goal = GOAL_RATIO if batch > 1 else GOAL_ONE_RATIO
                figures.append(Figure(
                    f"CPU of an item with minutes to without, {engine}, {batch} at once", ratio,
                    "x", f"<= {goal:g}", ratio <= goal,
                ))  # fmt: skip
        first_ms, again_ms = _series(options.work_dir / "series.db", project.database)
    for what, ms in (("their first part", first_ms), ("again", again_ms)):
        goal_ms = GOAL_SERIES_MS if what == "again" else GOAL_FIRST_MS
        figures.append(Figure(f"plots of {DAYS} days, {what}", ms, "ms", f"<= {goal_ms}",
                              ms <= goal_ms))  # fmt: skip
    keep_raw(options, raw)
    return Table(
        title=f"Counting by the minute: exchanges with it and without, by turns, {turns} each",
        columns=("engine", "at once", "CPU an item without, us", "with", "ratio",
                 "of the time", "in the server, us without", "with"),
        rows=tuple(rows),
        figures=tuple(figures),
        notes=("Answers have lengths and latencies of all kinds. CPU is that of the worker's "
               "process and, on PostgreSQL, of the server's for it.",),
    )  # fmt: skip


def _rows_for(turns: int) -> int:
    return (sum(BATCHES) * (2 * turns + _WARM_UP)) + 1_000


async def _by_turns(
    address: DatabaseAddress, batch: int, turns: int
) -> tuple[list[Turn], list[Turn]]:
    want = ClaimRequest((ServerWant("", batch),))
    random.seed(batch)
    answers = [_answer() for _ in range(_KINDS)]
    found: tuple[list[Turn], list[Turn]] = ([], [])
    async with (
        open_store(address) as store,
        store.seat(slots=batch, lease_s=600, max_crashes=5) as worker,
    ):
        items: Sequence[Item] = ()
        for _ in range(_WARM_UP):
            items = (await worker.exchange(_outcomes(items, answers), want)).items
        server = _Server(address)
        for turn in range(2 * turns):
            outcomes = _outcomes(items, random.sample(answers, batch))
            with _counting() if turn % 2 else _not_counting():
                server_s, wall_s = server.cpu_s(), time.perf_counter()
                cpu_s = time.process_time()
                items = (await worker.exchange(outcomes, want)).items
                cpu_s = time.process_time() - cpu_s
                spent = cpu_s, server.cpu_s() - server_s, time.perf_counter() - wall_s
            assert len(items) == batch
            found[turn % 2].append(Turn(*(1e6 * one / batch for one in spent)))
        await worker.exchange(_outcomes(items, answers), want)
    return found


def _answer() -> Attempt:
    latency_ms = int(random.lognormvariate(7, 0.8)) + 1
    text = ANSWER[: int(random.lognormvariate(6, 0.7)) + 1]
    return replace(answered(), latency_ms=latency_ms, response=text, cost_usd=1e-4)


def _outcomes(items: Sequence[Item], answers: Sequence[Attempt]) -> list[Outcome]:
    now = now_ms()
    return [
        Outcome(item, (replace(answer, finished_at=now),), Done(None))
        for item, answer in zip(items, answers, strict=False)
    ]


class _Server:
    """The processes of a server for the connections of this one."""

    def __init__(self, address: DatabaseAddress) -> None:
        self._pids: list[int] = []
        if not isinstance(address, Path):
            self._pids = server_database.processes(address.url)

    def cpu_s(self) -> float:
        return sum(
            int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in self._pids
        ) / 1e9  # fmt: skip


@contextmanager
def _counting() -> Iterator[None]:
    yield


@contextmanager
def _not_counting() -> Iterator[None]:
    """As if there were no minutes: only what totals need."""
    where = "batchgen.store.transactions.deltas.write_minutes"
    with (
        mock.patch.object(MinuteDelta, "add", _sum_up),
        mock.patch.object(CounterDeltas, "end", _nothing),
        mock.patch(where, _nothing),
    ):
        yield


def _nothing(*_: object, **__: object) -> None:
    pass


def _sum_up(minute: MinuteDelta, calls: Sequence[tuple[int, Attempt]]) -> None:
    for _, attempt in calls:
        usage = attempt.usage
        minute.calls += 1
        minute.unknown_calls += attempt.outcome == "unknown"
        minute.latency_ms += attempt.latency_ms or 0
        minute.prompt_tokens += usage.prompt_tokens or 0
        minute.completion_tokens += usage.completion_tokens or 0
        minute.cached_tokens += usage.cached_tokens or 0
        minute.reasoning_tokens += usage.reasoning_tokens or 0
        minute.cost_usd += attempt.cost_usd or 0.0


def _ratio(without: list[Turn], kept: list[Turn]) -> float:
    return _cpu_us(kept) / _cpu_us(without)


def _cpu_us(turns: list[Turn]) -> float:
    return median(turn.worker_us + turn.server_us for turn in turns)


def _row(engine: str, batch: int, without: list[Turn], kept: list[Turn]) -> tuple[str, ...]:
    walls = [median(turn.wall_us for turn in turns) for turns in (without, kept)]
    return (
        engine, str(batch), f"{_cpu_us(without):.1f}", f"{_cpu_us(kept):.1f}",
        f"{_ratio(without, kept):.3f}", f"{walls[1] / walls[0]:.3f}",
        *(f"{median(turn.server_us for turn in turns):.1f}" for turns in (without, kept)),
    )  # fmt: skip


def _series(path: Path, made: Path) -> tuple[float, float]:
    """Of `DAYS` days in which each minute had calls; how soon they are there, and again."""
    path.write_bytes(made.read_bytes())
    random.seed(1)
    with closing(connect(path)) as db:
        db.execute("delete from minutes")
        kinds = [(_buckets(7, 0.8), _buckets(6, 0.7)) for _ in range(100)]
        for n in range(DAYS * 1440):
            db.execute(
                "insert into minutes (experiment_id, minute, done, calls, cost_usd, latencies,"
                " lengths, slowest, slowest_ms) values (1, ?, 6000, 6000, 0.5, ?, ?, 1, 9000)",
                (29_000_000 + n, *kinds[n % len(kinds)]),
            )
        db.execute("delete from totals")
        db.execute("insert into totals (experiment_id, calls) select 1, sum(calls) from minutes")
        close_well(db)
    with read_store(path) as store:
        first_ms, series = _asked(store)
        while not series.is_whole:
            _, series = _asked(store)
        again_ms, series = _asked(store)
        assert len(series.points) > 300
    return first_ms, again_ms


def _asked(store: ReadStore) -> tuple[float, Series]:
    """As the page asks: what is not read in time comes with the next answer."""
    began_s = time.perf_counter()
    series = read_now(store.minutes.series([1], budget_s=BUDGET_S))
    return 1000 * (time.perf_counter() - began_s), series


def _buckets(mean: float, sigma: float) -> str:
    counted: dict[int, int] = {}
    for _ in range(200):
        bucket = bucket_of(int(random.lognormvariate(mean, sigma)) + 1)
        counted[bucket] = counted.get(bucket, 0) + 30
    return "{" + ",".join(f'"{bucket}":{n}' for bucket, n in counted.items()) + "}"
