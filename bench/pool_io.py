"""Reading a pool into the work table, and writing the results out: beside the least that Python
and SQLite need for the same bytes.

    python -m bench.pool_io make-pool FILE ROWS
    python -m bench.pool_io raw-enqueue POOL DATABASE KEYS
    python -m bench.pool_io raw-export DATABASE FILE

are the processes that it measures `batchgen` against; `run` starts them.
"""

import json
import os
import random
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import blake2b
from itertools import islice, pairwise
from pathlib import Path

from bench.measure import (
    Figure,
    Options,
    Spent,
    Table,
    cpu_s_of,
    interleaved,
    median,
    spend,
    start,
)

NAME = "pool_io"

_LINE_BYTES = 500
_RESPONSE_CHARS = 1000
_CHUNK_ROWS = 20_000  # as batchgen itself
_PAGE_ROWS = 500
_GOALS = {"enqueue": 0.8, "the same pool again": 1.5, "export": 0.6}
_GOAL_RSS_MB = 120
_GOAL_FLAT = 1.2
_MILLION = 1_000_000

_HOME = Path(__file__).parents[1]
_PRAGMAS = (
    "page_size = 8192", "journal_mode = wal", "synchronous = full", "cache_size = -32768",
)  # fmt: skip


def run(options: Options) -> Table:
    sizes = [100_000] if options.quick else [1_000_000]
    sizes += [10_000_000] if options.large else []
    bench = _Bench(options.work_dir)
    for size in sizes:
        bench.measure(size, rounds=1 if size > 1_000_000 else 3)
    if options.large:
        bench.measure_by_million(10_000_000)
    return Table(
        "Pool in, results out",
        ("rows", "what", "rows/s", "wall µs/row", "CPU µs/row", "peak RSS MB", "speed to raw"),
        tuple(bench.rows),
        tuple(bench.figures),
        (
            f"An item is a line of {_LINE_BYTES} bytes, an answer {_RESPONSE_CHARS} characters. "
            "Whole processes, start included; wall time and CPU time are medians.",
            "raw enqueue: lines -> executemany into a table with a unique 16-byte key, "
            f"{_CHUNK_ROWS:,} rows to a commit and the pragmas as in batchgen; nothing is read or "
            "checked. Its key is a hash of the line, as dear as any key of content; with a counter "
            "as the key the index is appended to, and nothing is told from anything.",
            "raw export: one SELECT over batchgen's own tables, the texts of its columns put "
            "into a line, written; no JSON is read. The flat one reads a single table that has "
            "the lines' texts side by side.",
            *bench.notes,
        ),
    )


