"""How a run goes: rates and remaining time, plain lines, and the display on a real terminal."""

import asyncio
import io
import os
import pty
import re
import signal
import sys
import termios
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from batchgen.display.live import Drawing, Meter, Snapshot, duration, plain_line, show_plain
from batchgen.display.texts import percentile_s
from batchgen.simulate import Behaviour, Simulator
from batchgen.store import Counts, open_store
from batchgen.worker import Stats, WorkSpec
from tests.kits.project import Project
from tests.kits.terminal import COLOUR, Terminal, plain

Words = Callable[[int], Iterator[dict[str, Any]]]

LOOK = Snapshot(
    total=12000, done=3400, failed=17, in_flight=20, retried=5, items_per_s=12.34,
    tokens_per_s=1234.4, p50_s=0.931, p95_s=12.5, elapsed_s=271, left_s=697,
    prompt_tokens=340_000, completion_tokens=1_700_000, cost_usd=0.0, note="",
)  # fmt: skip


# --- the meter --------------------------------------------------------------------------------


def look_at(meter: Meter, now_s: float, finished: int, total: int = 1000, **stats: Any) -> Snapshot:
    counts = Counts(pending=total - finished, done=finished, completion_tokens=50 * finished)
    return meter.look(counts, Stats(**stats), now_s)


def test_the_first_look_knows_no_rate() -> None:
    look = look_at(Meter(), 100.0, 40)
    assert (look.items_per_s, look.tokens_per_s, look.left_s) == (0.0, 0.0, None)
    assert (look.elapsed_s, look.p50_s, look.p95_s, look.note) == (0.0, None, None, "")


def test_rates_are_the_change_since_the_first_look_and_not_what_was_done_before() -> None:
    meter = Meter()
    look_at(meter, 100.0, 400)
    look = look_at(meter, 110.0, 420)
    assert (look.items_per_s, look.tokens_per_s) == (2.0, 100.0)
    assert (look.left_s, look.elapsed_s) == (290.0, 10.0)


def test_what_a_limit_allows_is_known_before_it_is_measured() -> None:
    meter = Meter()
    look = look_at(meter, 100.0, 400, limited_to_rpm=120.0)
    assert (look.left_s, look.note) == (300.0, "limited to about 120 requests/min")
    assert look_at(meter, 110.0, 410, limited_to_rpm=120.0).left_s == 590.0


def test_what_failed_counts_as_finished() -> None:
    meter = Meter()
    meter.look(Counts(pending=10), Stats(), 0.0)
    look = meter.look(Counts(pending=4, done=2, failed=4), Stats(), 3.0)
    assert (look.items_per_s, look.left_s, look.percent) == (2.0, 2.0, 60)


def test_in_a_young_run_rates_look_back_half_a_minute() -> None:
    meter = Meter()
    for second in range(61):
        look = look_at(meter, float(second), 10 * min(second, 30))
    assert look.items_per_s == 0.0
    assert look.left_s is None


def test_in_an_old_run_rates_look_back_a_quarter_of_it_up_to_ten_minutes() -> None:
    meter = Meter()
    for second in range(0, 401, 10):
        look = look_at(meter, float(second), 100 if second > 310 else 0)
    assert look.items_per_s == 1.0  # 100 in the last 100 seconds
    for second in range(410, 7201, 10):
        look = look_at(meter, float(second), 700 if second > 6700 else 100)
    assert look.items_per_s == 1.0  # 600 in the last 600 seconds


def test_the_meter_keeps_a_bounded_number_of_looks() -> None:
    meter = Meter()
    for tick in range(20_000):
        look_at(meter, tick / 2, 0)
    assert len(meter._seen) <= 1202


@pytest.mark.parametrize(
    ("finished", "total", "percent"), [(0, 0, 100), (0, 10, 0), (299, 300, 99), (300, 300, 100)]
)
def test_percent_is_100_only_when_nothing_is_left(finished: int, total: int, percent: int) -> None:
    assert look_at(Meter(), 0.0, finished, total).percent == percent


@pytest.mark.parametrize(
    ("stats", "rate", "note"),
    [
        ({}, 1, ""),
        ({"trouble": "500 oops"}, 1, ""),
        ({"trouble": "500 oops"}, 0, "nothing finished lately: 500 oops"),
        ({"paused_until": 1900}, 1, ""),
        ({"paused_until": 5100}, 1, "paused for 5 s"),
        ({"paused_until": 201_000, "trouble": "429 slow"}, 0, "paused for 3 min 20 s: 429 slow"),
        ({"halted": "no quota"}, 1, "halted: waiting for the calls in flight"),
    ],
)
def test_the_note_says_why_nothing_moves(stats: dict[str, Any], rate: int, note: str) -> None:
    meter = Meter()
    look_at(meter, 0.0, 0)
    assert look_at(meter, 1.0, rate, **stats).note == note


