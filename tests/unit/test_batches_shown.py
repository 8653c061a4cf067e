"""How displays look while rows are in provider batches."""

from typing import Any

from batchgen.cli.hints import commands
from batchgen.display.batch_words import held_text, state_text, unfinished_line
from batchgen.display.batches import expires_text
from batchgen.display.dashboard import Dashboard
from batchgen.display.held import left_s, run_held_back
from batchgen.display.history import Interval
from batchgen.display.live import LiveDisplay
from batchgen.display.run import plain_line
from batchgen.jobs.batches import InBatch, Unfinished
from batchgen.store import BatchState, ProviderBatch, WorkerKind
from batchgen.worker.report import Held, HeldBy
from tests.kits.looks import NOON_MS, counts, drawn, going, status, watched, worker

COMMANDS = commands()
HOUR_MS = 3_600_000
LINE = "batches: 2 at the provider, 4,120 of 12,318 answered, oldest 0:41"
SENDER = worker(kind=WorkerKind.SENDER, in_flight=0, slots=1)


def batch(state: BatchState = BatchState.OPEN, **change: Any) -> ProviderBatch:
    given: dict[str, Any] = {
        "number": 12, "worker_id": 3, "experiment_id": 1, "recipe_id": 1, "server": "s",
        "base_url": "https://api.example/v1", "endpoint": "chat", "model": "m", "token": "0" * 32,
        "state": state, "requests": 10_000, "settled": 0, "bytes": 1, "tokens": 1,
        "reserved_tokens": 0, "reserved_cost_usd": 0.0, "input_file": "file-1",
        "sealed_at": NOON_MS - 41 * 60_000, "batch_id": "batch_6abc", "status": "in_progress",
    }  # fmt: skip
    return ProviderBatch(**given | change)


TWO = Unfinished.of([
    batch(answered=4120), batch(requests=2318, number=13, sealed_at=NOON_MS - 5000)
])  # fmt: skip


def test_each_state_has_its_words() -> None:
    unheard = batch(BatchState.CREATING, batch_id=None, status=None)
    assert state_text(unheard, is_collecting=True) == "not known yet whether the provider has it"
    absent = batch(BatchState.CREATING, batch_id=None, status=None, absent=True)
    assert state_text(absent, is_collecting=True) == "to be made: the provider does not have it"
    assert state_text(batch(), is_collecting=True) == "in_progress"
    ended = batch(BatchState.ENDED, status="expired")
    assert state_text(ended, is_collecting=True) == "expired: being collected"
    assert state_text(ended, is_collecting=False) == "expired: to be collected"
    closed = batch(BatchState.CLOSED, status="completed")
    assert state_text(closed, is_collecting=False) == "closed: completed"
    given_up = batch(BatchState.CLOSED, status="completed", error="x\n\x1b[2J" * 100)
    told = state_text(given_up, is_collecting=False)
    assert (len(told), "\x1b" in told, "\n" in told) == (len("closed: ") + 100, False, False)


def test_its_time_is_told_while_it_is_open() -> None:
    in_a_day = batch(expires_at=NOON_MS + 24 * HOUR_MS)
    assert expires_text(in_a_day, NOON_MS) == "24 h 0 min"
    assert expires_text(in_a_day, NOON_MS + 31 * HOUR_MS) == "7 h 0 min ago"
    assert expires_text(batch(), NOON_MS) == "-"
    over = batch(BatchState.CLOSED, expires_at=NOON_MS)
    assert expires_text(over, NOON_MS) == "-"


def test_all_that_are_not_closed_are_one_line() -> None:
    assert TWO is not None
    assert unfinished_line(TWO, NOON_MS) == LINE
    mixed = Unfinished.of([
        batch(failed=3), batch(BatchState.ENDED, answered=10_000),
        batch(BatchState.CREATING, batch_id=None, sealed_at=NOON_MS - 26 * HOUR_MS),
    ])  # fmt: skip
    assert mixed is not None
    assert unfinished_line(mixed, NOON_MS) == (
        "batches: 1 at the provider, 1 to be collected, 1 of which it is not known yet whether the "
        "provider has them, 10,000 of 30,000 answered, 3 failed, oldest 26:00"
    )
    assert Unfinished.of([]) is None


def test_a_row_is_in_one() -> None:
    held = batch(answered=4100, sealed_at=NOON_MS - 190 * 60_000)
    assert held_text(InBatch(held, NOON_MS)) == (
        "in batch 12 (batch_6abc), 41 % answered, since 3:10"
    )
    unheard = batch(BatchState.CREATING, batch_id=None)
    assert held_text(InBatch(unheard, NOON_MS)) == (
        "in batch 12, not known yet whether the provider has it, since 0:41"
    )


def test_what_is_in_batches_is_not_in_flight() -> None:
    rows = counts(done=50, running=12_318 + 4)
    beside = status(rows, batches=TWO, workers=(worker(in_flight=4),))
    assert beside.in_flight == 4
    while_filling = status(rows, batches=TWO, workers=(SENDER, worker(5, in_flight=3)))
    assert while_filling.in_flight == 3  # the fourth is being written to a file
    assert status(rows, workers=(worker(),)).in_flight == 12_322


def test_nobody_says_how_long_batches_take() -> None:
    look = status(counts(done=50, pending=10, running=12_318), batches=TWO, workers=(SENDER,))
    assert left_s(look, 100.0) is None
    assert run_held_back(look, 0.0, COMMANDS) == ""


def test_a_sender_holds_back_nobody_and_hides_nothing_that_does() -> None:
    held = worker(5, held_by=Held(HeldBy.PAUSE, NOON_MS + 5000), trouble="429 slow down")
    look = status(counts(running=1), workers=(SENDER, held))
    assert run_held_back(look, 0.0, COMMANDS) == "paused for 5 s: 429 slow down"


def test_the_line_of_a_run_leaves_out_what_says_nothing() -> None:
    interval = Interval(2.0, 0, 0, 0, 0, 0.0)
    look = status(counts(done=1, running=12_318), batches=TWO, workers=(SENDER,))
    assert plain_line(look, going(interval, 300), COMMANDS) == (
        f"1/12319 (0%) | done 1 | failed 0 | {LINE} | p50 0.50 s, p95 12.50 s | "
        "tokens 20 in, 100 out | $0.01 | 5 min 0 s so far"
    )


def test_the_live_display_and_the_dashboard_have_the_line() -> None:
    look = status(counts(done=1, running=12_318), batches=TWO, workers=(SENDER,))
    live = drawn(LiveDisplay(look, watched(1, 1), COMMANDS), 100)
    assert LINE in live
    assert any("in flight   0" in line for line in live)
    narrow = drawn(LiveDisplay(look, watched(1, 1), COMMANDS), 40)
    assert " ".join(narrow).count("oldest 0:41") == 1
    shown = drawn(Dashboard("b.db", "12:00:00", look, watched(1, 1), COMMANDS), 100)
    assert LINE in shown
    assert "worker 3: pid 71 on box, sends and collects provider batches, alive" in shown
    gone = status(counts(), workers=(worker(kind=WorkerKind.SENDER, alive=False),))
    shown = drawn(Dashboard("b.db", "12:00:00", gone, watched(1, 1), COMMANDS), 140)
    assert any(line.endswith("gone: the next one goes on with its batches") for line in shown)