class _Bench:
    def __init__(self, work_dir: Path) -> None:
        self.dir = work_dir
        self.rows: list[tuple[str, ...]] = []
        self.figures: list[Figure] = []
        self.notes: list[str] = []

    def measure(self, size: int, rounds: int) -> None:
        self._configure()
        _spend_well("-m", "bench.pool_io", "make-pool", self.dir / "pool.jsonl", str(size))
        enqueued = interleaved(
            rounds,
            lambda: self._fresh("ours.db", "enqueue", "pool.jsonl"),
            lambda: self._raw_enqueue("hash"),
            lambda: self._raw_enqueue("counter"),
        )
        self._tell(size, "enqueue", enqueued, ("raw, key = hash", "raw, key = counter"))
        again = [[self._batchgen("enqueue", "pool.jsonl") for _ in range(rounds)], enqueued[1]]
        self._tell(size, "the same pool again", again, ())
        self._remove("raw.db")
        _finish_all(self.dir / "ours.db")
        _flatten(self.dir / "ours.db", self.dir / "flat.db")
        exported = interleaved(
            rounds,
            lambda: self._batchgen("export", "-o", "ours.jsonl"),
            lambda: self._raw_export("ours.db", "tables"),
            lambda: self._raw_export("flat.db", "flat"),
        )
        self._tell(size, "export", exported, ("raw, same tables", "raw, flat table"))
        for name in ("ours.db", "flat.db", "ours.jsonl", "raw.jsonl", "pool.jsonl"):
            self._remove(name)

    def _configure(self) -> None:
        (self.dir / "prompt.txt").write_text("Write about {topic}:\n{text}\n")
        (self.dir / "config.yaml").write_text(
            "model: {model: none}\nprompts: {user_prompt_path: prompt.txt}\ndatabase: ours.db\n"
        )

    def measure_by_million(self, size: int) -> None:
        """CPU of an enqueueing of short lines, a million after another."""
        self._configure()
        with (self.dir / "short.jsonl").open("w") as file:
            for number in range(size):
                file.write(f'{{"topic": "{number * 7919:>12}", "text": "{number:>36}"}}\n')
        self._remove("ours.db")
        running = start([sys.executable, "-m", "batchgen", "-q", "enqueue", "short.jsonl"],
                        cwd=self.dir, env={"PYTHONPATH": str(_HOME)})  # fmt: skip
        marks = [(0, 0.0)]
        while not running.ended:
            time.sleep(0.05)
            if (rows := _rows_in(self.dir / "ours.db")) >= len(marks) * _MILLION:
                marks.append((rows, cpu_s_of(running.pid)))
        spent = _well(running.wait(), "enqueue short.jsonl")
        if len(marks) > 1 and marks[-1][0] > size - _MILLION // 2:
            marks.pop()
        marks.append((size, spent.cpu_s))
        us = [(s - s0) / (n - n0) * 1e6 for (n0, s0), (n, s) in pairwise(marks)]
        self._add_row(size, "batchgen enqueue, lines of 80 bytes", [spent], [spent])
        self.notes.append(
            f"Lines of 80 bytes, {size:,} of them: CPU µs/row of each million in turn: "
            f"{', '.join(f'{one:.1f}' for one in us)}."
        )
        self.figures += [
            Figure(f"enqueue of {size:,} short lines: CPU of the last million, to the first",
                   us[-1] / us[0], "x", f"<= {_GOAL_FLAT}", us[-1] / us[0] <= _GOAL_FLAT),
            Figure(f"enqueue of {size:,} short lines: peak RSS", spent.peak_rss_mb, "MB",
                   f"<= {_GOAL_RSS_MB}", spent.peak_rss_mb <= _GOAL_RSS_MB),
        ]  # fmt: skip
        for name in ("ours.db", "short.jsonl"):
            self._remove(name)

    def _tell(
        self, size: int, what: str, found: list[list[Spent]], baselines: tuple[str, ...]
    ) -> None:
        ours, raw, *_ = found
        self._add_row(size, f"batchgen {what}", ours, raw)
        for name, spent in zip(baselines, found[1:], strict=bool(baselines)):
            self._add_row(size, f"  {name}", spent, raw)
        ratio = _ratio(raw, ours)
        peak_rss_mb = max(spent.peak_rss_mb for spent in ours)
        self.figures += [
            Figure(f"{what} of {size:,} rows: speed, to raw", ratio, "x", f">= {_GOALS[what]}",
                   ratio >= _GOALS[what]),
            Figure(f"{what} of {size:,} rows: peak RSS", peak_rss_mb, "MB",
                   f"<= {_GOAL_RSS_MB}", peak_rss_mb <= _GOAL_RSS_MB),
        ]  # fmt: skip

    def _add_row(self, size: int, what: str, spent: list[Spent], raw: list[Spent]) -> None:
        wall_s, cpu_s = median(s.wall_s for s in spent), median(s.cpu_s for s in spent)
        self.rows.append((
            f"{size:,}", what, f"{size / wall_s:,.0f}", f"{wall_s / size * 1e6:.1f}",
            f"{cpu_s / size * 1e6:.1f}", f"{max(s.peak_rss_mb for s in spent):.0f}",
            f"{_ratio(raw, spent):.2f}",
        ))  # fmt: skip

    def _batchgen(self, *arguments: str) -> Spent:
        return _spend_well("-m", "batchgen", "-q", *arguments, cwd=self.dir)

    def _fresh(self, database: str, *arguments: str) -> Spent:
        self._remove(database)
        return self._batchgen(*arguments)

    def _raw_enqueue(self, keys: str) -> Spent:
        self._remove("raw.db")
        return _spend_well(
            "-m", "bench.pool_io", "raw-enqueue",
            self.dir / "pool.jsonl", self.dir / "raw.db", keys,
        )  # fmt: skip

    def _raw_export(self, database: str, tables: str) -> Spent:
        return _spend_well(
            "-m", "bench.pool_io", "raw-export",
            self.dir / database, self.dir / "raw.jsonl", tables,
        )  # fmt: skip

    def _remove(self, name: str) -> None:
        for file in self.dir.glob(f"{name}*"):
            file.unlink()