@pytest.mark.parametrize(
    ("latencies_ms", "fraction", "seconds"),
    [
        ([], 0.5, None),
        ([700], 0.5, 0.7),
        ([700], 0.95, 0.7),
        ([300, 100, 200], 0.5, 0.2),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 0.95, 0.01),
        ([*range(999)], 0.95, 0.949),
    ],
)
def test_percentiles_are_values_that_occurred(
    latencies_ms: list[int], fraction: float, seconds: float | None
) -> None:
    assert percentile_s(latencies_ms, fraction) == seconds


# --- words ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (599, "9 min 59 s"),
        (600, "10 min"),
        (3599, "59 min"),
        (3600, "1 h 0 min"),
        (18_720, "5 h 12 min"),
        (48 * 3600, "2 d 0 h"),
        (100 * 3600, "4 d 4 h"),
    ],
)
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {},
            "3417/12000 (28%) | done 3400 | failed 17 | in flight 20 | 12.3 items/s | "
            "1234 tokens/s | retried 5 | p50 0.93 s, p95 12.50 s | "
            "tokens 340000 in, 1700000 out | 4 min 31 s so far | 11 min left",
        ),
        (
            {"retried": 0, "p50_s": None, "p95_s": None, "left_s": None, "cost_usd": 1.239,
             "note": "paused for 3 s: 429"},
            "3417/12000 (28%) | done 3400 | failed 17 | in flight 20 | 12.3 items/s | "
            "1234 tokens/s | tokens 340000 in, 1700000 out | $1.24 | 4 min 31 s so far | "
            "paused for 3 s: 429",
        ),
    ],
)  # fmt: skip
def test_plain_line(change: dict[str, Any], line: str) -> None:
    assert plain_line(replace(LOOK, **change)) == line


def drawn(drawing: Drawing, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, no_color=True)
    console.print(drawing)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in plain(console.file.getvalue()).splitlines()]


def test_the_display_at_80_columns() -> None:
    assert drawn(Drawing(replace(LOOK, note="paused for 3 s: 429 slow down")), 80) == [
        "━━━━━━━━━━━━                                 3,417/12,000  28%       11 min left",
        "done  3,400   failed     17   in flight  20   retried 5",
        "speed   12.3 items/s    1,234 tokens/s   latency p50  0.93 s, p95 12.50 s",
        "4 min 31 s so far   tokens 340,000 in, 1,700,000 out",
        "paused for 3 s: 429 slow down",
    ]


def test_the_display_at_50_columns_tears_no_number() -> None:
    note = "paused for 3 s: 429 this is a long message of a server that explains itself"
    assert drawn(Drawing(replace(LOOK, note=note)), 50) == [
        "━━━╸           3,417/12,000  28%       11 min left",
        "done  3,400   failed     17   in flight  20",
        "retried 5",
        "speed   12.3 items/s    1,234 tokens/s",
        "latency p50  0.93 s, p95 12.50 s",
        "4 min 31 s so far",
        "tokens 340,000 in, 1,700,000 out",
        "paused for 3 s: 429 this is a long message of a s…",
    ]


def test_numbers_keep_their_places_while_they_grow() -> None:
    young = replace(
        LOOK, done=5, failed=0, items_per_s=1.2, tokens_per_s=60, elapsed_s=8, left_s=9995,
        prompt_tokens=50,
    )  # fmt: skip
    for before, now in zip(drawn(Drawing(young), 80), drawn(Drawing(LOOK), 80), strict=True):
        for word in ("/12,000", "failed", "in flight", "tokens", "latency", "p95"):
            assert before.find(word) == now.find(word)


def test_the_last_frame_says_how_long_it_took() -> None:
    last = replace(LOOK, done=11_983, in_flight=0, note="halted: waiting", left_s=0.0)
    assert drawn(Drawing(last, last=True), 80) == [
        "━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ 12,000/12,000 100%     in 4 min 31 s",
        "done 11,983   failed     17   in flight   0   retried 5",
        "speed   12.3 items/s    1,234 tokens/s   latency p50  0.93 s, p95 12.50 s",
        "tokens 340,000 in, 1,700,000 out",
    ]


# --- plain lines ------------------------------------------------------------------------------


class Lines(io.StringIO):
    """A file in which one can wait for a line."""

    def __init__(self) -> None:
        super().__init__()
        self.written = asyncio.Event()

    def write(self, text: str) -> int:
        if text.strip():
            self.written.set()
        return super().write(text)


