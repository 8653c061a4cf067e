"""`status --watch` on a terminal: what changed between looks, how it is drawn, and that it ends
well."""

import io
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from batchgen.display.dashboard import Dashboard, History, Step, sparkline
from batchgen.simulate import Simulator
from tests.kits.project import Project, ended
from tests.kits.terminal import COLOUR, Terminal, plain

Words = Callable[[int], Iterator[dict[str, Any]]]


def counts(done: int = 0, failed: int = 0, running: int = 0, pending: int = 0) -> dict[str, Any]:
    """As of calls that took half a second and a cent each."""
    calls = done + failed
    return {
        "total": calls + running + pending,
        "pending": pending, "running": running, "done": done, "failed": failed,
        "reasons": {"parse": failed} if failed else {},
        "calls": calls, "unknown_calls": 0, "latency_ms": 500 * calls,
        "prompt_tokens": 20 * calls, "completion_tokens": 100 * calls,
        "cached_tokens": 0, "reasoning_tokens": 0, "cost_usd": calls / 100,
    }  # fmt: skip


WORKER = {
    "id": 3, "host": "box", "pid": 71, "slots": 20, "started_at": "2026-11-25T12:00:00Z",
    "alive": True,
}  # fmt: skip


def status(*experiments: dict[str, Any], **change: Any) -> dict[str, Any]:
    """As `status --json` of experiments e1, e2 ... with these counts."""
    states = ("done", "failed", "running", "pending")
    total = counts(*(sum(one[state] for one in experiments) for state in states))
    total |= {"unknown_max_tokens": 0, "unknown_max_cost_usd": 0.0, "unknown_max_calls": 0}
    return {
        "experiments": [
            {"name": f"e{number}", "created_at": "2026-11-25T12:00:00Z", **one}
            for number, one in enumerate(experiments, start=1)
        ],
        "total": total,
        "items_per_s": 0.0,
        "learned_requests_per_minute": None,
        "latency_p50_s": 0.5, "latency_p95_s": 12.5,
        "workers": [WORKER],
    } | change  # fmt: skip


def drawn(
    seen: dict[str, Any], width: int, height: int = 40, history: History | None = None
) -> list[str]:
    console = Console(
        file=io.StringIO(), width=width, height=height, force_terminal=True, no_color=True
    )
    console.print(Dashboard("batchgen.db", "12:41:07", seen, history or History()))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in plain(console.file.getvalue()).splitlines()]


def watched(*finished: int, every_s: float = 2.0) -> History:
    history = History()
    for number, done in enumerate(finished):
        history.look(100 + number * every_s, status(counts(done=done, pending=1000 - done)))
    return history


# --- what changed ---


def test_the_first_look_knows_no_change() -> None:
    history = watched(40)
    assert (list(history.steps), history.items_per_s, history.usd_per_h) == ([], None, None)


def test_a_step_is_what_changed_since_the_look_before() -> None:
    history = watched(40, 46)
    (step,) = history.steps
    assert replace(step, cost_usd=round(step.cost_usd, 6)) == Step(2.0, 6, 6, 3000, 0.06)
    assert (history.items_per_s, step.latency_s) == (3.0, 0.5)
    assert history.usd_per_h == pytest.approx(108)


def test_the_rate_is_of_the_last_half_minute_and_spend_of_all_that_is_kept() -> None:
    history = watched(*(10 * n for n in range(21)), *[200] * 10)  # 40 s of work, 20 s of none
    assert history.items_per_s == pytest.approx(50 / 30)
    assert history.usd_per_h == pytest.approx(2.0 / 60 * 3600)


def test_sixty_steps_are_kept() -> None:
    history = watched(*range(100))
    assert len(history.steps) == 60


def test_a_step_in_which_a_total_went_back_is_left_out() -> None:
    history = watched(40, 46, 10, 14)  # failed ones were put back
    assert [step.items for step in history.steps] == [6, 4]


def test_two_looks_at_one_instant_are_one() -> None:
    history = watched(40, 40, every_s=0.0)
    assert list(history.steps) == []
    history.look(102.0, status(counts(done=44)))
    assert [step.items_per_s for step in history.steps] == [2.0]


