"""How `status --watch` looks."""

import pytest
from rich.console import Console

from batchgen.cli.hints import commands
from batchgen.display.dashboard import Dashboard
from batchgen.display.history import History
from batchgen.jobs.status import Status
from batchgen.jobs.unknown_cost import UnknownCost
from batchgen.worker.report import Held, HeldBy, Straggler
from tests.kits import looks
from tests.kits.looks import NOON_MS, counts, experiment, status, watched, worker

BUSY = worker(
    held_by=Held(HeldBy.PAUSE, NOON_MS + 2500), late_after_ms=30_000,
    stragglers=(Straggler(17, NOON_MS - 95_200),),
)  # fmt: skip
GONE = worker(2, alive=False)


def everything() -> Status:
    return status(
        counts(900, 30, 20, 1050), counts(5), learned_rpm=1234.5, workers=(BUSY, GONE),
        unknown=UnknownCost(3, known_calls=3, max_tokens=300, max_cost_usd=0.25),
    )  # fmt: skip


def drawn(seen: Status, width: int, height: int = 40, history: History | None = None) -> list[str]:
    dashboard = Dashboard("batchgen.db", "12:41:07", seen, history or History(), commands())
    return looks.drawn(dashboard, width, height)


def test_at_80_columns() -> None:
    assert drawn(everything(), 80, history=watched(0, 10, 30, 60, 80, 81, 100)) == [
        "batchgen.db                                                             12:41:07",
        "",
        f"all {'━' * 27}╍{'─' * 31}   935/2,005  46%",
        "    done   905   failed    30   running    20   pending 1,050",
        f"e1  {'━' * 27}╍{'─' * 31}   930/2,000  46%",
        "    done   900   failed    30   running    20   pending 1,050",
        f"e2  {'━' * 59}         5/5 100%",
        "    done     5   failed     0   running     0   pending     0",
        "",
        "rate        8.3 items/s            ▃▆█▆▁▅",
        "latency  p50  0.50 s, p95 12.50 s  ██████",
        "tokens   18,700 in, 93,500 out",
        "spend    $9.3500   $300.00 per hour",
        "left     about 2 min 8 s",
        "failed because of: parse 30",
        "the server takes about 1,234 requests/min (found by adaptive)",
        "sent, answer unknown: 3 (a worker died or was stopped, or a batch was lost; the",
        "  server may have charged for them: at most $0.2500)",
        "",
        "worker 3: pid 71 on box, 12/20 in flight, paused for 3 s",
        "  item 17: under way for 1 min 35 s",
        "worker 2: pid 71 on box, 20 slots, gone: the next worker takes over its work",
    ]


def test_at_160_columns_the_counts_stand_beside_the_bar() -> None:
    lines = drawn(everything(), 160)
    assert lines[2] == (
        f"all {'━' * 36}╍{'─' * 42}   935/2,005  46%"
        "   done   905   failed    30   running    20   pending 1,050"
    )
    assert lines[4] == (
        f"e2  {'━' * 79}         5/5 100%"
        "   done     5   failed     0   running     0   pending     0"
    )


def test_at_40_columns_no_number_is_torn() -> None:
    lines = drawn(everything(), 40, history=watched(0, 10, 30))
    assert lines[2:5] == [
        f"all {'━' * 8}╍{'─' * 10}   935/2,005  46%",
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
    total = counts(1_000_000, pending=9_000_000)
    seen = status(total, experiments=(experiment("对话" * 20, total),))
    assert drawn(seen, 40)[2] == f"对话对话对话… {'━' * 2}{'─' * 19}  10%"


@pytest.mark.parametrize("width", [1, 5, 12, 20, 40, 79, 80, 160, 300])
@pytest.mark.parametrize("height", [1, 5, 24, 60])
def test_no_terminal_is_too_small(width: int, height: int) -> None:
    history = watched(*range(80))
    console = Console(width=width, height=height)
    for seen in (everything(), status()):
        lines = console.render_lines(
            Dashboard("batchgen.db", "12:41:07", seen, history, commands())
        )
        assert {sum(segment.cell_length for segment in line) for line in lines} == {width}


def test_long_lists_are_cut_by_the_height_and_what_still_runs_comes_first() -> None:
    seen = status(*[counts(5)] * 30, counts(3, pending=3), workers=(worker(),) * 30)
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
    held = Held(HeldBy.PAUSE, NOON_MS + 2500)
    waiting = worker(held_by=held, trouble="\x1b[2J\r\nslow down")
    assert drawn(status(counts(5), workers=(waiting,)), 100)[-1] == (
        "worker 3: pid 71 on box, 12/20 in flight, paused for 3 s: <U+001B>[2J slow down"
    )


def test_an_empty_database() -> None:
    history = History()
    for now_s in (1.0, 3.0):
        history.add(status(), now_s)
    assert drawn(status(), 80, history=history)[2:] == [
        "The database is empty: enqueue a data pool first (batchgen enqueue)."
    ]
