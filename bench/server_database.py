"""A PostgreSQL for the benchmarks, durable and on the disk, and work tables in it."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from batchgen.clock import now_ms
from batchgen.store import key_of_content
from batchgen.text.json_text import content_of, dump_json
from bench.job import item_text
from bench.measure import cpu_s_of
from bench.table import ANSWER, REST, buckets_of
from tests.kits.postgres import Server

_SETTINGS = {
    "fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "max_connections": "200",
    "shared_buffers": "512MB", "max_wal_size": "4GB", "checkpoint_timeout": "15min",
}  # fmt: skip
_CHUNK = 100_000
_OF_DATABASE = (
    "select pid from pg_stat_activity"
    " where datname = current_database() and pid <> pg_backend_pid()"
)
_OTHERS = (
    "select count(*) from pg_stat_activity"
    " where backend_type = 'client backend' and pid <> pg_backend_pid()"
)


@contextmanager
def serving_postgres() -> Iterator[Server]:
    """In a folder of its own, that other users can reach."""
    folder = Path(tempfile.mkdtemp(prefix="batchgen-bench-pg-"))
    server = Server(folder, _SETTINGS)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def create(server: Server, name: str, template: str = "template0") -> str:
    """The URL of a new database, a copy of `template`."""
    server.execute(f"drop database if exists {name} with (force)")
    server.execute(f"create database {name} encoding 'UTF8' template {template}"
                   " strategy file_copy")  # fmt: skip
    return server.url(name)


def fill(url: str, rows: int) -> None:
    """Add what enqueueing items 1 to `rows` (counted from 0) would, to a database that has item
    0."""
    with psycopg.connect(url) as db:
        for first in range(1, rows, _CHUNK):
            numbers = range(first, min(rows, first + _CHUNK))
            with db.cursor().copy(
                "copy items (id, experiment_id, recipe_id, input) from stdin"
            ) as copy:
                for n in numbers:
                    copy.write_row((n + 1, 1, 1, dump_json({"text": item_text(n)})))
            with db.cursor().copy("copy item_keys (key, item_id) from stdin") as copy:
                for n in numbers:
                    key = key_of_content(1, 1, content_of({"text": item_text(n)}))
                    copy.write_row((key, n + 1))
        db.execute("insert into work (item_id, experiment_id) select id, 1 from items where id > 1")
        db.execute("update counters_by_worker set n = %s where state = 'pending'", (rows,))
        db.execute("select setval('items_numbers', %s)", (rows,))
    _settle(url)


def finish(url: str, rows: int) -> None:
    """Make items 1 to `rows` done, as a worker that answered them all."""
    now = now_ms()
    with psycopg.connect(url) as db:
        db.execute(
            "insert into attempts (seq, item_id, epoch, worker_id, finished_at, latency_ms,"
            " outcome, http_status, request_id, model, finish_reason, prompt_tokens,"
            " completion_tokens, response, body)"
            " select id, id, 1, 1, %s, 50, 'answered', 200, 'req-0123456789', 'simulated', 'stop',"
            " 130, 250, %s, %s from items where id <= %s",
            (now, ANSWER, REST, rows),
        )
        db.execute(
            "insert into results (seq, item_id, attempt_seq, state, parser_id, finished_at)"
            " select id, id, id, 'done', 1, %s from items where id <= %s",
            (now, rows),
        )
        db.execute(
            "update work set state = 'done', epoch = 1, tries = 1, result_seq = item_id"
            " where item_id <= %s",
            (rows,),
        )
        db.execute("update counters_by_worker set n = n - %s where state = 'pending'", (rows,))
        db.execute("insert into counters_by_worker values (1, 'done', '', 0, %s)", (rows,))
        db.execute("insert into parser_counters_by_worker values (1, 1, 0, %s)", (rows,))
        db.execute(
            "insert into totals_by_worker (experiment_id, worker_id, calls, latency_ms,"
            " prompt_tokens, completion_tokens) values (1, 0, %(n)s, %(n)s::bigint * 50,"
            " %(n)s::bigint * 130, %(n)s::bigint * 250)"
            " on conflict (experiment_id, worker_id) do update set calls = excluded.calls,"
            " latency_ms = excluded.latency_ms, prompt_tokens = excluded.prompt_tokens,"
            " completion_tokens = excluded.completion_tokens",
            {"n": rows},
        )
        db.execute(
            "insert into minutes_by_worker (experiment_id, minute, done, calls, latency_ms,"
            " prompt_tokens, completion_tokens, latencies, lengths, slowest, slowest_ms)"
            " values (1, %s / 60000, %s, %s, %s, %s, %s, %s, %s, 1, 50)",
            (now, rows, rows, 50 * rows, 130 * rows, 250 * rows, *buckets_of(rows)),
        )
        for name in ("attempts_numbers", "results_numbers"):
            db.execute("select setval(%s, %s)", (name, rows))
    _settle(url)


def _settle(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("vacuum (analyze)")
        db.execute("checkpoint")


def processes(url: str) -> list[int]:
    """The server's, for this database's connections."""
    with psycopg.connect(url) as db:
        return [pid for (pid,) in db.execute(_OF_DATABASE)]


def spent_by_server(url: str) -> float:
    """Seconds of CPU that the server's processes for this database's connections have used; those
    that have ended are not counted."""
    return sum(map(cpu_s_of, processes(url)))


def connections(url: str) -> int:
    """To this database, but for the one that asks."""
    with psycopg.connect(url) as db:
        clients = f"{_OF_DATABASE} and backend_type = 'client backend'"
        return len(db.execute(clients.encode()).fetchall())


def spent_by_ended(server: Server) -> float:
    """The same of all that have ended, whatever they were connected to, when all have."""
    while server.execute(_OTHERS) != [(0,)]:
        time.sleep(0.02)
    return cpu_s_of(server.pid, of_children=True)