def test_calls_whose_end_nobody_saw_do_not_make_the_latency_smaller() -> None:
    history = watched(10)
    seen = status(counts(done=12) | {"calls": 32, "unknown_calls": 20})
    history.look(102.0, seen)
    assert history.steps[0].latency_s == 0.5


@pytest.mark.parametrize(
    ("values", "width", "line"),
    [
        ([], 10, ""),
        ([0.0, 0.0], 10, "▁▁"),
        ([0.0, 1.0, 2.0, 7.0], 10, "▁▂▃█"),
        ([9.0, 7.0, 3.5, None, 0.0], 4, "█▅ ▁"),
        ([None], 4, " "),
        ([1.0], 0, ""),
        ([1.0], -3, ""),
    ],
)
def test_sparkline(values: list[float | None], width: int, line: str) -> None:
    assert sparkline(values, width) == line


# --- how it looks ---

BUSY = WORKER | {
    "in_flight": 12, "waits_for": "paused", "late_after_s": 30.0,
    "stragglers": [{"item": 17, "for_s": 95.2}],
}  # fmt: skip
GONE = WORKER | {"id": 2, "alive": False}


def everything() -> dict[str, Any]:
    seen = status(
        counts(900, 30, 20, 1050), counts(5), learned_requests_per_minute=1234.5,
        workers=[BUSY, GONE],
    )  # fmt: skip
    seen["total"] |= {"unknown_calls": 3, "unknown_max_calls": 3, "unknown_max_cost_usd": 0.25}
    return seen


def test_at_80_columns() -> None:
    assert drawn(everything(), 80, history=watched(0, 10, 30, 60, 80, 81, 100)) == [
        "batchgen.db                                                             12:41:07",
        "",
        f"all {'█' * 28}▒{'░' * 32} 935/2,005  46%",
        "    done   905   failed    30   running    20   pending 1,050",
        f"e1  {'█' * 28}{'░' * 33} 930/2,000  46%",
        "    done   900   failed    30   running    20   pending 1,050",
        f"e2  {'█' * 61}       5/5 100%",
        "    done     5   failed     0   running     0   pending     0",
        "",
        "rate        8.3 items/s            ▃▆█▆▁▅",
        "latency  p50  0.50 s, p95 12.50 s  ██████",
        "tokens   18,700 in, 93,500 out",
        "spend    $9.3500   $300.00 per hour",
        "left     about 2 min 8 s",
        "failed because of: parse 30",
        "the server takes about 1,234 requests/min (found by --adaptive)",
        "sent, answer unknown: 3 (calls of workers that died or were stopped; the server",
        "  may have charged for them: at most $0.2500)",
        "",
        "worker 3: pid 71 on box, 12/20 in flight, paused",
        "  item 17: under way for 1 min 35 s",
        "worker 2: pid 71 on box, 20 slots, gone: the next worker takes over its items",
    ]


def test_at_160_columns_the_counts_stand_beside_the_bar() -> None:
    lines = drawn(everything(), 160)
    assert lines[2] == (
        f"all {'█' * 37}▒{'░' * 43} 935/2,005  46%"
        "   done   905   failed    30   running    20   pending 1,050"
    )
    assert lines[4] == (
        f"e2  {'█' * 81}       5/5 100%   done     5   failed     0   running     0   pending     0"
    )


def test_at_40_columns_no_number_is_torn() -> None:
    lines = drawn(everything(), 40, history=watched(0, 10, 30))
    assert lines[2:5] == [
        f"all {'█' * 9}▒{'░' * 11} 935/2,005  46%",
        "    done   905   failed    30",
        "    running    20   pending 1,050",
    ]
    assert lines[12:16] == [
        "rate        7.5 items/s",
        "         ▅█",
        "latency  p50  0.50 s, p95 12.50 s",
        "         ██",
    ]
    assert not any("…" in line for line in lines)


def test_numbers_too_long_for_the_width_leave_the_bar_and_the_percentage() -> None:
    seen = status(counts(1_000_000, pending=9_000_000))
    seen["experiments"][0]["name"] = "对话" * 20
    assert drawn(seen, 40)[2] == f"对话对话对话… {'█' * 2}{'░' * 19}  10%"


