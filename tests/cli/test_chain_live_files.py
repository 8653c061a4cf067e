"""`work -o` and `export --follow` of experiments with steps: a line when a chain ends, once."""

import json
from signal import SIGKILL
from typing import Any

from batchgen.simulate import Behaviour, Simulator
from tests.kits.crashes import until
from tests.kits.database import look
from tests.kits.processes import Process
from tests.kits.project import Project

CONFIG = """\
output_data: {experiment_name: demo, need_time_stamp: false}
steps:
  - {name: ask, user: {text: "Ask {topic}"}, parser: json}
  - {name: answer, each: {question: ask}, user: {text: "Answer {question}"}}
"""
MORE = CONFIG + '  - {name: judge, user: {text: "Judge {answer}"}}\n'
ITEMS, CHAINS = 6, 8


async def enqueue(project: Project, simulator: Simulator) -> None:
    project.config(CONFIG)
    for number in range(ITEMS):
        questions = [f"w{number}.{n}" for n in range(number % 3)]
        simulator.script(f"Ask t{number}", Behaviour.ok(json.dumps(questions)))
    project.pool({"topic": f"t{number}"} for number in range(ITEMS))
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0


def lines(project: Project, name: str = "live.jsonl") -> list[dict[str, Any]]:
    text = (project.path / name).read_text(encoding="utf-8")
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def place(line: dict[str, Any]) -> tuple[int, int]:
    return line["id"], line.get("element", 0)


async def right(project: Project) -> None:
    """The file has the lines of an export, each once, and the database agrees."""
    verified = await project.batchgen("verify")
    assert verified.code == 0, verified.out
    assert (await project.batchgen("export", "-o", "whole.jsonl")).code == 0
    assert sorted(lines(project), key=place) == lines(project, "whole.jsonl")


async def held_midway(project: Project, simulator: Simulator) -> Process:
    """A worker that waits for the answer of one row, and has written some lines."""
    await enqueue(project, simulator)
    simulator.script("Answer w4.0", "hang")
    worker = await project.start("work", "-c", "1", "-o", "live.jsonl")
    await until(project.database, "select coalesce(sum(rows), 0) from live_files", 5)
    return worker


async def killed(process: Process) -> None:
    process.send_signal(SIGKILL)
    await process.communicate()


async def test_a_line_comes_when_a_chain_ends_and_once_after_a_kill(
    project: Project, simulator: Simulator
) -> None:
    await killed(await held_midway(project, simulator))
    assert [place(one) for one in lines(project)] == [(1, 0), (2, 0), (3, 0), (3, 1), (4, 0)]
    with (project.path / "live.jsonl").open("a") as file:
        file.write('{"id": 5, "input": {"to')  # what a crash leaves
    again = await project.batchgen("work", "-o", "live.jsonl")
    assert (again.code, "written anew" in again.err) == (0, False)
    assert again.err.endswith(f"{CHAINS} rows -> live.jsonl\n")
    await right(project)


async def test_the_file_is_written_anew_when_a_row_above_was_replaced(
    project: Project, simulator: Simulator
) -> None:
    await enqueue(project, simulator)
    await project.batchgen("work", "-o", "live.jsonl")
    await project.batchgen("retry", "--step", "ask", "--id", "3", "--done")
    simulator.script("Ask t2", Behaviour.ok('["w2.0", "other"]'))
    again = await project.batchgen("work", "-o", "live.jsonl")
    assert "written anew, as results in it were replaced" in again.err
    assert (3, 1) not in [place(one) for one in lines(project)]  # it is stale
    await right(project)


async def test_the_file_is_written_anew_when_a_step_was_added(
    project: Project, simulator: Simulator
) -> None:
    await enqueue(project, simulator)
    await project.batchgen("work", "-o", "live.jsonl")
    project.config(MORE)
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    again = await project.batchgen("work", "-o", "live.jsonl")
    assert again.code == 0, again.err
    assert {one["ended"] for one in lines(project)} == {"ask", "judge"}
    await right(project)


async def test_the_file_is_written_anew_when_another_step_is_the_result(
    project: Project, simulator: Simulator
) -> None:
    await enqueue(project, simulator)
    await project.batchgen("work", "-o", "live.jsonl")
    project.config(CONFIG + "result: [ask]\n")
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    await project.batchgen("work", "-o", "live.jsonl")
    assert lines(project)[0]["parsed"] == []
    await right(project)


async def test_follow_writes_chains_until_all_have_ended(
    project: Project, simulator: Simulator
) -> None:
    await enqueue(project, simulator)
    simulator.script("Answer w4.0", "400")
    follower = await project.start("export", "--follow", "-o", "live.jsonl")
    await project.batchgen("work")
    _, err = await follower.communicate()
    assert follower.returncode == 0
    assert err.decode().splitlines()[-1] == (
        f"{len(lines(project))} rows -> live.jsonl; left out: 1 failed (batchgen export --failed)"
    )
    assert look(project.database, "select rows from live_files") == [(len(lines(project)),)]
    await right(project)
