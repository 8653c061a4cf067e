"""Rows of steps that were made of something which was replaced since."""

import json
from typing import Any

import pytest

from batchgen.simulate import Simulator
from tests.cli.test_steps import states, topics
from tests.kits.project import Project

CODE = """\
def size(text):
    return {"n": 1, "text": text}

def score(item, values):
    return int(item["topic"].split()[-1])
"""
STEPS = """\
output_data: {experiment_name: demo}
steps:
  - {name: draft, user: {text: "Write about {topic}"}, parser: "code.py:size", value: parsed.n}
  - {name: score, function: "code.py:score"}
  - {name: critique, when: score > 1, user: {text: "Mend {topic}, of {draft}"}}
"""


@pytest.fixture
async def done(project: Project, simulator: Simulator) -> Project:
    """Three items that have gone through all steps, but the last one that the first item skips."""
    project.write("code.py", CODE)
    project.config(STEPS)
    project.pool(topics(3))
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    assert states(project) == {
        "draft": {"done": 3}, "score": {"done": 3}, "critique": {"done": 2},
    }  # fmt: skip
    assert simulator.calls == 5
    return project


async def said(project: Project, *command: str) -> Any:
    shown = await project.batchgen(*command, "--json")
    assert shown.code == 0, shown.err
    return json.loads(shown.out)


async def test_another_value_makes_stale_what_was_made_of_it(
    done: Project, simulator: Simulator
) -> None:
    done.write("code.py", CODE.replace('"n": 1', '"n": 2'))
    told = await done.batchgen("reparse", "--step", "draft", "--all", "--dry-run")
    assert told.out.splitlines()[0] == (
        "3 answers parsed with code.py:size: 3 changed; what was made of other values would be "
        "stale: 3 rows, and what follows."
    )
    assert states(done)["score"] == {"done": 3}
    again = await done.batchgen("work")
    assert "what was made of other values is stale: 3 rows" in again.err
    assert states(done) == {"draft": {"done": 3}, "score": {"stale": 3}, "critique": {"stale": 2}}
    status = await done.batchgen("status")
    assert "3 rows of score are stale: " in status.out
    assert await said(done, "retry", "--stale", "--dry-run") == {
        "retried": 3, "calls": 0, "steps": {"demo/score": 3}, "restored": 0, "waiting": 2,
        "unmade": 0, "cost_usd": None, "dry_run": True,
    }  # fmt: skip
    assert states(done)["score"] == {"stale": 3}
    await done.batchgen("retry", "--stale")
    await done.batchgen("work")
    assert states(done) == {"draft": {"done": 3}, "score": {"done": 3}, "critique": {"stale": 2}}
    assert (await said(done, "retry", "--stale", "--step", "critique"))["calls"] == 2
    await done.batchgen("work")
    assert states(done)["critique"] == {"done": 2}
    assert simulator.calls == 7
    assert simulator.calls_of("of 2") == 2
    assert (await done.batchgen("verify")).code == 0


async def test_where_the_value_stays_nothing_is_stale(done: Project) -> None:
    done.write("code.py", CODE.replace('"text": text', '"text": text.upper()'))
    told = await done.batchgen("work")
    assert "3 changed" in told.err
    assert "stale" not in told.err
    assert states(done)["critique"] == {"done": 2}


async def test_a_done_row_that_is_asked_again_makes_its_chain_stale(
    done: Project, simulator: Simulator
) -> None:
    which = await done.batchgen("retry", "--id", "a-2", "--done")
    assert (which.code, "several steps" in which.err) == (2, True)
    await done.batchgen("retry", "--id", "a-2", "--step", "draft", "--done")
    assert states(done) == {
        "draft": {"done": 2, "pending": 1}, "score": {"done": 2, "stale": 1},
        "critique": {"done": 1, "stale": 1},
    }  # fmt: skip
    await done.batchgen("work")  # the simulated model says the same once more
    assert states(done) == {"draft": {"done": 3}, "score": {"done": 3}, "critique": {"done": 2}}
    assert simulator.calls == 6


async def test_the_id_of_items_of_several_experiments_is_not_said_to_have_several_steps(
    done: Project, simulator: Simulator
) -> None:
    assert (await done.batchgen("run", "pool.jsonl", "--experiment", "more")).code == 0
    asked = simulator.calls
    for step in (["--step", "draft"], []):
        refused = await done.batchgen("retry", "--id", "a-2", "--done", *step)
        assert (refused.code, refused.err) == (
            2, "error: several experiments have an item a-2 (demo, more), and each of its answers "
            "would be asked for again. Choose with --experiment.\n",
        )  # fmt: skip
    chosen = await done.batchgen(
        "retry", "--id", "a-2", "--done", "--step", "draft", "--experiment", "more"
    )
    assert chosen.out == "1 row went back to pending.\n"
    assert simulator.calls == asked


