"""Chains as somebody looks at them who made them a minute ago: one of them, the failed ones, what
it costs to ask again, and a condition with a slip of the pen."""

import json
from typing import Any

import pytest

from batchgen.simulate import Behaviour, Simulator
from tests.kits.project import Project

STEPS = """\
output_data: {experiment_name: qa}
steps:
  - {name: questions, user: {text: "Ask about {passage}"}, parser: json}
  - {name: answer, each: {question: questions}, user: {text: "Answer {question}"}}
  - {name: judge, user: {text: "Judge {question}"}, parser: json}
"""
PRICE = {"input_usd_per_mtok": 1000, "output_usd_per_mtok": 1000}


@pytest.fixture
async def judged(project: Project, simulator: Simulator) -> Project:
    """A passage with three chains, of which the judge failed one."""
    project.config(STEPS, price=PRICE, max_tokens=100)
    project.pool([{"id": "p", "passage": "the tides"}])
    simulator.script("Ask about", Behaviour.ok('["why", "when", "where"]'))
    for question, score in (("why", 9), ("where", 4)):
        simulator.script(f"Judge {question}", Behaviour.ok(json.dumps({"score": score})))
    simulator.script("Judge when", Behaviour.ok("I do not know."))
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    return project


async def shown(project: Project, *command: str) -> Any:
    return json.loads((await project.batchgen("show", *command, "--json")).out)


async def test_a_row_is_shown_with_its_own_chain_alone(judged: Project) -> None:
    everything = await shown(judged, "p")
    assert len(everything["steps"]) == 7
    failed = next(row for row in everything["steps"] if row["state"] == "failed")
    answer = next(row for row in everything["steps"] if row["number"] == failed["parent"])
    own = await shown(judged, str(failed["number"]))
    assert [row["step"] for row in own["steps"]] == ["questions", "answer", "judge"]
    assert own["steps"][1:] == [answer, failed]
    assert await shown(judged, str(answer["number"])) == own
    text = (await judged.batchgen("show", str(failed["number"]))).out
    assert text.splitlines()[0] == (
        f"item 1 (id p) of qa, the chain of row {failed['number']} (all its rows: batchgen show p)"
    )
    assert "all its rows" not in (await judged.batchgen("show", "p")).out


async def test_a_row_that_gathers_is_shown_with_all_that_it_gathers(
    project: Project, simulator: Simulator
) -> None:
    project.config(STEPS + '  - {name: best, gather: judged, user: {text: "Choose of {judged}"}}\n')
    project.pool([{"id": "p", "passage": "the tides"}, {"id": "q", "passage": "the moon"}])
    simulator.script("Ask about", Behaviour.ok('["why", "when"]'), Behaviour.ok('["where"]'))
    for question in ("why", "when", "where"):
        simulator.script(f"Judge {question}", Behaviour.ok("1"))
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    everything = await shown(project, "p")
    best = everything["steps"][-1]
    assert (best["step"], await shown(project, str(best["number"]))) == ("best", everything)
    judge = next(row for row in everything["steps"] if row["step"] == "judge")
    own = await shown(project, str(judge["number"]))
    assert [row["step"] for row in own["steps"]] == ["questions", "answer", "judge", "best"]


async def test_of_very_many_rows_the_first_are_listed_and_those_that_gather_them(
    project: Project, simulator: Simulator
) -> None:
    best = '  - {name: best, gather: judged, user: {text: "Choose of {question}"}}\n'
    project.config(STEPS + best)
    project.pool([{"id": "p", "passage": "the tides"}])
    simulator.script("Ask about", Behaviour.ok(json.dumps([f"q{n:02}" for n in range(30)])))
    for n in range(30):
        answer = "I do not know." if n == 29 else "1"
        simulator.script(f"Judge q{n:02}", Behaviour.ok(answer))
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    lines = (await project.batchgen("show", "p")).out.splitlines()
    assert len(lines) == 1 + 1 + 20 + 20 + 1 + 3
    assert lines[-4].split()[1] == "best"
    assert lines[-2:] == [
        "Not listed: 10 of answer (10 done), 10 of judge (9 done, 1 failed). All of them: "
        "batchgen show p --limit 0",
        "All that was sent and came back in a row's own chain: batchgen show NUMBER, with the "
        "number of a row",
    ]
    assert len((await shown(project, "p"))["steps"]) == 62
    some = await shown(project, "p", "--limit", "1")
    assert [row["step"] for row in some["steps"]] == ["questions", "answer", "judge", "best"]
    assert some["left_out"] == {"answer": {"done": 29}, "judge": {"done": 28, "failed": 1}}
    everything = (await project.batchgen("show", "p", "--limit", "0")).out
    assert "Not listed" not in everything
    assert len(everything.splitlines()) == 65


