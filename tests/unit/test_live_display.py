"""How a run looks: the live display, and its plain line."""

from typing import Any

import pytest
from msgspec.structs import replace
from rich.console import Console

from batchgen.cli.hints import commands
from batchgen.display.held import left_s, run_held_back
from batchgen.display.history import Interval
from batchgen.display.live import LiveDisplay
from batchgen.display.run import plain_line
from batchgen.display.times import duration
from batchgen.jobs.status import Status
from batchgen.store import Counts
from batchgen.worker.report import BudgetWait, Held, HeldBy, ServerReport, WorkerReport
from tests.kits.looks import NOON_MS, counts, drawn, going, status, worker

TOTAL = Counts(
    pending=8563, running=20, done=3400, failed=17, prompt_tokens=340_000,
    completion_tokens=1_700_000,
)  # fmt: skip
LOOK = status(TOTAL, latency_p50_s=0.931)
HISTORY = going(Interval(100.0, 1234, 1234, 0, 123_440, 0.0), elapsed_s=271, retried=5)
PAUSED = {"held_by": Held(HeldBy.PAUSE, NOON_MS + 3000), "trouble": "429 slow down"}
HELD_TO_3: dict[str, Any] = {"held_by": Held(HeldBy.SLOTS, slots=3), "calls_at_once": 3}
AT_A: dict[str, Any] = {"servers": (ServerReport("a", "a"),)}


def pause(ms: int) -> dict[str, Any]:
    return {"held_by": Held(HeldBy.PAUSE, NOON_MS + ms)}


def reporting(*reports: dict[str, Any], **change: Any) -> Status:
    """A status with a worker for each of the reports."""
    workers = tuple(worker(number, **one) for number, one in enumerate(reports, start=1))
    return replace(LOOK, workers=workers, **change)


# --- what holds it, and how long it will take ---


@pytest.mark.parametrize(
    ("reports", "rate", "held"),
    [
        ([], 0, ""),
        ([{}], 1, ""),
        ([{"trouble": "500 oops"}], 1, ""),
        ([{"trouble": "500 oops"}], 0, "nothing finished lately: 500 oops"),
        ([pause(900)], 1, ""),
        ([pause(4100)], 1, "paused for 5 s"),
        ([pause(-4100)], 1, ""),
        ([PAUSED], 0, "paused for 3 s: 429 slow down"),
        ([PAUSED, {}], 1, ""),
        ([PAUSED, pause(9000)], 0, "paused for 3 s: 429 slow down"),
        ([PAUSED, {"alive": False}], 0, "paused for 3 s: 429 slow down"),
        ([{"held_by": Held(HeldBy.LIMIT, per_minute=120.4)}, {}], 1,
         "limited to about 120 requests/min"),
        ([HELD_TO_3, {}], 1, ""),
        ([HELD_TO_3] * 2, 1, "holding to 6 calls at once: the server refuses more"),
        ([HELD_TO_3, {"calls_at_once": 20}], 1,
         "holding to 23 calls at once: the server refuses more"),
        ([HELD_TO_3, pause(9000) | {"calls_at_once": 2}], 1,
         "holding to 5 calls at once: the server refuses more"),
        ([HELD_TO_3 | AT_A, {"calls_at_once": 20, "servers": (ServerReport("b", "b"),)},
          {"calls_at_once": 2} | AT_A], 1,
         "holding to 5 calls at once: the server refuses more"),
        ([{"halted": "no quota"}, {}], 1, "halted: waiting for the calls in flight"),
        ([{"paused": True}], 1, "paused from elsewhere: batchgen resume goes on"),
        ([{"paused": True, "report": WorkerReport()}], 1, "told to pause, not followed yet"),
        ([{"report": WorkerReport(paused=True, held_by=Held(HeldBy.ORDER))}], 1,
         "told to go on, not followed yet"),
        ([{"held_by": Held(HeldBy.MORE), "trouble": "400 no"}, {"held_by": Held(HeldBy.MORE)}], 0,
         "nothing is left: it waits for more items"),
        ([{"held_by": Held(HeldBy.MORE), "calls_at_once": 3}, HELD_TO_3], 1,
         "holding to 6 calls at once: the server refuses more"),
        ([{"paused": True}, {}], 1, ""),
    ],
)  # fmt: skip
def test_why_nothing_moves(reports: list[dict[str, Any]], rate: float, held: str) -> None:
    assert run_held_back(reporting(*reports), rate, commands()) == held


