"""Lists, and what is gathered of them, by the commands."""

import sqlite3
from contextlib import closing

import pytest

from batchgen.simulate import Simulator
from batchgen.store.sqlite.transaction import QUERIES
from tests.cli.test_steps import states, topics
from tests.kits.project import Project

CODE = """\
def halves(text):
    return ["left", "right"]

def score(item, values):
    if item["topic"] == "tea 2":
        raise ValueError("no score")
    return values["half"]

def best(item, values):
    return values["scores"]
"""


async def test_what_a_function_failed_at_is_run_again_when_it_is_mended(project: Project) -> None:
    project.write("code.py", CODE)
    project.config(
        "output_data: {experiment_name: demo}\n"
        "steps:\n"
        "  - {name: halves, user: {text: 'Halve {topic}'}, parser: 'code.py:halves'}\n"
        "  - {name: score, each: {half: halves}, function: 'code.py:score'}\n"
        "  - {name: best, gather: scores, function: 'code.py:best'}\n"
    )
    project.pool(topics(2))
    done = await project.batchgen("run", "pool.jsonl")
    assert done.code == 3
    assert states(project) == {
        "halves": {"done": 2}, "score": {"done": 2, "failed": 2}, "best": {"done": 1, "failed": 1},
    }  # fmt: skip
    failed = await project.batchgen("failures")
    assert "Mend the function; batchgen work runs these rows again then" in failed.out
    assert "none of its 2 rows is done" in failed.out
    assert "Mend what failed before it" in failed.out
    retried = await project.batchgen("retry", "--step", "best")
    assert retried.out == "0 failed rows went back to pending.\n"
    assert "not retried: 1 row, as what a step is made of is not done" in retried.err

    project.write("code.py", CODE.replace('"tea 2"', '"tea 3"'))
    done = await project.batchgen("work")
    assert "demo/score: the function is another one now; 4 rows are run again" in done.err
    assert states(project) == {
        "halves": {"done": 2}, "score": {"done": 4}, "best": {"done": 2},
    }  # fmt: skip
    rows = project.query(
        "select r.parsed from work w join results r on r.seq = w.result_seq"
        " join experiments e on e.id = w.experiment_id where e.step = 'best'"
    )
    assert rows == [('["left", "right"]',)] * 2
    assert (await project.batchgen("verify")).code == 0


async def test_show_has_the_elements_of_a_list(project: Project) -> None:
    project.write("code.py", CODE)
    project.config(
        "steps:\n"
        "  - {name: halves, user: {text: 'Halve {topic}'}, parser: 'code.py:halves'}\n"
        "  - {name: answer, each: {half: halves}, user: {text: 'Answer {half}'}}\n"
    )
    project.pool(topics(1))
    await project.batchgen("run", "pool.jsonl")
    lines = (await project.batchgen("show", "a-1")).out.splitlines()
    assert [line.split()[1] for line in lines[1:4]] == ["halves", "answer[0]", "answer[1]"]
    assert "    Answer right" in lines


async def test_what_other_lists_and_gatherings_come_to_is_told(project: Project) -> None:
    project.write("code.py", "def parts(text):\n    return {'list': ['a', 'b'], 'text': 'c'}\n")

    def steps(each: str, more: str = "") -> None:
        project.config(
            "output_data: {experiment_name: demo}\n"
            "steps:\n"
            "  - {name: parts, user: {text: 'Split {topic}'}, parser: 'code.py:parts'}\n"
            f"  - {{name: answer, each: {{part: {each}}}, user: {{text: 'Say {{part}}'}}}}\n{more}"
        )

    steps("parts.list")
    project.pool(topics(2))
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    steps("parts.text")
    told = await project.batchgen("enqueue", "pool.jsonl")
    assert "2 done rows fail then, as there is no list for each in them" in told.err
    best = "  - {name: best, gather: answers, user: {text: 'Best of {answers}'}}\n"
    steps("parts.list", best)
    dry = await project.batchgen("enqueue", "pool.jsonl", "--dry-run")
    assert "  best    2 calls" in dry.out
    done = await project.batchgen("run", "pool.jsonl")
    assert "which makes these rows new: 2 of best" in done.err
    assert states(project)["best"] == {"done": 2}


async def test_what_more_samples_of_known_items_make_stale_is_told(
    project: Project, simulator: Simulator
) -> None:
    project.config(
        "output_data: {experiment_name: demo}\n"
        "steps:\n"
        "  - {name: draft, user: {text: 'Write of {topic}'}}\n"
        "  - {name: best, gather: drafts, user: {text: 'Best of {drafts}'}}\n"
        "  - {name: polish, user: {text: 'Polish {best}'}}\n"
    )
    project.pool(topics(2))
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    project.pool(topics(3))  # two are known, and one is new
    enqueue = ("enqueue", "pool.jsonl", "--samples", "4")
    dry = await project.batchgen(*enqueue, "--dry-run")
    first, *steps = dry.out.splitlines()[:4]
    assert first == (
        "3 items read, 4 samples each, 10 new to demo; what was gathered of their items before is "
        "stale then; nothing was written."
    )
    assert [line.split(",")[0].split()[1:] for line in steps] == [
        ["10", "calls"], ["1", "call"], ["1", "call"],
    ]  # fmt: skip
    calls = simulator.calls
    assert (await project.batchgen("run", "pool.jsonl", "--samples", "4")).code == 0
    assert simulator.calls == calls + 10 + 1 + 1
    assert states(project) == {
        "draft": {"done": 12}, "best": {"done": 1, "stale": 2}, "polish": {"done": 1, "stale": 2},
    }  # fmt: skip
    again = await project.batchgen(*enqueue, "--dry-run")
    assert "stale" not in again.out