async def test_a_retry_says_before_what_it_costs(judged: Project) -> None:
    dry = await judged.batchgen("retry", "--dry-run")
    (cost,) = judged.query(
        "select t.cost_usd / t.calls from totals t join experiments e on e.id = t.experiment_id"
        " where e.step = 'judge'"
    )[0]
    assert dry.out == f"1 failed row would go back to pending: 1 call, about ${cost:,.4f}.\n"
    assert json.loads((await judged.batchgen("retry", "--dry-run", "--json")).out) == {
        "retried": 1, "dry_run": True, "calls": 1, "cost_usd": pytest.approx(cost),
    }  # fmt: skip
    again = await judged.batchgen("retry", "--dry-run", "--id", "p", "--step", "answer", "--done")
    assert again.out.startswith("3 rows would go back to pending: 3 calls, about $")
    assert again.out.endswith(", and what the steps after them ask.\n")
    other = await judged.batchgen("retry", "--dry-run", "--set", "model=other")
    assert other.out == "1 failed row would go back to pending.\n"


async def test_calls_that_failed_are_of_others_where_no_item_did(
    judged: Project, simulator: Simulator
) -> None:
    judged.pool([{"id": "p", "passage": "the tides"}, {"id": "q", "passage": "the moon"}])
    simulator.script("the moon", Behaviour.error(500), Behaviour.ok("[]"))
    await judged.batchgen("run", "pool.jsonl")
    lines = (await judged.batchgen("failures")).out.splitlines()
    assert lines[:2] == ["qa/questions: no item failed.", "  calls that failed:"]


async def test_a_condition_on_what_no_row_has_is_told(judged: Project) -> None:
    said = await judged.batchgen("export", "--where", "judge.scor >= 7", "-o", "good.jsonl")
    assert said.err.splitlines() == [
        "warning: where: no row has judge.scor, so that it is null in all of them",
        "0 rows -> good.jsonl; left out: 1 failed (batchgen export --failed), 2 done, but not as "
        "--where says",
    ]
    good = await judged.batchgen("export", "--where", "judge.score >= 7", "-o", "-")
    assert "warning" not in good.err
    assert len(good.out.splitlines()) == 1
    some = await judged.batchgen("export", "--where", "id == 'x' and judge.x > 1", "-o", "-")
    assert "warning" not in some.err  # it was looked for in no row


async def test_a_dry_run_counts_what_is_waiting_already(
    project: Project, simulator: Simulator
) -> None:
    """As after a Ctrl-C: nothing is new, and yet `run` has calls to make."""
    project.config(STEPS, price=PRICE, max_tokens=100)
    project.pool([{"id": "p", "passage": "the tides"}, {"id": "q", "passage": "the moon"}])
    simulator.script("Ask about", Behaviour.ok('["why", "when"]'), Behaviour.ok('["where"]'))
    for question in ("why", "when", "where"):
        simulator.script(f"Judge {question}", Behaviour.ok("1"))
    before = json.loads(
        (await project.batchgen("enqueue", "pool.jsonl", "--dry-run", "--json")).out
    )
    await project.batchgen("enqueue", "pool.jsonl")
    dry = json.loads((await project.batchgen("enqueue", "pool.jsonl", "--dry-run", "--json")).out)
    assert (before["waiting"], dry["new"], dry["waiting"]) == (0, 0, 2)
    assert [dry[name] for name in ("steps", "cost_usd")] == [
        before[name] for name in ("steps", "cost_usd")
    ]
    await project.batchgen("work", "--step", "questions")
    said = (await project.batchgen("enqueue", "pool.jsonl", "--dry-run")).out.splitlines()
    assert said[0] == "2 items read, 0 new to qa, 3 waiting already; nothing was written."
    assert [line.split(",")[0] for line in said[1:5]] == [
        "  questions  no call", "  answer     3 calls", "  judge      3 calls",
        "Estimated for 6 calls: 60 tokens in",
    ]  # fmt: skip
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    assert simulator.calls == 8
    said = (await project.batchgen("enqueue", "pool.jsonl", "--dry-run")).out.splitlines()
    assert said[0] == "2 items read, 0 new to qa; nothing was written."


