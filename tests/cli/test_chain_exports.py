"""Exports of experiments with steps: a line a chain, in every format."""

import csv
import io
import json

import pytest

from batchgen.export import FORMATS
from batchgen.export.chains.formats import CHAIN_FORMATS
from batchgen.simulate import Behaviour, Simulator
from tests.kits.chain_exports import PARTS, exported, says, topics
from tests.kits.project import Project, without_times

PRICE = {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2}
DRAFTS = """\
output_data: {experiment_name: demo, need_time_stamp: false}
steps:
  - {name: draft, user: {text: "Draft {topic}"}}
  - {name: critique, user: {text: "Judge {draft}"}, parser: json}
  - {name: revise, when: critique.score < 8, user: {text: "Mend {draft}"}}
result: [revise, draft]
"""
VOTES = """\
output_data: {experiment_name: demo, need_time_stamp: false}
steps:
  - {name: draft, user: {text: "Draft {topic}"}}
  - {name: score, user: {text: "Score {draft}"}, parser: json}
  - {name: best, gather: scores, function: "best.py:best"}
"""
BEST = """\
def best(item, values):
    scores = values["scores"]
    return values["draft"][scores.index(max(scores))]
"""


@pytest.fixture
async def drafts(project: Project, simulator: Simulator) -> Project:
    """Tea is revised, rum is good, and the critique of mud fails."""
    says(
        simulator, Draft_tea="Tea.", Judge_Tea='{"score": 3}', Mend_Tea="Hot tea.",
        Draft_rum="Rum.", Judge_Rum='{"score": 9}', Draft_mud="Mud.", Judge_Mud="No.",
    )  # fmt: skip
    project.config(DRAFTS, max_tokens=100, price=PRICE)
    project.pool(topics("tea", "rum", "mud"))
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    return project


@pytest.fixture
async def parts(project: Project, simulator: Simulator) -> Project:
    """Two questions about tea, the second of which has no answer, and none about rum."""
    says(
        simulator, Ask_tea='["Why?", "How?"]', Ask_rum="[]", Answer_Why="So.",
        Judge_So='{"score": 5}',
    )  # fmt: skip
    simulator.script("Answer How", "400")
    project.config(PARTS)
    project.pool(topics("tea", "rum"))
    assert (await project.batchgen("run", "pool.jsonl")).code == 3
    return project


@pytest.fixture
async def votes(project: Project, simulator: Simulator) -> Project:
    """Three samples of tea, of which the second is the best, and the third cannot be scored."""
    simulator.script("Draft tea", *map(Behaviour.ok, ("Weak.", "Strong.", "Odd.")))
    says(simulator, Score_Weak="1", Score_Strong="7", Score_Odd="?")
    project.write("best.py", BEST)
    project.config(VOTES)
    project.pool(topics("tea"))
    await project.batchgen("enqueue", "pool.jsonl", "--samples", "3")
    assert (await project.batchgen("work", "-c", "1")).code == 3
    return project


async def test_a_line_has_the_chain_with_all_its_steps(drafts: Project) -> None:
    tea, rum = map(without_times, drafts.export("demo"))
    assert list(tea) == [
        "id", "input", "response", "parsed", "ended", "steps", "metadata", "model",
        "finish_reason", "usage", "cost_usd", "attempts",
    ]  # fmt: skip
    assert (tea["id"], tea["parsed"], tea["response"], tea["ended"]) == (
        "tea", "Hot tea.", "Hot tea.", "revise",
    )  # fmt: skip
    assert (rum["parsed"], rum["ended"], list(rum["steps"])) == (
        "Rum.", "critique", ["draft", "critique"],
    )  # fmt: skip
    steps = tea["steps"].values()
    assert [one["parsed"] for one in steps] == ["Tea.", {"score": 3}, "Hot tea."]
    assert tea["steps"]["critique"]["response"] == '{"score": 3}'
    assert tea["attempts"] == 3 == sum(one["attempts"] for one in steps)
    assert tea["cost_usd"] == round(sum(one["cost_usd"] for one in steps), 12)
    for name, n in tea["usage"].items():
        assert n == sum(one["usage"][name] for one in steps)


