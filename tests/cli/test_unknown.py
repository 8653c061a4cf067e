"""`status` tells the most that calls with unknown outcome can have cost."""

import re
import signal
from typing import Any

import pytest

from batchgen.simulate import Simulator
from tests.kits.database import change
from tests.kits.project import Project
from tests.kits.typist import Typist

CENT_A_TOKEN = {"input_usd_per_mtok": 0, "output_usd_per_mtok": 10_000}
MAX_TOKENS = 100
MOST = 1.0  # what such a call can cost
SLOTS = 3


async def killed(project: Project, simulator: Simulator, *options: str) -> None:
    """A worker died with all its calls in flight."""
    project.pool({"word": f"w{number}"} for number in range(SLOTS))
    await kill_a_worker(project, simulator, *options)


async def kill_a_worker(project: Project, simulator: Simulator, *options: str) -> None:
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    simulator.hold()
    before = simulator.calls
    process = await project.start("work", "-c", str(SLOTS), *options)
    await simulator.received(before + SLOTS)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    simulator.release()


async def total(batchgen: Typist) -> dict[str, Any]:
    found: dict[str, Any] = (await batchgen("status", "--json")).json["total"]
    return {name: value for name, value in found.items() if name.startswith("unknown")}


async def test_it_is_told_before_and_after_another_takes_over(
    project: Project, simulator: Simulator, batchgen: Typist
) -> None:
    project.config(price=CENT_A_TOKEN, max_tokens=MAX_TOKENS)
    await killed(project, simulator)
    before = await total(batchgen)
    assert before.pop("unknown_max_tokens") > SLOTS * MAX_TOKENS
    assert before == {
        "unknown_calls": SLOTS,
        "unknown_max_cost_usd": pytest.approx(SLOTS * MOST),
        "unknown_max_calls": SLOTS,
    }
    assert (await project.batchgen("work")).code == 0
    after = await total(batchgen)
    del after["unknown_max_tokens"]
    assert after == before
    assert (
        "sent, answer unknown: 3 (a worker died or was stopped, or a batch was lost; the server "
        "may have charged for them: at most $3.0000)\n"
    ) in (await batchgen("status")).out


async def test_without_any_there_is_nothing_to_know(project: Project, batchgen: Typist) -> None:
    project.pool([{"word": "a"}])
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    assert await total(batchgen) == {
        "unknown_calls": 0,
        "unknown_max_tokens": 0,
        "unknown_max_cost_usd": 0,
        "unknown_max_calls": 0,
    }


@pytest.mark.quick("model1")
@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"max_tokens": 10}, r"at most \d+ tokens, whose price is not known \(model.price\)\)"),
        ({"price": CENT_A_TOKEN}, r"how much is not known, as max_tokens is not set\)"),
    ],
)
async def test_what_is_not_known_is_said(
    project: Project, simulator: Simulator, batchgen: Typist, model: dict[str, Any], said: str
) -> None:
    project.config(**model)
    await killed(project, simulator)
    status = await batchgen("status")
    assert status.code == 0
    assert re.search(said, status.out)
    assert (await total(batchgen))["unknown_max_cost_usd"] is None


async def test_an_item_without_a_limit_is_left_out_and_the_text_says_so(
    project: Project, simulator: Simulator, batchgen: Typist
) -> None:
    project.config(price=CENT_A_TOKEN)
    items = [{"word": f"w{number}", "params": {"max_tokens": MAX_TOKENS}} for number in range(2)]
    project.pool([*items, {"word": "w2"}])
    await kill_a_worker(project, simulator)
    assert "at most $2.0000 for the 2 of which it is known)" in (await batchgen("status")).out


async def test_what_a_budget_has_counted_holds(
    project: Project, simulator: Simulator, batchgen: Typist
) -> None:
    project.config(price=CENT_A_TOKEN, max_tokens=MAX_TOKENS)
    await killed(project, simulator, "--max-cost", "50")
    # Whatever the config says by now: what was booked was booked.
    project.config(price={"input_usd_per_mtok": 1, "output_usd_per_mtok": 1}, max_tokens=1)
    assert (await total(batchgen))["unknown_max_cost_usd"] == pytest.approx(SLOTS * MOST)
    assert (await project.batchgen("work")).code == 0
    assert (await total(batchgen))["unknown_max_cost_usd"] == pytest.approx(SLOTS * MOST)


async def test_calls_of_a_later_step_count_with_what_their_prompts_hold(
    project: Project, simulator: Simulator, batchgen: Typist
) -> None:
    steps = (
        "steps:\n"
        "  - {name: draft, user: {text: 'Say {word}'}}\n"
        "  - {name: judge, user: {text: 'Judge {draft}'}, model: {max_tokens: 200}}\n"
    )
    project.config(steps, price=CENT_A_TOKEN, max_tokens=MAX_TOKENS)
    project.pool({"word": f"w{number}"} for number in range(SLOTS))
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    assert (await project.batchgen("work", "--step", "draft")).code == 0
    await kill_a_worker(project, simulator)
    found = await total(batchgen)
    assert found["unknown_max_cost_usd"] == pytest.approx(SLOTS * 2 * MOST)
    assert found["unknown_max_calls"] == SLOTS


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_of_very_many_only_some_are_looked_at(project: Project, batchgen: Typist) -> None:
    project.config(price=CENT_A_TOKEN, max_tokens=MAX_TOKENS)
    project.pool([{"word": "a"}])
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    change(
        project.database,
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 6000)"
        " insert into attempts (seq, item_id, epoch, worker_id, finished_at, outcome)"
        " select 1000 + i, 1, 1, 1, 0, 'unknown' from n",
    )
    totals = "totals" if project.server is None else "totals_by_worker"
    change(project.database, f"update {totals} set calls = calls + 6000, unknown_calls = 6000")
    found = await total(batchgen)
    assert (found["unknown_calls"], found["unknown_max_calls"]) == (6000, 5000)
    assert found["unknown_max_cost_usd"] == pytest.approx(5000 * MOST)
    assert (
        "at most $5,000.0000 for the 5000 of which it is known)" in (await batchgen("status")).out
    )