def test_what_is_left_goes_by_the_rate_or_by_what_a_limit_allows() -> None:
    look = status(counts(done=400, pending=600))
    assert (left_s(look, 0.0), left_s(look, 2.0)) == (None, 300.0)
    limited = replace(look, workers=(worker(held_by=Held(HeldBy.LIMIT, per_minute=120.0)),))
    assert (left_s(limited, 0.0), left_s(limited, 1.0)) == (300.0, 600.0)


def test_what_is_left_takes_no_less_than_the_wait_that_holds_all_workers() -> None:
    waits = {"held_by": Held(HeldBy.ITEMS, NOON_MS + 40_000)}
    look = reporting(waits, total=counts(done=59, pending=1))
    assert left_s(look, 2.0) == 40.0
    beside = reporting(waits, {}, total=counts(done=59, pending=1))
    assert left_s(beside, 2.0) == 0.5


def test_nobody_can_say_what_is_left_while_all_workers_are_paused() -> None:
    look = status(counts(done=400, pending=600), workers=(worker(paused=True),))
    assert left_s(look, 2.0) is None


def test_nobody_can_say_what_is_left_during_an_outage() -> None:
    down = {"held_by": Held(HeldBy.OUTAGE, NOON_MS + 9000)}
    left = {"total": counts(done=400, pending=600)}
    assert left_s(reporting(down, down, **left), 2.0) is None
    assert left_s(reporting(down, {}, **left), 2.0) == 300.0


@pytest.mark.parametrize(
    ("finished", "total", "percent"), [(0, 0, 100), (0, 10, 0), (299, 300, 99), (300, 300, 100)]
)
def test_percent_is_100_only_when_nothing_is_left(finished: int, total: int, percent: int) -> None:
    assert Counts(done=finished, pending=total - finished).percent == percent


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


# --- the plain line ---


def test_the_plain_line() -> None:
    assert plain_line(LOOK, HISTORY, commands()) == (
        "3417/12000 (28%) | done 3400 | failed 17 | in flight 20 | 12.3 items/s | 1234 tokens/s | "
        "retried 5 | p50 0.93 s, p95 12.50 s | tokens 340000 in, 1700000 out | 4 min 31 s so far | "
        "11 min left"
    )


def test_the_plain_line_has_only_what_there_is() -> None:
    total = replace(TOTAL, cost_usd=1.239)
    look = reporting(PAUSED, total=total, latency_p50_s=None, latency_p95_s=None)
    history = going(Interval(100.0, 0, 0, 0, 0, 0.0), elapsed_s=271)
    assert plain_line(look, history, commands()) == (
        "3417/12000 (28%) | done 3400 | failed 17 | in flight 20 | 0.0 items/s | 0 tokens/s | "
        "tokens 340000 in, 1700000 out | $1.24 | 4 min 31 s so far | paused for 3 s: 429 slow down"
    )


# --- the live display ---


def test_at_80_columns() -> None:
    assert drawn(LiveDisplay(reporting(PAUSED), HISTORY, commands()), 80) == [
        "━━━━━━━━━━━━───────────────────────────────  3,417/12,000  28%       11 min left",
        "done  3,400   failed     17   in flight  20   retried 5",
        "speed   12.3 items/s    1,234 tokens/s   latency p50  0.93 s, p95 12.50 s",
        "4 min 31 s so far   tokens 340,000 in, 1,700,000 out",
        "paused for 3 s: 429 slow down",
    ]