async def test_what_failed_is_counted_and_can_be_had_with_the_steps_before(
    drafts: Project,
) -> None:
    said = await drafts.batchgen("export")
    assert said.err.splitlines()[-1].partition("; ")[2] == (
        "left out: 1 failed (batchgen export --failed)"
    )
    (mud,) = await exported(drafts, "--failed")
    assert (mud["ended"], mud["parsed"], mud["failed"], mud["reason"]) == (
        None, None, "critique", "parse",
    )  # fmt: skip
    assert (mud["response"], list(mud["steps"]), mud["attempts"]) == ("No.", ["draft"], 2)
    assert [one["id"] for one in await exported(drafts, "--all")] == ["tea", "rum", "mud"]


async def test_a_step_has_a_line_for_each_of_its_done_rows(drafts: Project) -> None:
    found = await exported(drafts, "--step", "draft")
    assert [(one["id"], one["parsed"], one["ended"], list(one["steps"])) for one in found] == [
        ("tea", "Tea.", "revise", ["draft", "critique", "revise"]),
        ("rum", "Rum.", "critique", ["draft", "critique"]),
        ("mud", "Mud.", None, ["draft"]),
    ]  # fmt: skip
    judged = await exported(drafts, "--step", "draft", "--where", "critique.score >= 8")
    assert [one["id"] for one in judged] == ["rum"]
    assert found == await exported(drafts, "--experiment", "demo/draft")
    (failed,) = await exported(drafts, "--step", "critique", "--failed")
    assert (failed["id"], failed["failed"]) == ("mud", "critique")


async def test_an_export_of_a_step_has_a_file_and_hints_of_its_own(drafts: Project) -> None:
    said = await drafts.batchgen("export", "--step", "critique")
    path = drafts.path / "output" / "demo.step-critique.jsonl"
    assert said.err == (
        f"2 rows -> {path}; left out: 1 failed (batchgen export --failed --step critique)\n"
    )
    assert len(drafts.export("demo")) == 2  # the chains


async def test_a_condition_may_name_steps(drafts: Project) -> None:
    found = await exported(drafts, "--where", 'revise == null and metadata.of == "rum"')
    assert [one["id"] for one in found] == ["rum"]
    refused = await drafts.batchgen("export", "-o", "-", "--where", "judge > 1")
    assert (refused.code, refused.err) == (
        2, "error: where: column 1: `judge`: there is no judge; there is id, input, metadata, "
        "response, parsed, draft, critique, revise, review, note, edited (a text needs quotes)\n",
    )  # fmt: skip


async def test_each_element_has_a_line_with_its_place(parts: Project) -> None:
    why, rum = parts.export("demo")
    assert (why["id"], why["element"], why["parsed"], why["ended"]) == ("tea", 0, "So.", "judge")
    assert list(why["steps"]) == ["ask", "answer", "judge"]
    assert why["steps"]["answer"]["input"] == {"question": "Why?"}
    assert (rum["ended"], rum["parsed"], rum["model"], "element" in rum) == (
        "ask", None, None, False,
    )  # fmt: skip
    (how,) = await exported(parts, "--failed")
    assert (how["element"], how["failed"], list(how["steps"])) == (1, "answer", ["ask"])
    (good,) = await exported(parts, "--step", "answer", "--where", "judge.score == 5 and question")
    assert (good["parsed"], good["element"]) == ("So.", 0)


async def test_what_comes_after_a_list_is_no_part_of_a_line_before_it(parts: Project) -> None:
    found = await exported(parts, "--step", "ask")
    assert [(one["parsed"], one["ended"], list(one["steps"])) for one in found] == [
        (["Why?", "How?"], None, ["ask"]), ([], "ask", ["ask"]),
    ]  # fmt: skip
    refused = await parts.batchgen("export", "--step", "ask", "--where", "judge.score > 1")
    assert refused.code == 2
    assert "there is no judge; there is id, input, metadata, response, parsed, ask" in refused.err


async def test_a_line_of_what_was_gathered_has_lists_of_the_steps_before(votes: Project) -> None:
    (tea,) = await exported(votes)
    assert (tea["parsed"], tea["response"], tea["ended"], "sample" in tea) == (
        "Strong.", None, "best", False,
    )  # fmt: skip
    steps = tea["steps"]
    assert [(one["sample"], one["parsed"]) for one in steps["draft"]] == [
        (1, "Weak."), (2, "Strong."),
    ]  # fmt: skip
    assert [one["parsed"] for one in steps["score"]] == [1, 7]
    assert steps["best"]["parsed"] == "Strong."
    assert (tea["attempts"], tea["usage"]["completion_tokens"]) == (
        4, sum(one["usage"]["completion_tokens"] for one in steps["draft"] + steps["score"]),
    )  # fmt: skip
    assert await exported(votes, "--where", "scores[1] == 7 and draft[0] == 'Weak.'") == [tea]
    assert [one["sample"] for one in await exported(votes, "--step", "draft")] == [1, 2, 3]
    assert await exported(votes, "--failed") == []


