"""The same work table in SQLite and on PostgreSQL: what an item costs with one worker and with
many, and how fast pools come in and results go out."""

import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from bench import server_database
from bench.job import write_pool
from bench.measure import Figure, Options, Spent, Table, interleaved, keep_raw, median
from bench.project import ROOT, Project, Server, make_project, serving
from bench.server_database import create, serving_postgres
from bench.table import fill, finish
from tests.kits.postgres import Server as Postgres

NAME = "postgres"
BATCHES, WORKERS = (1, 10, 100), (1, 4, 8)
GOAL_CPU_US, GOAL_SPEED, GOAL_CLAIM_MS, GOAL_LIMITED = 45, 1.5, 10, 0.9
GOAL_SERVER_US, GOAL_CONNECTIONS = 140, 1.0
GOAL_HELD, GOAL_NEW, GOAL_KNOWN, GOAL_EXPORT, GOAL_MOVE = 0.8, 25_000, 100_000, 45_000, 15_000
_NO_LIMIT_RPM = 10**9  # that is looked after all the same


@dataclass(frozen=True)
class Crew:
    """What some workers have done together, and took."""

    items_per_s: float
    cpu_us: float  # an item, in the workers
    server_us: float  # an item, in the server's processes for them
    p50_ms: float
    p99_ms: float
    fairness: float  # the slowest worker's items to the fastest one's
    connections: float  # of each worker, to the server


@dataclass(frozen=True)
class _OnServer:
    """What a command took, and the CPU of the server's processes for it."""

    spent: Spent
    server_s: float = 0.0


def run(options: Options) -> Table:
    bench = _Bench(options)
    with serving() as model, serving_postgres() as server:
        bench.exchanges(model, server)
        bench.claims(model, server)
        bench.pools(model, server)
    keep_raw(options, bench.raw)
    return Table(
        title="SQLite and PostgreSQL, by turns",
        columns=("what", "SQLite", "PostgreSQL", "ratio"),
        rows=tuple(bench.rows),
        figures=tuple(bench.figures),
        notes=(
            "Exchanges: workers in processes of their own hand in answers of about 1.5 kB and "
            "claim as many items. In brackets: CPU an item in the workers, µs; that of the "
            "server's processes for them; p99 of an exchange, ms; the slowest worker's items to "
            "the fastest one's. Rows: CPU a row in the command, and in the server's processes for "
            "it.",
            "The server runs on this machine, durable and on its disk as SQLite does, and takes "
            "its CPU from the same cores: with more cores it gains, and SQLite does not.",
        ),
    )