async def test_a_function_that_has_changed_is_run_again_by_itself(
    done: Project, simulator: Simulator
) -> None:
    done.write("code.py", CODE.replace("split()[-1])", "split()[-1]) + 1"))
    (demo,) = (await said(done, "status"))["experiments"]
    assert [one["outdated"] and one["outdated"]["items"] for one in demo["steps"]] == [
        None, 3, None,
    ]  # fmt: skip
    again = await done.batchgen("work")
    assert "demo/score: the function is another one now; 3 rows are run again, without a call" in (
        again.err
    )
    # The condition holds for one more; for the others it sees another value.
    assert states(done) == {
        "draft": {"done": 3}, "score": {"done": 3}, "critique": {"done": 1, "stale": 2},
    }  # fmt: skip
    assert simulator.calls == 6


async def test_failed_rows_of_one_step_are_retried(project: Project, simulator: Simulator) -> None:
    project.config(
        "output_data: {experiment_name: demo}\n"
        "steps:\n"
        "  - {name: draft, user: {text: 'Write about {topic}'}}\n"
        "  - {name: critique, user: {text: 'Mend {topic}'}}\n"
    )
    project.pool(topics(2))
    simulator.script("Mend tea 1", "400")
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    assert states(project)["critique"] == {"done": 1, "failed": 1}
    assert (await project.batchgen("failures", "--step", "draft")).out.strip() == (
        "demo/draft: no item failed."
    )
    failed = (await project.batchgen("failures")).out
    assert failed.startswith("demo/critique:\n       1  rejected")
    assert "retry --reason rejected --experiment demo/critique" in failed
    assert (await said(project, "retry", "--step", "draft"))["retried"] == 0
    assert (await said(project, "retry", "--step", "critique"))["retried"] == 1
    assert (await project.batchgen("work")).code == 0
    assert states(project)["critique"] == {"done": 2}


async def test_a_step_is_parsed_by_another_parser_for_once(done: Project) -> None:
    """Without --step it would be read by all."""
    for which in ([], ["--all"]):
        refused = await done.batchgen("reparse", *which, "--parser", "code.py:other")
        assert refused.code == 2
        assert "and each may have a parser of its own" in refused.err
    done.write("code.py", CODE + "\ndef other(text):\n    return {'n': 3}\n")
    parser = ("--parser", "code.py:other")
    told = await done.batchgen("reparse", "--step", "draft", "--all", *parser, "--dry-run")
    assert "3 changed; what was made of other values would be stale" in told.out
    told = await done.batchgen("reparse", "--step", "draft", "--all", *parser)
    assert "3 changed; what was made of other values is stale: 3 rows" in told.out
    assert "work and run will parse these answers with that again" in told.err


async def test_rows_that_the_steps_make_no_more_wait_for_nothing(done: Project) -> None:
    narrower = STEPS.replace("score > 1", "score > 2")
    done.config(narrower + '  - {name: polish, user: {text: "Polish {critique}"}}\n')
    assert (await done.batchgen("run", "pool.jsonl", "--recipe", "replace")).code == 0
    told = await done.batchgen("retry", "--stale")
    assert told.out.splitlines() == [
        "0 stale rows went back to pending.",
        "1 stale row is made by the steps no more, as a condition or a list is another one now; it "
        "stays stored, and out of the export. Nothing is to be done.",
    ]
    assert (await said(done, "retry", "--stale"))["unmade"] == 1


async def test_where_nothing_stale_is_made_any_more_nothing_is_proposed(done: Project) -> None:
    done.config(STEPS.replace("score > 1", "score > 2"))
    again = await done.batchgen("run", "pool.jsonl", "--recipe", "replace")
    assert "1 row is stale, as the steps make it no more.\n" in again.err
    status = await done.batchgen("status")
    assert "1 row of critique is stale: the steps make it no more\n" in status.out
    proved = await done.batchgen("verify")
    assert "; 1 row is stale (made by the steps no more)." in proved.out
    step = await done.batchgen("export", "-o", "-", "--step", "critique")
    assert step.err == "1 row; left out: 1 stale (made by the steps no more)\n"
    assert (await done.batchgen("export", "-o", "all.jsonl")).err == "3 rows -> all.jsonl\n"
    for said in (again, status, proved, step):
        assert "--stale" not in said.out + said.err

    done.write("code.py", CODE.replace('"n": 1', '"n": 2'))  # and more that is made still
    work = await done.batchgen("work")
    assert "To ask again: batchgen retry --stale" in work.err
    now = (await done.batchgen("status")).out
    assert (
        "2 rows of critique are stale (1 of them the steps make no more): what they were made of "
        "is being replaced, or has been: batchgen retry --stale\n"
    ) in now