async def test_a_chain_of_which_nothing_could_be_gathered_has_failed(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Draft tea", "400", "400")
    project.write("best.py", BEST)
    project.config(VOTES)
    project.pool(topics("tea"))
    assert (await project.batchgen("run", "pool.jsonl", "--samples", "2")).code == 3
    (tea,) = await exported(project, "--all")
    assert (tea["failed"], tea["reason"], tea["error"], tea["steps"]) == (
        "best", "rejected", "none of its 2 rows is done", {"draft": [], "score": []},
    )  # fmt: skip
    assert await exported(project) == []


def test_every_format_holds_chains() -> None:
    assert CHAIN_FORMATS.keys() == FORMATS.keys()


async def test_a_chain_is_stale_where_what_it_was_made_of_was_replaced(
    drafts: Project, simulator: Simulator
) -> None:
    simulator.script("Judge Tea", Behaviour.ok('{"score": 4}'))
    await drafts.batchgen("retry", "--step", "critique", "--id", "tea", "--done")
    await drafts.batchgen("work")
    said = await drafts.batchgen("export", "-o", "-")
    assert said.err == (
        "1 row; left out: 1 failed (batchgen export --failed), 1 stale (batchgen retry --stale)\n"
    )
    assert [one["id"] for one in await exported(drafts, "--step", "draft")] == [
        "tea", "rum", "mud",
    ]  # fmt: skip
    simulator.script("Mend Tea", Behaviour.ok("Iced tea."))
    await drafts.batchgen("retry", "--stale")
    await drafts.batchgen("work")
    tea, _ = await exported(drafts)
    assert (tea["parsed"], tea["steps"]["critique"]["parsed"]) == ("Iced tea.", {"score": 4})


async def test_groups_have_all_chains_of_an_item_in_one_line(parts: Project) -> None:
    tea, rum = await exported(parts, "--group")
    assert (tea["id"], [one["element"] for one in tea["chains"]]) == ("tea", [0])
    assert (rum["metadata"], rum["chains"][0]["ended"]) == ({"of": "rum"}, "ask")


async def test_rows_that_are_open_or_stale_are_counted(drafts: Project) -> None:
    await drafts.batchgen("retry", "--step", "draft", "--id", "tea", "--done")
    said = await drafts.batchgen("export", "-o", "-")
    assert said.err == (
        "1 row; left out: 1 failed (batchgen export --failed), 1 not answered yet\n"
    )
    said = await drafts.batchgen("export", "-o", "-", "--step", "revise")
    assert said.err == "0 rows; left out: 1 stale (batchgen retry --stale)\n"


# --- tables -----------------------------------------------------------------------------------


async def test_a_sheet_has_columns_for_each_step(drafts: Project) -> None:
    out = await drafts.batchgen("export", "--format", "csv", "--all", "-o", "-")
    tea, rum, mud = csv.DictReader(io.StringIO(out.out.lstrip("\ufeff"), newline=""))
    assert (tea["critique.parsed.score"], tea["draft.parsed"], tea["parsed"]) == (
        "3", "Tea.", "Hot tea.",
    )  # fmt: skip
    assert (rum["ended"], rum["revise.parsed"]) == ("critique", "")
    assert (mud["failed"], mud["reason"], mud["draft.attempts"]) == ("critique", "parse", "1")
    names = "id,critique.parsed.score,failed"
    chosen = await drafts.batchgen("export", "--columns", names, "--all", "-o", "-")
    assert chosen.out.splitlines()[1:] == ["tea,3,", "rum,9,", "mud,,critique"]


async def test_a_table_has_the_elements_that_rows_were_made_for(parts: Project) -> None:
    names = "id,element,answer.input.question"
    out = await parts.batchgen("export", "--columns", names, "-o", "-")
    assert out.out.splitlines()[1:] == ["tea,0,Why?", "rum,,"]
    import pyarrow.parquet as pq

    await parts.batchgen("export", "-o", "parts.parquet")
    tea, rum = pq.read_table(parts.path / "parts.parquet").to_pylist()
    assert (tea["answer.input"], tea["element"]) == ('{"question": "Why?"}', 0)
    assert (tea["ask.parsed"], rum["answer.parsed"]) == (["Why?", "How?"], None)


async def test_a_table_for_programs_has_types_for_each_step(votes: Project) -> None:
    import pyarrow.parquet as pq

    await votes.batchgen("export", "-o", "votes.parquet")
    (tea,) = pq.read_table(votes.path / "votes.parquet").to_pylist()
    assert (tea["parsed"], tea["score.parsed"], tea["best.parsed"]) == (
        "Strong.",
        [1, 7],
        "Strong.",
    )
    assert tea["draft.model"] == ["simulated", "simulated"]


async def test_a_batch_line_has_an_id_of_its_own_for_each_element(parts: Project) -> None:
    found = await exported(parts, "--format", "openai-batch", "--step", "answer")
    assert [one["custom_id"] for one in found] == ["tea[0]"]
    assert found[0]["response"]["body"]["choices"][0]["message"]["content"] == "So."


async def test_a_summary_counts_each_row_once(parts: Project, simulator: Simulator) -> None:
    simulator.script("Answer How", Behaviour.ok("Thus."))
    simulator.script("Judge Thus", Behaviour.ok("1"))
    await parts.batchgen("retry")
    await parts.batchgen("work")
    await parts.batchgen("export", "-o", "all.jsonl", "--summary", "all.json", "--shards", "2")
    summary = json.loads((parts.path / "all.json").read_text())
    ((tokens,),) = parts.query("select sum(prompt_tokens) from attempts")
    assert (summary["rows"], summary["usage"]["prompt_tokens"]) == (3, tokens)
    assert sum(one["rows"] for one in summary["recipes"]) == 6
    assert [one["rows"] for one in summary["files"]] == [1, 2]
    assert (summary["counts"]["done"], summary["counts"]["ended"]) == (6, 3)


# --- what was gathered twice ------------------------------------------------------------------

TWICE = """\
output_data: {experiment_name: demo, need_time_stamp: false}
steps:
  - {name: draft, user: {text: "Draft {topic}"}, parser: json}
  - {name: part, each: {piece: draft}, user: {text: "Part {piece}"}}
  - {name: whole, gather: parts, user: {text: "Join {parts}"}, parser: json}
  - {name: note, each: {word: whole}, user: {text: "Note {word}"}}
  - {name: end, gather: notes, user: {text: "End {notes}"}}
"""


async def test_what_was_gathered_twice_has_lists_of_each_gathering_and_single_rows_between(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Draft tea", *map(Behaviour.ok, ('["a", "b"]', '["c"]')))
    says(
        simulator, Part_a="A", Part_b="B", Part_c="C", Join='["x", "y"]', Note_x="X", Note_y="Y",
        End="Z",
    )  # fmt: skip
    project.config(TWICE)
    project.pool(topics("tea"))
    assert (await project.batchgen("run", "pool.jsonl", "--samples", "2", "-c", "1")).code == 0
    (tea,) = project.export("demo")
    steps = {
        name: [one["parsed"] for one in found] if isinstance(found, list) else found["parsed"]
        for name, found in tea["steps"].items()
    }
    assert steps == {
        "draft": [["a", "b"], ["c"]], "part": ["A", "B", "C"], "whole": ["x", "y"],
        "note": ["X", "Y"], "end": "Z",
    }  # fmt: skip
    assert [(one["sample"], one["element"]) for one in tea["steps"]["part"]] == [
        (1, 0), (1, 1), (2, 0),
    ]  # fmt: skip
    assert (tea["attempts"], "element" in tea) == (9, False)
    assert simulator.calls_of('Join ["A", "B", "C"]') == 1
    notes = await exported(project, "--step", "note", "--where", "parts[2] == 'C' and word == 'y'")
    assert [(one["element"], one["parsed"]) for one in notes] == [(1, "Y")]
    import pyarrow.parquet as pq

    await project.batchgen("export", "-o", "twice.parquet")
    (row,) = pq.read_table(project.path / "twice.parquet").to_pylist()
    assert (row["part.parsed"], row["whole.parsed"]) == (["A", "B", "C"], ["x", "y"])
    assert (row["whole.response"], "element" in row) == ('["x", "y"]', False)
