"""Whatever may happen to workers of several machines on one server, at random; and the rate and
the budget that all of them together hold to.

The same for as long as you like: `python3 dev.py chaos --postgres --seconds 600 --workers 8`. The
judged run, eight workers on two machines, is as long as JUDGED_ITEMS in the environment says
(`--slow`; 20000 for the whole of it, for which JUDGED_SLOTS=25 spares hours).
"""

import json
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from tests.crash.postgres_chaos import ACTS, ONE_STEP, Plan, Result, plan_of, postgres_chaos
from tests.kits.pipelines import KINDS

ITEMS = int(os.environ.get("JUDGED_ITEMS", "2000"))
SLOTS = int(os.environ.get("JUDGED_SLOTS", "5"))
_WITHOUT_ENDS = tuple(act for act in ACTS if act not in ("term", "interrupt"))


@pytest.fixture(autouse=True)
def _there_is_a_server(postgres_server: object) -> None:
    """Or it is skipped."""


async def tried(plan: Plan, directory: Path) -> Result:
    print(plan)  # with its seed
    result = await postgres_chaos(plan, directory)
    print(result.text())
    assert result.problems == []
    return result


@pytest.mark.parametrize(
    ("seconds", "steps"),
    [
        pytest.param(8, False, marks=pytest.mark.slow),
        pytest.param(60, False, marks=pytest.mark.slow),
        pytest.param(60, True, marks=pytest.mark.slow),
    ],
    ids=["in short", "for a minute", "chains, for a minute"],
)
async def test_chaos_on_a_server_leaves_what_a_calm_run_does(
    seconds: float, steps: bool, tmp_path: Path
) -> None:
    await tried(plan_of(seconds, 4, random.randrange(10**6), steps=steps), tmp_path)


@pytest.mark.slow
async def test_eight_workers_of_two_machines_do_what_a_calm_run_does(tmp_path: Path) -> None:
    """Steps and faults, workers and connections ended, networks cut for longer than a lease."""
    (pipeline,) = (kind for kind in KINDS if kind.name == "gather")
    plan = Plan(
        seconds=3600, workers=8, seed=random.randrange(10**6), pipeline=pipeline, items=ITEMS,
        slots=SLOTS, acts=_WITHOUT_ENDS, latency="uniform:0.02:0.2",
    )  # fmt: skip
    result = await tried(plan, tmp_path)
    assert result.items == ITEMS


@pytest.mark.slow
async def test_a_rate_holds_over_all_machines_whatever_happens(tmp_path: Path) -> None:
    """A second's worth may come at once, and what has come on the way at the same time."""
    per_s = 20
    plan = Plan(
        seconds=30, workers=6, seed=random.randrange(10**6), pipeline=ONE_STEP, items=30 * per_s,
        errors="", acts=_WITHOUT_ENDS, options=("--rpm", str(60 * per_s)),
    )  # fmt: skip
    await tried(plan, tmp_path)
    with (tmp_path / "ledger.jsonl").open() as ledger:
        times = sorted(json.loads(line)["time"] for line in ledger)
    windows = [sum(at <= one < at + 10 for one in times) for at in times]
    print(f"most calls in a second: {max(Counter(map(int, times)).values())}, in ten: "
          f"{max(windows)}")  # fmt: skip
    assert max(windows) <= 11 * per_s + 6


@pytest.mark.slow
async def test_a_budget_is_never_passed_by_any_machine_whatever_happens(tmp_path: Path) -> None:
    """Nor is much of it left: a call of which nobody knows the end counts with its most."""
    items, budget = 600, 12_000
    step = ONE_STEP.edited('word}"}', 'word}"}, model: {max_tokens: 60}')
    plan = Plan(
        seconds=120, workers=6, seed=random.randrange(10**6), pipeline=step, items=items,
        errors="", acts=_WITHOUT_ENDS, latency="uniform:0.05:0.5", budget_tokens=budget,
    )  # fmt: skip
    result = await tried(plan, tmp_path)
    print(f"{result.tokens} tokens of {budget}")
    assert budget / 3 < result.tokens <= budget