async def test_a_dry_run_counts_gathering_rows_that_are_still_to_be_made(
    project: Project, simulator: Simulator
) -> None:
    project.config(
        STEPS + '  - {name: best, gather: judged, user: {text: "Choose of {judged}"}}\n'
        '  - {name: title, user: {text: "A title for {best}"}}\n'
    )
    project.pool([{"id": "p", "passage": "the tides"}, {"id": "q", "passage": "the moon"}])
    simulator.script("Ask about", Behaviour.ok('["why", "when"]'), Behaviour.ok('["where"]'))
    await project.batchgen("enqueue", "pool.jsonl")
    await project.batchgen("work", "--step", "questions")
    dry = json.loads((await project.batchgen("enqueue", "pool.jsonl", "--dry-run", "--json")).out)
    assert [(step["step"], step["calls"]) for step in dry["steps"]] == [
        ("questions", 0), ("answer", 3), ("judge", 3), ("best", 2), ("title", 2),
    ]  # fmt: skip


async def test_a_dry_run_without_steps_counts_what_is_waiting_too(
    project: Project, simulator: Simulator
) -> None:
    project.pool([{"id": "p", "topic": "tides"}, {"id": "q", "topic": "moon"}])
    project.config(price=PRICE, max_tokens=100)
    enqueue = ("enqueue", "pool.jsonl", "--prompt", "Write about {topic}")
    first = (await project.batchgen(*enqueue, "--dry-run")).out.splitlines()
    await project.batchgen(*enqueue)
    said = (await project.batchgen(*enqueue, "--dry-run")).out.splitlines()
    assert said[0] == "2 items read, 0 new to default, 2 waiting already; nothing was written."
    assert said[1] == first[1].replace("Estimated", "Estimated for 2 calls")
    assert simulator.calls == 0


async def test_empty_cells_that_go_into_prompts_are_told_with_their_number(
    project: Project, simulator: Simulator
) -> None:
    project.config(STEPS, price=PRICE, max_tokens=100)
    project.write("pool.csv", "id,passage,note\na,the tides,\nb,,x\nc,,\n")
    said = "warning: empty, and used by a template: passage in 2 items; they are asked all the same"
    for command in (["enqueue", "--dry-run"], ["enqueue"]):
        told = await project.batchgen(*command, "pool.csv")
        assert (told.code, said in told.err.splitlines()) == (0, True)
    assert (await project.batchgen("work", "--step", "questions")).code in (0, 3)
    assert simulator.calls == 3
    project.pool([{"id": "d", "passage": "the moon"}])
    assert "empty" not in (await project.batchgen("enqueue", "pool.jsonl")).err


@pytest.mark.quick("judge.scor > 5-20-True")
@pytest.mark.parametrize(
    ("when", "items", "is_told"),
    [
        ("judge.scor > 5", 20, True),
        ("judge.scor > 5", 19, False),
        ("judge.score > 5 and judge.scor > 5", 20, False),  # it was looked for in none
        ("judge.score > 5", 20, False),
    ],
)
async def test_a_condition_that_held_for_no_row_as_its_path_was_in_none_is_told(
    project: Project, simulator: Simulator, when: str, items: int, is_told: bool
) -> None:
    project.config(
        "output_data: {experiment_name: qa}\nsteps:\n"
        '  - {name: judge, user: {text: "Judge {passage}"}, parser: json}\n'
        f'  - {{name: praise, when: "{when}", user: {{text: "Praise {{passage}}"}}}}\n'
    )
    project.pool([{"id": f"p{n}", "passage": f"passage{n:02}"} for n in range(items)])
    for n in range(items):
        simulator.script(f"Judge passage{n:02}", Behaviour.ok('{"score": 3}'))
    said = (await project.batchgen("run", "pool.jsonl")).err.splitlines()
    warning = (
        "warning: step praise has no row: its `when` (judge.scor > 5) looks for judge.scor, which "
        "is null or missing in all 20 rows that were looked at"
    )
    assert (warning in said, any("has no row" in line for line in said)) == (is_told, is_told)
    shown = (await project.batchgen("status")).out.splitlines()
    assert (warning.removeprefix("warning: ") in shown) is is_told
    status = (await project.batchgen("status", "--json")).json
    never_there = [step["never_there"] for step in status["experiments"][0]["steps"]]
    assert never_there == [[], ["judge.scor"] if is_told else []]
    assert simulator.calls == items


async def test_the_rate_of_status_is_said_to_be_that_of_calls_where_functions_end_rows(
    project: Project,
) -> None:
    project.write("code.py", "def size(item, values):\n    return len(values['draft'])\n")
    project.config(
        "steps:\n"
        "  - {name: draft, user: {text: 'Write about {topic}'}}\n"
        "  - {name: size, function: 'code.py:size'}\n"
    )
    project.pool([{"topic": "tea"}])
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    assert " rows/s by calls in the last minute" in (await project.batchgen("status")).out