def _ratio(raw: list[Spent], ours: list[Spent]) -> float:
    """How fast ours is when raw is 1."""
    return median(s.wall_s for s in raw) / median(s.wall_s for s in ours)


def _spend_well(*arguments: str | Path, cwd: Path = _HOME) -> Spent:
    spent = spend([sys.executable, *arguments], cwd=cwd, env={"PYTHONPATH": str(_HOME)},
                  timeout_s=7200)  # fmt: skip
    return _well(spent, " ".join(map(str, arguments)))


def _well(spent: Spent, what: str) -> Spent:
    if spent.exit_code:
        raise RuntimeError(f"{what}: exit {spent.exit_code}\n{spent.output}")
    return spent


def _rows_in(database: Path) -> int:
    """So far; 0, where there is no table yet."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
            return int(db.execute("select coalesce(max(id), 0) from items").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


# What the processes do


def make_pool(path: Path, rows: int) -> None:
    """Lines as `json.dumps` writes them, no two alike, the same ones every time."""
    rng = random.Random(rows)
    words = ["".join(rng.choices("aeioubcdfghklmnprst", k=rng.randint(3, 9))) for _ in range(5000)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            topic = " ".join(rng.choices(words, k=3))
            frame = json.dumps({"topic": f"{topic} {number}", "text": ""})
            text = " ".join(rng.choices(words, k=80))[: _LINE_BYTES - len(frame) - 1]
            file.write(f'{frame[:-2]}{text}"}}\n')


def raw_enqueue(pool: Path, database: Path, keys: str) -> None:
    """Lines into a table with a unique key."""
    with closing(_connect(database)) as db, pool.open(encoding="utf-8") as lines:
        db.execute("create table pool (id integer primary key, key blob not null unique, "
                   "input text not null)")  # fmt: skip
        rows = _hashed(lines) if keys == "hash" else _counted(lines)
        while chunk := list(islice(rows, _CHUNK_ROWS)):
            db.execute("begin immediate")
            db.executemany("insert into pool (key, input) values (?, ?)", chunk)
            db.execute("commit")


def _hashed(lines: Iterator[str]) -> Iterator[tuple[bytes, str]]:
    return ((blake2b(line.encode(), digest_size=16).digest(), line.rstrip("\n")) for line in lines)


def _counted(lines: Iterator[str]) -> Iterator[tuple[bytes, str]]:
    return ((number.to_bytes(16, "big"), line.rstrip("\n")) for number, line in enumerate(lines))


_COLUMNS = "id, input, response, parsed, metadata, model, finish_reason, usage, attempts, at"
_SELECT = {
    "flat": f"select {_COLUMNS} from flat where id > ? order by id limit ?",
    "tables": """
