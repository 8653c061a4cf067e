"""Chains of steps by the commands: enqueued, answered and looked at."""

import json
from typing import Any

import pytest

from batchgen.simulate import Simulator
from tests.kits.database import is_untouched
from tests.kits.project import Project

TWO_STEPS = """\
output_data: {experiment_name: demo}
steps:
  - {name: draft, user: {text: "Write about {topic}"}}
  - {name: critique, user: {text: "Mend {draft}"}, model: {max_tokens: 50}}
"""


def topics(n: int) -> list[dict[str, Any]]:
    return [{"id": f"a-{number}", "topic": f"tea {number}"} for number in range(1, n + 1)]


def states(project: Project) -> dict[str, dict[str, int]]:
    """By step."""
    found: dict[str, dict[str, int]] = {}
    rows = project.query(
        "select e.step, w.state, count(*) from work w join experiments e on e.id = w.experiment_id"
        " group by 1, 2 order by 1, 2"
    )
    for step, state, n in rows:
        found.setdefault(step, {})[state] = n
    return found


@pytest.fixture
def two_steps(project: Project) -> Project:
    project.config(TWO_STEPS, max_tokens=100)
    project.pool(topics(3))
    return project


@pytest.mark.on_both_engines
async def test_each_item_goes_through_all_steps(two_steps: Project, simulator: Simulator) -> None:
    done = await two_steps.batchgen("run", "pool.jsonl")
    assert done.code == 0
    assert done.err.splitlines()[:2] == [
        "demo: 3 items read, 3 new",
        "6 done (3 to the end of their steps), 0 failed, 0 left; 6 calls in this run",
    ]
    assert states(two_steps) == {"draft": {"done": 3}, "critique": {"done": 3}}
    assert simulator.calls_of("Mend You wrote") == 3
    assert (await two_steps.batchgen("verify")).code == 0


async def test_columns_may_have_names_with_spaces(project: Project, simulator: Simulator) -> None:
    project.write("goods.csv", "id,Product name,price in EUR\ng1,Kettle,20\ng2,Lamp,35\n")
    project.config(
        "steps:\n"
        "  - {name: ask, user: {text: 'Ask about {Product name}'}}\n"
        "  - {name: reply, user: {text: 'Reply for {price in EUR}: {ask}'}}\n"
    )
    done = await project.batchgen("run", "goods.csv")
    assert (done.code, "warning" in done.err) == (0, False), done.err
    assert simulator.calls_of('Reply for 35: You wrote "Ask about Lamp".') == 1


async def test_a_dry_run_says_what_each_step_costs(two_steps: Project) -> None:
    said = await two_steps.batchgen("enqueue", "pool.jsonl", "--dry-run")
    assert said.out.splitlines()[:4] == [
        "3 items would be enqueued into demo; nothing was written.",
        "  draft     3 calls, 36 tokens in, 300 out (by max_tokens)",
        "  critique  3 calls, 330 tokens in, 150 out (by max_tokens)",
        "Estimated for 6 calls: 366 tokens in, 450 out (by max_tokens); no cost, as the "
        "price is not known; see model.price",
    ]
    assert is_untouched(two_steps.database)


async def test_a_dry_run_says_where_it_cannot_know_how_many(project: Project) -> None:
    project.write("code.py", "def count(item, values):\n    return len(values['a'])\n")
    project.config(
        "steps:\n"
        "  - {name: a, user: {text: 'Say {topic}'}, parser: json}\n"
        "  - {name: n, function: 'code.py:count'}\n"
        "  - {name: b, each: {one: a}, user: {text: 'Say {one}'}}\n"
        "  - {name: c, when: b.ok, user: {text: 'Say {b}'}}\n"
    )
    project.pool(topics(2))
    said = await project.batchgen("enqueue", "pool.jsonl", "--dry-run", "--json")
    steps = json.loads(said.out)["steps"]
    assert [(one["step"], one["calls"], one["bound"], one["runs_code"]) for one in steps] == [
        ("a", 2, "", False), ("n", 0, "", True), ("b", 2, "at least", False),
        ("c", 2, "about", False),
    ]  # fmt: skip


async def test_a_dry_run_counts_what_a_conversation_begins_with(project: Project) -> None:
    project.config(
        "steps:\n"
        f"  - {{name: a, user: {{text: '{'x' * 400} {{topic}}'}}, model: {{max_tokens: 1000}}}}\n"
        "  - {name: b, conversation: true, user: {text: 'Sure?'}, model: {max_tokens: 10}}\n"
        "  - {name: c, conversation: true, user: {text: 'Quite?'}, model: {max_tokens: 10}}\n"
    )
    project.pool(topics(1))
    said = await project.batchgen("enqueue", "pool.jsonl", "--dry-run", "--json")
    a, b, c = [one["prompt_tokens"] for one in json.loads(said.out)["steps"]]
    assert 100 < a < 120
    assert a + 1000 < b < a + 1020
    assert b + 10 < c < b + 30


@pytest.mark.quick("chosen1")
@pytest.mark.parametrize("chosen", [("--experiment", "demo/draft"), ("--step", "draft")])
async def test_one_step_can_be_worked_on_alone(two_steps: Project, chosen: tuple[str, ...]) -> None:
    await two_steps.batchgen("enqueue", "pool.jsonl")
    assert (await two_steps.batchgen("work", *chosen)).code == 0
    assert states(two_steps) == {"draft": {"done": 3}, "critique": {"pending": 3}}
    assert (await two_steps.batchgen("work", "--experiment", "demo/critique")).code == 0
    assert states(two_steps)["critique"] == {"done": 3}