@pytest.mark.quick("2")
@pytest.mark.parametrize("until", ["2", "6"])
async def test_a_gathering_that_is_added_is_told_once_an_item(
    project: Project, simulator: Simulator, until: str
) -> None:
    def steps(more: str = "") -> None:
        project.config(
            "output_data: {experiment_name: demo}\n"
            "steps:\n"
            "  - {name: draft, user: {text: 'Write of {topic}'}}\n"
            f"  - {{name: score, user: {{text: 'Score {{draft}}'}}}}\n{more}"
        )

    steps()
    project.pool(topics(3))
    run = ("run", "pool.jsonl", "--samples", "2")
    await project.batchgen("enqueue", *run[1:])
    await project.batchgen("work", "--step", "draft", "-c", "1", "--max-items", until)
    if until == "6":
        await project.batchgen("work")
    calls = simulator.calls
    steps("  - {name: best, gather: scores, user: {text: 'Best of {scores}'}}\n")
    dry = (await project.batchgen("enqueue", *run[1:], "--dry-run", "--json")).json
    assert dry["made"] == {"best": 1 if until == "2" else 3}
    assert dry["steps"][2]["calls"] == 3
    assert (await project.batchgen(*run)).code == 0
    assert simulator.calls - calls == sum(step["calls"] for step in dry["steps"])


async def test_what_new_rows_before_a_gathering_make_stale_is_told(project: Project) -> None:
    def steps(each: str) -> None:
        project.config(
            "output_data: {experiment_name: demo}\n"
            "steps:\n"
            "  - {name: parts, user: {text: 'Split {topic}'}, parser: 'code.py:parts'}\n"
            f"  - {{name: say, each: {{part: parts.{each}}}, user: {{text: '{{part}}'}}}}\n"
            "  - {name: best, gather: all, user: {text: 'Best of {all}'}}\n"
        )

    project.write("code.py", "def parts(text):\n    return {'few': ['a'], 'more': ['a', 'b']}\n")
    steps("few")
    project.pool(topics(2))
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    steps("more")
    told = await project.batchgen("enqueue", "pool.jsonl")
    assert "(new rows: 2 of say, and what follows them); what was gathered of their" in told.err
    dry = await project.batchgen("enqueue", "pool.jsonl", "--recipe", "replace", "--dry-run")
    assert "2 of say, and what follows them; what was gathered of their items before" in dry.out
    assert (await project.batchgen("run", "pool.jsonl", "--recipe", "replace")).code == 0
    assert states(project) == {
        "parts": {"done": 2}, "say": {"done": 4}, "best": {"stale": 2},
    }  # fmt: skip


async def test_where_an_empty_list_leaves_nothing_to_gather_it_is_said(project: Project) -> None:
    project.write("code.py", "def parts(item):\n    return []\n")
    project.config(
        "steps:\n"
        "  - {name: parts, function: 'code.py:parts'}\n"
        "  - {name: answer, each: {part: parts}, user: {text: 'Answer {part}'}}\n"
        "  - {name: best, gather: answers, user: {text: 'Choose of {answers}'}}\n"
    )
    project.pool(topics(1))
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    failed = (await project.batchgen("failures")).out
    assert (
        "nothing to gather: a `when` that does not hold, or an empty list, has ended all" in failed
    )
    assert "Mend what failed before it, or the list or the condition that ended it" in failed
    assert (await project.batchgen("verify")).code == 0


@pytest.mark.only_sqlite("it counts SQLite's own steps")
async def test_a_gathering_of_a_long_list_is_looked_at_once_to_be_verified(
    project: Project,
) -> None:
    project.write(
        "code.py",
        "def parts(item):\n    return list(range(400))\n\n\n"
        "def same(item, values):\n    return values['part']\n",
    )
    project.config(
        "steps:\n"
        "  - {name: parts, function: 'code.py:parts'}\n"
        "  - {name: answer, each: {part: parts}, function: 'code.py:same'}\n"
        "  - {name: best, gather: answers, user: {text: 'Choose of {answers}'}}\n"
    )
    project.pool(topics(1))
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 100
        return 0

    with closing(sqlite3.connect(project.path / "batchgen.db")) as db:
        db.set_progress_handler(count, 100)
        statement = QUERIES["gatherings_without_row"]
        assert db.execute(statement, {"ids": None, "limit": 20}).fetchall() == []
    assert steps < 402 * 100
