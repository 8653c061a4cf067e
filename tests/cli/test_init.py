"""`init` writes a job that runs as its last words say."""

import csv
import json
import shlex
from typing import Any

import pytest

from tests.kits.project import KEY, Project


@pytest.fixture
def empty(project: Project) -> Project:
    """Without a config, and with a key and the simulated model in the environment."""
    (project.path / "config.yaml").unlink()
    (project.path / "prompts/user_prompts/default.txt").unlink()
    project.env |= {"BATCHGEN_MODEL_BASE_URL": project.base_url, "OPENAI_API_KEY": KEY}
    return project


async def follow(project: Project, template: str) -> None:
    """Make the job and do what it says next."""
    made = await project.batchgen("init", "--template", template)
    assert made.code == 0, made.err
    _, _, commands = made.out.partition("then\n")
    for line in commands.splitlines():
        name, *arguments = shlex.split(line)
        assert name == "batchgen"
        done = await project.batchgen(*arguments)
        assert done.code == 0, done.err
        assert "warning" not in done.err
    verified = await project.batchgen("verify")
    assert verified.code == 0, verified.out


def lines_of(project: Project, name: str) -> list[dict[str, Any]]:
    text = (project.path / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("template", ["basic", "label"])
async def test_each_template_is_a_job_that_runs(empty: Project, template: str) -> None:
    await follow(empty, template)
    again = await empty.batchgen("init", "--template", template)
    assert "written" not in again.out


async def test_weak_drafts_are_revised_and_good_ones_are_not(empty: Project) -> None:
    await follow(empty, "draft-critique-revise")
    lines = lines_of(empty, "output/texts.jsonl")
    assert [line["id"] for line in lines] == ["tides", "bread", "maps", "tea", "bridges", "owls"]
    assert {line["ended"] for line in lines} == {"critique", "revise"}
    for line in lines:
        score = line["steps"]["critique"]["parsed"]["score"]
        assert (line["ended"] == "revise") == (score < 8)
        last = line["steps"].get("revise") or line["steps"]["draft"]
        assert line["parsed"] == last["parsed"][0]
    good = lines_of(empty, "good_at_once.jsonl")
    assert {line["id"] for line in good} == {
        line["id"] for line in lines if line["ended"] == "critique"
    }


async def test_each_passage_gets_questions_answers_and_scores(empty: Project) -> None:
    await follow(empty, "qa-judge")
    lines = lines_of(empty, "output/qa.jsonl")
    assert list(dict.fromkeys(line["id"] for line in lines)) == ["sky", "tides", "ice", "bread"]
    assert len(lines) > 4
    assert {line["ended"] for line in lines} == {"judge"}
    scores = [line["steps"]["judge"]["parsed"]["score"] for line in lines]
    assert len(set(scores)) > 1
    with (empty.path / "good.csv").open(encoding="utf-8-sig", newline="") as file:
        assert len(list(csv.DictReader(file))) == sum(score >= 4 for score in scores)


async def test_only_what_passes_the_gate_is_read(empty: Project) -> None:
    await follow(empty, "gate")
    lines = lines_of(empty, "output/orders.jsonl")
    assert len(lines) == 8
    assert {line["ended"] for line in lines} == {"is_order", "checked"}
    for line in lines:
        assert (line["ended"] == "checked") == (line["steps"]["is_order"]["parsed"] == "yes")
        assert (line["parsed"] is None) == (line["ended"] == "is_order")
    assert len(lines_of(empty, "orders.jsonl")) == sum(line["ended"] == "checked" for line in lines)


async def test_the_best_of_four_answers_is_kept(empty: Project) -> None:
    await follow(empty, "best-of-n")
    lines = lines_of(empty, "output/best.jsonl")
    assert [line["id"] for line in lines] == ["sky", "tides", "bread", "ice"]
    for line in lines:
        scores = [one["parsed"]["score"] for one in line["steps"]["score"]]
        assert len(scores) == 4
        best = scores.index(max(scores))
        assert line["parsed"] == {
            "question": line["input"]["question"],
            "answer": line["steps"]["answer"][best]["parsed"], "score": max(scores),
        }  # fmt: skip


async def test_in_another_directory_the_first_step_is_to_go_there(project: Project) -> None:
    made = await project.batchgen("init", "my reviews", "--template", "label")
    assert made.out.splitlines()[-2:] == [
        "  cd 'my reviews'",
        "  batchgen run reviews.csv -o labels.csv",
    ]
    unknown = await project.batchgen("init", "--template", "labels")
    assert unknown.code == 2
    assert "'basic', 'label', 'draft-critique-revise'" in unknown.err
