"""Verdicts and edits of rows of steps, and what they mean for chains."""

import csv
import io
import json
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchgen.simulate import Behaviour, Simulator
from tests.cli.test_review import said
from tests.kits.chain_exports import exported, says, topics
from tests.kits.project import Project

DRAFTS = """\
output_data: {experiment_name: demo, need_time_stamp: false}
steps:
  - {name: draft, user: {text: "Draft {topic}"}}
  - {name: note, user: {text: "Judge {draft}"}, parser: json}
  - {name: revise, when: note.score < 8, user: {text: "Mend {draft}"}, conversation: true}
result: [revise, draft]
"""
VOTES = """\
output_data: {experiment_name: demo, need_time_stamp: false}
steps:
  - {name: vote, user: {text: "Vote {topic}"}}
  - {name: best, gather: votes, user: {text: "Best of {votes}"}}
"""


@pytest.fixture
async def drafts(project: Project, simulator: Simulator) -> Project:
    """Tea (rows 1, 3, 5) is revised, rum (2, 4) is good as it was; a step is called `note`."""
    says(
        simulator, Draft_tea="Tea.", Judge_Tea='{"score": 3}', Mend_Tea="Hot tea.",
        Draft_rum="Rum.", Judge_Rum='{"score": 9}',
    )  # fmt: skip
    project.config(DRAFTS)
    project.pool(topics("tea", "rum"))
    await project.batchgen("enqueue", "pool.jsonl")
    assert (await project.batchgen("work", "-c", "1")).code == 0
    return project


async def row_of(project: Project, item: str, step: str) -> str:
    found = json.loads((await project.batchgen("show", item, "--step", step, "--json")).out)
    return f"#{found['steps'][0]['number']}"


async def ids(project: Project, *options: str) -> list[str]:
    return [one["id"] for one in await exported(project, *options)]


async def test_a_chain_is_accepted_by_its_answer_and_rejected_by_any_of_its_rows(
    drafts: Project,
) -> None:
    await said(drafts, "tea", "--step", "revise", "--accept")
    await said(drafts, "rum", "--step", "draft", "--accept")  # whose answer is the chain's
    assert await ids(drafts, "--reviewed", "accepted") == ["tea", "rum"]
    await said(drafts, "tea", "--step", "note", "--reject")
    assert await ids(drafts, "--reviewed", "accepted") == ["rum"]
    assert await ids(drafts, "--reviewed", "not-rejected") == ["rum"]
    assert await ids(drafts, "--where", 'review == "rejected"') == ["tea"]
    await said(drafts, "tea", "--step", "note", "--undo")
    assert await ids(drafts, "--reviewed", "not-rejected") == ["tea", "rum"]


async def test_a_row_of_a_step_is_rejected_with_what_it_was_made_of(drafts: Project) -> None:
    await said(drafts, "tea", "--step", "note", "--reject")
    chosen = "--reviewed", "not-rejected", "--step"
    assert await ids(drafts, *chosen, "draft") == ["tea", "rum"]
    assert await ids(drafts, *chosen, "note") == ["rum"]
    assert await ids(drafts, *chosen, "revise") == []
    await said(drafts, "rum", "--step", "note", "--accept")
    assert await ids(drafts, "--reviewed", "accepted", "--step", "note") == ["rum"]
    assert await ids(drafts, "--reviewed", "accepted", "--step", "draft") == []


async def test_edits_stand_in_the_line_and_in_its_steps(drafts: Project) -> None:
    await said(drafts, "tea", "--step", "revise", "--accept", "--edit", '"Green tea."')
    await said(drafts, "tea", "--step", "note", "--edit", '{"score": 4}')
    (tea,) = await exported(drafts, "--reviewed", "accepted")
    assert (tea["parsed"], tea["response"], tea["edited"]) == ("Green tea.", "Green tea.", True)
    steps = tea["steps"]
    assert [(steps[name]["parsed"], steps[name].get("edited")) for name in steps] == [
        ("Tea.", None), ({"score": 4}, True), ("Green tea.", True),
    ]  # fmt: skip
    assert steps["note"]["response"] == '{"score": 3}'
    _, rum = await exported(drafts, "--reviewed", "not-rejected")
    assert "edited" not in rum
    assert (await exported(drafts))[0]["parsed"] == "Hot tea."
    (group,) = await exported(drafts, "--reviewed", "accepted", "--group")
    assert group["chains"][0]["edited"]


async def test_names_of_steps_stay_what_they_are(drafts: Project) -> None:
    await said(drafts, "tea", "--step", "revise", "--accept", "--note", "fine")
    assert await ids(drafts, "--where", "note.score == 3") == ["tea"]
    assert await ids(drafts, "--where", 'review == "accepted" and note.score > 8') == []


async def test_a_conversation_has_what_was_sent_and_the_edited_answer(drafts: Project) -> None:
    await said(drafts, "tea", "--step", "draft", "--edit", '"Other."')
    await said(drafts, "tea", "--step", "revise", "--accept", "--edit", '"Green tea."')
    (tea,) = await exported(drafts, "--reviewed", "accepted", "--format", "messages")
    sent = await exported(drafts, "--where", 'id == "tea"', "--format", "messages")
    assert tea["messages"][:-1] == sent[0]["messages"][:-1]
    assert "Other." not in json.dumps(tea["messages"])
    assert tea["messages"][-1]["content"] == "Green tea."


async def test_tables_have_the_edits(drafts: Project) -> None:
    await said(drafts, "tea", "--step", "draft", "--accept", "--edit", '"Other."')
    chosen = "--reviewed", "not-rejected"
    sheet = await drafts.batchgen("export", "-o", "-", *chosen, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(sheet.out.removeprefix("\ufeff"), newline="")))
    assert [(row["parsed"], row["draft.parsed"], row["edited"]) for row in rows] == [
        ("Hot tea.", "Other.", "true"), ("Rum.", "Rum.", ""),
    ]  # fmt: skip
    await drafts.batchgen("export", *chosen, "-o", "out.parquet")
    table: list[dict[str, Any]] = pq.read_table(drafts.path / "out.parquet").to_pylist()
    assert [(row["draft.parsed"], row["edited"]) for row in table] == [
        ("Other.", True), ("Rum.", False),
    ]  # fmt: skip


async def test_what_was_gathered_rejects_and_edits(project: Project, simulator: Simulator) -> None:
    simulator.script("Vote tea", Behaviour.ok("Yes."), Behaviour.ok("No."))
    simulator.script("Best of", Behaviour.ok("Yes!"))
    project.config(VOTES)
    project.pool(topics("tea"))
    await project.batchgen("enqueue", "pool.jsonl", "--samples", "2")
    assert (await project.batchgen("work", "-c", "1")).code == 0
    await said(project, "#2", "--edit", '"Never."')
    await said(project, await row_of(project, "tea", "best"), "--accept")
    (line,) = await exported(project, "--reviewed", "accepted")
    assert [(one["parsed"], one.get("edited")) for one in line["steps"]["vote"]] == [
        ("Yes.", None), ("Never.", True),
    ]  # fmt: skip
    assert line["edited"]
    await said(project, "#2", "--reject")
    assert await exported(project, "--reviewed", "accepted") == []