@pytest.mark.parametrize(("until", "total"), [(None, 3), (2, 2)])
async def test_plain_lines_come_at_their_interval(
    project: Project, words: Words, until: int | None, total: int
) -> None:
    project.pool(words(3))
    await project.batchgen("enqueue", "pool.jsonl")
    lines = Lines()
    console = Console(file=lines, width=20)
    async with open_store(project.database) as store:
        showing = show_plain(store, WorkSpec(slots=1, until=until), Stats(), console, every_s=0.01)
        task = asyncio.create_task(showing, name="display")
        async with asyncio.timeout(10):
            await lines.written.wait()
        task.cancel()
        await asyncio.wait([task])
    assert lines.getvalue().splitlines()[0] == (
        f"0/{total} (0%) | done 0 | failed 0 | in flight 0 | 0.0 items/s | 0 tokens/s | "
        "tokens 0 in, 0 out | 0 s so far"
    )


async def test_without_a_terminal_a_short_run_ends_with_its_summary_on_stderr(
    project: Project, words: Words
) -> None:
    project.pool(words(3))
    run = await project.batchgen("run", "pool.jsonl")
    assert run.out == ""
    assert "3 done, 0 failed, 0 left; 3 calls in this run" in run.err
    assert "\x1b" not in run.err


async def test_quiet_is_quiet(project: Project, words: Words) -> None:
    project.pool(words(3))
    run = await project.batchgen("-q", "run", "pool.jsonl")
    assert (run.code, run.out, run.err) == (0, "", "")


# --- a real terminal --------------------------------------------------------------------------


async def test_the_live_display_shows_the_run_and_leaves_the_terminal_as_it_was(
    project: Project, simulator: Simulator, words: Words, terminal: Terminal
) -> None:
    before = terminal.settings()
    project.pool(words(30))
    simulator.hold()
    run = await terminal.start(project, "run", "pool.jsonl")
    await terminal.shows(r" 0/30 +0%")
    await terminal.shows(r"in flight +4")
    simulator.release()
    lines = await terminal.last_lines(run)
    assert run.returncode == 0
    assert any(re.fullmatch(r"━+ 30/30 100% +in \d+ s", line) for line in lines)
    assert "done 30   failed  0   in flight   0" in lines
    assert "30 done, 0 failed, 0 left; 30 calls in this run" in lines
    assert COLOUR.search(terminal.raw)
    assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l")
    assert terminal.settings() == before


async def test_no_color_means_no_colour_codes(
    project: Project, words: Words, terminal: Terminal
) -> None:
    project.pool(words(3))
    run = await terminal.start(project, "run", "pool.jsonl", NO_COLOR="1")
    assert "done 3   failed 0   in flight   0" in await terminal.last_lines(run)
    assert not COLOUR.search(terminal.raw)


async def test_a_dumb_terminal_gets_plain_lines(
    project: Project, words: Words, terminal: Terminal
) -> None:
    project.pool(words(3))
    run = await terminal.start(project, "run", "pool.jsonl", TERM="dumb")
    lines = await terminal.last_lines(run)
    assert "3 done, 0 failed, 0 left; 3 calls in this run" in lines
    assert "\x1b" not in terminal.raw
    assert "━" not in terminal.raw


async def test_the_display_says_that_and_why_the_worker_pauses(
    project: Project, simulator: Simulator, words: Words, terminal: Terminal
) -> None:
    simulator.script("Say", Behaviour.error(429, headers={"Retry-After": "2"}))
    project.pool(words(1))
    run = await terminal.start(project, "run", "pool.jsonl")
    await terminal.shows(r"paused for 2 s: .*429")
    assert "done 1   failed 0   in flight   0   retried 1" in await terminal.last_lines(run)
    assert run.returncode == 0


async def test_messages_and_what_a_parser_prints_stand_above_the_display(
    project: Project, simulator: Simulator, words: Words, terminal: Terminal
) -> None:
    project.write("loud.py", "def parse_response(text):\n    print('LOUD')\n    return 1\n")
    project.config("parser: loud.py\n")
    project.pool(words(9))
    simulator.script("Say w8", "500")
    simulator.hold()
    run = await terminal.start(project, "-v", "run", "pool.jsonl")
    await terminal.shows(r"in flight +4")
    run.send_signal(signal.SIGINT)
    await terminal.shows("stopping: ")
    simulator.release()
    lines = await terminal.last_lines(run)
    assert run.returncode == 130
    assert lines.count("LOUD") == 4
    assert "4 done, 0 failed, 5 left; 4 calls in this run" in lines
    assert terminal.settings()[3] & termios.ECHO
    assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l")


async def test_stdout_that_is_no_terminal_gets_what_a_parser_prints(
    project: Project, words: Words
) -> None:
    project.write("loud.py", "def parse_response(text):\n    print('LOUD')\n    return 1\n")
    project.config("parser: loud.py\n")
    project.pool(words(3))
    main, tty = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "batchgen", "run", "pool.jsonl",
        cwd=project.path, stderr=tty, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    project.running.append(process)
    out, _ = await process.communicate()
    os.close(main)
    os.close(tty)
    assert sorted(out) == sorted(b"LOUD\n" * 3)  # three threads print at once