def test_at_50_columns_no_number_is_torn() -> None:
    trouble = "429 this is a long message of a server that explains itself"
    look = reporting(PAUSED | {"trouble": trouble})
    assert drawn(LiveDisplay(look, HISTORY, commands()), 50) == [
        "━━━──────────  3,417/12,000  28%       11 min left",
        "done  3,400   failed     17   in flight  20",
        "retried 5",
        "speed   12.3 items/s    1,234 tokens/s",
        "latency p50  0.93 s, p95 12.50 s",
        "4 min 31 s so far",
        "tokens 340,000 in, 1,700,000 out",
        "paused for 3 s: 429 this is a long message of a",
        "server that explains itself",
    ]


def test_at_40_columns_the_remaining_time_has_a_line_of_its_own() -> None:
    lines = drawn(LiveDisplay(LOOK, HISTORY, commands()), 40)
    assert lines[:3] == [
        "━━━━━╍───────────────  3,417/12,000  28%",
        "11 min left",
        "done  3,400   failed     17",
    ]
    assert not any("…" in line for line in lines)


def test_at_40_columns_what_holds_it_is_still_readable() -> None:
    wait = BudgetWait(5113, 0.05022, 5012, 0.05012)
    look = reporting({"held_by": Held(HeldBy.BUDGET, budget=wait)})
    for display in (look, LOOK):
        assert len(drawn(LiveDisplay(display, HISTORY, commands()), 40)) == 10
    assert drawn(LiveDisplay(look, HISTORY, commands()), 40)[-2:] == [
        "held by the budget: max_tokens 5012",
        "reserves $0.05 a call; lower it",
    ]


@pytest.mark.parametrize("width", [1, 5, 12, 20, 40, 79, 80, 160, 300])
def test_no_terminal_is_too_narrow(width: int) -> None:
    console = Console(width=width)
    for display in (
        LiveDisplay(reporting(PAUSED), HISTORY, commands()),
        LiveDisplay(status(), HISTORY, commands()),
    ):
        lines = console.render_lines(display)
        assert {sum(segment.cell_length for segment in line) for line in lines} == {width}


def test_numbers_keep_their_places_while_they_grow() -> None:
    young = replace(TOTAL, done=5, failed=0, pending=11_975, prompt_tokens=50)
    history = going(Interval(10.0, 12, 12, 0, 600, 0.0), elapsed_s=8, retried=1)
    before = drawn(LiveDisplay(status(young), history, commands()), 80)
    now = drawn(LiveDisplay(LOOK, HISTORY, commands()), 80)
    for earlier, later in zip(before, now, strict=True):
        for word in ("/12,000", "failed", "in flight", "tokens", "latency", "p95"):
            assert earlier.find(word) == later.find(word)


def test_the_last_frame_says_how_long_it_took() -> None:
    total = replace(TOTAL, done=11_983, running=0, pending=0)
    look = reporting({"halted": "no quota"}, total=total)
    assert drawn(LiveDisplay(look, HISTORY, commands(), is_last=True), 80) == [
        "━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ 12,000/12,000 100%     in 4 min 31 s",
        "done 11,983   failed     17   in flight   0   retried 5",
        "speed   12.3 items/s    1,234 tokens/s   latency p50  0.93 s, p95 12.50 s",
        "tokens 340,000 in, 1,700,000 out",
    ]


def test_what_a_server_says_does_not_steer_the_terminal() -> None:
    look = reporting(PAUSED | {"trouble": "\x1b[2J\r\nslow down"})
    assert (
        drawn(LiveDisplay(look, HISTORY, commands()), 80)[-1]
        == "paused for 3 s: <U+001B>[2J slow down"
    )
    assert plain_line(look, HISTORY, commands()).endswith("paused for 3 s: <U+001B>[2J slow down")
