"""What the row of a step costs, against a plain row: the store's part as the table grows, and all
of the worker's."""

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from batchgen.clock import now_ms
from batchgen.items import Done, Item, Outcome
from batchgen.steps import Child, Followed
from batchgen.store import ClaimRequest, ServerWant
from batchgen.store.chain import made_of_parent
from bench.job import TEMPLATE, write_pool
from bench.measure import Figure, Options, Spent, Table, interleaved, keep_raw, median
from bench.project import CLIENT_CPU, Project, make_project, serving
from bench.table import (
    ANSWER,
    BATCH,
    EXCHANGES,
    REST,
    WARM_UP,
    Cost,
    answered,
    close_well,
    connect,
    exchanging,
    fill,
    finish,
)

NAME = "chains"
GOAL_FLAT, GOAL_STEP = 1.1, 1.1
_SLOTS = 100
_FEW_CALLS = 400  # a run of them is mostly start-up
# Answers that all take as long come back by the hundred for ever, or by the ten, as it happened to
# begin; and so many share a commit.
_SPREAD = 0.5
_PASSED_ON = b"\x01" * 8


def run(options: Options) -> Table:
    sizes = [10_000, 100_000]
    sizes += [] if options.quick else [1_000_000]
    sizes += [10_000_000] if options.large else []
    calls, rounds = (1200, 1) if options.quick else (8000, 9)
    with serving(spread=_SPREAD) as server:
        _prove_the_filling(options.work_dir / "proof", server.base_url)
        projects = [_filled(options.work_dir / f"rows-{n}", server.base_url, n) for n in sizes]
        costs = interleaved(3 if options.quick else 8, *(_exchanging(p) for p in projects))
        spent = interleaved(
            rounds,
            *(
                _working(options.work_dir / f"{steps}-{n}", server.base_url, n // steps, steps)
                for n in (_FEW_CALLS, calls)
                for steps in (1, 2)
            ),
        )
    per_call = [
        [1000 * (one.cpu_s - start.cpu_s) / (calls - _FEW_CALLS)
         for start, one in zip(few, many, strict=True)]
        for few, many in zip(spent[:2], spent[2:], strict=True)
    ]  # fmt: skip
    plain_ms, step_ms = map(median, per_call)
    keep_raw(options, {"sizes": sizes, "wall_ms": [[c.wall_ms for c in found] for found in costs],
                       "cpu_ms": [[c.cpu_ms for c in found] for found in costs],
                       "plain_ms_per_call": per_call[0],
                       "step_ms_per_call": per_call[1]})  # fmt: skip
    wall_ms = [median(c.wall_ms for c in found) for found in costs]
    cpu_ms = [median(c.cpu_ms for c in found) for found in costs]
    return Table(
        title="Chains of two steps: what a row of them costs",
        columns=("rows", "claim + finish + child, ms per row", "CPU ms per row",
                 "against the smallest", "CPU against the smallest"),
        rows=tuple(
            (f"{n:,}", f"{wall:.4f}", f"{cpu:.4f}", f"{wall / wall_ms[0]:.2f}",
             f"{cpu / cpu_ms[0]:.2f}")
            for n, wall, cpu in zip(sizes, wall_ms, cpu_ms, strict=True)
        ),
        figures=(
            *(_ratio(f"CPU of claim + finish + child at {n:,} rows against {sizes[0]:,}",
                     cpu / cpu_ms[0], GOAL_FLAT)
              for n, cpu in zip(sizes[1:], cpu_ms[1:], strict=True)),
            _ratio("CPU of work per call without start-up, steps against plain rows",
                   step_ms / plain_ms, GOAL_STEP),
        ),
        notes=(
            f"Claim + finish + child: `Worker.exchange` of {BATCH} outcomes that claims {BATCH} "
            f"rows, {EXCHANGES} in a row after {WARM_UP} to warm up; by turns of first steps, "
            "each of which makes a row of the second, and of these.",
            "Two thirds of the rows are first steps, half of them done, as are the second steps "
            "made of those. Filled by SQL, proven by `batchgen verify`.",
            f"Per call: `batchgen work -c {_SLOTS}` on {calls:,} plain items, {plain_ms:.3f} ms of "
            f"CPU each, and on {calls // 2:,} of two steps, {step_ms:.3f} ms; less runs of "
            f"{_FEW_CALLS} calls, of the same round. Medians of {rounds} rounds by turns.",
        ),
    )  # fmt: skip


def _ratio(what: str, ratio: float, goal: float) -> Figure:
    return Figure(what, ratio, "x", f"<= {goal:g}", ratio <= goal)


# --- filling


def _make(path: Path, base_url: str, items: int, steps: int) -> Project:
    """With so many items of one or two steps enqueued; the second's prompt is as long as the
    first's."""
    project = make_project(path, base_url, items=1, parser="raw")
    for file in path.glob("batchgen.db*"):
        file.unlink()
    text = (path / "config.yaml").read_text().replace('parser: "raw"\n', "")
    second = json.dumps({"name": "second", "user": {"text": "Once more. " + TEMPLATE}})
    first = json.dumps({"name": "first", "user": {"text": TEMPLATE}})
    lines = [f"  - {one}" for one in (first, second)[:steps]]
    plain = 'parser: "raw"\n'
    chosen = plain if steps == 1 else "steps:\n" + "\n".join(lines) + "\n"
    (path / "config.yaml").write_text(text + chosen)
    write_pool(project.pool, items)
    project.spend("enqueue", "pool.jsonl")
    return project


def _filled(path: Path, base_url: str, rows: int) -> Project:
    project = _make(path, base_url, 1, steps=2)
    first = 2 * rows // 3
    fill(project.database, first)
    finish(project.database, first // 2)
    _add_second_steps(project.database, first // 2)
    shutil.copyfile(project.database, path / "pristine") if rows <= 10_000 else None
    return project


def _add_second_steps(database: Path, rows: int) -> None:
    """Of the first `rows` items, which are done: these are followed, and the second step is done,
    too."""
    now = now_ms()
    with closing(connect(database)) as db:
        (last,) = db.execute("select max(id) from items").fetchone()
        (recipe,) = db.execute("select recipe_id from variants where experiment_id = 2").fetchone()
        made_of = made_of_parent(_PASSED_ON, "{}")
        which = {"last": last, "rows": rows, "now": now, "made_of": made_of, "recipe": recipe,
                 "passed_on": _PASSED_ON, "answer": ANSWER, "rest": REST}  # fmt: skip
        for sql in _SECOND_STEPS:
            db.execute(sql, which)
        close_well(db)


_SECOND_STEPS = (
    "update results set children = 1, passed_over = 0, passed_on = :passed_on where :rows > 0",
    "insert into items (id, experiment_id, recipe_id, input, parent_id, parent_result)"
    " select :last + id, 2, :recipe, '{}', id, id from items where id <= :rows",
    "insert into attempts (seq, item_id, epoch, worker_id, finished_at, latency_ms, outcome,"
    " http_status, request_id, model, finish_reason, prompt_tokens, completion_tokens, response,"
    " body) select :rows + id, :last + id, 1, 1, :now, 50, 'answered', 200, 'req-0123456789',"
    " 'simulated', 'stop', 130, 250, :answer, :rest from items where id <= :rows",
    "insert into results (seq, item_id, attempt_seq, state, parser_id, finished_at, made_of,"
    " children, passed_over, passed_on) select :rows + id, :last + id, :rows + id, 'done', 1, :now,"
    " :made_of, 0, 0, :passed_on from items where id <= :rows",
    "insert into work (item_id, experiment_id, state, epoch, tries, result_seq)"
    " select :last + id, 2, 'done', 1, 1, :rows + id from items where id <= :rows",
    "insert into counters values (2, 'done', '', :rows)",
    "insert into parser_counters values (2, 1, :rows)",
    "insert into step_counters values (2, :rows, 0)",
    "insert into totals (experiment_id, calls, latency_ms, prompt_tokens, completion_tokens)"
    " values (2, :rows, :rows * 50, :rows * 130, :rows * 250)",
    "insert into minutes (experiment_id, minute, done, calls, latency_ms, prompt_tokens,"
    " completion_tokens, latencies, lengths, slowest, slowest_ms)"
    " select 2, :now / 60000, done, calls, latency_ms, prompt_tokens, completion_tokens, latencies,"
    " lengths, :rows + 1, 50 from minutes where experiment_id = 1",
)


def _prove_the_filling(path: Path, base_url: str) -> None:
    """Raises RuntimeError unless what is filled is sound."""
    _filled(path, base_url, 3_000).spend("verify")


# --- measuring


def _exchanging(project: Project) -> Callable[[], Cost]:
    [(plan_id,)] = project.query("select plan_id from experiments where id = 1")
    ends = Done(None, followed=Followed(plan_id, (), 0, _PASSED_ON))
    goes_on = Done(None, followed=Followed(plan_id, (Child(1),), 0, _PASSED_ON))

    def outcomes_of(items: Sequence[Item]) -> list[Outcome]:
        attempt = answered()
        return [Outcome(item, (attempt,), ends if item.links else goes_on) for item in items]

    want = ClaimRequest((ServerWant("", BATCH),), (2, 1))
    return exchanging(project, want, outcomes_of)


def _working(path: Path, base_url: str, items: int, steps: int) -> Callable[[], Spent]:
    project = _make(path, base_url, items, steps)
    enqueued = project.path / "enqueued"
    project.database.rename(enqueued)

    def work() -> Spent:
        project.reuse(enqueued)
        spent = project.spend("work", "-c", str(_SLOTS), cpu=CLIENT_CPU)
        [(left,)] = project.query("select count(*) from work where state <> 'done'")
        assert left == 0
        return spent

    return work