select w.item_id, i.input, json_quote(a.response) as response, r.parsed,
       'null', json_quote(a.model), json_quote(a.finish_reason),
       '{"prompt_tokens": ' || a.prompt_tokens || ', "completion_tokens": '
       || a.completion_tokens || '}', w.tries, r.finished_at
  from work w
  cross join results r on r.seq = w.result_seq
  cross join attempts a on a.seq = r.attempt_seq
  cross join items i on i.id = w.item_id
 where w.item_id > ? and w.state = 'done' order by w.item_id limit ?""",
}


def raw_export(database: Path, path: Path, tables: str) -> None:
    """Rows into lines: their texts side by side."""
    with closing(_connect(database)) as db, path.open("w", encoding="utf-8") as file:
        after, select = 0, _SELECT[tables]
        while page := db.execute(select, (after, _PAGE_ROWS)).fetchall():
            file.writelines([
                f'{{"id": {id_}, "input": {input_}, "response": {response}, '
                f'"parsed": {parsed or response}, '
                f'"metadata": {metadata}, "model": {model}, "finish_reason": {finish_reason}, '
                f'"usage": {usage}, "attempts": {attempts}, "timestamp": {at}}}\n'
                for (id_, input_, response, parsed, metadata, model, finish_reason, usage,
                     attempts, at) in page
            ])  # fmt: skip
            after = page[-1][0]
        file.flush()
        os.fsync(file.fileno())


def _connect(database: Path) -> sqlite3.Connection:
    db = sqlite3.connect(database, isolation_level=None)
    for pragma in _PRAGMAS:
        db.execute(f"pragma {pragma}")
    return db


# What stands between enqueue and export


def _finish_all(database: Path) -> None:
    """Every item done, as a worker leaves it, but written in a few statements."""
    response = f"""substr(replace(input, '"', '''') || input, 1, {_RESPONSE_CHARS})"""
    with closing(_connect(database)) as db:
        db.executescript(f"""
            begin immediate;
            insert into attempts (item_id, epoch, worker_id, finished_at, latency_ms, outcome,
              http_status, model, finish_reason, prompt_tokens, completion_tokens, response, body)
            select id, 1, 1, 1700000000000 + id, 700, 'answered', 200, 'model', 'stop', 100, 200,
              {response}, '{{"id": "chatcmpl-1", "object": "chat.completion"}}' from items;
            insert into results (item_id, attempt_seq, state, parser_id, finished_at)
            select item_id, seq, 'done', 1, finished_at from attempts;
            insert into parser_counters select 1, 1, count(*) from results;
            drop index work_fresh;
            update work set state = 'done', epoch = 1, tries = 1, result_seq = item_id;
            create index work_fresh on work (experiment_id, priority desc, item_id)
              where state = 'pending' and available_at is null
                and (crashes = 0 or answer_seq is null);
            update counters set state = 'done';
            commit;
            pragma wal_checkpoint(truncate);
        """)


def _flatten(database: Path, flat: Path) -> None:
    """The texts of the lines in one table, as if they had been stored for export alone."""
    with closing(_connect(flat)) as db:
        db.execute(f"create table flat ({_COLUMNS.replace('id', 'id integer primary key', 1)})")
        db.execute("attach ? as ours", (str(database),))
        select = _SELECT["tables"].partition("where")[0]
        for table in ("results", "attempts", "items", "work"):
            select = select.replace(f"{table} ", f"ours.{table} ")
        db.execute(f"insert into flat {select}")
        db.execute("pragma wal_checkpoint(truncate)")


_PROCESSES: dict[str, Callable[..., None]] = {
    "make-pool": lambda path, rows: make_pool(Path(path), int(rows)),
    "raw-enqueue": lambda pool, database, keys: raw_enqueue(Path(pool), Path(database), keys),
    "raw-export": lambda database, path, tables: raw_export(Path(database), Path(path), tables),
}

if __name__ == "__main__":
    _PROCESSES[sys.argv[1]](*sys.argv[2:])