async def test_a_step_that_is_not_there_is_refused(two_steps: Project) -> None:
    await two_steps.batchgen("enqueue", "pool.jsonl")
    refused = await two_steps.batchgen("work", "--step", "judge")
    assert (refused.code, refused.err) == (
        2, "error: experiment 'demo' has no step 'judge'; there is: draft, critique.\n",
    )  # fmt: skip


async def test_until_needs_the_end_of_the_chains(two_steps: Project, simulator: Simulator) -> None:
    assert (await two_steps.batchgen("enqueue", "pool.jsonl")).code == 0
    for named in (["--step", "draft"], ["--experiment", "demo/draft"]):
        refused = await two_steps.batchgen("work", *named, "--until", "2")
        assert refused.code == 2
        assert (
            "they go on with demo/critique. To claim so many rows, take --max-items." in refused.err
        )
    assert simulator.calls == 0
    assert (await two_steps.batchgen("work", "--step", "draft", "--max-items", "2")).code == 0
    assert simulator.calls == 2
    assert (await two_steps.batchgen("work", "--step", "critique", "--until", "1")).code == 0
    assert simulator.calls == 3


async def test_until_counts_chains_that_ended(two_steps: Project) -> None:
    await two_steps.batchgen("enqueue", "pool.jsonl")
    assert (await two_steps.batchgen("work", "--until", "2", "-c", "1")).code == 0
    assert states(two_steps) == {
        "draft": {"done": 2, "pending": 1}, "critique": {"done": 2},
    }  # fmt: skip


async def test_status_has_a_table_of_the_steps(two_steps: Project) -> None:
    await two_steps.batchgen("enqueue", "pool.jsonl")
    await two_steps.batchgen("work", "--step", "draft")
    said = await two_steps.batchgen("status")
    assert said.out.splitlines()[:3] == [
        "demo: 3 rows of draft, 0 chains ended",
        "  step      pending  running     done  skipped   failed    stale     cost",
        "  draft           0        0        3        0        0        0        -",
    ]
    (demo,) = json.loads((await two_steps.batchgen("status", "--json")).out)["experiments"]
    assert (demo["name"], demo["items"], demo["ended"], demo["total"]) == ("demo", 3, 0, 6)
    assert [(one["name"], one["done"], one["pending"]) for one in demo["steps"]] == [
        ("draft", 3, 0), ("critique", 0, 3),
    ]  # fmt: skip
    one = json.loads((await two_steps.batchgen("status", "--step", "critique", "--json")).out)
    assert (one["experiments"][0]["name"], one["total"]["pending"]) == ("demo/critique", 3)


async def test_show_has_the_whole_chain(two_steps: Project) -> None:
    await two_steps.batchgen("run", "pool.jsonl")
    shown = json.loads((await two_steps.batchgen("show", "a-2", "--json")).out)
    assert (shown["id"], [row["step"] for row in shown["steps"]]) == ("a-2", ["draft", "critique"])
    draft, critique = shown["steps"]
    assert critique["parent"] == draft["number"]
    assert critique["messages"] == [{"role": "user", "content": f"Mend {draft['parsed']}"}]
    assert critique["settings"]["max_tokens"] == 50
    one = await two_steps.batchgen("show", str(critique["number"]), "--step", "critique")
    assert one.out.splitlines()[0] == "item 2 (id a-2) of demo"
    assert "--- draft" not in one.out


async def test_a_small_server_of_a_step_bounds_the_processes_and_is_named(
    project: Project, simulator: Simulator
) -> None:
    server = {"base_url": simulator.base_url, "api_key": "k", "concurrency": 1}
    steps = [
        {"name": "draft", "user": {"text": "Draft {topic}"}},
        {"name": "judge", "user": {"text": "Judge {topic}"}, "model": {"servers": [server]}},
    ]
    project.config(f"steps: {json.dumps(steps)}\n")
    project.pool(topics(2))
    done = await project.batchgen("run", "pool.jsonl", "--processes", "2", "-c", "4")
    assert done.code == 0, done.err
    assert "1 of the 2 processes: each takes a slot of every server, and steps[1]" in done.err


@pytest.mark.on_both_engines
async def test_a_budget_is_that_of_all_steps(two_steps: Project, simulator: Simulator) -> None:
    await two_steps.batchgen("enqueue", "pool.jsonl")
    await two_steps.batchgen("work", "--step", "draft")
    (spent,) = two_steps.query("select sum(prompt_tokens + completion_tokens) from totals")[0]
    halted = await two_steps.batchgen(
        "work", "--step", "critique", "--max-tokens-total", str(spent + 1)
    )
    assert (halted.code, "halted: the budget" in halted.err) == (4, True)
    assert "Nothing is lost: 3 rows wait. Fix that" in halted.err
    assert simulator.calls == 3


async def test_a_function_has_no_parameters_and_no_answers(project: Project) -> None:
    project.write("code.py", "def score(item, values):\n    raise ValueError('no')\n")
    project.config("steps: [{name: score, function: 'code.py:score'}]\n")
    project.pool(topics(1))
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    retried = await project.batchgen("retry", "--set", "temperature=1")
    assert retried.out == "0 failed items went back to pending.\n"
    refused = await project.batchgen("reparse", "--step", "score")
    assert (refused.code, "a function ends these rows" in refused.err) == (2, True)


async def test_one_parser_is_for_one_step(two_steps: Project) -> None:
    await two_steps.batchgen("run", "pool.jsonl")
    refused = await two_steps.batchgen("reparse", "--parser", "json")
    assert (refused.code, "demo/draft, demo/critique" in refused.err) == (2, True)
    dry = await two_steps.batchgen(
        "reparse", "--parser", "json", "--step", "critique", "--all", "--dry-run"
    )
    assert dry.out.startswith("3 answers parsed with json: 3 failed that were done.")