@pytest.mark.parametrize("width", [1, 5, 12, 20, 40, 79, 80, 160, 300])
@pytest.mark.parametrize("height", [1, 5, 24, 60])
def test_no_terminal_is_too_small(width: int, height: int) -> None:
    history = watched(*range(80))
    console = Console(file=io.StringIO(), width=width, height=height)
    for seen in (everything(), status()):
        lines = console.render_lines(Dashboard("batchgen.db", "12:41:07", seen, history))
        assert {sum(segment.cell_length for segment in line) for line in lines} == {width}


def test_long_lists_are_cut_by_the_height_and_what_still_runs_comes_first() -> None:
    seen = status(*[counts(5)] * 30, counts(3, pending=3), workers=[WORKER] * 30)
    lines = drawn(seen, 80, height=24)
    assert len(lines) == 24
    assert [line.split()[0] for line in lines[2:10:2]] == ["all", "e31", "e1", "e2"]
    assert (lines[10], lines[-1]) == ("and 28 more", "and 24 more")


def test_before_the_second_look_the_rate_is_what_the_database_knows() -> None:
    lines = drawn(status(counts(5, pending=60), items_per_s=2.0), 80)
    assert "rate        2.0 items/s" in lines
    assert "left     about 30 s" in lines


def test_with_nothing_going_on_there_is_no_remaining_time() -> None:
    lines = drawn(status(counts(pending=60), latency_p50_s=None, latency_p95_s=None), 80)
    assert not [line for line in lines if line.startswith(("left", "latency", "spend"))]


def test_what_a_server_says_does_not_steer_the_terminal() -> None:
    seen = status(counts(5), workers=[WORKER | {"waits_for": "waiting: \x1b[2J\r\nslow down"}])
    assert drawn(seen, 80)[-1] == "worker 3: pid 71 on box, 20 slots, waiting:  [2J  slow down"


def test_an_empty_database() -> None:
    history = History()
    for now_s in (1.0, 3.0):
        history.look(now_s, status())
    assert drawn(status(), 80, history=history)[2:] == [
        "The database is empty: enqueue a data pool first (batchgen enqueue)."
    ]


# --- on a real terminal ---


async def test_it_shows_the_work_and_leaves_the_terminal_as_it_was(
    project: Project, simulator: Simulator, words: Words, terminal: Terminal
) -> None:
    before = terminal.settings()
    project.pool(words(30))
    await project.batchgen("enqueue", "pool.jsonl")
    simulator.hold()
    work = await project.start("work")
    await simulator.received(4)
    watching = await terminal.start(project, "status", "--watch")
    await terminal.shows(r"default ▒+░+ 0/30   0%")
    await terminal.shows(r"done  0   failed  0   running ( 4   pending 26|20   pending 10)")
    simulator.release()
    assert (await ended(work)).code == 0
    await terminal.shows(r"default █+ 30/30 100%")
    assert COLOUR.search(terminal.raw)
    watching.send_signal(signal.SIGINT)
    await terminal.last_lines(watching)
    assert watching.returncode == 130
    assert terminal.raw.rindex("\x1b[?1049l") > terminal.raw.rindex("\x1b[?1049h")
    assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l")
    assert terminal.settings() == before


async def test_no_color_means_no_colour_codes_and_sigterm_ends_it_as_well(
    project: Project, words: Words, terminal: Terminal
) -> None:
    project.pool(words(3))
    await project.batchgen("enqueue", "pool.jsonl")
    watching = await terminal.start(project, "status", "--watch", NO_COLOR="1")
    await terminal.shows(r"default ░+ 0/3   0%")
    watching.send_signal(signal.SIGTERM)
    await terminal.last_lines(watching)
    assert watching.returncode == 143
    assert not COLOUR.search(terminal.raw)
    assert "\x1b[?1049l" in terminal.raw


async def test_a_dumb_terminal_gets_the_text(
    project: Project, words: Words, terminal: Terminal
) -> None:
    project.pool(words(3))
    await project.batchgen("enqueue", "pool.jsonl")
    watching = await terminal.start(project, "status", "--watch", TERM="dumb")
    await terminal.shows(r"default +3 +3 +0 +0 +0")
    watching.send_signal(signal.SIGINT)
    await terminal.last_lines(watching)
    assert watching.returncode == 130
    assert "\x1b[?1049h" not in terminal.raw
