"""How late the worker's event loop is with a thousand calls in flight."""

import json
import sys
from dataclasses import dataclass

from bench.measure import Figure, Options, Table, keep_raw, spend
from bench.project import CLIENT_CPU, ROOT, done, make_project, serving

NAME = "lag"
SLOTS = 1000
GOAL_MS = 20.0
LATENCY_MS, SPREAD = 2000, 0.5
_SLOW_PARSER = '''
import json
import time


def parse(text):
    """Half a second of Python in a hundred answers: the big ones keep the GIL busy for 50 ms."""
    if len(text) > 100_000:
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass
    return {"chars": len(text)}
'''


@dataclass(frozen=True)
class Load:
    name: str
    parser: str
    big_every: int


LOADS = (
    Load("answers of 1 kB, parser tag:draft", "tag:draft", 0),
    Load("1 in 100 answers is 1 MB and takes its Python parser 50 ms", "slow.py:parse", 100),
)


def run(options: Options) -> Table:
    items = 3_000 if options.quick else 12_000
    rows, figures, raw = [], [], {}
    for number, load in enumerate(LOADS):
        lags = _lags(options, number, load, items)
        raw[load.name] = lags
        all_ms = sorted(lag for _, lag in lags)
        steady_ms = sorted(lag for at_s, lag in lags if at_s > LATENCY_MS / 1000)
        p99_ms = percentile(all_ms, 99)
        rows.append((
            load.name, f"{percentile(all_ms, 50):.1f}", f"{p99_ms:.1f}", f"{all_ms[-1]:.0f}",
            f"{percentile(steady_ms, 99):.1f}", f"{steady_ms[-1]:.0f}",
        ))  # fmt: skip
        figures.append(
            Figure(f"lag p99: {load.name}", p99_ms, "ms", f"<= {GOAL_MS:g}", p99_ms <= GOAL_MS)
        )
    keep_raw(options, raw)
    return Table(
        title=f"Event loop lag, c = {SLOTS}, {items} items",
        columns=("load", "p50 ms", "p99 ms", "worst ms", "p99 once under way",
                 "worst once under way"),
        rows=tuple(rows),
        figures=tuple(figures),
        notes=(
            "A task beside the worker wants its turn every 5 ms and notes how late it comes; while "
            "the loop is held up, every turn it should have had counts. From the first request, as "
            "there is nothing to hold up before it, to the end.",
            f"The server holds each request {LATENCY_MS} ms, more or less by up to "
            f"{100 * SPREAD:.0f} %, so that about {1000 * SLOTS / LATENCY_MS:.0f} items are done a "
            f"second. Under way: all but the first {LATENCY_MS} ms, when a thousand slots connect "
            "at once.",
        ),
    )  # fmt: skip


def _lags(options: Options, number: int, load: Load, items: int) -> list[tuple[float, float]]:
    """Since the first request, in seconds, and how late the loop was, in ms."""
    with serving(
        latency_ms=LATENCY_MS, spread=SPREAD, big_every=load.big_every, urgent=True
    ) as server:
        path = options.work_dir / f"load-{number}"
        path.mkdir()
        (path / "slow.py").write_text(_SLOW_PARSER)
        project = make_project(path, server.base_url, items, load.parser)
        file = path / "lags.json"
        command = [sys.executable, "-m", "bench.lag_probe", str(file), "work", "-c", str(SLOTS)]
        env = {"PYTHONPATH": str(ROOT)}
        # Not where a parser's thread is at work: at real-time priority it would keep the core from
        # the event loop's thread for the whole of its 50 ms.
        alone = load.big_every == 0
        done(spend(command, CLIENT_CPU, cwd=project.path, env=env, urgent=alone))
        begun_s = server.stats()["first_request_ns"] / 1e9
    lags: list[tuple[float, float]] = json.loads(file.read_text())
    return [(round(at_s - begun_s, 4), lag) for at_s, lag in lags if at_s >= begun_s]


def percentile(ordered: list[float], percent: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