class _Bench:
    def __init__(self, options: Options) -> None:
        self._options = options
        self._dir = options.work_dir
        self._rounds = 1 if options.quick else 3
        self._seconds = 1.0 if options.quick else 3.0
        self.rows: list[tuple[str, ...]] = []
        self.figures: list[Figure] = []
        self.raw: dict[str, object] = {}

    # What workers do

    def exchanges(self, model: Server, server: Postgres) -> None:
        rows = 40_000 if self._options.quick else 200_000
        project = self._filled(model, server, rows)
        for batch in BATCHES[2:] if self._options.quick else BATCHES:
            for workers in WORKERS[::2] if self._options.quick else WORKERS:
                ours, theirs = interleaved(
                    self._rounds,
                    lambda b=batch, w=workers: self._on_sqlite(project, w, b),  # type: ignore[misc]
                    lambda b=batch, w=workers: self._on_postgres(server, w, b),  # type: ignore[misc]
                )
                self._tell_crews(batch, workers, ours, theirs)
        self._limits(server)
        self._held_snapshot(server)

    def _filled(self, model: Server, server: Postgres, rows: int) -> Project:
        """Both databases, with so many rows that wait."""
        project = make_project(self._dir / "exchanges", model.base_url, items=1, parser="raw")
        fill(project.database, rows)
        shutil.copyfile(project.database, project.path / "pristine")
        url = create(server, "pristine")
        project.spend("--db", url, "enqueue", "pool.jsonl")
        server_database.fill(url, rows)
        return project

    def _on_sqlite(self, project: Project, workers: int, batch: int) -> Crew:
        project.reuse(project.path / "pristine")
        return _crew(str(project.database), workers, batch, self._seconds)

    def _on_postgres(self, server: Postgres, workers: int, batch: int, *more: str) -> Crew:
        url = create(server, "work", "pristine")
        return _crew(url, workers, batch, self._seconds, *more)

    def _tell_crews(self, batch: int, workers: int, ours: list[Crew], theirs: list[Crew]) -> None:
        what = f"exchange of {batch}, {workers} worker{'s' if workers > 1 else ''}: items/s"
        speed, other = (median(c.items_per_s for c in found) for found in (theirs, ours))
        self.rows.append((what, _crew_text(ours), _crew_text(theirs), f"{speed / other:.2f}"))
        self.raw[what] = [[crew.__dict__ for crew in found] for found in (ours, theirs)]
        if batch == 100 and workers == 1:
            cpu_us = median(crew.cpu_us for crew in theirs)
            self._limit("exchange of 100, 1 worker: CPU an item in the worker", cpu_us, "us",
                        GOAL_CPU_US)  # fmt: skip
            server_us = median(crew.server_us for crew in theirs)
            self._limit("exchange of 100, 1 worker: CPU an item in the server", server_us, "us",
                        GOAL_SERVER_US)  # fmt: skip
        if batch == 100 and workers == 8:
            self._least("exchange of 100, 8 workers: items/s, to SQLite's", speed / other, "x",
                        GOAL_SPEED)  # fmt: skip
            connections = max(crew.connections for crew in theirs)
            self._limit("connections a worker, of 8", connections, "", GOAL_CONNECTIONS)

    def _limits(self, server: Postgres) -> None:
        without, within = interleaved(
            self._rounds,
            lambda: self._on_postgres(server, 8, 10),
            lambda: self._on_postgres(server, 8, 10, "--rpm", str(_NO_LIMIT_RPM)),
        )
        ratio = _ratio(within, without)
        self.rows.append(("exchange of 10, 8 workers, without and with a limit of requests",
                          _crew_text(without), _crew_text(within), f"{ratio:.2f}"))  # fmt: skip
        self._least("with a limit, to without, 8 workers", ratio, "x", GOAL_LIMITED)

    def _held_snapshot(self, server: Postgres) -> None:
        """Somebody's open transaction keeps what was deleted from being cleared away."""

        def held() -> Crew:
            url = create(server, "work", "pristine")
            with psycopg.connect(url) as other:
                other.execute("set transaction isolation level repeatable read")
                other.execute("select count(*) from workers")
                return _crew(url, 4, 100, 3 * self._seconds)

        free, within = interleaved(
            self._rounds,
            lambda: _crew(create(server, "work", "pristine"), 4, 100, 3 * self._seconds),
            held,
        )
        ratio = _ratio(within, free)
        self.rows.append(("exchange of 100, 4 workers, without and with a snapshot held open",
                          _crew_text(free), _crew_text(within), f"{ratio:.2f}"))  # fmt: skip
        self._least("with a snapshot held open, to without", ratio, "x", GOAL_HELD)

    def claims(self, model: Server, server: Postgres) -> None:
        sizes = [50_000] if self._options.quick else [1_000_000]
        sizes += [10_000_000] if self._options.large else []
        for size in sizes:
            project = make_project(self._dir / f"of-{size}", model.base_url, items=1, parser="raw")
            fill(project.database, size)
            finish(project.database, size // 2)
            url = create(server, "large")
            project.spend("--db", url, "enqueue", "pool.jsonl")
            server_database.fill(url, size)
            server_database.finish(url, size // 2)
            ours, theirs = interleaved(
                self._rounds,
                lambda p=project: _crew(str(p.database), 1, 100, 1.0, "--claims"),  # type: ignore[misc]
                lambda u=url: _crew(u, 1, 100, 1.0, "--claims"),  # type: ignore[misc]
            )
            p50, other = (median(crew.p50_ms for crew in found) for found in (theirs, ours))
            self.rows.append((f"claim of 100 of {size:,} rows, half of them done: p50, ms",
                              f"{other:.1f}", f"{p50:.1f}", f"{p50 / other:.2f}"))  # fmt: skip
            self._limit(f"claim of 100 of {size:,} rows: p50", p50, "ms", GOAL_CLAIM_MS)
            server.execute("drop database large with (force)")
            project.database.unlink()

    # Pools in, results out

    def pools(self, model: Server, server: Postgres) -> None:
        size = 30_000 if self._options.quick else 300_000
        project = make_project(self._dir / "pools", model.base_url, items=1, parser="raw")
        write_pool(project.pool, size)
        url = server.url("pools")

        def on_server(*arguments: str) -> _OnServer:
            before_s = server_database.spent_by_ended(server)
            spent = project.spend("--db", url, *arguments)
            return _OnServer(spent, server_database.spent_by_ended(server) - before_s)

        def fresh() -> _OnServer:
            create(server, "pools")
            return on_server("enqueue", "pool.jsonl")

        def fresh_file() -> _OnServer:
            for file in project.path.glob("batchgen.db*"):
                file.unlink()
            return _OnServer(project.spend("enqueue", "pool.jsonl"))

        new = interleaved(self._rounds, fresh_file, fresh)
        self._tell_rows("enqueue, new rows", size, new, GOAL_NEW)
        known = interleaved(
            self._rounds, lambda: _OnServer(project.spend("enqueue", "pool.jsonl")),
            lambda: on_server("enqueue", "pool.jsonl"),
        )  # fmt: skip
        self._tell_rows("enqueue, known rows", size, known, GOAL_KNOWN)
        finish(project.database, size)
        server_database.finish(url, size)
        exported = interleaved(
            self._rounds, lambda: _OnServer(project.spend("export", "-o", "sqlite.jsonl")),
            lambda: on_server("export", "-o", "postgres.jsonl"),
        )  # fmt: skip
        self._tell_rows("export", size, exported, GOAL_EXPORT)
        self._moves(project, server, size)

    def _moves(self, project: Project, server: Postgres, size: int) -> None:
        """Of items that are done, from where the exports were to a place that is not there yet."""

        def moved(source: str, target: str) -> _OnServer:
            before_s = server_database.spent_by_ended(server)
            spent = project.spend("move", source, target)
            return _OnServer(spent, server_database.spent_by_ended(server) - before_s)

        def to_server() -> _OnServer:
            shutil.copyfile(project.database, project.path / "source.db")
            return moved("source.db", create(server, "moved"))

        def to_file() -> _OnServer:
            for file in project.path.glob("back.db*"):
                file.unlink()
            return moved(create(server, "moved", "pools"), "back.db")

        found = interleaved(self._rounds, to_file, to_server)
        self._tell_rows("move of done items, to SQLite and to PostgreSQL", size, found, GOAL_MOVE)

    def _tell_rows(self, what: str, size: int, found: "list[list[_OnServer]]", goal: float) -> None:
        speeds = [size / median(one.spent.wall_s for one in several) for several in found]
        texts = [_rows_text(size, several) for several in found]
        self.rows.append((f"{what}: rows/s ({size:,} rows)", *texts,
                          f"{speeds[1] / speeds[0]:.2f}"))  # fmt: skip
        self._least(
            f"{what}", min(speeds) if what.startswith("move") else speeds[1], "rows/s", goal
        )

    def _least(self, what: str, value: float, unit: str, goal: float) -> None:
        self.figures.append(Figure(what, value, unit, f">= {goal:,g}", value >= goal))

    def _limit(self, what: str, value: float, unit: str, goal: float) -> None:
        self.figures.append(Figure(what, value, unit, f"<= {goal:g}", value <= goal))


def _crew(database: str, workers: int, batch: int, seconds: float, *more: str) -> Crew:
    """All begin when all have joined."""
    command = [sys.executable, "-m", "bench.exchange_probe", database, str(batch), str(seconds)]
    probes = [
        subprocess.Popen([*command, *more], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(workers)
    ]
    with _all_ended(probes):
        for probe in probes:
            assert probe.stdout is not None
            if probe.stdout.readline() != b"ready\n":
                raise RuntimeError("a worker did not begin")
        on_server = database.startswith("postgresql:")
        connections = server_database.connections(database) if on_server else 0
        before_s = server_database.spent_by_server(database) if on_server else 0.0
        for probe in probes:
            assert probe.stdin is not None
            probe.stdin.write(b"\n")
            probe.stdin.flush()
        server_s = _server_until_first_ends(database, probes, seconds) if on_server else 0.0
        found = [json.loads(probe.communicate()[0]) for probe in probes]
    items = sum(one["items"] for one in found)
    times = sorted(ms for one in found for ms in one["ms"])
    return Crew(
        items_per_s=sum(one["items"] / one["wall_s"] for one in found),
        cpu_us=sum(one["cpu_s"] for one in found) / items * 1e6,
        server_us=max(0.0, server_s - before_s) / items * 1e6,
        p50_ms=statistics.median(times),
        p99_ms=times[int(0.99 * (len(times) - 1))],
        fairness=min(one["items"] for one in found) / max(1, *(one["items"] for one in found)),
        connections=connections / workers,
    )


def _server_until_first_ends(
    database: str, probes: "list[subprocess.Popen[bytes]]", seconds: float
) -> float:
    """What its processes have spent when the time is nearly over, and they still live."""
    try:
        probes[0].wait(0.95 * seconds)
    except subprocess.TimeoutExpired:
        return server_database.spent_by_server(database)
    return 0.0


@contextmanager
def _all_ended(probes: "list[subprocess.Popen[bytes]]"):  # type: ignore[no-untyped-def]
    try:
        yield
    finally:
        for probe in probes:
            probe.kill()
            probe.wait()


def _ratio(some: list[Crew], others: list[Crew]) -> float:
    return median(c.items_per_s for c in some) / median(c.items_per_s for c in others)


def _rows_text(size: int, found: list[_OnServer]) -> str:
    wall_s = median(one.spent.wall_s for one in found)
    cpu_us = median(one.spent.cpu_s for one in found) / size * 1e6
    server_us = median(one.server_s for one in found) / size * 1e6
    server = f" + {server_us:.0f}" if server_us else ""
    return f"{size / wall_s:,.0f} ({cpu_us:.0f}{server} µs)"


def _crew_text(found: list[Crew]) -> str:
    def of(value: Callable[[Crew], float]) -> float:
        return median(map(value, found))

    server_us = of(lambda crew: crew.server_us)
    server = f" + {server_us:.0f}" if server_us else ""
    return (
        f"{of(lambda crew: crew.items_per_s):,.0f} ({of(lambda crew: crew.cpu_us):.0f}{server} µs, "
        f"p99 {of(lambda crew: crew.p99_ms):.0f} ms, fair {of(lambda crew: crew.fairness):.2f})"
    )
